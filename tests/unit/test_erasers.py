"""What every eraser promises, and what EMBER does to which tokens."""

import pytest
import torch

import ember_demo as ed
from ember_demo.erasers import ERASERS
from tests.conftest import assert_same, snapshot, tensors

FAST = {"ember": lambda: ed.Ember(delta=2.0, max_iter=30), "rmu": lambda: ed.RMU(steps=3)}


@pytest.mark.parametrize("name", ERASERS)
def test_fitting_leaves_the_model_alone_and_is_reproducible(name, model, concept):
    before = snapshot(model)
    first, again = (FAST[name]().fit(model, concept, seed=1) for _ in range(2))
    assert_same(model, before)
    assert first.changes.keys() == again.changes.keys()
    for key, change in first.changes.items():
        assert torch.equal(change.delta, again.changes[key].delta)


@pytest.mark.parametrize("name", ERASERS)
def test_a_stop_from_outside_restores_the_model(name, model, concept):
    before = snapshot(model)

    def stop(fraction, message, **data):
        if fraction > 0:
            raise ed.Stopped("Stopped.")

    with pytest.raises(ed.Stopped):
        FAST[name]().fit(model, concept, progress=stop)
    assert_same(model, before)


@pytest.mark.parametrize("name", ERASERS)
def test_every_eraser_says_what_it_is(name):
    eraser = ERASERS[name]
    assert eraser.name == name and len(eraser.touches) > 10 and eraser.description.endswith(".")


def test_with_delta_0_nothing_changes(model, concept):
    before = snapshot(model)
    with ed.Ember(delta=0.0, max_iter=30).fit(model, concept).applied(model):
        after = tensors(model)
        assert all(torch.equal(after[n], before[n]) for n in before)


def test_ember_edits_concept_only_tokens_with_a_chosen_feature_and_no_other(model, concept):
    ember = ed.Ember(delta=3.0, max_iter=60)
    features = ember.find_features(model, concept)
    edit = ember.edit(model, concept, features)
    rows = set(edit.changes[model.embedding_name].rows.tolist())
    assert rows == set(features.token_ids[features.edited].tolist())
    neutral = {i for ids in model.tokenizer(concept.neutral_texts, add_special_tokens=False)["input_ids"] for i in ids}
    assert rows and not rows & neutral
    assert not rows & set(model.tokenizer.all_special_ids)


def test_ember_follows_its_equation(model, concept):
    """e_i <- e_i - delta F_S G[i, S]^T, on scaled embeddings (Gemma multiplies by sqrt(d))."""
    ember = ed.Ember(delta=3.0, max_iter=60)
    features = ember.find_features(model, concept)
    change = ember.edit(model, concept, features).changes[model.embedding_name]
    row = int(features.edited.nonzero()[0][0])
    expected = sum(features.activations[row, k] * torch.tensor(features.directions[k]) for k in features.chosen)
    assert model.embedding_scale == pytest.approx(model.embeddings.shape[1] ** 0.5)
    assert torch.allclose(change.delta[0] * model.embedding_scale, -3.0 * expected, atol=1e-4)


def test_features_are_chosen_by_ratio_and_share(model, concept):
    ember = ed.Ember(max_iter=60)
    for feature in ember.find_features(model, concept).features:
        assert feature.chosen == (feature.ratio >= ember.ratio and feature.share >= ember.share)


def test_delta_is_chosen_on_validation_questions_within_the_limits(model, concept):
    edit = ed.Ember(max_iter=200).fit(model, concept)
    trials = edit.details["delta_trials"]
    assert [t["delta"] for t in trials] == [0.5, 1, 2, 5, 10, 50, 100, 200]
    allowed = [t for t in trials if t["within_limits"]]
    best = max(t["overall"] for t in allowed)
    assert edit.details["settings"]["ember"]["delta"] == min(t["delta"] for t in allowed if t["overall"] == best)


def test_too_few_texts_are_an_error_and_not_a_weak_edit(model, concept):
    poor = ed.Concept("Nothing much", ["A quiet day."], concept.neutral_texts)
    with pytest.raises(ed.ConceptError, match="Add texts"):
        ed.Ember(delta=5.0).fit(model, poor)


def test_rmu_makes_concept_states_move_and_holds_the_others(model, concept, rmu_edit):
    from ember_demo.hidden import hidden_states

    layer = rmu_edit.details["settings"]["rmu"]["layer"]

    def moved(texts):
        with torch.no_grad():
            before, mask = hidden_states(model, texts, layer)
            with rmu_edit.applied(model):
                after, _ = hidden_states(model, texts, layer)
        return (after - before)[mask].norm(dim=-1).mean().item()

    assert moved(concept.texts[:20]) > 3 * moved(concept.neutral_texts[:20])


def test_composition_is_one_after_the_other(model, concept, ember_edit):
    composed = (ed.Ember(delta=5.0) + ed.RMU(steps=3)).fit(model, concept)
    alone = ember_edit.changes[model.embedding_name]
    assert torch.equal(composed.changes[model.embedding_name].delta, alone.delta)
    assert len(composed.changes) == 4
