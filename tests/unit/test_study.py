"""One run from concept to report."""

import pytest

import ember_demo as ed
from ember_demo.attacks import LogitLens, RelearningParagraphs
from ember_demo.report import summary, to_html
from ember_demo.study import run_study


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


def test_the_only_attack_without_material_is_an_error(model, bare, untouched):
    with pytest.raises(ed.ConceptError, match="no paragraphs"):
        run_study(model, bare, [ed.RMU(steps=2)], [RelearningParagraphs()])
