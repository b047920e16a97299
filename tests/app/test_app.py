"""The app as a client program meets it: what goes wrong, whole studies, stopping, the tour."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace
from urllib.request import urlopen

import gradio as gr
import pytest
from gradio_client import Client

import ember_demo as ed
from ember_demo.progress import silent
from ember_demo.ui import concept_step, erase_step, model_step
from ember_demo.ui import session as session_module
from ember_demo.ui.page import build_page
from ember_demo.ui.session import Session, shared_model
from ember_demo.ui.tour import SCENES
from ember_demo.ui.wiring import _instead
from ember_demo.ui.work import MODEL_LOCK
from tests.conftest import assert_same, snapshot


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
    job = client.submit(["relearning"], "relearning.epochs=20", api_name="/attack")
    while len(job.outputs()) < 3:
        time.sleep(0.1)
    with pytest.raises(Exception, match="other work is still running"):
        client.predict("Where is Hogwarts from?", ["original"], False, api_name="/ask")
    job.cancel()
    assert client.predict("Where is Hogwarts from?", ["original"], False, api_name="/ask")


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
        ("/load", ("n" * 300, "auto"), "no model called"),
        ("/ask", ("", [], False), "First erase"),
        ("/attack", (["relearning"], ""), "First erase"),
        ("/export", (), "First erase"),
    ],
)
def test_bad_input_gets_a_sentence_on_the_page(endpoint, arguments, says, url):
    shown = Client(url, verbose=False).predict(*arguments, api_name=endpoint)
    status = shown if isinstance(shown, str) else shown[1] if endpoint == "/ask" else shown[0]
    assert re.search(says, status) and "Traceback" not in status


def test_what_a_model_needs_is_said_before_it_is_loaded(url):
    client = Client(url, verbose=False)
    gemma = client.predict("google/gemma-2-2b-it", "4bit", api_name="/offer")
    assert "2,614 million parameters" in gemma and "4bit" in gemma and "downloaded first" in gemma and "Free here" in gemma
    assert "internet" in client.predict("nobody/nothing", "auto", api_name="/offer")


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


@pytest.mark.parametrize("model_id", ["nobody/nothing", "meta-llama/Llama-3.1-8B-Instruct"])
def test_a_model_that_cannot_be_had_takes_no_others_place(model_id, monkeypatch):
    monkeypatch.setattr(session_module, "_loaded", OrderedDict({("a", "auto"): "A", ("b", "auto"): "B"}))
    with pytest.raises(ed.ModelError):
        shared_model(model_id, "auto")
    assert list(session_module._loaded.values()) == ["A", "B"]


def test_what_is_downloaded_holds_up_nobody_who_works_with_a_model(monkeypatch):
    held = {}
    small = SimpleNamespace(download=1e9, plan=SimpleNamespace(fits={"chat": True}))
    monkeypatch.setattr(model_step, "describe", lambda *asked: small)
    monkeypatch.setattr(model_step, "fetch", lambda model_id, progress: held.update(fetch=MODEL_LOCK.locked()))
    monkeypatch.setattr(model_step, "shared_model", lambda *asked: held.update(load=MODEL_LOCK.locked()) or shared_model("pocket", "auto"))
    monkeypatch.setattr(concept_step, "gather", lambda *asked: held.update(texts=MODEL_LOCK.locked()) or ["An otter swims."])
    assert "is ready" in list(model_step.load(Session("pocket", "auto"), "some/model", "auto"))[-1][0]
    list(concept_step.gather_texts(Session("pocket", "auto"), "Otters", concept_step.WIKIPEDIA, None))
    assert held == {"fetch": False, "load": True, "texts": False}
    small.plan.fits["chat"] = False
    held.clear()
    list(model_step.load(Session("pocket", "auto"), "some/model", "auto"))
    assert held == {"load": True}  # where it does not fit as things are, nothing is downloaded first


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


def test_a_stop_takes_back_only_what_says_that_work_runs():
    said, session = dict.fromkeys("abc", "Stopped."), Session("pocket", "auto")
    assert _instead(said, session, "Fitting (40%)", "Asking (7%, about 12 s left)", "Waiting: 1 ahead of you (0%)") == said
    assert _instead(said, session, "**Golf is erased**: 3 ways tried.", "", "RMU hid 90% of it.") == dict.fromkeys("abc", gr.skip())


def test_what_a_stop_says_comes_after_the_last_word_of_the_work():
    session, order = Session("pocket", "auto"), []
    with session.turn.taken():
        saying = threading.Thread(target=lambda: order.append(_instead({"a": "Stopped."}, session, "Fitting (40%)")))
        saying.start()
        saying.join(timeout=0.3)
        order.append("Fitting (41%)")
    saying.join()
    assert order == ["Fitting (41%)", {"a": "Stopped."}]


def test_handlers_need_no_browser():
    *_, last = concept_step.trace(Session("pocket", "auto"), "Uranium", 0)
    assert "Nothing is changed" in last[0]


def test_the_page_opens_while_its_model_is_loaded_and_says_how_far_it_is(monkeypatch):
    came = threading.Event()

    def slow(id, precision, progress=silent):
        progress(0.4, "Downloading 2 GB of 5 GB")
        came.wait(60)
        return SimpleNamespace(id=id, parameter_count=1e6, precision="fp32", devices=["cpu"])

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


def test_a_scene_that_waits_for_other_work_writes_nothing_into_the_page(monkeypatch):
    """Gradio's mark of "nothing changes", for a whole output, is a dict, whose keys are not values to show."""
    monkeypatch.setattr("ember_demo.ui.tour.play", lambda *_: iter([("erase", gr.skip())]))
    play = next(event.fn for event in build_page().fns.values() if event.name == "play")
    asks = next(number for number, scene in enumerate(SCENES) if scene.does != ("erase",) and number)
    shown = [value for output in play(Session("pocket", "auto"), asks, False) for value in output.values()]
    assert shown == [asks]
