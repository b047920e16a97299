"""Step 2: which concept, from which texts, and where the model holds it."""

from dataclasses import replace
from html import escape
from types import SimpleNamespace

import gradio as gr

from ember_demo.concept import Concept
from ember_demo.errors import ConceptError, EmberDemoError
from ember_demo.features import divide_tokens
from ember_demo.pictures import trace_view
from ember_demo.progress import part
from ember_demo.sources import concept_names, gather, listed_name, load_concept
from ember_demo.texts import check_enough, neutral_sentences
from ember_demo.ui.session import STUDIES, in_turn
from ember_demo.ui.show import problem, status, whole_seed
from ember_demo.ui.work import run
from ember_demo.understanding import causal_trace

FILE, WIKIPEDIA, MODEL = "a file", "Wikipedia", "the model itself"


def layout():
    gr.Markdown(
        "A **concept** is what the model is to forget. It is known by texts: words that stand in texts on the concept and in no everyday text are "
        "its own. Its questions are of three kinds: on the concept, on a *neighbour* that should be kept, and on anything else."
    )
    with gr.Row():
        concept = gr.Dropdown(
            concept_names(),
            value="Harry Potter",
            allow_custom_value=True,
            label="Concept to erase",
            info="Choose one, or type a name of your own.",
            min_width=240,
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, info="The same seed gives the same result.")
    about = gr.HTML(about_concept("Harry Potter"), elem_id="about-concept")
    with gr.Accordion("A concept of your own: bring its texts", open=False, elem_classes="folded"):
        gr.Markdown(
            "Concepts in the list bring texts and questions. For any other, give sentences on it: at least 40, best 300, on its people, places and "
            "terms. What stands in them and in none of 300 everyday sentences is taken for the concept's own words."
        )
        with gr.Row():
            source = gr.Radio([FILE, WIKIPEDIA, MODEL], value=FILE, label="Take them from", scale=2)
            text_file = gr.File(label="A txt, md or jsonl file", file_types=[".txt", ".md", ".jsonl"], height=140, scale=2)
            get_texts = gr.Button("Get texts", scale=0, min_width=140)
        text_said = gr.Markdown(elem_classes="status", elem_id="text-status")
        texts = gr.Textbox(
            value="",
            label="Sentences on the concept, one a line",
            info="Or paste them here. Strike out what does not belong. Leave empty to use the texts that ship with a listed concept.",
            lines=6,
            max_lines=14,
            elem_id="texts",
        )
        ask_model = gr.Checkbox(
            False,
            label="Let the model write the questions",
            info="It asks itself about the concept, its neighbours and general knowledge, and keeps what it answers alike in two phrasings. "
            "Needs a chat model that knows the concept; without questions nothing is scored, and the strength must be chosen by hand.",
        )
    with gr.Row():
        where = gr.Button("Show where the model holds it")
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90)
    said = gr.Markdown(elem_classes="status", elem_id="concept-status")
    trace = gr.HTML(elem_id="trace")
    with gr.Row():
        back = gr.Button("Back", scale=0, min_width=90)
        forward = gr.Button("Next: erase it", variant="primary")
    return SimpleNamespace(**locals())


def about_concept(name):
    """What is known of a listed concept: how many texts and questions, and some of these."""
    try:
        concept = load_concept(name)
    except EmberDemoError:
        return "<p class=note>Not in the list: bring texts on it, below.</p>"
    kinds = (("concept", "on the concept"), ("similar", "on its neighbour"), ("general", "on anything else"))
    cells = []
    for kind, words in kinds:
        questions = list({q.subject: q for q in concept.select(kind, "test")}.values())
        some = "".join(f"<li>{escape(q.text)} <i>{escape(q.answer)}</i></li>" for q in questions[:3])
        facts = len(concept.facts(kind, "test"))
        cells.append(f"<div><b>{facts} facts {words} are asked for</b><ul>{some}</ul></div>")
    texts = "".join(f"<li>{escape(text)}</li>" for text in concept.texts)
    return (
        f"<div class=cards>{''.join(cells)}</div><details><summary>The {len(concept.texts)} sentences on {escape(concept.name)} that come with this demo"
        f"</summary><ul class=tokens tabindex=0>{texts}</ul></details>"
    )


def choose(name):
    """What another concept leaves of the fields that belong to one: (its texts, said of them, features, words to leave alone).

    A listed concept brings its own texts; those for any other may have been given before its name.
    """
    texts = ("", "") if listed_name(name) in concept_names() else (gr.skip(), gr.skip())
    return *texts, *(gr.update(choices=[], value=[], visible=False),) * 2


@in_turn
def gather_texts(session, concept_name, source, file):
    """Sentences on a concept, to be looked at and struck out: (status, texts)."""
    try:
        name = (concept_name or "").strip()
        if not name:
            raise ConceptError("No concept was named; type one.")
        if source == FILE and not file:
            raise ConceptError("Choose a txt, md or jsonl file first.")
        texts = file if source == FILE else "wikipedia"
        for event in run(_written, session, name) if source == MODEL else run(_read, name, texts, beside=True):
            yield status(event), gr.skip()
        sentences = event.result
        for event in run(_counted, session, name, sentences, here=True):
            yield status(event), gr.skip()
        yield event.result, "\n".join(sentences)
    except EmberDemoError as error:
        yield problem(error), gr.skip()


def _written(session, name, progress):
    return gather(name, session.model, "model", progress)


def _read(name, texts, progress):
    return gather(name, None, texts, progress)


def _counted(session, name, sentences, progress):
    """Whether the sentences, and the words that they alone hold, are enough."""
    try:
        _, own, _ = divide_tokens(session.model, Concept(name, check_enough(name, sentences), neutral_sentences()))
    except ConceptError as error:
        return str(error)
    return (
        f"{len(sentences)} sentences on {name}, enough: {own.sum()} words and pieces of words stand in them and in no everyday sentence. "
        "Strike out what does not belong, then go on."
    )


@in_turn
def trace(session, concept_name, seed):
    """Where the knowledge lives, before anything is erased: (status, picture)."""
    try:
        seed = whole_seed(seed)
        for event in run(_traced, session, concept_name, seed):
            yield status(event), gr.skip(), gr.skip()
        name, found = event.result
        traces = session.traces | {(name, seed): found}
        yield "The map is ready. Nothing is changed.", trace_view(found, name), STUDIES.update(replace(session, traces=traces))
    except EmberDemoError as error:
        yield problem(error), gr.skip(), gr.skip()


def _traced(session, concept_name, seed, progress):
    concept = listed_concept(concept_name, session.model)
    return concept.name, causal_trace(session.model, concept, seed=seed, progress=progress).as_dict()


def listed_concept(name, model):
    """The pack of that name, for what needs the questions that ship with it."""
    try:
        return load_concept(name, model)
    except ConceptError:
        raise ConceptError(
            f"{(name or '').strip() or 'No concept'} is not in the list, and this needs the questions that ship with a listed concept: choose one of "
            f"{', '.join(concept_names())}."
        ) from None


def chosen_concept(session, concept_name, texts, ask_model, progress):
    """The pack of that name, or what the visitor's own sentences make, one a line."""
    sentences = [line for line in (texts or "").splitlines() if line.strip()]
    if not sentences:
        return load_concept(concept_name, session.model)
    return load_concept(concept_name, session.model if ask_model else None, texts=sentences, progress=part(progress, 0, 0.2))
