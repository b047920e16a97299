"""How the page looks, and what its own script does: style, colours, focus and what is read out."""

import json

import gradio as gr

from ember_demo.pictures import CSS as PIECES

STEPS = {1: "Model", 2: "Concept", 3: "Erase", 4: "Compare", 5: "Attack"}
MODEL, CONCEPT, ERASE, COMPARE, ATTACK = STEPS
CSS = (
    PIECES
    + """
footer{display:none!important}.label-wrap{text-align:left}.status{min-height:1.6rem}.status [data-testid=status-tracker]{display:none!important}
#steps .secondary-wrap input{text-overflow:ellipsis;padding-right:1.4rem}
#verdict{position:sticky;top:0;z-index:1000;background:var(--body-background-fill);border-bottom:1px solid var(--border-color-primary);padding:.4rem 0;overflow:visible}
#verdict p{margin:.2rem 0}#tour-notes{font-size:1.1rem;max-width:60rem}.gradio-container{overflow:clip!important;max-width:90rem!important;margin:0 auto!important}
.scores,.scores tr{border:none!important}.scores th,.scores td{border-left:none!important;border-right:none!important;border-top:none!important}
.compact .step-number{color:transparent!important}#verdict .narrow{display:none}.folded{border:1px solid var(--border-color-primary)!important;border-radius:8px!important}
@media(min-width:64rem){.verdict{display:grid;grid-template-columns:2fr 3fr;gap:1.5rem;align-items:start}}
.touring #tour-bar{position:fixed;bottom:0;right:0;z-index:1001;width:23rem;max-width:100vw;padding:.6rem;background:var(--body-background-fill);border:1px solid var(--border-color-primary);border-radius:8px 0 0 0}
.touring .gradio-container{padding-bottom:5rem!important}
@media(max-width:40rem){#verdict .wide{display:none}#verdict .narrow{display:block}#verdict,#verdict p{font-size:.8rem;line-height:1.25}#verdict .bar{margin:.1rem 0;grid-template-columns:8.2rem 1fr 6.1rem}#verdict .bar b{white-space:nowrap}#verdict .bar .track{height:.7rem}}
.aside{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media(max-height:30rem){#verdict{position:static}}
"""
)
# Soft, with what people read or press darkened until it meets the contrast of WCAG AA. System fonts: no other host is asked.
THEME = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    button_secondary_background_fill_hover_dark="*primary_700",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_300",
    checkbox_border_color_hover="*neutral_600",
    checkbox_border_color_hover_dark="*neutral_200",
    border_color_primary="*neutral_400",
    border_color_primary_dark="*neutral_500",
    input_border_width="1px",
    input_border_color="*neutral_400",
    input_border_color_dark="*neutral_500",
    button_secondary_border_color="*neutral_400",
    button_secondary_border_color_hover="*neutral_500",
    block_title_text_color="*primary_700",
    block_label_text_color="*primary_700",
    block_info_text_color="*neutral_600",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_300",
)
# A step begins below the verdict, which stays in view, wherever the page stood when it was left.
TO_STEP = """() => setTimeout(() => {
  const top = document.querySelector('#steps').getBoundingClientRect().top + scrollY - document.querySelector('#verdict').offsetHeight
  if (scrollY > top) scrollTo({top})
}, 100)"""
# On a phone the buttons of the steps are bars without a word on them; what a step says at the end of its work is read out.
NAME_AND_TELL = """() => {
  const name = () => document.querySelectorAll('#steps [role=tab][data-tab-id]').forEach(button => {
    if (!button.innerText.trim()) button.setAttribute('aria-label', STEPS[button.dataset.tabId])
  })
  const live = document.createElement('div'), steps = document.querySelector('#steps')
  live.className = 'aside'
  live.setAttribute('role', 'status')
  steps.after(live)
  const tell = changes => changes.forEach(change => {
    const said = (change.target.closest ? change.target : change.target.parentElement)?.closest('.status')?.innerText
    if (said && !said.includes('%')) live.textContent = said
  })
  const seen = {childList: true, subtree: true, characterData: true}
  new MutationObserver(changes => { name(); tell(changes) }).observe(steps, seen)
  name()
}""".replace("STEPS", json.dumps(STEPS))
# While the tour is on, its buttons stay at hand; a scene begins at the top, where its notes are.
TOURING = "() => { document.body.classList.add('touring'); scrollTo({top: 0}) }"
NOT_TOURING = "() => document.body.classList.remove('touring')"
SHOW_LINK = "(link) => { history.replaceState(null, '', link || location.pathname); return link ? location.href : '' }"
