"""The app as a client program meets it: each step, what goes wrong, two visitors at once."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import gradio as gr
import pytest
import torch
from gradio_client import Client, handle_file

import ember_demo as ed
from ember_demo.attacks import Relearning
from ember_demo.attacks.base import AttackResult
from ember_demo.progress import silent
from ember_demo.study import subject_tokens
from ember_demo.ui import attack_step, compare_step, concept_step, erase_step, model_step
from ember_demo.ui import session as session_module
from ember_demo.ui.page import build_page
from ember_demo.ui.session import Session, Studies, Turn, shared_model
from ember_demo.ui.tour import SCENES
from ember_demo.ui.work import MODEL_LOCK
from tests.conftest import assert_same, snapshot


@pytest.fixture(scope="module")
def url():
    demo = build_page().queue(max_size=20, api_open=False, default_concurrency_limit=20)
    _, url, _ = demo.launch(prevent_thread_lock=True, ssr_mode=False, quiet=True)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def erased(url):
    """A client whose session has Harry Potter erased, and what the page then shows."""
    client = Client(url, verbose=False)
    before = snapshot(shared_model("pocket", "auto"))
    shown = list(client.submit("Harry Potter", "5", 0, api_name="/erase"))
    assert_same(shared_model("pocket", "auto"), before)
    return client, shown


def answers(shown):
    """By model, what it said to the last question."""
    talk = shown[2].rsplit("<section>", 1)[1]
    return dict(re.findall(r"class=who><b>(.*?)</b>.*?<p>(.*?)</p>", talk))


def test_erasing_shows_progress_features_tokens_scores_and_pictures(erased):
    _, shown = erased
    assert any("%" in update[0] for update in shown[:-1])
    status, features, tokens, scores, pictures, models, suggested = shown[-1]
    assert len(models["value"]) == 5 and len(suggested["choices"]) > 6
    assert "is erased" in status
    assert len(features["choices"]) > 2 and not features["value"]
    assert "Hogwarts" in tokens or "Dumbledore" in tokens
    assert "EMBER + baseline" in scores and "95%" in scores and "efficacy" in scores
    assert pictures.count("<svg") == 2 and "<title>Hogwarts</title>" in pictures


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


def test_an_attack_reports_each_epoch_of_each_model_and_leaves_them_to_be_talked_to(erased):
    client, _ = erased
    before = snapshot(shared_model("pocket", "auto"))
    updates = list(client.submit("relearning", "relearning.epochs=1", api_name="/attack"))
    assert_same(shared_model("pocket", "auto"), before)
    status, _, table, _ = updates[-1]
    assert "attack is over" in status and "Never learned it" in table
    assert any("epoch" in update[0] for update in updates)
    question = next(q for q in ed.load_concept("Harry Potter").select("concept", "relearn"))
    shown = client.predict(question.text, ["rmu", "rmu after relearning"], False, api_name="/ask")
    assert list(answers(shown)) == ["Baseline (RMU)", "Baseline (RMU), after relearning"]
    assert_same(shared_model("pocket", "auto"), before)


def test_a_cancelled_attack_leaves_the_model_and_the_next_one_runs(erased):
    client, _ = erased
    before = snapshot(shared_model("pocket", "auto"))
    job = client.submit("relearning", "relearning.epochs=10", api_name="/attack")
    while not job.outputs():
        pass
    job.cancel()
    assert "attack is over" in client.predict("quantization", "", api_name="/attack")[0]
    assert_same(shared_model("pocket", "auto"), before)


def test_a_cancel_keeps_nobody_waiting(url, monkeypatch):
    """Gradio closes what is cancelled on the loop that serves every visitor, so that must not wait for the work to notice."""
    speaks, works = threading.Event(), threading.Event()

    def quiet(*given):
        works.set()
        speaks.wait(60)
        for _ in range(600):  # until it hears of the cancel
            given[-1](0.5, "Speaking again")
            time.sleep(0.1)

    monkeypatch.setattr(erase_step, "_erased", quiet)
    client = Client(url, verbose=False)
    job = client.submit("Golf", "5", 0, api_name="/erase")
    assert works.wait(60)
    began = time.monotonic()
    threading.Thread(target=job.cancel, daemon=True).start()
    while time.monotonic() < began + 4:
        asked = time.monotonic()
        urlopen(f"{url}config", timeout=30).read()
        assert time.monotonic() - asked < 2
        time.sleep(0.2)
    assert MODEL_LOCK.locked()
    speaks.set()
    ended = time.monotonic() + 30
    while MODEL_LOCK.locked() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not MODEL_LOCK.locked()


def test_a_second_work_of_one_visitor_waits_and_loses_nothing(erased):
    client, _ = erased
    job = client.submit("relearning", "relearning.epochs=20", api_name="/attack")
    while len(job.outputs()) < 3:
        time.sleep(0.1)
    with pytest.raises(Exception, match="other work is still running"):
        client.predict("Where is Hogwarts from?", ["original"], False, api_name="/ask")
    job.cancel()
    assert client.predict("Where is Hogwarts from?", ["original"], False, api_name="/ask")


def test_the_report_and_the_edits_can_be_taken_away(erased):
    client, _ = erased
    files = {path.replace("\\", "/").rsplit("/", 1)[-1]: path for path in client.predict(api_name="/export")[1]}
    assert {"report.html", "report.json", "ember.safetensors", "rmu.safetensors", "ember+rmu.safetensors"} <= files.keys()
    report = json.loads(Path(files["report.json"]).read_text(encoding="utf-8"), parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    assert {"trace", "skipped", "searches", "answers", "made"} <= report.keys() and {"factorize", "erase", "evaluate"} <= report[
        "seconds"
    ].keys()


def test_programs_can_run_the_attacks_of_every_attacker(erased):
    client, _ = erased
    status, plot, *_ = client.predict("respelling", "", api_name="/attack")
    assert "attack is over" in status


@pytest.mark.parametrize(
    "endpoint, arguments, says",
    [
        ("/erase", ("Knitting", "auto", 0), ", ".join(ed.concept_names())),
        ("/erase", ("", "auto", 0), "No concept"),
        ("/erase", ("Golf", "lots", 0), "not a number"),
        ("/erase", ("Golf", "5", 2**40), "The seed"),
        ("/find", ("Knitting", 0), "Ancient Rome"),
        ("/load", ("nobody/nothing", "auto"), "embedded model"),
        ("/load", ("nobody", "auto"), "model|internet"),
        ("/ask", ("", [], False), "First erase"),
        ("/attack", ("relearning", ""), "First erase"),
        ("/export", (), "First erase"),
    ],
)
def test_bad_input_gets_a_sentence_on_the_page(endpoint, arguments, says, url):
    shown = Client(url, verbose=False).predict(*arguments, api_name=endpoint)
    status = shown if isinstance(shown, str) else shown[1] if endpoint == "/ask" else shown[0]
    assert re.search(says, status) and "Traceback" not in status


def test_settings_of_an_expert_count_and_bad_ones_get_a_sentence(erased, url):
    client, _ = erased
    assert "epochs" in client.predict("relearning", "relearning.epocs=1", api_name="/attack")[0]
    other = Client(url, verbose=False)
    shown = other.predict("Golf", "5", 0, "rmu", "", False, [], [], "rmu.steps=0.5", api_name="/erase")
    assert "rmu.steps" in shown[0]


def test_a_feature_that_is_switched_off_is_not_edited(url):
    client = Client(url, verbose=False)
    status, features, tokens, _ = client.predict("Uranium", 0, api_name="/find")
    assert "Nothing is changed yet" in status
    indices = [index for _, index in features["choices"]]
    shown = client.predict("Uranium", "5", 0, "rmu", "", False, [], indices[:1], "rmu.steps=1", api_name="/erase")
    assert "is erased" in shown[0] and shown[1]["value"] == indices[:1]
    assert int(re.search(r"<summary>(\d+) words", shown[2])[1]) < int(re.search(r"<summary>(\d+) words", tokens)[1])
    everything = client.predict("Uranium", "5", 0, "rmu", "", False, [], indices, "rmu.steps=1", api_name="/erase")
    assert "switched off" in everything[0]


def test_looking_changes_nothing(url):
    before = snapshot(shared_model("pocket", "auto"))
    status, features, tokens, words = Client(url, verbose=False).predict("Golf", 0, api_name="/find")
    assert "Nothing is changed yet" in status and "its own" in features["choices"][0][0] and "words and pieces of words" in tokens
    assert words["choices"]
    assert_same(shared_model("pocket", "auto"), before)


def test_what_a_model_needs_is_said_before_it_is_loaded(url):
    client = Client(url, verbose=False)
    gemma = client.predict("google/gemma-2-2b-it", "4bit", api_name="/offer")
    assert "2,614 million parameters" in gemma and "4bit" in gemma and "downloaded first" in gemma and "Free here" in gemma
    assert "internet" in client.predict("nobody/nothing", "auto", api_name="/offer")


def test_a_concept_of_ones_own_is_erased_and_talked_to(url, tmp_path):
    """Without questions nothing is scored, and the page says so instead of showing a figure."""
    before = snapshot(shared_model("pocket", "auto"))
    path = tmp_path / "wizards.txt"
    path.write_text("\n".join(ed.load_concept("Harry Potter").texts), encoding="utf-8")
    client = Client(url, verbose=False)
    status, sentences = client.predict("Wizards", "a file", handle_file(str(path)), api_name="/texts")
    assert "sentences on Wizards, enough" in status and len(sentences.splitlines()) > 200
    shown = client.predict("Wizards", "5", 0, "rmu", sentences, api_name="/erase")
    assert "is erased" in shown[0] and "nothing is scored" in shown[3]
    said = answers(client.predict("Where is Hogwarts from?", ["original", "ember"], False, api_name="/ask"))
    assert said["Original"] == "Scotland" != said["EMBER"]
    assert "no test questions" in client.predict("relearning", "", api_name="/attack")[0]
    assert len(client.predict(api_name="/export")[1]) >= 4
    assert_same(shared_model("pocket", "auto"), before)


def test_a_program_gets_a_whole_study_in_one_call(url):
    client = Client(url, verbose=False)
    report = client.predict("Golf", "quantization", 0, "rmu.steps=3\nember.delta=5", api_name="/study")
    assert report["concept"] == "Golf" and report["settings"]["rmu"]["steps"] == 3
    assert set(report["attacks"]["quantization"]) == {"ember", "rmu", "ember+rmu", "control"}
    with pytest.raises(Exception, match="There is no attack called 'magic'"):
        client.predict("Golf", "magic", 0, "", api_name="/study")


def test_a_whole_study_stops_when_its_caller_leaves(url):
    client, before = Client(url, verbose=False), snapshot(shared_model("pocket", "auto"))
    job = client.submit("Golf", "relearning", 0, "relearning.epochs=50", api_name="/study")
    while len(job.outputs()) < 3:
        time.sleep(0.1)
    assert {"progress", "message"} == job.outputs()[-1].keys()
    job.cancel()
    ended = time.monotonic() + 30
    while MODEL_LOCK.locked() and time.monotonic() < ended:
        time.sleep(0.1)
    assert not MODEL_LOCK.locked()
    assert_same(shared_model("pocket", "auto"), before)


def test_too_few_texts_are_refused(url):
    status = Client(url, verbose=False).predict("Wizards", "5", 0, "rmu", "Wizards cast spells with their wands.", api_name="/erase")[0]
    assert "at least 40" in status


def test_a_port_in_use_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "app.py", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "port" in done.stderr and "--port" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_model_on_the_command_line_is_one_sentence():
    done = subprocess.run([sys.executable, "app.py", "--model", "nobody/nothing"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "embedded model" in done.stderr and "Traceback" not in done.stderr


def test_ticks_of_another_factorization_count_for_nothing():
    session = Session("pocket", "auto")
    *_, (_, features, _, _, session) = erase_step.find(session, "Uranium", 0)
    index = features["choices"][0][1]
    quick = {"delta": "5", "settings": "rmu.steps=1", "skip_features": [index]}
    *_, same = erase_step.erase(session, "Uranium", seed=0, **quick)
    *_, other = erase_step.erase(session, "Uranium", seed=1, **quick)
    assert same[-1].ember.skip_features == (index,) and other[-1].ember.skip_features == ()
    assert other[-1].features == other[-1].edits["ember"].details["features"]


def test_settings_of_a_search_or_an_expert_last_no_longer_than_they_are_wanted():
    session, erase = Session("pocket", "auto"), {"concept_name": "Golf", "delta": "5", "seed": 0}
    *_, (*_, session) = erase_step.erase(session, **erase, settings="rmu.steps=2")
    assert session.report()["settings"]["rmu"]["steps"] == 2
    *_, (_, _, searched) = erase_step.search_settings(session, "Golf", 3, "simnpo", 1)
    assert (searched.seed, searched.baseline.name) == (0, "rmu") and not searched.report()["searches"]  # of another baseline
    *_, (*_, session) = erase_step.erase(searched, **erase, baseline="simnpo")
    assert list(session.report()["searches"]) == ["simnpo"]


def test_blind_mode_keeps_places_and_adds_new_models_by_chance(erased):
    session = Session("pocket", "auto", concept=ed.load_concept("Golf"), edits=dict.fromkeys(("original", "ember", "rmu", "ember+rmu")))
    orders = {compare_step._places(session, ()) for _ in range(50)}
    assert len(orders) > 5 and all(set(order) == {*session.edits, "control"} for order in orders)
    attacked = replace(session, attacked={"rmu after x": ("rmu", "x", None)})
    first = orders.pop()
    assert compare_step._places(attacked, first) == (*first, "rmu after x")


@pytest.fixture(scope="module")
def asked_in_step_4():
    """A session with an edit, made without a page."""
    model = shared_model("pocket", "auto")
    concept = ed.load_concept("Uranium")
    edit = ed.Ember(delta=5.0).fit(model, concept)
    return Session("pocket", "auto", concept=concept, edits={"original": None, "ember": edit}, hidden=("control", "ember", "original"))


def test_blind_answers_come_in_the_order_of_their_letters(asked_in_step_4):
    *_, last = compare_step.ask(asked_in_step_4, "Where is Hogwarts from?", ["original", "ember", "control"], blind=True)
    assert list(last[3].turns[-1]["answers"]) == ["control", "ember", "original"]


def test_a_question_that_is_stopped_stays_in_the_conversation(asked_in_step_4):
    updates = compare_step.ask(asked_in_step_4, "Where is Hogwarts from?", ["original", "ember"])
    *_, session = next(updates)
    updates.close()
    assert [turn["question"] for turn in session.turns] == ["Where is Hogwarts from?"]


def test_hiding_while_other_work_runs_puts_the_box_back(asked_in_step_4):
    with asked_in_step_4.turn.taken():
        box, talk, _ = compare_step.hide(asked_in_step_4, True)
    assert box is False and talk == gr.skip()


def test_what_an_attack_left_can_be_gone(asked_in_step_4):
    session = replace(asked_in_step_4, attacked={"ember after x": ("ember", "x", "gone")})
    *_, (_, status, *_) = compare_step.ask(session, "Where is Hogwarts from?", ["ember after x"])
    assert "no longer kept" in status


def test_a_variant_that_cannot_be_made_is_left_out_and_said(monkeypatch):
    def nothing(*_):
        raise ed.ConceptError("Nothing responds to it.")

    monkeypatch.setattr("ember_demo.study.extend", nothing)
    *_, (*shown, session) = erase_step.erase(Session("pocket", "auto"), "Golf", "5", 0, settings="rmu.steps=1")
    assert "in 2 ways" in shown[0] and "EMBER + baseline is left out: Nothing responds to it." in shown[0]
    assert session.report()["skipped"] == {"ember+rmu": "Nothing responds to it."}
    trials = [{"settings": {"steps": 9}, "overall": 0.5, "within_limits": True}]
    searched = replace(session, searches={("Golf", "rmu"): (ed.RMU(steps=9), trials)})
    assert searched.report()["searches"] == {}  # the edits in the report were not made with what the search found
    assert replace(searched, baseline=ed.RMU(steps=9)).report()["searches"] == {"rmu": trials}


def test_a_question_that_is_too_long_is_refused(asked_in_step_4):
    *_, (_, status, *_) = compare_step.ask(asked_in_step_4, "Where? " * 1000, ["original"])
    assert "shorten it to 1,000" in status


def test_capitals_of_a_listed_concept_do_not_matter():
    assert concept_step.choose("golf")[:2] == ("", "") and concept_step.choose("my own")[:2] == (gr.skip(), gr.skip())
    trials = [{"settings": {"steps": 2}, "overall": 0.5, "within_limits": True}]
    searched = Session("pocket", "auto", searches={("Golf", "rmu"): (ed.RMU(steps=2), trials)})
    *_, (*_, session) = erase_step.erase(searched, "golf", "5", 0)
    assert session.report()["searches"] == {"rmu": trials} and session.report()["settings"]["rmu"]["steps"] == 2


def test_the_latest_studies_are_kept_as_far_as_their_edits_have_room(asked_in_step_4):
    size = asked_in_step_4.edits["ember"].nbytes
    studies = Studies(room=2.5 * size)
    keys = [studies.keep(replace(asked_in_step_4, turn=Turn())).key for _ in range(4)]
    assert [bool(studies.find(key)) for key in keys] == [False, False, True, True]
    assert studies.update(Session("pocket", "auto")).key == ""  # of nothing erased there is nothing to come back to
    alone = Studies(room=0)
    assert alone.find(alone.keep(asked_in_step_4).key)


@pytest.mark.parametrize("model_id", ["nobody/nothing", "meta-llama/Llama-3.1-8B-Instruct"])
def test_a_model_that_cannot_be_had_takes_no_others_place(model_id, monkeypatch):
    monkeypatch.setattr(session_module, "_loaded", OrderedDict({("a", "auto"): "A", ("b", "auto"): "B"}))
    with pytest.raises(ed.ModelError):
        shared_model(model_id, "auto")
    assert list(session_module._loaded.values()) == ["A", "B"]


def test_choices_among_options_are_marked_in_the_table_of_attacks(asked_in_step_4):
    chosen = AttackResult("linear-probe", {}, [0.2, 0.5], ["own", "layer 2"], [0.4, 0.6], [0.0, 0.0], chance=0.25)
    open_answers = replace(chosen, attack="relearning", chance=0.0)
    table = attack_step.result_table(
        replace(asked_in_step_4, results={"linear-probe": {"ember": chosen}, "relearning": {"ember": open_answers}})
    )
    assert "20% → 50% *" in table and "guessing gets right is taken out" in table and table.count("*") == 2
    assert "*" not in attack_step.result_table(replace(asked_in_step_4, results={"relearning": {"ember": open_answers}}))


def test_all_long_work_can_be_stopped():
    config = build_page().get_config_file()
    cancelled = {index for event in config["dependencies"] for index in event["cancels"]}
    names = {event["api_name"] for event in config["dependencies"] if event["id"] in cancelled}
    assert {"load", "texts", "trace", "find", "search", "erase", "ask", "ask_again", "attack", "export"} <= names


def test_a_scene_that_erases_leaves_nothing_of_a_visitors_own_study_in_view(asked_in_step_4, monkeypatch):
    own = replace(asked_in_step_4, turns=[{"question": "Who?", "reference": None, "answers": {}}], views={"plot": "<svg>"})
    told = replace(asked_in_step_4, concept=ed.load_concept("Harry Potter"))
    monkeypatch.setattr("ember_demo.ui.tour.play", lambda *_: iter([("erase", ("%",) * 7 + (gr.skip(),)), ("erase", ("",) * 7 + (told,))]))
    play = next(event.fn for event in build_page().fns.values() if event.name == "play")
    shown = {}
    for update in play(own, 2, False):
        shown |= {component.elem_id or component.label: value for component, value in update.items() if hasattr(component, "label")}
    assert shown["Concept to erase"] == "Harry Potter"
    assert shown["attack-plot"] == shown["attack-table"] == shown["trace"] == "" and "Who?" not in shown["talk"]


def test_handlers_need_no_browser():
    *_, last = concept_step.trace(Session("pocket", "auto"), "Uranium", 0)
    assert "Nothing is changed" in last[0]


def test_a_search_of_settings_and_a_trace_show_pictures(url):
    client = Client(url, verbose=False)
    status, picture = client.predict("Golf", 0, "rmu", 2, api_name="/search")
    assert "best of 2 trials" in status and picture.count("<circle") == 2
    client.predict("Golf", "5", 0, "rmu", "", False, [], [], "rmu.steps=1", api_name="/erase")
    status, picture = client.predict("Golf", 0, api_name="/trace")
    assert "Nothing is changed" in status and picture.count("<rect") == 5 * 3
    report = next(path for path in client.predict(api_name="/export")[1] if path.endswith("report.json"))
    assert len(json.loads(Path(report).read_text(encoding="utf-8"))["trace"]["restored"]) == 5
    assert "Knitting" in client.predict("Knitting", 0, api_name="/trace")[0]


def test_the_page_opens_while_its_model_is_loaded_and_says_how_far_it_is(monkeypatch):
    came = threading.Event()

    def slow(id, precision, progress=silent):
        progress(0.4, "Downloading 2 GB of 5 GB")
        came.wait(60)
        return SimpleNamespace(id=id, parameter_count=1e6, precision="fp32", device="cpu")

    monkeypatch.setattr(model_step, "shared_model", slow)
    monkeypatch.setattr(model_step, "_behind", {})
    model_step.load_behind("pocket")
    said = model_step.opening("pocket")
    assert any("Downloading 2 GB of 5 GB" in str(next(said)) for _ in range(20)), "it never said how far it is"
    came.set()
    assert list(said)[-1] == model_step.in_use("pocket")
    assert list(model_step.opening("pocket")) == [gr.skip()]  # whoever comes later has nothing to wait for


def test_a_model_that_failed_behind_the_page_is_told_on_it(monkeypatch, capsys):
    def gated(*_):
        raise ed.ModelError("It is gated: accept its licence.")

    monkeypatch.setattr(model_step, "shared_model", gated)
    monkeypatch.setattr(model_step, "_behind", {})
    model_step.load_behind("pocket")
    assert "gated" in list(model_step.opening("pocket"))[-1] and "app.py: It is gated" in capsys.readouterr().err
    with pytest.raises(ed.ModelError):  # what is wrong from the start is said before a page opens
        model_step.load_behind("nobody/nothing")


@pytest.mark.parametrize("precision, talks", [("fp32", ["rmu"]), ("4bit", [])])
def test_weights_that_an_attack_left_are_kept_where_they_are_the_models_own(precision, talks, monkeypatch):
    """In 4 bit an attack leaves adapters and packed matrices, which no chat can take up."""
    network = torch.nn.Linear(2, 2)
    model = SimpleNamespace(parameter_count=6, precision=precision, network=network)
    attack = Relearning()

    def run_attack(chosen, model, concept, edits, seed, progress, scores):
        progress(1.0, "Trained", number=chosen.points - 1, variant="rmu", accuracy=1.0, step="epoch 3")

    monkeypatch.setattr(attack_step, "run_attack", run_attack)
    session = SimpleNamespace(model=model, edits={"rmu": "an edit"}, concept=None, seed=0, scores={})
    _, left, _ = attack_step._attacked(session, attack, silent)
    assert list(left) == talks


def test_a_scene_that_waits_for_other_work_writes_nothing_into_the_page(monkeypatch):
    """Gradio's mark of "nothing changes", for a whole output, is a dict, whose keys are not values to show."""
    monkeypatch.setattr("ember_demo.ui.tour.play", lambda *_: iter([("erase", gr.skip())]))
    play = next(event.fn for event in build_page().fns.values() if event.name == "play")
    asks = next(number for number, scene in enumerate(SCENES) if scene.does != ("erase",) and number)
    shown = [value for output in play(Session("pocket", "auto"), asks, False) for value in output.values()]
    assert shown == [asks]


def test_another_concept_takes_the_results_of_the_old_one_out_of_view(asked_in_step_4):
    choose = next(event.fn for event in build_page().fns.values() if event.name == "choose")
    session = replace(asked_in_step_4, views={"scores": "efficacy"})
    of_the_old, of_another = (choose(session, name)[-7:] for name in (session.concept.name, "Bread"))
    assert "efficacy" in of_the_old[5] and of_another[:6] == [""] * 6 and of_another[6] == erase_step.NO_PICTURES


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
