"""Step 4: one question to every model, the answers side by side."""

import random
from contextlib import ExitStack, closing
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr

from ember_demo.erasers import Ember, EmberHead
from ember_demo.errors import EmberDemoError
from ember_demo.evaluation import mentions
from ember_demo.loading import POCKET, has_control, load_control
from ember_demo.pictures import CUT_OFF, conversation
from ember_demo.study import CONTROL, ORIGINAL, subject_tokens
from ember_demo.ui.session import LEFT, STUDIES, in_turn
from ember_demo.ui.show import FIRST_ERASE, problem, status, warn
from ember_demo.ui.work import run
from ember_demo.wording import color, label

LONGEST = 1000  # letters of a question
KEPT_TURNS = 3  # that a model reads again: the embedded one reads 512 tokens at most
HIDDEN = "#6b7280"
REMARKS = {
    ORIGINAL: "as it was",
    Ember.name: "word table edited",
    EmberHead.name: "word table and output layer edited",
    CONTROL: "trained without the concept",
}


def layout():
    gr.Markdown("Ask all of them the same. What is right is told only of the suggested questions and others whose answer is known.")
    shown = gr.CheckboxGroup([], label="Models to ask", elem_id="shown")
    blind = gr.Checkbox(False, label="Hide which is which", info="Judge first, then reveal.")
    suggested = gr.Dropdown(
        [],
        label="Suggested questions",
        info="On the concept, sly ones on it, on its neighbour, on anything else; worded as they are scored.",
    )
    question = gr.Textbox(
        "",
        label="Your question",
        info="The embedded model answers short questions on one fact of its small world, and may take a freer one for another.",
        placeholder="Ask all of them at once",
        max_lines=3,
        max_length=LONGEST,
        elem_id="question",
    )
    with gr.Row():
        send = gr.Button("Ask all", variant="primary", scale=0, min_width=110)
        again = gr.Button("Ask again", scale=0, min_width=140)
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90)
        clear = gr.Button("Clear", scale=0, min_width=90)
    said = gr.Markdown(elem_classes="status", elem_id="compare-status")
    talk = gr.HTML(conversation([], []), elem_id="talk")
    with gr.Row():
        back = gr.Button("Back", scale=0, min_width=90)
        forward = gr.Button("Next: attack it", variant="primary")
    return SimpleNamespace(**locals())


def columns(session):
    """Who can be asked, by key: the heading."""
    names = {name: label(name) for name in session.edits}
    if session.edits and session.model_id == POCKET and has_control(session.concept.name):
        names[CONTROL] = label(CONTROL)
    return names | {key: f"{label(variant)}, after {attack}" for key, (variant, attack, _) in session.attacked.items()}


def open_step(session):
    """What can be asked and whom, when the step is opened: (models, suggested questions). Of attacked models, those of the latest attack are ticked."""
    names = columns(session)
    latest = [attack for _, attack, _ in session.attacked.values()][-1:]
    ticked = [key for key in names if key not in session.attacked or session.attacked[key][1] in latest]
    return gr.update(choices=[(heading, key) for key, heading in names.items()], value=ticked), gr.update(
        choices=session.views.get("suggested", []), value=None
    )


def suggestions(model, concept, edit, each=3):
    """Questions on the concept, sly ones on it (whose subject, perhaps in another spelling, has no word that the edit changes), on its neighbour and
    on anything else."""
    if not concept.questions:
        return [f"Tell me about {concept.name}.", f"What is {concept.name} known for?"]
    by_subject = {q.subject or q.text: q for q in concept.select("concept", "test")}
    untouched = {s: [t for t in _spellings(s) if not subject_tokens(model, edit, t)[0]] for s in by_subject}
    sly = [by_subject[s].text for s, spelt in untouched.items() if s in spelt]
    sly += [by_subject[s].text.replace(s, spelt[0]) for s, spelt in untouched.items() if spelt and s not in spelt]
    chosen = [("", [q.text for q in by_subject.values() if q.text not in sly]), ("sly: ", sly)]
    chosen += [
        (f"{kind}: ", list({q.subject or q.text: q.text for q in concept.select(kind, "test")}.values())) for kind in ("similar", "general")
    ]
    words = {"similar: ": "neighbour: ", "general: ": "anything else: "}
    return [(words.get(prefix, prefix) + text, text) for prefix, texts in chosen for text in texts[:each]]


def _spellings(name):
    return name, name.lower(), name.upper(), " ".join(name)


def view(session, blind):
    """The conversation as it stands."""
    names = columns(session)
    order = session.hidden if blind else tuple(names)
    shown = []
    for number, key in enumerate(k for k in order if k in names):
        if blind:
            shown.append((key, chr(ord("A") + number), "", HIDDEN))
        else:
            variant = session.attacked[key][0] if key in session.attacked else key
            shown.append((key, names[key], _remark(session, key), color(variant)))
    return conversation(session.turns, shown)


def _remark(session, key):
    if key in session.attacked:
        return "as the attacker left it"
    return REMARKS.get(key) or ("both edited" if key.startswith(f"{Ember.name}+") else "layers edited")


def hide(session, blind):
    """Hide or reveal which is which: (hidden or not, conversation, session). Each time that they are hidden, they change places."""
    try:
        with session.turn.taken(patience=0):
            session = replace(session, hidden=_places(session, ()))
            return blind, view(session, blind), session
    except gr.Error as busy:
        gr.Warning(busy.message)
        return not blind, gr.skip(), gr.skip()


def _places(session, before):
    """The columns in the order of blind mode: as they stood before, new ones after them by chance."""
    new = [key for key in columns(session) if key not in before]
    return (*(key for key in before if key in columns(session)), *random.sample(new, len(new)))


@in_turn
def ask(session, question, shown, blind=False):
    """Ask every chosen model, streaming: (question box, status, conversation); the session is kept."""
    question = (question or "").strip()
    if wrong := _refused(session, question, shown):
        yield gr.skip(), warn(wrong), gr.skip(), gr.skip()
        return
    known = _known(session.concept, question)
    turn = {
        "question": question,
        "reference": known.answer if known else None,
        "taught": known is not None and known.split == "relearn",  # to an attacker who retrains on facts
        "answers": {},
    }
    session = replace(session, turns=[*session.turns, turn], hidden=_places(session, session.hidden))
    yield from _asked(session, turn, known, shown, blind)


@in_turn
def ask_again(session, shown, blind=False):
    """Ask the last question once more, of the models that are now chosen: (question box, status, conversation); the session is kept."""
    wrong = _refused(session, session.turns[-1]["question"], shown) if session.turns else "Nothing has been asked yet; type a question."
    if wrong:
        yield gr.skip(), warn(wrong), gr.skip(), gr.skip()
        return
    turn = {**session.turns[-1], "answers": {}}
    session = replace(session, turns=[*session.turns[:-1], turn], hidden=_places(session, session.hidden))
    yield from _asked(session, turn, _known(session.concept, turn["question"]), shown, blind)


def _refused(session, question, shown):
    """Why it cannot be asked, or an empty text."""
    if not session.edits:
        return FIRST_ERASE
    if not question:
        return "Type a question first."
    if len(question) > LONGEST:
        return f"The question has {len(question):,} letters; shorten it to {LONGEST:,}."
    return "" if shown else "Choose at least one model to ask."


def _asked(session, turn, known, shown, blind):
    try:
        keys = [key for key in (session.hidden if blind else columns(session)) if key in shown]
        left = {key: LEFT.find(session.attacked[key][2]) for key in keys if key in session.attacked}
        if gone := [columns(session)[key] for key, weights in left.items() if weights is None]:
            raise EmberDemoError(f"{', '.join(gone)}: what the attack left is no longer kept. Attack again, or ask the others.")
        yield "", "", view(session, blind), session  # now, so that a question which is stopped stays in the conversation
        for event in run(_answers, session, keys, left):
            if "key" in event.data:
                turn["answers"][event.data["key"]] = {"text": event.data["text"], "right": None}
            yield gr.skip(), status(event), view(session, blind), gr.skip()
        for key, (text, ended) in event.result.items():  # one without an end, gibberish as a rule, is called neither
            turn["answers"][key] = {
                "text": text if ended else text + CUT_OFF,
                "right": mentions(text, known) if known and ended else None,
            }
        yield gr.skip(), "", view(session, blind), STUDIES.keep(session)
    except EmberDemoError as error:
        yield gr.skip(), problem(error), gr.skip(), gr.skip()


def _answers(session, keys, left, progress):
    """Each model's answer to the last question, and whether it came to an end, with what it was asked before. left: the weights that attacks left, by
    column."""
    question, answers = session.turns[-1]["question"], {}
    for number, key in enumerate(keys):
        messages = []
        for past in session.turns[-KEPT_TURNS - 1 : -1]:
            if key in past["answers"]:
                messages += [{"role": "user", "content": past["question"]}, {"role": "assistant", "content": past["answers"][key]["text"]}]
        messages.append({"role": "user", "content": question})
        text = ""
        with ExitStack() as stack:
            model = _variant(session, key, left, stack)
            most = 48 if session.model_id == POCKET else 200
            for piece in stack.enter_context(closing(model.stream(messages, max_new_tokens=most))):
                text += piece
                progress(number / len(keys), "Answering", key=key, text=text)
        ended = len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) < most - 1
        answers[key] = text.strip() or "(no answer)", ended
    return answers


def _variant(session, key, left, stack):
    """The model with what belongs to a column laid over it, until the stack is closed."""
    if key == CONTROL:
        return load_control(session.concept.name, session.model.precision)
    model, (variant, _, _) = session.model, session.attacked.get(key, (key, None, None))
    if session.edits[variant]:
        stack.enter_context(session.edits[variant].applied(model))
    if key in left:
        stack.enter_context(model.holding(left[key]))
    return model


def _known(concept, question):
    """The concept's own question of that wording, if it is one."""
    return next((q for q in concept.questions if q.text.strip().lower() == question.lower()), None)


def clear(session, blind=False):
    """Forget the conversation: (conversation, session)."""
    with session.turn.taken(patience=0):
        session = replace(session, turns=[])
        return view(session, blind), STUDIES.update(session)
