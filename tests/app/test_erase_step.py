"""Steps 2 and 3: a concept and its texts, features, the erasure and what may be chosen in it."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
import torch
from gradio_client import Client, handle_file

import ember_demo as ed
from ember_demo.ui import concept_step, erase_step, verdict
from ember_demo.ui.page import build_page
from ember_demo.ui.session import Session, shared_model
from tests.app.conftest import answers
from tests.conftest import assert_same, snapshot


def test_erasing_shows_progress_features_tokens_scores_and_pictures(erased):
    _, shown = erased
    assert any("%" in update[0] for update in shown[:-1])
    status, features, tokens, scores, pictures, models, suggested = shown[-1]
    assert len(models["value"]) == 5 and len(suggested["choices"]) > 6
    assert re.search(r"is erased\*\*: 3 ways tried, EMBER's strength is [1-9]", status)
    assert len(features["choices"]) > 2 and not features["value"]
    assert "Hogwarts" in tokens or "Dumbledore" in tokens
    assert "EMBER + baseline" in scores and "95%" in scores and "efficacy" in scores
    assert pictures.count("<svg") == 2 and "<title>Hogwarts</title>" in pictures


def test_settings_of_an_expert_count_and_bad_ones_get_a_sentence(erased, url):
    client, _ = erased
    assert "epochs" in client.predict(["relearning"], "relearning.epocs=1", api_name="/attack")[0]
    other = Client(url, verbose=False)
    shown = other.predict("Golf", "5", 0, "rmu", "", False, [], [], "rmu.steps=0.5", api_name="/erase")
    assert "rmu.steps" in shown[0]


def test_a_feature_that_is_switched_off_is_not_edited(url):
    client = Client(url, verbose=False)
    status, features, tokens, _ = client.predict("Uranium", 0, api_name="/find")
    assert "Nothing is changed" in status
    indices = [index for _, index in features["choices"]]
    shown = client.predict("Uranium", "5", 0, "rmu", "", False, [], indices[:1], "rmu.steps=1", api_name="/erase")
    assert "strength is 5" in shown[0] and shown[1]["value"] == indices[:1]
    assert int(re.search(r"<summary>(\d+) words", shown[2])[1]) < int(re.search(r"<summary>(\d+) words", tokens)[1])
    everything = client.predict("Uranium", "5", 0, "rmu", "", False, [], indices, "rmu.steps=1", api_name="/erase")
    assert "switched off" in everything[0]


def test_looking_changes_nothing(url):
    before = snapshot(shared_model("pocket", "auto"))
    status, features, tokens, words = Client(url, verbose=False).predict("Golf", 0, api_name="/find")
    assert "Nothing is changed" in status and "its own" in features["choices"][0][0] and "words and pieces of words" in tokens
    assert words["choices"]
    assert_same(shared_model("pocket", "auto"), before)


def test_looking_at_another_concept_keeps_what_is_erased(asked_in_step_4):
    *_, (status, features, tokens, _, session) = erase_step.find(asked_in_step_4, "Golf", 0)
    assert "features of Golf" in status and features["choices"] and "golf" in tokens.lower()
    assert session.edits is asked_in_step_4.edits and session.concept is asked_in_step_4.concept and session.found_with[0] == "Golf"


@pytest.mark.parametrize("delta, said", [("5", "is erased"), ("0", "is not erased by EMBER")])
def test_what_takes_nothing_away_is_not_said_to_erase(delta, said):
    *_, last = erase_step.erase(Session("pocket", "auto"), "Golf", delta, 0, settings="rmu.steps=60")
    assert f"Golf {said}" in last[0] and said in verdict.view(last[-1])


def test_texts_too_few_to_tell_a_concept_from_anything_else_are_said_to_be(url, tmp_path):
    path, places = tmp_path / "kitchens.txt", ("kitchen", "garden", "street", "school", "train", "shop", "park", "house")
    sentences = [f"The soup in the {one} is too salty for the {other}." for one in places for other in places]
    for count, says in ((1, "at least 40"), (64, r"only \d+ tokens")):
        path.write_text("\n".join(sentences[:count]), encoding="utf-8")
        assert re.search(says, Client(url, verbose=False).predict("Kitchens", "a file", handle_file(str(path)), api_name="/texts")[0])


def test_a_concept_of_ones_own_is_erased_and_talked_to(url, tmp_path):
    """Without questions nothing is scored, and the page says so instead of showing a figure."""
    before = snapshot(shared_model("pocket", "auto"))
    path = tmp_path / "wizards.txt"
    path.write_text("\n".join(ed.load_concept("Harry Potter").texts), encoding="utf-8")
    client = Client(url, verbose=False)
    status, sentences = client.predict("Wizards", "a file", handle_file(str(path)), api_name="/texts")
    assert re.search(r"sentences on Wizards, enough: \d{3} words", status) and len(sentences.splitlines()) > 200
    shown = client.predict("Wizards", "5", 0, "rmu", sentences, api_name="/erase")
    assert "was edited; there are no questions on it" in shown[0] and "nothing is scored" in shown[3]
    facts = list({q.fact: q for q in ed.load_concept("Harry Potter").select("concept", "test")}.values())[:6]
    said = [answers(client.predict(q.text, ["original", "ember"], False, api_name="/ask")) for q in facts]
    assert sum(each["Original"] != each["EMBER"] for each in said) >= 4
    assert "no test questions" in client.predict(["relearning"], "", api_name="/attack")[0]
    assert len(client.predict(api_name="/export")[1]) >= 4
    assert_same(shared_model("pocket", "auto"), before)


def test_too_few_texts_are_refused(url):
    status = Client(url, verbose=False).predict("Wizards", "5", 0, "rmu", "Wizards cast spells with their wands.", api_name="/erase")[0]
    assert "at least 40" in status


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
    *_, (*_, session) = erase_step.erase(session, **erase, baseline="simnpo", settings="simnpo.steps=2")
    assert session.report()["settings"]["simnpo"]["steps"] == 2
    *_, (_, _, searched) = erase_step.search_settings(session, "Golf", 3, "rmu", 1)
    assert (searched.seed, searched.baseline.name) == (0, "simnpo") and not searched.report()["searches"]  # of another baseline
    *_, (*_, session) = erase_step.erase(searched, **erase, baseline="rmu")
    assert list(session.report()["searches"]) == ["rmu"]


def test_the_output_layer_can_be_edited_too():
    """From the very edit of EMBER that stands beside it, and where the model's two tables are one before."""
    session = Session("pocket", "auto")
    *_, (*_, session) = erase_step.erase(session, "Golf", "5", 0, baseline="ember-head", keep=["golf"], settings="ember.max_iter=30")
    model, ember, both = session.model, session.edits["ember"], session.edits["ember-head"]
    assert list(session.edits) == ["original", "ember", "ember-head"] and set(both.changes) == {model.embedding_name, model.head_name}
    for change in both.changes.values():
        assert torch.equal(change.delta, ember.changes[model.embedding_name].delta)
    assert session.scores["ember-head"].efficacy > 0.5
    told = [word for word in shlex.split(session.report()["command"]) if word.startswith("ember-head.ember=")]
    assert json.loads(told[0].partition("=")[2]) == {"delta": 5.0, "keep": ["golf"], "max_iter": 30}
    paths = session.export()
    loaded = ed.WeightEdit.load(next(path for path in paths if path.endswith("ember-head.safetensors")))
    assert loaded.sha256 == both.sha256
    *_, (said, *_) = erase_step.search_settings(session, "Golf", 0, "ember-head", 2)
    assert "no settings to search" in said


def test_a_variant_that_cannot_be_made_is_left_out_and_said(monkeypatch):
    def nothing(*_):
        raise ed.ConceptError("Nothing responds to it.")

    monkeypatch.setattr("ember_demo.study.extend", nothing)
    *_, (*shown, session) = erase_step.erase(Session("pocket", "auto"), "Golf", "5", 0, settings="rmu.steps=1")
    assert "2 ways tried" in shown[0] and "EMBER + baseline is left out: Nothing responds to it." in shown[0]
    assert session.report()["skipped"] == {"ember+rmu": "Nothing responds to it."}
    trials = [{"settings": {"steps": 9}, "overall": 0.5, "within_limits": True}]
    searched = replace(session, searches={("Golf", "rmu"): (ed.RMU(steps=9), trials)})
    assert searched.report()["searches"] == {}  # the edits in the report were not made with what the search found
    assert replace(searched, baseline=ed.RMU(steps=9)).report()["searches"] == {"rmu": trials}


def test_capitals_of_a_listed_concept_do_not_matter():
    assert concept_step.choose("golf")[:2] == ("", "") and concept_step.choose("my own")[:2] == (gr.skip(), gr.skip())
    trials = [{"settings": {"steps": 2}, "overall": 0.5, "within_limits": True}]
    searched = Session("pocket", "auto", searches={("Golf", "rmu"): (ed.RMU(steps=2), trials)})
    *_, (*_, session) = erase_step.erase(searched, "golf", "5", 0)
    assert session.report()["searches"] == {"rmu": trials} and session.report()["settings"]["rmu"]["steps"] == 2


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


def test_another_concept_takes_the_results_of_the_old_one_out_of_view(asked_in_step_4):
    choose = next(event.fn for event in build_page().fns.values() if event.name == "choose")
    session = replace(asked_in_step_4, views={"scores": "efficacy"})
    of_the_old, of_another = (choose(session, name)[-7:] for name in (session.concept.name, "Bread"))
    assert "efficacy" in of_the_old[5] and of_another[:6] == [""] * 6 and of_another[6] == erase_step.NO_PICTURES
