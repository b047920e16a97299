"""What each click sets going, and what follows it: the verdict, the link, and how to repeat it."""

from dataclasses import replace
from functools import partial

import gradio as gr

from ember_demo.attacks import ATTACKS, Relearning
from ember_demo.loading import POCKET
from ember_demo.pictures import trace_view
from ember_demo.sources import listed_name
from ember_demo.ui import api, attack_step, compare_step, concept_step, erase_step, expert, model_step, take_away, tour, verdict
from ember_demo.ui.look import ATTACK, COMPARE, CONCEPT, ERASE, MODEL, NAME_AND_TELL, NOT_TOURING, SHOW_LINK, TO_STEP, TOURING
from ember_demo.ui.session import STUDIES, Session, Turn
from ember_demo.ui.show import is_public, is_running

PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}  # of the page, and no endpoint
AT_ONCE = PRIVATE | {"queue": False}


def wire(demo, page, model_id):
    """Connect the components of `page`, a namespace; `model_id` is the model that the page opens with."""
    tour_events = _wire_tour(page)
    _wire_moves(page)
    looking, erasing = _wire_concept(page), _wire_erase(page)
    _wire_choice(page, [*looking, erasing[0]])
    for button, running, said in (
        (page.model.stop, _wire_model(demo, page, model_id), {page.model.said: "Stopped; the model in use is the one before."}),
        (page.concept.stop, looking, {page.concept.said: NOTHING_CHANGED, page.concept.text_said: "Stopped."}),
        (page.erase.stop, erasing, {page.erase.said: NOTHING_CHANGED}),
        (page.compare.stop, _wire_compare(page), {page.compare.said: "Stopped."}),
        (page.attack.stop, _wire_attack(demo, page), {page.attack.said: NOTHING_CHANGED}),
        (page.taken.stop, _wire_taking(page), {page.taken.said: "Stopped."}),
    ):
        # Every Stop stops the tour too.
        stopped = button.click(None, cancels=[*running, *tour_events], queue=False, api_visibility="private")
        stopped.then(partial(_instead, said), [page.session, *said], list(said), **PRIVATE)
        _calm(demo, running)
    _calm(demo, tour_events)
    gr.api(api.study, api_name="study")
    _wire_links(demo, page)
    demo.load(None, js=NAME_AND_TELL)


NOTHING_CHANGED = "Stopped; the model is as it was."


def _instead(said, session, *shown):
    """A sentence for each component, in the place of what it shows where that says that something runs."""
    session.turn.wait()
    return {component: sentence if is_running(now) else gr.skip() for (component, sentence), now in zip(said.items(), shown)}


def _calm(demo, events):
    """Where the last word on cancelled work comes late, a browser shows "Error" in its place: any event that ends well takes that back."""
    for event in events:
        outputs = [c for c in demo.fns[event["id"]].outputs if not isinstance(c, gr.State)]
        event.failure(partial(dict, {outputs[0]: gr.skip()}), None, outputs, **AT_ONCE)


def _wire_moves(page):
    for button, step in (
        (page.model.forward, CONCEPT),
        (page.concept.back, MODEL),
        (page.concept.forward, ERASE),
        (page.erase.back, CONCEPT),
        (page.erase.forward, COMPARE),
        (page.compare.back, ERASE),
        (page.compare.forward, ATTACK),
        (page.attack.back, COMPARE),
    ):
        moved = button.click(lambda step=step: gr.Walkthrough(selected=step), None, page.steps, queue=False, api_visibility="private")
        moved.then(None, js=TO_STEP)


def _wire_model(demo, page, model_id):
    step = page.model

    def closed(model_id_now):
        return is_public() and model_id_now != model_id

    def offer(model_id_now, precision):
        """What a model would need here, before it is loaded, as a sentence and bars."""
        return model_step.offer(model_id_now, precision, closed(model_id_now))

    def opening():
        yield from model_step.opening(model_id)

    def load(session, model_id_now, precision):
        """Load a model: (status); the session is kept."""
        yield from model_step.load(session, model_id_now, precision, closed(model_id_now))

    looked_at = [step.model.change, step.precision.change, demo.load]
    gr.on(looked_at, offer, [step.model, step.precision], step.offer, show_progress="hidden", api_name="offer")
    demo.load(opening, None, step.said, **PRIVATE)
    given, found = [page.session, step.model, step.precision], [step.said, page.session]
    loading = step.load.click(load, given, found, show_progress="hidden", api_name="load")
    _anew(page, loading)
    return [loading]


def _wire_choice(page, running):
    """Another concept ends what is being looked for in the one before."""
    step, erase = page.concept, page.erase
    of_one_concept = [step.said, step.trace, erase.said, erase.trials_plot, erase.tokens, erase.scores, erase.pictures]

    def choose(session, name):
        """What another concept leaves of what is shown: the results in hand where they are of it."""
        session.turn.wait()
        texts, said, *lists = concept_step.choose(name)
        ours = session.concept is not None and listed_name(name) == session.concept.name
        found = {step.said: ""} | _show(page, session if ours else replace(session, views={}, traces={}))
        return [texts, said, *lists, *(found[c] if found[c] != gr.skip() else "" for c in of_one_concept)]

    lists = [step.texts, step.text_said, erase.features, erase.keep]
    ended = step.concept.input(None, cancels=running, queue=False, api_visibility="private")
    ended.then(choose, [page.session, step.concept], [*lists, *of_one_concept], **PRIVATE)


def _wire_concept(page):
    step = page.concept
    step.concept.change(concept_step.about_concept, step.concept, step.about, **PRIVATE)
    gathering = step.get_texts.click(
        concept_step.gather_texts,
        [page.session, step.concept, step.source, step.text_file],
        [step.text_said, step.texts],
        show_progress="hidden",
        api_name="texts",
    )
    given = [page.session, step.concept, step.seed]
    tracing = step.where.click(concept_step.trace, given, _outputs(page)["trace"], show_progress="hidden", api_name="trace")
    _afterwards(page, tracing)
    return [gathering, tracing]


def _wire_erase(page):
    step, concept, outputs = page.erase, page.concept, _outputs(page)
    step.baseline.change(erase_step.about_baseline, step.baseline, step.about, **PRIVATE)
    finding = step.find.click(
        erase_step.find,
        [page.session, concept.concept, concept.seed, concept.texts, page.expertly.settings],
        outputs["find"],
        show_progress="hidden",
        api_name="find",
    )
    _linked(page, finding)
    looking = step.look.click(
        erase_step.search_settings,
        [page.session, concept.concept, concept.seed, step.baseline, step.trials],
        [step.said, step.trials_plot, page.session],
        show_progress="hidden",
        api_name="search",
    )
    _afterwards(page, looking)
    chosen = [concept.concept, step.delta, concept.seed, step.baseline, concept.texts, concept.ask_model, step.keep, step.features]
    erasing = step.erase.click(
        erase_step.erase,
        [page.session, *chosen, page.expertly.settings],
        outputs["erase"],
        show_progress="hidden",
        api_name="erase",
    )
    _anew(page, erasing, [*outputs["erase"], step.keep])
    return [finding, looking, erasing]


def _wire_compare(page):
    step, asked = page.compare, _outputs(page)["ask"]
    step.suggested.input(lambda text: text, step.suggested, step.question, queue=False, api_visibility="private")
    asking = gr.on(
        [step.send.click, step.question.submit],
        compare_step.ask,
        [page.session, step.question, step.shown, step.blind],
        asked,
        show_progress="hidden",
        api_name="ask",
    )
    given = [page.session, step.shown, step.blind]
    again = step.again.click(compare_step.ask_again, given, asked, show_progress="hidden", api_name="ask_again")
    cleared = step.clear.click(compare_step.clear, [page.session, step.blind], [step.talk, page.session], **AT_ONCE)
    step.blind.input(compare_step.hide, [page.session, step.blind], [step.blind, step.talk, page.session], **AT_ONCE)
    for event in (asking, again, cleared):
        _linked(page, event)
    return [asking, again]


def _wire_attack(demo, page):
    step = page.attack
    step.who.input(attack_step.choose_threat, step.who, [step.attacks, step.about], **AT_ONCE)
    demo.load(lambda: attack_step.choose_threat(Relearning.threat_model)[0], None, step.attacks, **AT_ONCE)
    step.attacks.input(attack_step.about_attacks, step.attacks, step.about, **AT_ONCE)
    given = [page.session, step.attacks, page.expertly.settings]
    attacking = step.attack.click(attack_step.attack, given, _outputs(page)["attack"], show_progress="hidden", api_name="attack")
    # Of an attack that was refused nothing is shown.
    attacking.then(lambda session: session.views.get("plot", ""), page.session, step.plot, **AT_ONCE)
    _afterwards(page, attacking)
    return [attacking]


def _wire_taking(page):
    taken = page.taken
    making = taken.make.click(take_away.export, page.session, [taken.said, taken.files], show_progress="hidden", api_name="export")
    making.success(lambda said: gr.Files(visible=not said), taken.said, taken.files, queue=False, api_visibility="private")
    return [making]


def _wire_tour(page):
    """The events that a Stop cancels."""
    outputs, filled_in, shown = _outputs(page), _filled_in(page), _shown(page)
    attacker = [page.attack.who, page.attack.attacks, page.attack.about]

    def announce(session, number):
        """The notes and the step of the next scene. Apart from the playing, as a page that is busy can lose an update which another soon follows."""
        number = (number + 1) % len(tour.SCENES)
        current = tour.SCENES[number]
        try:
            with session.turn.taken(patience=0):
                began = Session(POCKET, "auto", turn=session.turn) if number == 0 else None
        except gr.Error:
            gr.Info("This scene is still being computed. The next one can follow when it is over.")
            return {page.announced: gr.skip()}
        filled = _inputs(page, began) if began else {}
        kind, *what = current.does or ("",)
        if kind == "attack":
            threat = ATTACKS[what[0]].threat_model
            filled |= dict(zip(attacker, (threat, *attack_step.choose_threat(threat, *what))))
        return {
            page.announced: number,
            page.notes: f"### {number + 1} of {len(tour.SCENES)} · {current.title}\n{current.notes}",
            page.next_scene: gr.update(value="Start again" if number == len(tour.SCENES) - 1 else "Next scene"),
            page.steps: gr.Walkthrough(selected=current.step),
            **filled,
            **({page.session: began, **_show(page, began)} if began else {}),
        }

    def play(session, number, blind):
        """Play the scene that was announced, unless one is still being played."""
        if session.turn.busy:
            return
        now = {}
        for kind, values in tour.play(session, number, blind):
            if values == gr.skip():  # it waits for the visitor's other work
                continue
            now = {c: v for c, v in zip(outputs[kind], values) if v != gr.skip()}
            yield now
        if page.session in now and tour.SCENES[number].does == ("erase",):  # nothing of what a visitor did between the scenes stays in view
            began = {**_show(page, now[page.session], blind), **_inputs(page, now[page.session])}
            now |= {c: v for c, v in began.items() if v != gr.skip()}
        yield now | {page.played: number}  # only now, so that a scene that was stopped is played again

    told = [page.announced, page.notes, page.next_scene, page.steps, page.session, *shown, *filled_in, *attacker]
    announcing = page.next_scene.click(announce, [page.session, page.played], told, **PRIVATE)
    touched = {c for kind in ("trace", "erase", "ask", "attack") for c in outputs[kind]} | {page.played, *shown, *filled_in}
    announcing.success(None, js=TOURING)
    playing = announcing.success(play, [page.session, page.announced, page.compare.blind], list(touched), **PRIVATE)
    _afterwards(page, playing)
    said = [page.concept.said, page.erase.said, page.compare.said, page.attack.said]
    stopped = page.stop_tour.click(None, cancels=[announcing, playing], queue=False, api_visibility="private")

    def stop(session):
        session.turn.wait()
        return "Stopped; the model is as it was. Go on when you like.", *[""] * len(said)

    stopped.then(stop, page.session, [page.notes, *said], **PRIVATE)
    stopped.then(None, js=NOT_TOURING)
    return [announcing, playing]


def _wire_links(demo, page):
    def resume(request: gr.Request):
        """A finished study by the key in its link."""
        key = request.query_params.get("study", "")
        kept = STUDIES.find(key)
        if key and not kept:
            gr.Warning("The study of this link is gone: the latest ones are kept, each for an hour at most. Start a new one.")
        if not kept:
            return {page.session: gr.skip()}
        kept = replace(kept, turn=Turn())  # of this tab
        words, ticked = list(kept.ember.keep), list(kept.ember.skip_features)
        listed = erase_step.features_of(kept)
        ticked = [index for index in ticked if index in {f["index"] for f in listed}]
        features = gr.update(choices=erase_step.feature_choices(listed), value=ticked, visible=bool(listed))
        return {
            page.session: kept,
            page.steps: gr.Walkthrough(selected=ATTACK if kept.results else COMPARE),
            **_show(page, kept),
            **_inputs(page, kept),
            page.erase.features: features,
            page.erase.keep: gr.update(choices=words, value=words, visible=bool(words)),
        }

    _afterwards(page, demo.load(resume, None, [page.session, page.steps, *_shown(page), *_filled_in(page)], **PRIVATE))


def _outputs(page):
    """By kind of work, what the values of its handler go to."""
    concept, erase, compare, attack = page.concept, page.erase, page.compare, page.attack
    outputs = {
        "trace": [concept.said, concept.trace],
        "find": [erase.said, erase.features, erase.tokens, erase.keep],
        "erase": [erase.said, erase.features, erase.tokens, erase.scores, erase.pictures, compare.shown, compare.suggested],
        "ask": [compare.question, compare.said, compare.talk],
        "attack": [attack.said, attack.plot, attack.results, compare.shown],
    }
    return {kind: [*components, page.session] for kind, components in outputs.items()}


def _shown(page):
    """All that shows something of a session."""
    return list(_show(page, Session(POCKET, "auto")))


def _show(page, session, blind=False):
    """What the steps show of a session; what a visitor has ticked and struck out meanwhile stays, where it is of the same features."""
    concept, erase, compare, attack = page.concept, page.erase, page.compare, page.attack
    none = gr.update(choices=[], value=[], visible=False)
    models, suggested = compare_step.open_step(session)
    return {
        concept.trace: _trace(session),
        erase.said: gr.skip() if session.features else "",
        erase.trials_plot: gr.skip() if session.searches else "",
        erase.features: gr.skip() if session.features else none,
        erase.tokens: session.views.get("tokens", ""),
        erase.keep: gr.skip() if session.features else none,
        erase.scores: session.views.get("scores", ""),
        erase.pictures: session.views.get("pictures", erase_step.NO_PICTURES),
        compare.shown: models,
        compare.suggested: suggested,
        compare.talk: compare_step.view(session, blind),
        attack.said: "",
        attack.plot: session.views.get("plot", ""),
        attack.results: attack_step.result_table(session),
    }


def _trace(session):
    if session.trace:
        return trace_view(session.trace, session.concept.name)
    return gr.skip() if session.traces and not session.edits else ""  # what was looked at stays where nothing was erased after it


def _filled_in(page):
    """The fields that a study depends on."""
    return list(_inputs(page, Session(POCKET, "auto")))


def _inputs(page, session):
    """These fields as they were when a session was made."""
    delta = session.ember.delta
    return {
        page.model.model: session.model_id,
        page.model.precision: session.precision,
        page.model.said: model_step.in_use(session.model_id),
        page.concept.concept: session.concept.name if session.concept else tour.CONCEPT,
        page.concept.texts: session.texts,
        page.concept.seed: session.seed,
        page.concept.ask_model: session.ask_model,
        page.erase.delta: delta if delta == "auto" else f"{delta:g}",
        page.erase.baseline: session.baseline.name,
    }


def _anew(page, event, own=()):
    """What follows everything that begins a study, besides its own outputs: nothing of an earlier one stays in view."""
    rest = [c for c in _shown(page) if c not in own]

    def show_rest(session, blind):
        values = _show(page, session, blind)
        return [values[c] for c in rest]

    event.then(show_rest, [page.session, page.compare.blind], rest, **AT_ONCE)
    _afterwards(page, event)


def _afterwards(page, event):
    """What follows everything that changes what a visitor has: verdict, the link, how to repeat it, and no older files."""
    event.then(verdict.view, page.session, page.shown_verdict, **AT_ONCE)
    _linked(page, event)
    event.then(lambda: ("", gr.update(value=None, visible=False)), None, [page.taken.said, page.taken.files], **AT_ONCE)
    event.then(expert.repeat, page.session, [page.expertly.python, page.expertly.command], **AT_ONCE)


def _linked(page, event):
    """The address brings back what a visitor has now, under whatever key it is kept."""
    event.then(take_away.link, page.session, page.taken.link, **AT_ONCE).then(None, page.taken.link, page.taken.link, js=SHOW_LINK)
