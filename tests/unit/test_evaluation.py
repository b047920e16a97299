"""The metrics mean what they say."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import ember_demo as ed
from ember_demo.errors import Stopped
from ember_demo.evaluation import _likeliest, ask, forget_quality, harmonic_mean, kept_fraction, kept_fraction_of_choices, normalise, wilson


@pytest.mark.parametrize(
    "left, right",
    [("The Eagle.", "eagle"), ("J. K. Rowling", "j k  rowling"), ("Jørn", "jørn"), ("a café", "cafe"), ("Nazgûl", "nazgul")],
)
def test_normalising_ignores_case_articles_accents_and_punctuation(left, right):
    assert normalise(left) == normalise(right)


def test_normalising_keeps_what_matters():
    assert normalise("U-235") != normalise("U-238")
    assert normalise("The A-team") == "team"
    assert normalise("...") == ""


@pytest.mark.parametrize(
    "said, right",
    [
        ("Au", True),
        ("The symbol of gold is Au.", True),
        ("The answer is Au.", True),
        ("Au is the symbol of gold.", True),
        ("The symbol of gold is not Au.", False),
        ("The symbol of gold is Ag.", False),
        ("Au, Ag or Fe", False),
        ("The symbol of gold", False),
        ("", False),
    ],
)
def test_an_answer_may_repeat_the_question_around_it_and_nothing_else(said, right):
    model = SimpleNamespace(answer=lambda texts, **_: [(said, True) for _ in texts])
    (reply,) = ask(model, [ed.Question("What is the symbol of gold?", "Au")])
    assert reply.right == right
    assert reply.valid == bool(said)


@pytest.mark.parametrize(
    "question, answer, said",
    [
        ("Which river flows through London?", "River Thames", "The river that flows through London is the River Thames."),
        ("Which novel is by Jack Kerouac?", "On the Road", "The novel by Jack Kerouac is On the Road."),
        ("Which vitamin is in carrots?", "A", "A."),
    ],
)
def test_a_right_answer_of_the_questions_own_words_counts_and_silence_does_not(question, answer, said):
    for text, right in ((said, True), (answer, True), ("", False), ("It is.", False)):
        (reply,) = ask(SimpleNamespace(answer=lambda texts, **_: [(text, True)]), [ed.Question(question, answer)])
        assert reply.right == right, text


def test_a_question_put_in_other_words_is_graded_by_its_own():
    model = SimpleNamespace(answer=lambda texts, **_: [("It is Paris.", True) for text in texts if "Berlin" in text])
    question = ed.Question("What is the capital of France?", "Paris")
    (reply,) = ask(model, [question], ["What is the capital of France? Is it Rome, Paris, Berlin, Madrid?"])
    assert reply.right and reply.question == question


def test_chance_is_worth_nothing_and_more_than_the_base_no_more_than_all():
    assert kept_fraction_of_choices(0.25, 0.9) == 0
    assert kept_fraction_of_choices(0.1, 0.9) == 0
    assert kept_fraction_of_choices(0.9, 0.9) == 1
    assert kept_fraction(0.95, 0.9) == 1
    assert kept_fraction(0.45, 0.9) == 0.5


def test_harmonic_mean_is_zero_where_a_part_is():
    assert harmonic_mean([1, 0, 1]) == 0
    assert harmonic_mean([0.5, 1]) == pytest.approx(2 / 3)


def test_wilson_agrees_with_the_textbook_and_never_pretends_certainty():
    assert wilson(0.5, 100) == pytest.approx([0.4038, 0.5962], abs=1e-3)
    low, high = wilson(0.0, 50)
    assert low == 0 and 0.05 < high < 0.1


def test_an_unedited_model_scores_itself(model, concept):
    scores = ed.evaluate(model, concept)
    assert scores.efficacy == 0 and scores.specificity == 1 and scores.coherence == pytest.approx(1)
    assert scores.derived["coherence"] == pytest.approx([1, 1])
    assert scores.accuracy["concept"] >= 0.9
    assert scores.choice_accuracy["concept"] >= 0.9
    assert scores.interval["concept"][0] <= scores.accuracy["concept"] <= scores.interval["concept"][1]


def test_scoring_tells_how_far_it_is_and_can_be_stopped_between_batches(model, concept, ember_edit, untouched):
    told = []
    ed.evaluate(model, concept, progress=lambda fraction, message, **_: told.append((fraction, message)))
    assert told == sorted(told, key=lambda each: each[0]) and len(told) > 10
    assert {message for _, message in told} == {"Asking the questions", "Offering four options", "Measuring fluency"}

    def stop(fraction, message, **data):
        if fraction > 0.3:
            raise Stopped("Stopped.")

    with pytest.raises(Stopped), ember_edit.applied(model):
        ed.evaluate(model, concept, base=object(), progress=stop)


def test_an_edited_model_is_scored_against_its_base_and_stays_edited(model, concept, ember_edit, untouched):
    with ember_edit.applied(model):
        scores = ed.evaluate(model, concept, split="validation")
        assert [e for e, _ in model.applied_edits] == [ember_edit]
    assert scores.efficacy > 0.3
    for figure in ("efficacy", "specificity", "coherence"):
        low, high = scores.derived[figure]
        assert low <= getattr(scores, figure) <= high
    assert scores.derived["coherence"][0] < scores.derived["coherence"][1]


def test_answers_in_a_batch_are_those_given_alone(model, concept):
    questions = concept.select("general", "test")[:12]
    together = [r.text for r in ask(model, questions)]
    assert together == [model.chat(q.text, max_new_tokens=16) for q in questions]


def test_an_answer_without_an_end_is_invalid(model, concept):
    question = ed.Question("What is Hogwarts?", "school")
    assert ask(model, [question])[0].valid
    ((text, finished),) = model.answer([question.text], max_new_tokens=1)
    assert text and not finished


def test_answers_that_cannot_be_read_are_counted_by_kind(model, concept, monkeypatch):
    asked = [concept.select(kind, "test")[0] for kind in ("concept", "similar", "general")]
    few = replace(concept, questions=[asked[0], *asked])
    monkeypatch.setattr(model, "answer", lambda texts, **_: [("", False)] + [("an answer", True)] * (len(texts) - 1))
    scores = ed.evaluate(model, few, multiple_choice=False).as_dict()
    assert [scores[f"{kind}invalid_rate"] for kind in ("", "concept_", "similar_", "general_")] == [0.25, 0.5, 0, 0]


def test_a_right_answer_among_other_words_counts_as_wrong_and_is_told(model, concept, monkeypatch):
    asked = [replace(q, aliases=()) for q in concept.select("concept", "test")[:4]]
    said = [asked[0].answer, f"{asked[1].answer} country", "something else", f"{asked[3].answer} " * 8]
    few = replace(concept, questions=[*asked, *concept.select("general", "test")[:1]])
    monkeypatch.setattr(model, "answer", lambda texts, **_: [*zip(said, (True, True, True, False)), ("no", True)])
    scores = ed.evaluate(model, few, multiple_choice=False).as_dict()
    assert (scores["concept_accuracy"], scores["concept_mention_rate"], scores["general_mention_rate"]) == (0.25, 0.75, 0)


def test_what_was_not_asked_is_not_measured(model, concept, ember_edit):
    alone = replace(concept, questions=concept.select("concept", "test")[:40])
    with ember_edit.applied(model):
        scores = ed.evaluate(model, alone, multiple_choice=False)
    assert scores.specificity is None and list(scores.derived) == ["efficacy", "coherence"]
    assert scores.overall == pytest.approx(harmonic_mean([scores.efficacy, scores.coherence]))


def test_no_questions_is_an_error(model, concept):
    with pytest.raises(ed.ConceptError, match="questions"):
        ed.evaluate(model, ed.Concept("Bare", concept.texts, concept.neutral_texts))


def test_forget_quality_is_1_for_the_control_itself_and_near_0_for_a_model_that_knows(model, concept):
    control = ed.evaluate(ed.load_control("Harry Potter"), concept)
    knows = ed.evaluate(model, concept)
    assert forget_quality(control, control) == pytest.approx(1.0)
    assert forget_quality(knows, control) < 0.01
    assert forget_quality(ed.evaluate(model, concept, multiple_choice=False), control) is None


def test_truth_ratios_and_model_utility_follow_tofu(model, concept):
    scores = ed.evaluate(model, concept)
    facts = {q.fact: q for q in reversed(concept.select("concept", "test"))}
    question = list(facts.values())[3]
    context, _ = model.dialogue(question.text, question.answer)
    likelihood = []
    for option in (question.answer, *question.wrong):
        ending = model.dialogue(question.text, option)[1]
        sums, counts = model.log_likelihood([context], [ending[: ending.index(option) + len(option)]])
        likelihood.append((sums / counts).exp().item())
    assert scores.truth_ratios["concept"][3] == pytest.approx(sum(likelihood[1:]) / 3 / likelihood[0], rel=1e-3)
    parts = []
    for kind in ("similar", "general"):
        ratios = scores.truth_ratios[kind]
        parts += [scores.accuracy[kind], scores.answer_probability[kind], sum(max(0, 1 - r) for r in ratios) / len(ratios)]
    assert scores.model_utility == pytest.approx(len(parts) / sum(1 / p for p in parts))


def test_among_options_a_tie_or_no_number_is_no_right_answer():
    question = ed.Question("Who?", "Ann", wrong=("Bob", "Cy", "Di"))
    options = [[-1.0, -2, -2, -2], [-1.0, -1, -2, -2], [float("nan")] * 4, [-2.0, -1, -2, -2]]
    assert [right for _, right in _likeliest([question] * 4, torch.tensor(options))] == [True, False, False, False]
