"""The layout: five steps on one page, the verdict above them, the tour beside them; and what each click sets going."""

import os

import gradio as gr

from ember_demo.language_model import POCKET
from ember_demo.pictures import CSS as PIECES
from ember_demo.ui import api, attack_step, compare_step, concept_step, erase_step, expert, model_step, take_away, tour, verdict
from ember_demo.ui.session import STUDIES, Session

TITLE = "EMBER: erase a concept, then try to get it back"
INTRO = """
# EMBER: erase a concept, then try to get it back
A language model can be made to *forget* a subject. Many methods hide the knowledge rather than remove it, and a little retraining brings it back.
**EMBER** also edits the model's word table, where a word's meaning enters the model. See for yourself, in five steps.
"""
MODEL, CONCEPT, ERASE, COMPARE, ATTACK = range(1, 6)
CSS = (
    PIECES
    + """
footer{display:none!important}.status{min-height:1.6rem}.status [data-testid=status-tracker]{display:none!important}
#verdict{position:sticky;top:0;z-index:1000;background:var(--body-background-fill);border-bottom:1px solid var(--border-color-primary);padding:.4rem 0;overflow:visible}
#verdict p{margin:.2rem 0}#tour-notes{font-size:1.1rem;max-width:60rem}.gradio-container{overflow:clip!important;max-width:90rem!important;margin:0 auto!important}
.scores,.scores tr{border:none!important}.scores th,.scores td{border-left:none!important;border-right:none!important;border-top:none!important}
@media(max-width:40rem){#verdict,#verdict p{font-size:.8rem;line-height:1.25}#verdict .bar{margin:.1rem 0;grid-template-columns:8.2rem 1fr 6.1rem}#verdict .bar b{white-space:nowrap}#verdict .bar .track{height:.7rem}#verdict summary,#verdict .note{display:none}}
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
# On a phone the buttons of the steps are bars without a word on them.
NAME_STEPS = """() => {
  const names = ['', 'Model', 'Concept', 'Erase', 'Compare', 'Attack']
  const name = () => document.querySelectorAll('#steps [role=tab][data-tab-id]').forEach(button => {
    if (!button.innerText.trim()) button.setAttribute('aria-label', names[button.dataset.tabId])
  })
  new MutationObserver(name).observe(document.querySelector('#steps'), {childList: true, subtree: true})
  name()
}"""
SHOW_LINK = "(link) => { history.replaceState(null, '', link || location.pathname); return link ? location.href : '' }"


def build_page(model_id=POCKET, with_tour=False):
    """The Blocks of the demo; `model_id` is offered first. with_tour: whether the guided tour stands open."""
    public = bool(os.environ.get("SPACE_ID"))
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 7200)) as demo:
        session = gr.State(Session(model_id, "auto"))
        gr.Markdown(INTRO)
        with gr.Accordion("Guided tour: a story of ten minutes, with notes for whoever presents it", open=with_tour):
            scene = gr.State(-1)
            notes = gr.Markdown("Every scene is computed live, on the embedded model.", elem_id="tour-notes")
            with gr.Row():
                next_scene = gr.Button("Start the tour", variant="primary", scale=0, min_width=160)
                stop_tour = gr.Button("Stop", variant="stop", scale=0, min_width=90)
        shown_verdict = gr.HTML(verdict.view(Session(model_id, "auto")), elem_id="verdict")
        with gr.Walkthrough(selected=MODEL, elem_id="steps") as steps:
            with gr.Step("Model", id=MODEL):
                model = model_step.layout(model_id, public)
            with gr.Step("Concept", id=CONCEPT):
                concept = concept_step.layout()
            with gr.Step("Erase", id=ERASE):
                erase = erase_step.layout()
            with gr.Step("Compare", id=COMPARE):
                compare = compare_step.layout()
            with gr.Step("Attack", id=ATTACK):
                attack = attack_step.layout()
        taken = take_away.layout()
        expertly = expert.layout()

        def go(button, step):
            moved = button.click(lambda: gr.Walkthrough(selected=step), None, steps, queue=False, api_visibility="private")
            moved.then(None, js=TO_STEP)

        for button, step in (
            (model.forward, CONCEPT),
            (concept.back, MODEL),
            (concept.forward, ERASE),
            (erase.back, CONCEPT),
            (erase.forward, COMPARE),
            (compare.back, ERASE),
            (compare.forward, ATTACK),
            (attack.back, COMPARE),
        ):
            go(button, step)

        def stopping(button, said, running, sentence="Stopped; the model is as it was."):
            """The sentence comes after the cancelling, or the last word of the work might come after it."""
            button.click(None, cancels=running, queue=False, api_visibility="private").then(
                lambda: sentence, None, said, queue=False, show_progress="hidden", api_visibility="private"
            )

        def afterwards(event):
            """What follows everything that changes what a visitor has: verdict, the link, how to repeat it."""
            event.then(verdict.view, session, shown_verdict, queue=False, show_progress="hidden", api_visibility="private")
            event.then(take_away.link, session, taken.link, queue=False, show_progress="hidden", api_visibility="private").then(
                None, taken.link, taken.link, js=SHOW_LINK
            )
            event.then(
                expert.repeat, session, [expertly.python, expertly.command], queue=False, show_progress="hidden", api_visibility="private"
            )

        gr.on(
            [model.model.change, model.precision.change, demo.load],
            model_step.offer,
            [model.model, model.precision],
            model.offer,
            show_progress="hidden",
            api_name="offer",
        )

        def load(session, model_id, precision):
            yield from model_step.load(session, model_id, precision, public)

        load.__doc__ = model_step.load.__doc__
        afterwards(
            model.load.click(load, [session, model.model, model.precision], [model.said, session], show_progress="hidden", api_name="load")
        )

        concept.concept.change(concept_step.about_concept, concept.concept, concept.about, show_progress="hidden", api_visibility="private")
        gathering = concept.get_texts.click(
            concept_step.gather_texts,
            [session, concept.concept, concept.source, concept.text_file],
            [concept.text_said, concept.texts],
            show_progress="hidden",
            api_name="texts",
        )
        traced = [concept.said, concept.trace]
        tracing = concept.where.click(
            concept_step.trace, [session, concept.concept, concept.seed], traced, show_progress="hidden", api_name="trace"
        )
        stopping(concept.stop, concept.said, [gathering, tracing])

        erase.baseline.change(erase_step.about_baseline, erase.baseline, erase.about, show_progress="hidden", api_visibility="private")
        finding = erase.find.click(
            erase_step.find,
            [session, concept.concept, concept.seed, concept.texts, concept.ask_model, expertly.settings],
            [erase.said, erase.features, erase.tokens, erase.keep, session],
            show_progress="hidden",
            api_name="find",
        )
        looking = erase.look.click(
            erase_step.search_settings,
            [session, concept.concept, concept.seed, erase.baseline, erase.trials],
            [erase.said, erase.trials_plot, session],
            show_progress="hidden",
            api_name="search",
        )
        erased = [erase.said, erase.features, erase.tokens, erase.scores, erase.pictures, compare.shown, compare.suggested, session]
        erasing = erase.erase.click(
            erase_step.erase,
            [
                session,
                concept.concept,
                erase.delta,
                concept.seed,
                erase.baseline,
                concept.texts,
                concept.ask_model,
                erase.keep,
                erase.features,
                expertly.settings,
            ],
            erased,
            show_progress="hidden",
            api_name="erase",
        )
        afterwards(erasing)
        stopping(erase.stop, erase.said, [looking, finding, erasing])

        compare.suggested.input(lambda text: text, compare.suggested, compare.question, queue=False, api_visibility="private")
        asked = [compare.question, compare.said, compare.talk, session]
        asking = gr.on(
            [compare.send.click, compare.question.submit],
            compare_step.ask,
            [session, compare.question, compare.shown, compare.blind],
            asked,
            show_progress="hidden",
            api_name="ask",
        )
        asking_again = compare.again.click(
            compare_step.ask_again, [session, compare.shown, compare.blind], asked, show_progress="hidden", api_name="ask_again"
        )
        stopping(compare.stop, compare.said, [asking, asking_again], "Stopped.")
        compare.blind.input(
            compare_step.hide,
            [session, compare.blind],
            [compare.talk, session],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        compare.clear.click(
            compare_step.clear,
            [session, compare.blind],
            [compare.talk, session],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

        attack.who.input(
            attack_step.choose_threat,
            attack.who,
            [attack.attack_name, attack.about],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        attack.attack_name.input(
            attack_step.about_attack, attack.attack_name, attack.about, queue=False, show_progress="hidden", api_visibility="private"
        )
        attacked = [attack.said, attack.plot, attack.results, compare.shown, session]
        attacking = attack.attack.click(
            attack_step.attack, [session, attack.attack_name, expertly.settings], attacked, show_progress="hidden", api_name="attack"
        )
        afterwards(attacking)
        stopping(attack.stop, attack.said, [attacking])

        making = taken.make.click(take_away.export, session, taken.files, api_name="export")
        making.success(lambda: gr.Files(visible=True), None, taken.files, queue=False, api_visibility="private")

        gr.api(api.study, api_name="study")

        outputs = {"trace": traced, "erase": erased, "ask": asked, "attack": attacked}

        def play(session_now, number):
            """The next scene: first the notes and the step, then what is played."""
            number = (number + 1) % len(tour.SCENES)
            current = tour.SCENES[number]
            last = number == len(tour.SCENES) - 1
            yield {
                notes: f"### {number + 1} of {len(tour.SCENES)} · {current.title}\n{current.notes}",
                next_scene: gr.update(value="Start again" if last else "Next scene"),
                scene: number,
                steps: gr.Walkthrough(selected=current.step),
                **({session: Session(POCKET, "auto")} if number == 0 else {}),
            }
            for kind, values in tour.play(session_now, number):
                yield {c: v for c, v in zip(outputs[kind], values) if v != gr.skip()}

        touched = {c for names in outputs.values() for c in names} | {notes, next_scene, scene, steps}
        playing = next_scene.click(play, [session, scene], list(touched), show_progress="hidden", api_visibility="private")
        afterwards(playing)
        stopping(stop_tour, notes, [playing], "Stopped; the model is as it was. Go on with the next scene when you like.")

        def resume(request: gr.Request):
            """A finished study by the key in its link."""
            found = STUDIES.find(request.query_params.get("study", ""))
            if not found:
                return {session: gr.skip()}
            features = erase_step.feature_choices(found.features)
            return {
                session: found,
                erase.tokens: found.views["tokens"],
                erase.scores: found.views["scores"],
                erase.pictures: found.views["pictures"],
                erase.features: gr.update(choices=features, value=list(found.ember.skip_features), visible=True),
                compare.talk: compare_step.view(found, False),
                **dict(zip((compare.shown, compare.suggested), compare_step.open_step(found))),
                attack.plot: found.views.get("plot", ""),
                attack.results: attack_step.result_table(found),
                steps: gr.Walkthrough(selected=ATTACK if found.results else COMPARE),
            }

        shown_again = [session, *erased[1:-1], compare.talk, attack.plot, attack.results, steps]
        demo.load(None, js=NAME_STEPS)
        afterwards(demo.load(resume, None, shown_again, show_progress="hidden", api_visibility="private"))
    return demo
