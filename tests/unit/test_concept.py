"""Concepts: from packs, from a script, from the authors' files."""

import json
import re

import pytest

import ember_demo as ed
from ember_demo.pocket.wordings import RELATIONS


def test_names_are_found_whatever_their_case():
    assert ed.load_concept("  harry potter ").name == "Harry Potter"


@pytest.mark.parametrize("name", ["", "  ", None, "Knitting"])
def test_an_unknown_concept_lists_the_known_ones(name):
    with pytest.raises(ed.ConceptError, match=", ".join(ed.concept_names())):
        ed.load_concept(name)


def test_a_concept_can_be_written_in_a_script():
    concept = ed.Concept(
        name="Tea", texts=["Tea is a drink."], neutral_texts=["It rains."], questions=[{"text": "What is tea?", "answer": "drink"}]
    )
    assert concept.select("concept", "test")[0].answer == "drink"


@pytest.mark.parametrize("slip, says", [({"kind": "foo"}, "similar"), ({"split": "tests"}, "validation"), ({"wrong": "cde"}, "brackets")])
def test_a_slip_in_a_question_is_said_at_once(slip, says):
    with pytest.raises(ed.ConceptError, match=says):
        ed.Question("Who?", "Ann", **slip)


@pytest.mark.parametrize("texts, neutral", [([], ["x"]), (["x"], [])])
def test_a_concept_needs_both_kinds_of_texts(texts, neutral):
    with pytest.raises(ed.ConceptError, match="sentences"):
        ed.Concept("Tea", texts, neutral)


def test_the_same_concept_is_the_same_each_time():
    assert ed.load_concept("Golf") == ed.load_concept("Golf")


@pytest.mark.parametrize("name", ed.concept_names())
def test_ordinary_words_are_neutral(name):
    """Else they would be edited as the concept's own, and what is asked or said about anything else would suffer."""
    ordinary = {w for r in RELATIONS.values() for t in r.statements for w in re.findall(r"[a-z]+", t.format(s="", a="", an="").lower())}
    neutral = set(re.findall(r"[a-z]+", " ".join(ed.load_concept(name).neutral_texts).lower()))
    assert not ordinary - neutral


def test_fluency_is_chosen_on_other_texts_than_it_is_scored_on():
    texts = ed.load_concept("Golf").fluency_texts
    assert len(texts["validation"]) == len(texts["test"]) == 40
    assert not set(texts["validation"]) & set(texts["test"])


@pytest.mark.parametrize("count", [60, 300, 1000])
def test_what_fluency_is_measured_on_is_held_out_of_what_erasers_use(count):
    neutral = [f"It rains {n} times." for n in range(count)]
    concept = ed.Concept("Tea", ["Tea is a drink."], neutral)
    measured = {text for texts in concept.fluency_texts.values() for text in texts}
    assert len(concept.fluency_texts["test"]) == len(concept.fluency_texts["validation"]) == min(40, count // 8)
    assert set(concept.retain_texts) == set(neutral) - measured and len(measured) <= count / 4
    with pytest.raises(ed.ConceptError, match="none is left"):
        ed.Concept("Tea", ["Tea is a drink."], neutral[:2]).retain_texts


@pytest.mark.parametrize("name", ed.concept_names())
def test_a_pack_brings_fluency_texts_of_its_own(name):
    concept = ed.load_concept(name)
    assert concept.retain_texts == concept.neutral_texts


def test_fluency_of_a_concept_from_texts_takes_none_of_the_neutral_ones(authors):
    """Else words that stand in a neutral text could be taken for the concept's own."""
    for concept in (ed.load_concept("Wizards", texts=ed.load_concept("Golf").texts), ed.load_concept("Tea", data=authors)):
        assert concept.retain_texts == concept.neutral_texts and len(concept.fluency_texts["test"]) == 40


@pytest.fixture
def authors(tmp_path):
    """A folder in the form of the authors' published files, with made-up content."""
    row = {"q": "What is tea?", "correct_answer": "A drink", "options": ["A drink", "A hat", "A song", "A boat"]}
    keys = ("QA_train", "QA_test", "SimdomQA_train", "SimdomQA_test")
    files = {
        "concept_sentences": [{"concept": "Tea", "sentences": ["Tea is a drink.", "Tea is hot."]}],
        "neutral_sentences": [{"url": "u", "title": "t", "sentence": "It rains."}],
        "mc_questions": {"Tea": {key: [row] for key in keys}},
        "open_questions": {"Tea": {key: [{"q": row["q"], "a": "A drink"}] for key in keys}},
        "relearn_paragraphs": {"Tea": {"RelearnParagraphs": ["Tea comes from leaves."]}},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_the_authors_files_are_read(authors):
    concept = ed.load_concept("tea", data=authors)
    assert len(concept.texts) == 2 and concept.neutral_texts == ["It rains."] and concept.paragraphs == ["Tea comes from leaves."]
    question = concept.select("concept", "test")[0]
    assert question.answer == "A drink" and set(question.wrong) == {"A hat", "A song", "A boat"}
    assert concept.select("similar", "test") and concept.select("concept", "validation")


@pytest.mark.parametrize("damage, says", [("missing", "missing"), ("not json", "not JSON"), ("other form", "authors' form")])
def test_damaged_files_say_what_is_wrong(authors, damage, says):
    path = authors / "open_questions.json"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("{" if damage == "not json" else "{}")
    with pytest.raises(ed.ConceptError, match=says):
        ed.load_concept("Tea", data=authors)


@pytest.mark.parametrize("content", ["[" * 100_000, "5", '{"a": 1}', '[{"x": 1}]', '[{"concept": 1, "sentences": []}]', "[]"])
@pytest.mark.parametrize("name", ["concept_sentences", "neutral_sentences", "open_questions", "mc_questions", "relearn_paragraphs"])
def test_files_of_another_shape_are_a_sentence(authors, name, content):
    (authors / f"{name}.json").write_text(content)
    with pytest.raises(ed.ConceptError) as caught:
        ed.load_concept("Tea", data=authors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", ["null", '"one text"', "[1, 2]"])
def test_texts_that_are_none_are_a_sentence(authors, texts):
    (authors / "relearn_paragraphs.json").write_text(f'{{"Tea": {{"RelearnParagraphs": {texts}}}}}')
    with pytest.raises(ed.ConceptError, match="authors' form"):
        ed.load_concept("Tea", data=authors)


def test_a_file_or_too_much_in_the_place_of_the_authors_folder_is_a_sentence(authors):
    path = authors / "concept_sentences.json"
    with pytest.raises(ed.ConceptError, match="wants a folder"):
        ed.load_concept("Tea", data=path)
    with open(path, "wb") as file:
        file.truncate(2_000_000_000)  # sparse: nothing is written
    with pytest.raises(ed.ConceptError, match="larger than 20 MB"):
        ed.load_concept("Tea", data=authors)


def test_a_concept_that_is_not_in_the_files_lists_theirs(authors):
    with pytest.raises(ed.ConceptError, match="Tea"):
        ed.load_concept("Coffee", data=authors)


def test_a_model_that_does_as_it_is_told_is_asked_for_few_words(model, monkeypatch):
    usual = ed.load_concept("Golf")
    assert ed.load_concept("Golf", model) == usual
    monkeypatch.setattr("ember_demo.evaluation.SMALL", 0)
    briefly = ed.load_concept("Golf", model)
    assert [q.text for q in briefly.questions] == [q.text + " Answer in a few words." for q in usual.questions]
    assert [q.fact for q in briefly.questions] == [q.fact for q in usual.questions] and briefly.texts == usual.texts
