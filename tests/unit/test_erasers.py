"""What every eraser promises, and what EMBER does to which tokens."""

import math

import pytest
import torch

import ember_demo as ed
from ember_demo.erasers import ERASERS, NPO, GradDiff, MeanRows, RandomDirection, RandomTokens, Removal, SimNPO, ZeroRows
from ember_demo.erasers.gradient import log_likelihoods, npo_loss, simnpo_loss
from tests.conftest import assert_same, snapshot, tensors

QUICK = ed.Ember(delta=2.0, max_iter=30)
FAST = {
    "ember": lambda: QUICK,
    "rmu": lambda: ed.RMU(steps=3),
    "graddiff": lambda: GradDiff(steps=2),
    "npo": lambda: NPO(steps=2),
    "simnpo": lambda: SimNPO(steps=2),
    "ember-delta-1": lambda: Removal(QUICK),
    "random-direction": lambda: RandomDirection(QUICK),
    "zero-rows": lambda: ZeroRows(QUICK),
    "mean-rows": lambda: MeanRows(QUICK),
    "random-tokens": lambda: RandomTokens(QUICK),
}


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


def test_losses_are_those_of_their_papers():
    sums, reference, counts = torch.tensor([-6.0, -2.0]), torch.tensor([-5.0, -3.0]), torch.tensor([3, 2])

    def log_sigmoid(x):
        return -math.log(1 + math.exp(-x))

    npo = sum(-(2 / 0.1) * log_sigmoid(-0.1 * (s - r)) for s, r in ((-6.0, -5.0), (-2.0, -3.0))) / 2
    assert npo_loss(sums, reference, 0.1).item() == pytest.approx(npo, rel=1e-5)
    simnpo = sum(-(2 / 4.5) * log_sigmoid(-(4.5 / n) * s - 0.5) for s, n in ((-6.0, 3), (-2.0, 2))) / 2
    assert simnpo_loss(sums, counts, 4.5, 0.5).item() == pytest.approx(simnpo, rel=1e-5)
    assert GradDiff(gamma=2.0).loss(sums, counts, reference).item() == pytest.approx(-2.0 * 8 / 5)


def test_likelihoods_with_gradient_are_those_without(model, concept):
    texts = concept.texts[:5]
    with torch.no_grad():
        sums, counts = log_likelihoods(model, texts)
    expected, tokens = model.log_likelihood([model.tokenizer.bos_token] * 5, [f" {t}" for t in texts])
    assert torch.allclose(sums, expected, atol=1e-2) and counts.tolist() == tokens.tolist()


def test_training_against_the_concept_makes_its_texts_unlikely_and_keeps_the_others(model, concept, untouched):
    def likelihood(texts):
        sums, counts = model.log_likelihood([model.tokenizer.bos_token] * len(texts), [f" {t}" for t in texts])
        return (sums.sum() / counts.sum()).item()

    before = likelihood(concept.texts[:40]), likelihood(concept.neutral_texts[:40])
    for eraser in (GradDiff(steps=15, learning_rate=1e-3), NPO(steps=15, learning_rate=1e-3), SimNPO(steps=15, learning_rate=1e-3)):
        with eraser.fit(model, concept).applied(model):
            fell = before[0] - likelihood(concept.texts[:40]), before[1] - likelihood(concept.neutral_texts[:40])
        assert fell[0] > 2 * max(0.1, fell[1]), eraser.name


def test_controls_change_as_much_as_ember_or_as_they_say(model, concept):
    ours = QUICK.fit(model, concept).changes[model.embedding_name]
    changes = {
        c.name: c(QUICK).fit(model, concept).changes[model.embedding_name] for c in (RandomDirection, ZeroRows, MeanRows, RandomTokens)
    }
    assert all(torch.equal(changes[name].rows, ours.rows) for name in ("random-direction", "zero-rows", "mean-rows"))
    assert torch.allclose(changes["random-direction"].delta.norm(dim=1), ours.delta.norm(dim=1), rtol=1e-4)
    table = model.embeddings.detach().float()
    assert torch.allclose(table[ours.rows] + changes["zero-rows"].delta, torch.zeros(1))
    assert torch.allclose(table[ours.rows] + changes["mean-rows"].delta, table.mean(dim=0), atol=1e-5)
    assert torch.equal(changes["random-tokens"].delta, ours.delta)
    assert not set(changes["random-tokens"].rows.tolist()) & set(ours.rows.tolist())
