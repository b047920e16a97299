"""Step 3: what EMBER would change, how strongly, beside which baseline; and what the erasure did."""

from dataclasses import replace
from html import escape
from types import SimpleNamespace

import gradio as gr

from ember_demo.erasers import BASELINES, ERASERS, RMU, Ember, EmberHead
from ember_demo.erasers.ember import DELTAS
from ember_demo.errors import EmberDemoError
from ember_demo.pictures import definitions, delta_curve, embedding_map, score_bars, score_table, token_chips, trials_picture
from ember_demo.progress import part
from ember_demo.settings import MOST
from ember_demo.sources import listed_name
from ember_demo.study import build_edits, coverage, score_edits, timed
from ember_demo.tuning import search
from ember_demo.ui import compare_step
from ember_demo.ui.concept_step import chosen_concept, listed_concept
from ember_demo.ui.session import STUDIES, Session, in_turn
from ember_demo.ui.show import number, problem, settled, status, whole_seed
from ember_demo.ui.verdict import outcome
from ember_demo.ui.work import run
from ember_demo.understanding import what_changed, word_map
from ember_demo.wording import label

NO_PICTURES = "<p class=note>Erase first.</p>"


def layout():
    gr.Markdown(
        "**EMBER** takes the concept out of the model's *word table*, where a word's meaning enters the model. The **baseline**, as a rule, leaves that "
        "table alone and retrains layers behind it. Both, alone and together, start from the same model."
    )
    with gr.Row():
        find = gr.Button("Show first what EMBER would change")
        erase = gr.Button("Erase", variant="primary")
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90)
    said = gr.Markdown(elem_classes="status", elem_id="erase-status")
    with gr.Row():
        delta = gr.Dropdown(
            # Typing 5 and Enter takes the first that holds a 5, so 0.5 has another name.
            ["auto", *[("half" if d == 0.5 else f"{d:g}", f"{d:g}") for d in DELTAS]],
            value="auto",
            allow_custom_value=True,
            label="Strength of EMBER's edit",
            info="How many times the concept's part of a word is subtracted; auto tries them all.",
        )
        baseline = gr.Dropdown(
            [(f"{label(name)}: {ERASERS[name].touches}", name) for name in (*BASELINES, EmberHead.name)],
            value=RMU.name,
            label="Baseline",
            info="What EMBER is compared with, and combined with unless it is EMBER itself.",
            min_width=240,
        )
    about = gr.Markdown(about_baseline(RMU.name), elem_id="about-baseline")
    features = gr.CheckboxGroup(
        [],
        label="Features of the concept that EMBER found in the word table",
        info="A feature is a direction that some words share; each is shown with its strongest words. Tick what is not the concept's, and it is left alone.",
        elem_id="features",
        visible=False,
    )
    tokens = gr.HTML(elem_id="tokens")
    keep = gr.Dropdown(
        [],
        value=[],
        multiselect=True,
        allow_custom_value=True,
        label="Words to leave alone",
        info="Everyday words among those found can be struck out here; the edit is then fitted without them.",
        visible=False,
    )
    scores = gr.HTML(elem_id="scores")
    with gr.Accordion("The word table before and after, and how the strength was chosen", open=False, elem_classes="folded"):
        pictures = gr.HTML(NO_PICTURES, elem_id="pictures")
    with gr.Accordion("Search the baseline's settings first", open=False, elem_classes="folded"):
        gr.Markdown(
            "A baseline with poor settings proves nothing. This tries settings on the validation questions, which score nothing else, and keeps the "
            "best for the next erasure. EMBER needs no such search: its strength is tried out each time."
        )
        with gr.Row():
            trials = gr.Slider(2, 40, value=10, step=1, label="Trials")
            look = gr.Button("Search", scale=0, min_width=140)
        trials_plot = gr.HTML(elem_id="trials")
    with gr.Row():
        back = gr.Button("Back", scale=0, min_width=90)
        forward = gr.Button("Next: compare the answers", variant="primary")
    return SimpleNamespace(**locals())


def about_baseline(name):
    return ERASERS[name].description


@in_turn
def find(session, concept_name, seed, texts="", settings=""):
    """Show what EMBER would change: (status, features, tokens, words to leave alone); the session is kept, with all that is erased in it."""
    quiet, before = (gr.skip(),) * 4, session
    try:
        session = _fresh(session, seed, texts)
        ember = settled(Ember(), settings)
        for event in run(_found, session, ember, concept_name):
            yield status(event), *quiet
        concept, features, view, tokens = event.result
        found = {"features": features, "found_with": _found_with(session, ember, concept_name)}
        session = replace(before, **found) if before.edits else replace(session, concept=concept, views={"tokens": view}, **found)
        words = [t["token"] for t in sorted(tokens, key=lambda t: (not t["generic"], t["token"].lower()))]
        yield (
            f"Found {len(features)} features of {concept.name}. Nothing is changed by looking.",
            gr.update(choices=feature_choices(features), value=[], visible=True),
            view,
            gr.update(choices=list(dict.fromkeys(words)), visible=True),
            STUDIES.update(session),
        )
    except EmberDemoError as error:
        yield problem(error), *quiet


def _found_with(session, ember, concept_name):
    """What a factorization depends on, for this visitor's model."""
    return listed_name(concept_name), session.texts, session.seed, replace(ember, delta="auto", keep=(), skip_features=())


def _found(session, ember, concept_name, progress):
    model = session.model
    concept = chosen_concept(session, concept_name, session.texts, False, progress)
    features = ember.find_features(model, concept, session.seed, progress)
    edit = replace(ember, delta=1.0, skip_features=()).edit(model, concept, features)
    tokens = [{k: t[k] for k in ("token", "generic")} for t in what_changed(model, concept, edit)]
    return concept, edit.details["features"], token_view(model, concept, edit, tokens), tokens


def features_of(session):
    """The features of what is erased, though others may have been looked for since."""
    found_here = session.found_with == _found_with(session, session.ember, session.concept.name)
    return session.features if found_here else session.edits["ember"].details["features"]


def ways(count):
    return "one way" if count == 1 else f"{count} ways"


def feature_choices(features):
    return [(f"{f['share']:.0%} its own: {', '.join(f['tokens'][:8])}", f["index"]) for f in features]


@in_turn
def erase(session, concept_name, delta, seed, baseline=RMU.name, texts="", ask_model=False, keep=(), skip_features=(), settings=""):
    """Erase in every way and score: (status, features, tokens, scores, pictures, models to ask, suggested questions); the session is kept.

    skip_features: indices of features, of those last found, that are left alone; of no effect where they would be others now.
    settings: further settings, one NAME.SETTING=VALUE a line.
    """
    quiet = (gr.skip(),) * 7
    try:
        session = _fresh(session, seed, texts)
        strength = "auto" if delta == "auto" else number(delta, "The strength", 0, MOST["delta"])
        found_with, found = _found_with(session, settled(Ember(), settings), concept_name), session.features
        if found_with != session.found_with:
            skip_features, found = (), []
        ember = settled(Ember(delta=strength, keep=tuple(keep or ()), skip_features=tuple(skip_features or ())), settings)
        usual = EmberHead(ember) if baseline == EmberHead.name else ERASERS[baseline]()
        best, _ = session.searches.get((found_with[0], baseline), (usual, None))
        session = replace(session, ember=ember, baseline=settled(best, settings), ask_model=bool(ask_model))
        for event in run(_erased, session, concept_name, ask_model):
            yield status(event), *quiet
        concept, edits, scores, views, seconds, skipped = event.result
        session = replace(session, concept=concept, edits=edits, scores=scores, seconds=seconds, found_with=found_with, skipped=skipped)
        session.features = found or edits["ember"].details["features"]
        session.views = views | {"scores": score_view(session)}
        yield (
            f"**{concept.name} {outcome(session)}**: {ways(len(edits) - 1)} tried, EMBER's strength is {edits['ember'].details['settings']['ember']['delta']:g}. Compare the answers in step 4, attack in step 5."
            + "".join(f" {label(name)} is left out: {why}" for name, why in skipped.items()),
            gr.update(choices=feature_choices(session.features), value=list(ember.skip_features), visible=True),
            session.views["tokens"],
            session.views["scores"],
            session.views["pictures"],
            *compare_step.open_step(session),
            STUDIES.keep(session),
        )
    except EmberDemoError as error:
        yield problem(error), *quiet


def _erased(session, concept_name, ask_model, progress):
    model, seconds, skipped = session.model, {}, {}
    concept = chosen_concept(session, concept_name, session.texts, ask_model, progress)
    edits = build_edits(model, concept, [session.ember, session.baseline], session.seed, part(progress, 0.2, 0.8), seconds, skipped)
    with timed(seconds, "evaluate"):
        scores = score_edits(model, concept, edits, part(progress, 0.8, 1))
    ember = edits["ember"]
    pictures = "<h4>The word table, seen along its two main directions</h4>" + embedding_map(*word_map(model, concept, ember))
    trials = ember.details.get("delta_trials", [])
    if trials:
        taken = ember.details["settings"]["ember"]["delta"]
        pictures += "<h4>What each strength did to validation questions, which score nothing else</h4>" + delta_curve(trials, taken)
    views = {"tokens": token_view(model, concept, ember, what_changed(model, concept, ember)), "pictures": pictures}
    return concept, edits, scores, views | {"suggested": compare_step.suggestions(model, concept, ember)}, seconds, skipped


@in_turn
def search_settings(session, concept_name, seed, baseline, trials):
    """Look for the baseline's settings on the validation questions, and keep the best for this visitor: (status, picture)."""
    try:
        for event in run(_searched, session, concept_name, whole_seed(seed), baseline, int(trials)):
            yield status(event), gr.skip(), gr.skip()
        eraser, found = event.result
        searches = session.searches | {(listed_name(concept_name), eraser.name): (eraser, found)}
        settings = ", ".join(f"{name} {getattr(eraser, name):.3g}" for name in eraser.space)
        yield (
            f"{label(eraser.name)} will be run with the best of {len(found)} trials: {settings}. Erase to use it.",
            trials_picture(found),
            STUDIES.update(replace(session, searches=searches)),
        )
    except EmberDemoError as error:
        yield problem(error), gr.skip(), gr.skip()


def _searched(session, concept_name, seed, baseline, trials, progress):
    concept = listed_concept(concept_name, session.model)
    return search(session.model, [concept], ERASERS[baseline](), trials, seed, progress=progress)


def score_view(session):
    """Bars first, then the table, then what the words mean."""
    if not session.scores:
        return "<p>There are no questions on this concept, so nothing is scored and no attack can be counted. Compare the answers in step 4.</p>"
    variants = {name: scores.as_dict() for name, scores in session.scores.items()}
    numbers = f"<details><summary>All figures</summary>{score_table(variants)}{definitions(variants)}</details>"
    return score_bars(variants, session.concept.name) + numbers


def token_view(model, concept, edit, tokens):
    found = coverage(model, concept, edit)
    bare = f" Not reached: {escape(', '.join(found['uncovered']))}." if found["uncovered"] else ""
    total = len(found["covered"]) + len(found["uncovered"])
    reach = f" They reach {len(found['covered'])} of the {total} subjects asked about.{bare}" if total else ""
    texts = f"seen in texts on {escape(concept.name)}, in no everyday text, and part of a feature"
    return f"<details open><summary>{len(tokens)} words and pieces of words</summary><p>Each {texts}.{reach}</p>{token_chips(tokens)}</details>"


def _fresh(session, seed, texts):
    """The visitor's model, what was found in it and by searches, and nothing of an earlier erasure."""
    kept = {name: getattr(session, name) for name in ("searches", "traces", "features", "found_with", "turn")}
    return Session(session.model_id, session.precision, seed=whole_seed(seed), texts=(texts or "").strip(), **kept)
