"""One run from concept to report."""

import argparse
import copy
import json
import re
import time

import pytest
import torch

import ember_demo as ed
from ember_demo.attacks import ATTACKS, LogitLens, RelearningParagraphs
from ember_demo.cli import _configured
from ember_demo.edit import Change
from ember_demo.erasers import ERASERS, SNMF, FromEmber
from ember_demo.report import came_back, limits, strongest, summary, to_html, verdict
from ember_demo.study import build_edits, make_report, run_study, score_edits, subject_tokens
from tests.checkpoints import build


@pytest.fixture(scope="module")
def bare(concept):
    """A concept of another name, so without a control, with a few questions and nothing to relearn from."""
    asked = [q for split in ("validation", "test") for q in concept.select("concept", split)[:6]]
    return ed.Concept("Wizards", concept.texts, concept.neutral_texts, asked)


def test_of_several_attacks_one_without_material_is_left_out_and_said(model, bare, untouched):
    report = run_study(model, bare, [ed.RMU(steps=2)], [RelearningParagraphs(), LogitLens()])
    assert list(report["attacks"]) == ["logit-lens"] and "no paragraphs" in report["skipped"]["relearning-paragraphs"]
    for shown in (summary(report), to_html(report)):
        assert "relearning-paragraphs was left out" in shown
    assert report["trace"] is None


def test_an_eraser_that_finds_nothing_is_reported_and_the_others_go_on(model, concept, untouched):
    report = run_study(model, concept, [SNMF(rank=10, max_iter=5, max_tokens=500, ratio=1e9), ed.RMU(steps=2)])
    assert list(report["variants"]) == ["original", "rmu"] and "No group of neurons" in report["skipped"]["snmf"]
    with pytest.raises(ed.ConceptError, match="No group of neurons"):
        run_study(model, concept, [SNMF(rank=10, max_iter=5, max_tokens=500, ratio=1e9)])


def test_the_only_attack_without_material_is_an_error(model, bare, untouched):
    with pytest.raises(ed.ConceptError, match="no paragraphs"):
        run_study(model, bare, [ed.RMU(steps=2)], [RelearningParagraphs()])


@pytest.fixture(scope="module")
def report(model, concept):
    edits = build_edits(model, concept, [ed.Ember(delta=5.0)])
    return make_report(model, concept, edits, score_edits(model, concept, edits), {})


def test_what_follows_from_ember_is_the_same_as_fitted_on_its_own(model, concept):
    ember = ed.Ember(delta=5.0)
    followers = [ERASERS[name](ember) for name in ERASERS if issubclass(ERASERS[name], FromEmber)]
    edits = build_edits(model, concept, [ember, *followers], seed=2)
    assert len(followers) > 3
    for eraser in followers:
        alone, found = eraser.fit(model, concept, seed=2), edits[eraser.name]
        assert alone.changes.keys() == found.changes.keys() and alone.details == found.details
        assert all(torch.allclose(alone.changes[n].delta, found.changes[n].delta, atol=1e-6) for n in alone.changes)


def test_every_answer_is_in_the_report(report, concept, untouched):
    asked = [(q.text, q.answer, q.kind) for kind in ("concept", "similar", "general") for q in concept.select(kind, "test")]
    assert [(row["question"], row["reference"], row["kind"]) for row in report["answers"]] == asked
    for name, scores in report["variants"].items():
        for kind in ("concept", "similar", "general"):
            given = [row["given"][name] for row in report["answers"] if row["kind"] == kind]
            assert sum(g["right"] for g in given) / len(given) == pytest.approx(scores[f"{kind}_accuracy"])


def test_the_verdict_is_on_the_attack_that_got_most_back_of_what_was_gone():
    def found(before, after, chance=0.0, control=0.0):
        result = {"before": before, "after": after, "chance": chance}
        return {"ember": result, "control": result | {"after": control}}

    attacks = {"quantization": found(0.4, 0.4), "head-reset": found(0.0, 0.3), "relearning": found(0.0, 0.5, control=0.4)}
    attacks |= {"linear-probe": found(0.0, 0.9, chance=0.25)}
    assert strongest(attacks) == "head-reset"  # of what was there, or is taught, nothing has come back; choices are not answers
    assert strongest({"relearning": found(0.1, 0.12), "linear-probe": found(0.0, 0.9, chance=0.25)}) == "linear-probe"
    shown = {"relearning": found(0.0, 0.2)}
    assert "EMBER goes from 0 to 2 of 10 answers (5 of 10 under head-reset)" in came_back(
        shown | {"head-reset": found(0.0, 0.5)}, "relearning"
    )
    more = came_back(shown | {"base-reset": found(0.0, 0.5)}, "relearning")
    assert "(5 of 10 under base-reset, whose attacker holds the weights and the public base model)" in more
    mixed = {"prompting": {"ember": found(0.1, 0.1)["ember"], "rmu": found(0.1, 0.9, chance=0.25)["ember"]}}
    assert "EMBER stays at 1 of 10 answers, Baseline (RMU) goes from 1 to 9 of 10 choices among four" in came_back(mixed, "prompting")
    report = {"concept": "Golf", "variants": {"ember": {"concept_accuracy": 0.1}}, "attacks": attacks}
    assert (
        verdict(report) == "Of Golf, under head-reset, EMBER goes from 0 to 3 of 10 answers; a model that never learned it gives 0 of 10."
    )
    assert "EMBER 1 of 10. No attack was run" in verdict(report | {"attacks": {}})


def test_what_came_back_is_what_was_not_there_before(report):
    def fact(subject, before, right):
        return {"subject": subject, "relation": "home", "answer": "X", "before": before, "right": right, "edited": [], "untouched": ["a"]}

    result = {"before": 0.2, "after": 0.5, "curve": [0.2, 0.5], "steps": ["before", "after"], "interval": [0.2, 0.7], "invalid": [0.0, 0.0]}
    result |= {"chance": 0.0, "facts": [fact("Kept", 1.0, 1.0), fact("Back", 0.25, 0.75), fact("Gone", 0.0, 0.5), fact("New", None, 1.0)]}
    page = to_html(report | {"attacks": {"relearning": {"rmu": result}}})
    assert "What came back from Baseline (RMU): 2 of 4 facts; 1 had been left" in page
    assert "<td>Back</td>" in page and "<td>New</td>" in page and "<td>Kept</td>" not in page


def test_the_page_says_with_what_an_attacker_trains(report, concept):
    result = {"before": 0.2, "after": 0.5, "curve": [0.2, 0.5], "steps": ["before", "after"], "interval": [0.2, 0.7], "invalid": [0.0, 0.0]}
    pages = {name: to_html(report | {"attacks": {name: {"rmu": result | {"chance": 0.0}}}}) for name in ("relearning", "quantization")}
    facts = {(q.subject, q.relation) for q in concept.questions if (q.kind, q.split) == ("concept", "relearn")}
    assert f"holds the weights, and {len(facts)} facts of the concept to train on." in pages["relearning"]
    assert "facts of the concept to train on" not in pages["quantization"]


def test_the_control_is_scored_beside_the_variants(report):
    assert list(report["variants"]) == ["original", "ember"]
    assert report["control"]["concept_accuracy"] < 0.1 and report["control"]["specificity"] > 0.9
    assert "Never learned it" in to_html(report).split("<h2>Scores</h2>")[1]


def test_the_report_holds_hashes_and_the_command_that_repeats_it(report, concept, model, ember_edit):
    page = to_html(report | {"command": "python -m ember_demo study --concept Golf"})
    assert "To repeat it: python -m ember_demo study --concept Golf" in page and report["hashes"]["texts_and_questions"] in page
    assert len(report["hashes"]["ember"]) == 64 and ember_edit.sha256 != (ember_edit + ember_edit).sha256


def test_what_guessing_gets_right_is_said_to_be_taken_out(report):
    result = {"before": 0.1, "after": 0.3, "curve": [0.1, 0.3], "steps": ["before", "hint"], "interval": [0.2, 0.4], "invalid": [0.0, 0.05]}
    guessed = report | {"attacks": {"prompting": {"ember": result | {"chance": 0.25}}}}
    assert "30% after, above guessing." in summary(guessed) and "<td>30% above guessing</td>" in to_html(guessed)
    plain = report | {"attacks": {"prompting": {"ember": result | {"chance": 0.0}}}}
    assert "bove guessing" not in summary(plain) + to_html(plain) and "<td>5%</td>" in to_html(plain)


def test_the_scores_show_what_stands_beside_open_answers_with_the_intervals(report):
    page = to_html(report)
    for head in ("concept choice accuracy", "concept answer probability", "concept invalid rate"):
        assert f">{head}</abbr>" in page
    low, high = report["variants"]["ember"]["intervals"]["efficacy"]
    assert f"({low:.2f} to {high:.2f})" in page


def test_the_report_is_strict_json(report):
    assert {None} < {f["ratio"] for f in report["features"]}, "no feature without a neutral token, which has an endless ratio"
    json.dumps(report, allow_nan=False)


def test_tokens_of_a_subject_are_those_that_stand_in_a_sentence(model, concept, ember_edit, report, tmp_path):
    edited, untouched = subject_tokens(model, ember_edit, "Hogwarts")
    assert edited and "".join(edited + untouched) == "Hogwarts"
    build("qwen2", tmp_path)  # whose vocabulary has other tokens at the start of a text
    other = ed.load_model(str(tmp_path), "fp32")
    inside = other.tokenizer(" Hogwarts", add_special_tokens=False)["input_ids"]
    edit = ed.WeightEdit(
        {other.embedding_name: Change(torch.ones(1, other.embeddings.shape[1]), torch.tensor(inside[:1]))}, other.fingerprint, {}
    )
    assert subject_tokens(other, edit, "Hogwarts")[0] == [other.tokenizer.decode(inside[:1]).strip()]


def test_what_follows_from_ember_follows_its_settings_on_the_command_line(model):
    options = argparse.Namespace(preset="default", published=None, judge=None, keep="fine")
    for name in ERASERS:
        eraser = _configured(ERASERS[name](), model, options, {"ember": {"rank": 50, "delta": 5.0}})
        ember = getattr(eraser, "ember", eraser)
        if isinstance(ember, ed.Ember):
            assert (ember.keep, ember.delta, ember.rank) == (("fine",), 5.0, 50), name


def test_the_page_tells_right_from_wrong_in_words_and_stays_small(report):
    page = to_html(report)
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    kinds = [int(count) for count in re.findall(r": (\d+) questions</th>", body)]
    assert len(kinds) == 3 and sum(kinds) == len(report["answers"])
    rights = sum(given["right"] for row in report["answers"] for given in row["given"].values())
    assert body.count("title=right") == rights and body.count("title=wrong") == 2 * len(report["answers"]) - rights
    assert len(page.encode()) < 1_000_000


def test_what_a_model_answers_cannot_break_the_page(report):
    odd = copy.deepcopy(report)
    odd["answers"][0]["given"]["ember"]["text"] = "<script>alert(1)</script>"
    assert "<script" not in to_html(odd)


def test_the_report_says_when_and_with_what_it_was_made(report):
    made = report["made"]
    assert abs(time.time() - time.mktime(time.strptime(made["date"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 3600
    assert {"python", "torch", "transformers", "scikit-learn"} <= made["versions"].keys() and made["platform"]
    page = to_html(report)
    assert made["date"] in page and made["versions"]["torch"] in page and report["model"]["fingerprint"] in page


def test_the_limits_follow_from_what_was_run(report, model, bare, untouched):
    said = "\n".join(limits(report))
    assert "No attack was tried" in said and all(name in said for name in ATTACKS) and "embedded model" in said
    assert ("protects nothing" in said) == bool(report["coverage"]["uncovered"])
    attacked = run_study(model, bare, [ed.RMU(steps=2)], [LogitLens()])
    said = "\n".join(limits(attacked))
    assert "Only these attacks were tried, with the settings of this run: logit-lens." in said and "never learned Wizards" in said
    result = attacked["attacks"]["logit-lens"]["rmu"]
    assert "neighbouring subject or general knowledge" in said and "Nothing was asked about" not in "\n".join(limits(report))
    assert attacked["variants"]["rmu"]["specificity"] is None and "specificity not measured" in summary(attacked)
    json.dumps(attacked, allow_nan=False)
    assert len(result["invalid"]) == len(result["curve"]) and "unreadable answers, after" in to_html(attacked)
    assert f"{LogitLens.description} The attacker holds the weights." in to_html(attacked)
    assert "relearning-sweep" in said and "protects nothing" not in said  # without EMBER no subject is covered, and that says nothing
    assert to_html(attacked).index("Limits, in plain words") > to_html(attacked).index("<h2>Settings")


def test_without_questions_a_report_has_no_answers_and_says_so(model, concept, ember_edit):
    bare = ed.Concept("Wizards", concept.texts, concept.neutral_texts)
    report = make_report(model, bare, {"original": None, "ember": ember_edit}, {}, {})
    assert report["answers"] == [] and "nothing was scored" in to_html(report) and "95%" not in "".join(limits(report))
