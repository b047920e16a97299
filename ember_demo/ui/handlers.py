"""What happens on each click: plain functions and generators that can be called without a browser."""

from contextlib import closing, nullcontext
from dataclasses import replace
from html import escape

import gradio as gr

from ember_demo.attacks import ATTACKS
from ember_demo.erasers import RMU, Ember
from ember_demo.errors import ConceptError, EmberDemoError
from ember_demo.language_model import POCKET, describe
from ember_demo.progress import part
from ember_demo.report import (
    attack_curves,
    definitions,
    feature_cards,
    memory_bars,
    score_bars,
    score_table,
    step_names,
    token_chips,
    trace_view,
    trials_picture,
    verdict,
)
from ember_demo.sources import gather, load_concept
from ember_demo.study import build_edits, coverage, run_attack, score_edits
from ember_demo.texts import ENOUGH
from ember_demo.tuning import search
from ember_demo.ui.session import Session, shared_model
from ember_demo.ui.work import MODEL_LOCK, run, waiting
from ember_demo.understanding import causal_trace, what_changed
from ember_demo.wording import label

FILE, WIKIPEDIA, MODEL = "a file", "Wikipedia", "the model itself"
VARIANTS = ("original", "rmu", "ember", "ember+rmu")
KEPT_MESSAGES = 6  # of a chat: the embedded model reads 512 tokens at most
FIRST_ERASE = "First erase a concept, in step 2."


def offer(model_id, precision):
    """What a model would need here, before it is loaded, as a sentence and bars."""
    try:
        return memory_bars(describe((model_id or POCKET).strip(), precision))
    except EmberDemoError as error:
        return f"<p>⚠ {escape(str(error))}</p>"


def load(model_id, precision):
    """Load a model: (status, session)."""
    model_id = (model_id or POCKET).strip()
    try:
        for event in run(lambda progress: shared_model(model_id, precision, progress)):
            yield _status(event.fraction, event.message), gr.skip()
        model = event.result
        text = f"**{model.id}** is ready: {model.parameter_count / 1e6:,.0f} million parameters, {model.precision}, on {model.device}."
        yield text, Session(model_id, precision)
    except EmberDemoError as error:
        yield _problem(error), gr.skip()


def gather_texts(session, concept_name, source, file):
    """Sentences on a concept, to be looked at and struck out: (status, texts)."""
    try:
        session = session or Session(POCKET, "auto")
        name = (concept_name or "").strip()
        if not name:
            raise ConceptError("No concept was named; type one.")
        if source == FILE and not file:
            raise ConceptError("Choose a txt, md or jsonl file first.")

        def work(progress):
            if source == FILE:
                return gather(name, None, file)
            if source == WIKIPEDIA:
                return gather(name, None, "wikipedia")
            return gather(name, session.model, "model", progress)

        for event in run(work):
            yield _status(event.fraction, event.message), gr.skip()
        sentences = event.result
        enough = "enough" if len(sentences) >= ENOUGH else f"too few: at least {ENOUGH} are needed"
        yield f"{len(sentences)} sentences on {name}, {enough}. Strike out what does not belong, then erase.", "\n".join(sentences)
    except EmberDemoError as error:
        yield _problem(error), gr.skip()


def trace(session, concept_name, seed):
    """Where the knowledge lives, before anything is erased: (status, picture)."""
    try:
        session = _fresh(session, seed)

        def work(progress):
            concept = load_concept(concept_name)
            return trace_view(causal_trace(session.model, concept, seed=session.seed, progress=progress).as_dict(), concept.name)

        for event in run(work):
            yield _status(event.fraction, event.message), gr.skip()
        yield "Nothing is changed.", event.result
    except EmberDemoError as error:
        yield _problem(error), gr.skip()


def search_settings(session, concept_name, seed, trials):
    """Look for the baseline's settings on the validation questions, and keep the best for this visitor: (status, picture, session)."""
    try:
        session = _fresh(session, seed)

        def work(progress):
            concept = load_concept(concept_name)
            return search(session.model, [concept], RMU(), int(trials), session.seed, progress=progress)

        for event in run(work):
            yield _status(event.fraction, event.message), gr.skip(), gr.skip()
        baseline, found = event.result
        settings = ", ".join(f"{name} {getattr(baseline, name):.3g}" for name in baseline.space)
        yield (
            f"The baseline will be run with the best of {len(found)} trials: {settings}. Erase to use it.",
            trials_picture(found),
            replace(session, baseline=baseline, searches={RMU.name: found}),
        )
    except EmberDemoError as error:
        yield _problem(error), gr.skip(), gr.skip()


def find(session, concept_name, seed, texts="", ask_model=False):
    """Show what EMBER would change: (status, features, tokens, session, words to leave alone)."""
    try:
        session = _fresh(session, seed)

        def work(progress):
            nonlocal session
            session = replace(session, concept=_concept(session, concept_name, texts, False, progress))
            features = Ember().find_features(session.model, session.concept, session.seed, progress)
            edit = Ember(delta=1.0).edit(session.model, session.concept, features)
            tokens = [{k: t[k] for k in ("token", "generic")} for t in what_changed(session.model, session.concept, edit)]
            return edit.details["features"], _token_view(session, edit, tokens), tokens

        for event in run(work):
            yield _status(event.fraction, event.message), *(gr.skip(),) * 4
        features, token_view, tokens = event.result
        text = f"Found {len(features)} features of {session.concept.name}. Nothing is changed yet."
        words = [t["token"] for t in sorted(tokens, key=lambda t: (not t["generic"], t["token"].lower()))]
        yield text, feature_cards(features), token_view, session, gr.update(choices=list(dict.fromkeys(words)))
    except EmberDemoError as error:
        yield _problem(error), *(gr.skip(),) * 4


def erase(session, concept_name, delta, seed, texts="", ask_model=False, keep=()):
    """Erase in every way and score: (status, features, tokens, scores, session, suggestions)."""
    quiet = (gr.skip(),) * 5
    try:
        session = _fresh(session, seed)
        ember = Ember(delta="auto" if delta == "auto" else _number(delta), keep=tuple(keep or ()))

        def work(progress):
            nonlocal session
            session = replace(session, concept=_concept(session, concept_name, texts, ask_model, part(progress, 0, 0.2)))
            model, concept = session.model, session.concept
            edits = build_edits(model, concept, [ember, session.baseline], session.seed, part(progress, 0.2, 0.8))
            scores = score_edits(model, concept, edits, part(progress, 0.8, 1)) if concept.select("concept", "test") else {}
            return edits, scores, _token_view(session, edits["ember"], what_changed(model, concept, edits["ember"]))

        for event in run(work):
            yield _status(event.fraction, event.message), *quiet
        edits, scores, token_view = event.result
        session = replace(session, edits=edits, scores=scores, results={}, histories={})
        yield (
            f"**{session.concept.name} is erased** in three ways. Chat with them in step 3, attack them in step 4.",
            feature_cards(edits["ember"].details["features"]),
            token_view,
            score_view(session),
            session,
            gr.update(choices=suggestions(session.concept), value=None),
        )
    except EmberDemoError as error:
        yield _problem(error), *quiet


def chat(session, question):
    """Ask every variant, streaming: (question box, status, one chat a variant, session)."""
    question = (question or "").strip()
    problem = "Type a question first." if not question else FIRST_ERASE if not session or not session.edits else None
    if problem:
        yield gr.skip(), _warn(problem), *[gr.skip()] * len(VARIANTS), gr.skip()
        return
    histories = {v: [*session.histories.get(v, []), {"role": "user", "content": question}] for v in VARIANTS}
    yield "", "", *[histories[v] for v in VARIANTS], gr.skip()
    for event in waiting():
        yield gr.skip(), event.message, *[gr.skip()] * len(VARIANTS), gr.skip()
    try:
        model = session.model
        for variant in VARIANTS:
            edit, answer = session.edits.get(variant), ""
            asked = model.stream(histories[variant][-KEPT_MESSAGES - 1 :], max_new_tokens=48 if model.id == POCKET else 200)
            with edit.applied(model) if edit else nullcontext(), closing(asked):
                for piece in asked:
                    answer += piece
                    shown = [*histories[variant], {"role": "assistant", "content": answer}]
                    yield gr.skip(), "", *[shown if v == variant else gr.skip() for v in VARIANTS], gr.skip()
            histories[variant].append({"role": "assistant", "content": answer or "(no answer)"})
    except EmberDemoError as error:
        yield gr.skip(), _problem(error), *[gr.skip()] * len(VARIANTS), gr.skip()
        return
    finally:
        MODEL_LOCK.release()
    yield gr.skip(), "", *[histories[v] for v in VARIANTS], replace(session, histories=histories)


def clear_chat(session):
    """Forget the conversation: (one chat a variant, session)."""
    return *[[] for _ in VARIANTS], replace(session, histories={}) if session else None


def attack(session, attack_name, epochs):
    """Attack every erased variant and the control: (status, plot, verdict, session)."""
    if not session or not session.edits:
        yield _warn(FIRST_ERASE), gr.skip(), gr.skip(), gr.skip()
        return
    chosen = ATTACKS[attack_name]()
    if hasattr(chosen, "epochs"):
        chosen = replace(chosen, epochs=int(epochs))
    erased = {name: edit for name, edit in session.edits.items() if edit}
    curves, steps = {}, [""] * chosen.points
    try:
        yield "Starting the attack", attack_curves(curves, steps), "", gr.skip()

        def work(progress):
            found = run_attack(chosen, session.model, session.concept, erased, session.seed, progress)
            after = replace(session, results=session.results | {chosen.name: found})
            return after, _verdict_view(after.report(), chosen.name)

        for event in run(work):
            plot = gr.skip()
            if "accuracy" in event.data:  # the latest event comes again while nothing new happens
                curve = curves.setdefault(event.data["variant"], [])
                number = event.data["number"]
                curve[number:] = [event.data["accuracy"]]
                steps[number] = step_names([[steps[number]], [event.data["step"]]])[0]
                plot = attack_curves(curves, steps)
            yield _status(event.fraction, event.message), plot, gr.skip(), gr.skip()
        session, shown = event.result
        yield "The attack is over; every variant is back as it was before it.", gr.skip(), shown, session
    except EmberDemoError as error:
        yield _problem(error), gr.skip(), gr.skip(), gr.skip()


def about_attack(name):
    """What the attacker has and does, in plain words."""
    chosen = ATTACKS[name]
    return f"The attacker **{chosen.threat_model}**. {chosen.description}"


def export(session):
    """Files of the report and the edits."""
    if not session or not session.edits:
        raise gr.Error(FIRST_ERASE)
    with MODEL_LOCK:
        try:
            return session.export()
        except EmberDemoError as error:
            raise gr.Error(str(error)) from None


def score_view(session):
    """Bars first, then the table, then what the words mean."""
    if not session.scores:
        return "<p>There are no questions on this concept, so nothing is scored and no attack can be counted. Compare the answers in step 3.</p>"
    variants = {name: scores.as_dict() for name, scores in session.scores.items()}
    return score_bars(variants, session.concept.name) + score_table(variants) + definitions()


def suggestions(concept, each=4):
    """Some questions on the concept, on its neighbour and on anything else."""
    chosen = []
    for kind in ("concept", "similar", "general"):
        texts = list({q.subject: q.text for q in concept.select(kind, "test")}.values())
        chosen += texts[:each]
    return chosen or [f"Tell me about {concept.name}.", f"What is {concept.name} known for?"]


def _fresh(session, seed):
    return replace(session or Session(POCKET, "auto"), seed=int(seed or 0), edits={}, scores={}, results={}, histories={})


def _concept(session, concept_name, texts, ask_model, progress):
    """The pack of that name, or what the visitor's own sentences make, one a line."""
    sentences = [line for line in (texts or "").splitlines() if line.strip()]
    if not sentences:
        return load_concept(concept_name)
    return load_concept(concept_name, session.model if ask_model else None, texts=sentences, progress=progress)


def _number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= 1000:
        raise EmberDemoError(f"The strength {text!r} is not a number from 0 to 1000; type one, or choose auto.")
    return value


def _token_view(session, edit, tokens):
    found = coverage(session.model, session.concept, edit)
    bare = f" Not reached: {escape(', '.join(found['uncovered']))}." if found["uncovered"] else ""
    total = len(found["covered"]) + len(found["uncovered"])
    reach = f" They reach {len(found['covered'])} of the {total} subjects asked about.{bare}" if total else ""
    texts = f"seen in texts on {escape(session.concept.name)}, in no neutral text, and part of a feature above"
    return f"<p>{len(tokens)} tokens: {texts}.{reach}</p>" + token_chips(tokens)


def _verdict_view(report, attack_name):
    rows = report["attacks"][attack_name]
    cells = "".join(f"<tr><td>{label(n)}</td><td>{r['before']:.0%}</td><td>{r['after']:.0%}</td></tr>" for n, r in rows.items())
    table = f"<div class=scroll><table class=scores><tr><th>model</th><th>before</th><th>after</th></tr>{cells}</table></div>"
    return f"<p><b>{escape(verdict(report, attack_name))}</b></p>{table}"


def _status(fraction, message):
    return f"{message} ({fraction:.0%})"


def _problem(error):
    return _warn(str(error))


def _warn(sentence):
    gr.Warning(sentence)
    return f"⚠ {sentence}"
