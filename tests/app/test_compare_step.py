"""Step 4: the same question to all models, blind or not."""

import re
from dataclasses import replace

import gradio as gr
from gradio_client import Client

import ember_demo as ed
from ember_demo.study import subject_tokens
from ember_demo.ui import compare_step
from ember_demo.ui.session import Session
from tests.app.conftest import answers


def test_all_models_answer_and_a_second_visitor_sees_no_edit(erased, url):
    client, _ = erased
    question = "Where is Hogwarts from?"
    said = answers(client.predict(question, ["original", "ember", "control"], False, api_name="/ask"))
    assert list(said) == ["Original", "EMBER", "Never learned it"]
    assert said["Original"] == "Scotland" != said["EMBER"]
    other = Client(url, verbose=False)
    assert "First erase" in other.predict(question, [], False, api_name="/ask")[1]


def test_right_and_wrong_are_told_in_words(erased):
    client, _ = erased
    question = next(q for q in ed.load_concept("Harry Potter").select("concept", "test"))
    talk = client.predict(question.text, ["original", "control"], False, api_name="/ask")[2]
    assert f"Right answer: {question.answer}" in talk and "&#10003; holds the right answer" in talk and "&#10007; not right" in talk


def test_blind_mode_names_nobody(erased):
    client, _ = erased
    talk = client.predict("Who is the author of Dracula?", ["original", "rmu"], True, api_name="/ask")[2]
    assert "EMBER" not in talk and "Original" not in talk and "Bram Stoker" in talk
    assert re.search(r"class=who><b>[A-E]<", talk)


def test_blind_mode_keeps_places_and_adds_new_models_by_chance(erased):
    session = Session("pocket", "auto", concept=ed.load_concept("Golf"), edits=dict.fromkeys(("original", "ember", "rmu", "ember+rmu")))
    orders = {compare_step._places(session, ()) for _ in range(50)}
    assert len(orders) > 5 and all(set(order) == {*session.edits, "control"} for order in orders)
    attacked = replace(session, attacked={"rmu after x": ("rmu", "x", None)})
    first = orders.pop()
    assert compare_step._places(attacked, first) == (*first, "rmu after x")


def test_blind_answers_come_in_the_order_of_their_letters(asked_in_step_4):
    *_, last = compare_step.ask(asked_in_step_4, "Where is Hogwarts from?", ["original", "ember", "control"], blind=True)
    assert list(last[3].turns[-1]["answers"]) == ["control", "ember", "original"]


def test_a_question_that_is_stopped_stays_in_the_conversation(asked_in_step_4):
    updates = compare_step.ask(asked_in_step_4, "Where is Hogwarts from?", ["original", "ember"])
    *_, session = next(updates)
    updates.close()
    assert [turn["question"] for turn in session.turns] == ["Where is Hogwarts from?"]


def test_asking_again_of_nobody_keeps_the_answers(asked_in_step_4):
    *_, (_, _, _, session) = compare_step.ask(asked_in_step_4, "Where is Hogwarts from?", ["original"])
    said = session.turns[-1]["answers"]["original"]["text"]
    gone = replace(session, attacked={"rmu after x": ("rmu", "x", "a key of nothing")}, edits=session.edits | {"rmu": None})
    for again, shown, why in ((session, [], "at least one model"), (gone, ["rmu after x"], "no longer kept")):
        ((_, told, talk, kept),) = compare_step.ask_again(again, shown)
        assert why in told and talk == kept == gr.skip()
    assert session.turns[-1]["answers"]["original"]["text"] == said


def test_hiding_while_other_work_runs_puts_the_box_back(asked_in_step_4):
    with asked_in_step_4.turn.taken():
        box, talk, _ = compare_step.hide(asked_in_step_4, True)
    assert box is False and talk == gr.skip()


def test_a_question_that_is_too_long_is_refused(asked_in_step_4):
    *_, (_, status, *_) = compare_step.ask(asked_in_step_4, "Where? " * 1000, ["original"])
    assert "shorten it to 1,000" in status


def test_sly_questions_are_those_whose_subject_no_edit_touches_be_it_in_another_spelling(asked_in_step_4):
    session = asked_in_step_4
    model, edit = session.model, session.edits["ember"]
    sly = [text for shown, text in compare_step.suggestions(model, session.concept, edit, each=50) if shown.startswith("sly: ")]
    assert sly
    plain = {q.text: q.subject for q in session.concept.select("concept", "test")}
    for text in sly:
        spelt = plain.get(text) or next(t for s in plain.values() for t in compare_step._spellings(s) if t in text)
        assert not subject_tokens(model, edit, spelt)[0]


def test_an_answer_without_an_end_is_not_called_right(asked_in_step_4, monkeypatch):
    question = asked_in_step_4.concept.select("concept", "test")[0]
    for repeats, told in ((1, True), (60, None)):
        monkeypatch.setattr(
            ed.LanguageModel, "stream", lambda *_, repeats=repeats, **__: (text for text in [f"{question.answer} " * repeats])
        )
        *_, last = compare_step.ask(asked_in_step_4, question.text, ["original"])
        given = last[3].turns[-1]["answers"]["original"]
        assert given["right"] is told and ("(cut off)" in given["text"]) == (told is None)
