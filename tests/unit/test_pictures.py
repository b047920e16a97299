"""Pictures say what the figures say, and nothing in them can run."""

import re
from dataclasses import replace

import numpy as np
import torch

from ember_demo.erasers import ERASERS
from ember_demo.pictures import before_after, conversation, delta_curve, embedding_map, score_bars
from ember_demo.ui.session import LeftWeights, Session, Studies, Turn, _files
from ember_demo.wording import COLORS, color, label


def test_answers_stand_row_by_row_with_right_and_wrong_in_words():
    turns = [
        {"question": "Who?", "reference": "Ann", "answers": {"a": {"text": "Ann", "right": True}, "b": {"text": "Bob", "right": False}}},
        {"question": "Where?", "reference": None, "answers": {"b": {"text": "Rome", "right": None}}},
    ]
    shown = conversation(turns, [("a", "One", "", "#000"), ("b", "Two", "", "#000")])
    first, second = shown.split("<section>")[1:]
    assert re.findall(r"<b>(\w+)</b>.*?<p>(\w+)</p>", first) == [("One", "Ann"), ("Two", "Bob")]
    assert "holds the right answer</span>" in first and "not right" in first and "Right answer: Ann" in first
    assert "One" not in second and "right</span>" not in second


def test_what_a_model_or_a_person_writes_cannot_run():
    turn = {"question": "<script>1</script>", "reference": "<b>", "answers": {"a": {"text": "<img src=x onerror=1>", "right": None}}}
    shown = conversation([turn], [("a", "<i>", "<u>", "#000")])
    assert not re.search(r"<(script|img|i>|u>)", shown)


def test_whatever_the_baseline_its_variants_are_told_apart():
    assert len(set(COLORS.values())) == len(COLORS)
    for name in set(ERASERS) - {"ember"}:
        variants = ("original", name, "ember", f"ember+{name}", "control")
        assert len({color(v) for v in variants}) == len({label(v) for v in variants}) == 5


def test_gibberish_is_told_from_wrong_answers():
    scores = {"concept_accuracy": 0.06, "concept_interval": [0.0, 0.1], "concept_invalid_rate": 0.61}
    assert "61% unreadable" in score_bars({"rmu": scores}, "Golf")
    assert "% unreadable" not in score_bars({"rmu": scores | {"concept_invalid_rate": 0.0}}, "Golf")


def test_bars_are_as_long_as_their_shares():
    shown = before_after([("rmu", "Baseline", 0.1, 0.9), ("ember", "EMBER", 0.2, None)])
    assert re.findall(r"width:([\d.]+)%", shown) == ["10.0", "80.0", "20.0", "0.0"]
    assert "1 &#8594; 9 of 10" in shown and "2 of 10" in shown


def test_the_curve_of_strengths_marks_the_one_that_was_taken():
    trials = [{"delta": d, "efficacy": d / 4, "specificity": 1 - d / 10, "coherence": 1.0} for d in (1.0, 2.0, 4.0)]
    shown = delta_curve(trials, 2.0)
    assert "2 (taken)" in shown and shown.count("(taken)") == 1 and shown.count("<polyline") == 3


def test_the_map_has_a_point_for_every_word_before_and_after():
    points = [{"token": "a&b", "kind": "edited"}, {"token": "of", "kind": "neutral"}]
    shown = embedding_map(points, np.array([[0, 0], [1, 1]]), np.array([[0.5, 0.5], [1, 1]]))
    assert shown.count("<circle") == 4 and "a&amp;b" in shown


def test_what_attacks_left_is_kept_within_bounds():
    left = LeftWeights(most=1000)
    first, second, third = (left.keep({"table": torch.zeros(100)}) for _ in range(3))
    assert left.find(first) is None and left.find(second) is not None and left.find(third) is not None
    assert left.find(left.keep({"table": torch.zeros(1000)})) is not None  # the latest is kept, however large


def test_a_study_comes_back_by_its_key_until_it_is_old_or_there_are_too_many():
    studies = Studies(most=2, seconds=3600)
    kept = [studies.keep(Session("pocket", "auto")) for _ in range(2)]
    files = _files(kept[0].key)
    files.mkdir()
    (files / "report.json").touch()
    kept.append(studies.keep(Session("pocket", "auto")))
    assert not files.exists()
    assert len({s.key for s in kept}) == 3 and all(len(s.key) >= 16 for s in kept)
    assert studies.find(kept[0].key) is None and studies.find(kept[2].key) is kept[2]
    assert studies.find("") is None and studies.find("guess") is None
    studies = Studies()
    first = studies.keep(Session("pocket", "auto"))
    assert studies.keep(replace(first, seed=1)).key == first.key
    other_tab = studies.keep(replace(first, turn=Turn()))
    assert other_tab.key != first.key and studies.find(first.key).seed == 1
    brief = Studies(seconds=0)
    assert brief.find(brief.keep(Session("pocket", "auto")).key) is None
