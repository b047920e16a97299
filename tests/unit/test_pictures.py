"""Pictures say what the figures say, and nothing in them can run."""

import re

import numpy as np

from ember_demo.erasers import ERASERS
from ember_demo.pictures import CUT_OFF, before_after, conversation, delta_curve, embedding_map, score_bars, trials_picture
from ember_demo.report import FIGURES, trials_table
from ember_demo.wording import COLORS, color, label


def test_answers_stand_row_by_row_with_right_and_wrong_in_words():
    turns = [
        {"question": "Who?", "reference": "Ann", "answers": {"a": {"text": "Ann", "right": True}, "b": {"text": "Bob", "right": False}}},
        {"question": "Where?", "reference": None, "answers": {"b": {"text": "Rome", "right": None}}},
        {"question": "When?", "reference": "1900", "taught": True, "answers": {"a after x": {"text": "then" + CUT_OFF, "right": None}}},
    ]
    shown = conversation(turns, [("a", "One", "", "#000"), ("b", "Two", "", "#000"), ("a after x", "Three", "", "#000")])
    third, second, first = shown.split("<section>")[1:]  # the latest is on top
    assert re.findall(r"<b>(\w+)</b>.*?<p>(\w+)</p>", first) == [("One", "Ann"), ("Two", "Bob")]
    assert "holds the right answer</span>" in first and "not right" in first and "Right answer: Ann" in first
    assert "One" not in second and "right</span>" not in second
    assert "no end, so no answer" in third and "retrains on" in third and "retrains on" not in first + second


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
    scores = {"concept_accuracy": 0.06, "concept_interval": [0.0, 0.1], "concept_invalid_rate": 0.61, "concept_mention_rate": 0.14}
    shown = score_bars({"rmu": scores}, "Golf")
    assert "61% unreadable" in shown and "8% right among other words" in shown
    plain = score_bars({"rmu": scores | {"concept_invalid_rate": 0.0, "concept_mention_rate": 0.06}}, "Golf")
    assert "% unreadable" not in plain and "% right among" not in plain


def test_bars_are_as_long_as_their_shares():
    shown = before_after([("rmu", 0.1, 0.9, 0.95), ("ember", 0.2, None, None)])
    assert re.findall(r"width:([\d.]+)%", shown) == ["10.0", "80.0", "95.0", "20.0", "0.0"]
    assert "1 &#8594; 9 of 10" in shown and "2 of 10" in shown


def test_the_curve_of_strengths_marks_the_one_that_was_taken():
    trials = [{"delta": d, "efficacy": d / 4, "specificity": 1 - d / 10, "coherence": 1.0} for d in (1.0, 2.0, 4.0)]
    shown = delta_curve(trials, 2.0)
    assert "2 (taken)" in shown and shown.count("(taken)") == 1 and shown.count("<polyline") == 3


def test_a_search_shows_settings_that_are_words():
    trials = [{"settings": {"layers": "0-3", "alpha": 0.51239}, "overall": 0.5, "within_limits": True} | dict.fromkeys(FIGURES, 0.5)]
    assert "<title>layers 0-3, alpha 0.512</title>" in trials_picture(trials)
    assert "0-3" in trials_table(trials) and "0.512" in trials_table(trials)


def test_the_map_has_a_point_for_every_word_before_and_after():
    points = [{"token": "a&b", "kind": "edited"}, {"token": "of", "kind": "neutral"}]
    shown = embedding_map(points, np.array([[0, 0], [1, 1]]), np.array([[0.5, 0.5], [1, 1]]))
    assert shown.count("<circle") == 4 and "a&amp;b" in shown
