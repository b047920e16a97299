"""The layout: five steps on one page, the verdict above them, the tour beside them; and what each click sets going."""

import json
from dataclasses import replace

import gradio as gr

from ember_demo.attacks import Relearning
from ember_demo.loading import POCKET
from ember_demo.pictures import CSS as PIECES
from ember_demo.pictures import trace_view
from ember_demo.sources import listed_name
from ember_demo.ui import api, attack_step, compare_step, concept_step, erase_step, expert, model_step, take_away, tour, verdict
from ember_demo.ui.session import STUDIES, Session, Turn
from ember_demo.ui.show import is_public

TITLE = "EMBER: erase a concept, then try to get it back"
INTRO = """
# EMBER: erase a concept, then try to get it back
A language model can be made to *forget* a subject. Many methods hide the knowledge rather than remove it, and a little retraining brings it back.
**EMBER** also edits the model's word table, where a word's meaning enters the model. See for yourself, in five steps.
"""
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
#verdict .narrow{display:none}
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
SHOW_LINK = "(link) => { history.replaceState(null, '', link || location.pathname); return link ? location.href : '' }"


def build_page(model_id=POCKET, with_tour=False):
    """The Blocks of the demo; `model_id` is offered first. with_tour: whether the guided tour stands open."""
    public = is_public()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 7200)) as demo:
        session = gr.State(Session(model_id, "auto"))
        gr.Markdown(INTRO)
        with gr.Accordion("Guided tour: a story of ten minutes, with notes for whoever presents it", open=with_tour):
            played, announced = gr.State(-1), gr.State(0)  # numbers of scenes
            notes = gr.Markdown("Every scene is computed live, on the embedded model. The tour begins a new study.", elem_id="tour-notes")
            with gr.Row():
                next_scene = gr.Button("Start the tour", variant="primary", scale=0, min_width=160)
                stop_tour = gr.Button("Stop the tour", variant="stop", scale=0, min_width=140)
        shown_verdict = gr.HTML(verdict.view(Session(model_id, "auto")), elem_id="verdict")
        with gr.Walkthrough(selected=MODEL, elem_id="steps") as steps:
            with gr.Step(STEPS[MODEL], id=MODEL):
                model = model_step.layout(model_id, public)
            with gr.Step(STEPS[CONCEPT], id=CONCEPT):
                concept = concept_step.layout()
            with gr.Step(STEPS[ERASE], id=ERASE):
                erase = erase_step.layout()
            with gr.Step(STEPS[COMPARE], id=COMPARE):
                compare = compare_step.layout()
            with gr.Step(STEPS[ATTACK], id=ATTACK):
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
            """The sentence comes after the cancelling, or the last word of the work might come after it. Every Stop stops the tour too."""
            return button.click(None, cancels=[*running, announcing, playing], queue=False, api_visibility="private").then(
                lambda: sentence, None, said, queue=False, show_progress="hidden", api_visibility="private"
            )

        def linked(event):
            """The address brings back what a visitor has now, under whatever key it is kept."""
            event.then(take_away.link, session, taken.link, queue=False, show_progress="hidden", api_visibility="private").then(
                None, taken.link, taken.link, js=SHOW_LINK
            )

        def afterwards(event):
            """What follows everything that changes what a visitor has: verdict, the link, how to repeat it."""
            event.then(verdict.view, session, shown_verdict, queue=False, show_progress="hidden", api_visibility="private")
            linked(event)
            event.then(
                lambda: ("", gr.update(value=None, visible=False)), None, [taken.said, taken.files], queue=False, api_visibility="private"
            )  # older files
            event.then(
                expert.repeat, session, [expertly.python, expertly.command], queue=False, show_progress="hidden", api_visibility="private"
            )

        def anew(event, own=()):
            """What follows everything that begins a study, besides its own outputs: nothing of an earlier one stays in view."""
            rest = [c for c in shown if c not in own]

            def show_rest(session, blind):
                values = show(session, blind)
                return [values[c] for c in rest]

            event.then(show_rest, [session, compare.blind], rest, queue=False, show_progress="hidden", api_visibility="private")
            afterwards(event)

        shown = [concept.trace, erase.said, erase.trials_plot, erase.features, erase.tokens, erase.keep, erase.scores, erase.pictures]
        shown += [compare.shown, compare.suggested, compare.talk, attack.said, attack.plot, attack.results]

        def show(session, blind=False):
            """All that the steps show of a session; what a visitor has ticked and struck out meanwhile stays, where it is of the same features."""
            none = gr.update(choices=[], value=[], visible=False)
            return {
                concept.trace: trace_view(session.trace, session.concept.name) if session.trace else "",
                erase.said: gr.skip() if session.features else "",
                erase.trials_plot: gr.skip() if session.searches else "",
                erase.features: gr.skip() if session.features else none,
                erase.tokens: session.views.get("tokens", ""),
                erase.keep: gr.skip() if session.features else none,
                erase.scores: session.views.get("scores", ""),
                erase.pictures: session.views.get("pictures", erase_step.NO_PICTURES),
                **dict(zip((compare.shown, compare.suggested), compare_step.open_step(session))),
                compare.talk: compare_step.view(session, blind),
                attack.said: "",
                attack.plot: session.views.get("plot", ""),
                attack.results: attack_step.result_table(session),
            }

        def offer(model_id_now, precision):
            """What a model would need here, before it is loaded, as a sentence and bars."""
            return model_step.offer(model_id_now, precision, public and model_id_now != model_id)

        def opening():
            yield from model_step.opening(model_id)

        def load(session, model_id_now, precision):
            """Load a model: (status); the session is kept."""
            yield from model_step.load(session, model_id_now, precision, public and model_id_now != model_id)

        gr.on(
            [model.model.change, model.precision.change, demo.load],
            offer,
            [model.model, model.precision],
            model.offer,
            show_progress="hidden",
            api_name="offer",
        )
        demo.load(opening, None, model.said, show_progress="hidden", api_visibility="private")
        loading = model.load.click(
            load, [session, model.model, model.precision], [model.said, session], show_progress="hidden", api_name="load"
        )
        anew(loading)

        concept.concept.change(concept_step.about_concept, concept.concept, concept.about, show_progress="hidden", api_visibility="private")
        of_one_concept = [concept.said, concept.trace, erase.said, erase.trials_plot, erase.tokens, erase.scores, erase.pictures]

        def choose(session, name):
            """What another concept leaves of what is shown: the results in hand where they are of it."""
            texts, said, *lists = concept_step.choose(name)
            ours = session.concept is not None and listed_name(name) == session.concept.name
            found = {concept.said: "", erase.said: "", erase.trials_plot: ""} | show(
                session if ours else replace(session, views={}, traces={})
            )
            return [texts, said, *lists, *(found[c] if found[c] != gr.skip() else "" for c in of_one_concept)]

        concept.concept.input(
            choose,
            [session, concept.concept],
            [concept.texts, concept.text_said, erase.features, erase.keep, *of_one_concept],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        gathering = concept.get_texts.click(
            concept_step.gather_texts,
            [session, concept.concept, concept.source, concept.text_file],
            [concept.text_said, concept.texts],
            show_progress="hidden",
            api_name="texts",
        )
        traced = [concept.said, concept.trace, session]
        tracing = concept.where.click(
            concept_step.trace, [session, concept.concept, concept.seed], traced, show_progress="hidden", api_name="trace"
        )
        afterwards(tracing)
        erase.baseline.change(erase_step.about_baseline, erase.baseline, erase.about, show_progress="hidden", api_visibility="private")
        found = [erase.said, erase.features, erase.tokens, erase.keep, session]
        finding = erase.find.click(
            erase_step.find,
            [session, concept.concept, concept.seed, concept.texts, expertly.settings],
            found,
            show_progress="hidden",
            api_name="find",
        )
        anew(finding, found)
        looking = erase.look.click(
            erase_step.search_settings,
            [session, concept.concept, concept.seed, erase.baseline, erase.trials],
            [erase.said, erase.trials_plot, session],
            show_progress="hidden",
            api_name="search",
        )
        afterwards(looking)
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
        anew(erasing, [*erased, erase.keep])

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
        linked(asking)
        linked(asking_again)
        compare.blind.input(
            compare_step.hide,
            [session, compare.blind],
            [compare.blind, compare.talk, session],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        linked(
            compare.clear.click(
                compare_step.clear,
                [session, compare.blind],
                [compare.talk, session],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
        )

        attack.who.input(
            attack_step.choose_threat,
            attack.who,
            [attack.attacks, attack.about],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        demo.load(
            lambda: attack_step.choose_threat(Relearning.threat_model)[0],
            None,
            attack.attacks,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        attack.attacks.input(
            attack_step.about_attacks, attack.attacks, attack.about, queue=False, show_progress="hidden", api_visibility="private"
        )
        attacked = [attack.said, attack.plot, attack.results, compare.shown, session]
        attacking = attack.attack.click(
            attack_step.attack, [session, attack.attacks, expertly.settings], attacked, show_progress="hidden", api_name="attack"
        )
        afterwards(attacking)

        making = taken.make.click(take_away.export, session, [taken.said, taken.files], show_progress="hidden", api_name="export")
        making.success(lambda said: gr.Files(visible=not said), taken.said, taken.files, queue=False, api_visibility="private")

        gr.api(api.study, api_name="study")

        outputs = {"trace": traced, "erase": erased, "ask": asked, "attack": attacked}
        said = [concept.said, erase.said, compare.said, attack.said]

        def announce(session_now, number):
            """The notes and the step of the next scene. Apart from the playing, as a page that is busy can lose an update which another soon follows."""
            number = (number + 1) % len(tour.SCENES)
            current = tour.SCENES[number]
            with session_now.turn.taken(done=session_now.turn.done):
                began = Session(POCKET, "auto", turn=session_now.turn) if number == 0 else None
            return {
                announced: number,
                notes: f"### {number + 1} of {len(tour.SCENES)} · {current.title}\n{current.notes}",
                next_scene: gr.update(value="Start again" if number == len(tour.SCENES) - 1 else "Next scene"),
                steps: gr.Walkthrough(selected=current.step),
                **({session: began, **show(began), **inputs(began)} if began else {}),
            }

        def play(session_now, number, blind):
            """Play the scene that was announced."""
            now = {}
            for kind, values in tour.play(session_now, number, blind):
                if values == gr.skip():  # it waits for the visitor's other work
                    continue
                now = {c: v for c, v in zip(outputs[kind], values) if v != gr.skip()}
                yield now
            if session in now and tour.SCENES[number].does == ("erase",):  # nothing of what a visitor did between the scenes stays in view
                began = {**show(now[session], blind), **inputs(now[session])}
                now |= {c: v for c, v in began.items() if v != gr.skip()}
            yield now | {played: number}  # only now, so that a scene that was stopped is played again

        filled_in = [model.model, model.precision, model.said, concept.concept, concept.texts, concept.seed, concept.ask_model]
        filled_in += [erase.delta, erase.baseline]

        def inputs(session):
            """The fields as they were when a session was made."""
            chosen = session.concept.name if session.concept else tour.CONCEPT
            values = (
                session.model_id,
                session.precision,
                model_step.in_use(session.model_id),
                chosen,
                session.texts,
                session.seed,
                session.ask_model,
            )
            delta = session.ember.delta
            return dict(zip(filled_in, (*values, delta if delta == "auto" else f"{delta:g}", session.baseline.name)))

        announcing = next_scene.click(
            announce,
            [session, played],
            [announced, notes, next_scene, steps, session, *shown, *filled_in],
            show_progress="hidden",
            api_visibility="private",
        )
        touched = {c for names in outputs.values() for c in names} | {played, *shown, *filled_in}
        playing = announcing.success(
            play,
            [session, announced, compare.blind],
            list(touched),
            show_progress="hidden",
            api_visibility="private",
        )
        afterwards(playing)
        stopping(model.stop, model.said, [loading], "Stopped; the model in use is the one before.")
        stopping(concept.stop, concept.said, [gathering, tracing]).then(
            lambda: "", None, concept.text_said, queue=False, show_progress="hidden", api_visibility="private"
        )
        stopping(taken.stop, taken.said, [making], "Stopped.")
        stopping(erase.stop, erase.said, [looking, finding, erasing])
        stopping(compare.stop, compare.said, [asking, asking_again], "Stopped.")
        stopping(attack.stop, attack.said, [attacking])
        stop_tour.click(None, cancels=[announcing, playing], queue=False, api_visibility="private").then(
            lambda: ["Stopped; the model is as it was. Go on with the next scene when you like."] + [""] * len(said),
            None,
            [notes, *said],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )

        def resume(request: gr.Request):
            """A finished study by the key in its link."""
            key = request.query_params.get("study", "")
            kept = STUDIES.find(key)
            if key and not kept:
                gr.Warning("The study of this link is gone: the latest ones are kept, each for an hour at most. Start a new one.")
            if not kept:
                return {session: gr.skip()}
            kept = replace(kept, turn=Turn())  # of this tab
            words, ticked = list(kept.ember.keep), list(kept.ember.skip_features)
            return {
                session: kept,
                steps: gr.Walkthrough(selected=ATTACK if kept.results else COMPARE),
                **show(kept),
                **inputs(kept),
                erase.features: gr.update(choices=erase_step.feature_choices(kept.features), value=ticked, visible=bool(kept.features)),
                erase.keep: gr.update(choices=words, value=words, visible=bool(words)),
            }

        demo.load(None, js=NAME_AND_TELL)
        afterwards(demo.load(resume, None, [session, steps, *shown, *filled_in], show_progress="hidden", api_visibility="private"))
    return demo
