"""Where the knowledge lives, and what an edit does to words."""

import pytest
import torch

import ember_demo as ed
from ember_demo.understanding import PLACES, causal_trace, everyday_words, is_generic, traceable, what_changed


@pytest.fixture(scope="module")
def trace(model, concept):
    return causal_trace(model, concept, count=12)


def test_a_trace_covers_every_layer_and_place_and_leaves_the_model_alone(model, concept, trace, untouched):
    again = causal_trace(model, concept, count=12)
    assert again == trace
    assert len(trace.restored) == len(model.layers) + 1 and all(len(row) == len(PLACES) for row in trace.restored)


def test_noise_on_the_subject_loses_the_answer_and_putting_its_embeddings_back_brings_it_back(trace):
    assert trace.known > 0.7 and trace.corrupted < 0.5 * trace.known
    assert trace.restored[0][0] == pytest.approx(1.0, abs=1e-3)  # the very noise taken away
    assert trace.restored[0][1] == pytest.approx(0.0, abs=1e-3)  # no noise there
    assert trace.restored[-1][2] == pytest.approx(1.0, abs=0.25)  # at the end the last word holds (nearly) all


def test_without_the_subjects_words_the_answers_are_lost_and_the_trace_asks_no_test_question(trace, concept):
    assert trace.without_words < 0.5 * trace.known and trace.without_mlps < trace.known
    subjects = {q.subject for q in concept.select("concept", "test")}
    assert not subjects & {q.subject for q in traceable(concept)}


def test_probabilities_of_a_batch_are_those_of_single_questions(model, concept):
    from ember_demo.understanding import _Batch

    questions = traceable(concept)[:5]
    with torch.inference_mode():
        together = _Batch(model, questions).probability()
    alone = []
    for q in questions:
        context, ending = model.dialogue(q.text, q.answer)
        sums, counts = model.log_likelihood([context], [ending[: ending.index(q.answer) + len(q.answer)]])
        alone.append((sums / counts).exp().item())
    assert together == pytest.approx(sum(alone) / 5, abs=1e-3)


def test_what_cannot_be_traced_says_so(model, concept):
    with pytest.raises(ed.ConceptError, match="name their subject"):
        causal_trace(model, ed.Concept("Bare", concept.texts, concept.neutral_texts))


def test_every_edited_token_is_listed_with_its_neighbours(model, concept, ember_edit, untouched):
    rows = what_changed(model, concept, ember_edit)
    change = ember_edit.changes[model.embedding_name]
    assert {row["id"] for row in rows} == set(change.rows.tolist())
    assert [row["relative_change"] for row in rows] == sorted((row["relative_change"] for row in rows), reverse=True)
    row, table = rows[0], model.embeddings.detach().float()
    likeness = torch.nn.functional.cosine_similarity(table[row["id"]][None], table, dim=1)
    likeness[row["id"]] = -2
    assert row["before"] == [model.tokenizer.decode([i]).strip() for i in likeness.topk(5).indices.tolist()]
    moved = sum(set(row["before"]) != set(row["after"]) for row in rows)
    assert moved > 0.9 * len(rows)  # five times the concept's part taken away: hardly a word stays among its neighbours
    with ember_edit.applied(model):
        assert what_changed(model, concept, ember_edit) == rows


def test_generic_words_are_told_from_names(concept):
    common = everyday_words(concept)
    assert all(is_generic(word, common) for word in ("the", "Of", "9", "-", "a"))
    assert not any(is_generic(word, common) for word in ("Hogwarts", "Quidditch", "Dumbledore"))


def test_words_that_are_struck_out_are_left_alone_and_the_rest_is_refitted(model, concept, ember_edit):
    words = [row["token"] for row in what_changed(model, concept, ember_edit)][:3]
    edit = ed.Ember(delta=5.0, keep=(words[0].upper(), *words[1:])).fit(model, concept)
    left = {row["token"].lower() for row in what_changed(model, concept, edit)}
    assert left and not left & {w.lower() for w in words}
    with pytest.raises(ed.ConceptError, match="struck out"):
        ed.Ember(delta=5.0, keep=tuple(row["token"] for row in what_changed(model, concept, ember_edit))).fit(model, concept)
