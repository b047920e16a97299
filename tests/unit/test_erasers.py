"""What every eraser promises, and what EMBER does to which tokens."""

import math
from dataclasses import replace

import pytest
import torch

import ember_demo as ed
from ember_demo.erasers import ERASERS, NPO, SNMF, EmberHead, GradDiff, MeanRows, RandomDirection, RandomTokens, Removal, SimNPO, ZeroRows
from ember_demo.erasers.gradient import log_likelihoods, npo_loss, simnpo_loss
from ember_demo.erasers.snmf import heaviest
from ember_demo.erasers.training import retain_texts
from ember_demo.features import divide_tokens
from ember_demo.hidden import mlp_activations
from ember_demo.tuning import unedited, validate
from tests.checkpoints import build
from tests.conftest import assert_same, snapshot, tensors

QUICK = ed.Ember(delta=2.0, max_iter=30)
FAST = {
    "ember": lambda: QUICK,
    "rmu": lambda: ed.RMU(steps=3),
    "snmf": lambda: SNMF(rank=30, max_iter=10, ratio=1.2, max_tokens=2000),
    "graddiff": lambda: GradDiff(steps=2),
    "npo": lambda: NPO(steps=2),
    "simnpo": lambda: SimNPO(steps=2),
    "ember-head": lambda: EmberHead(QUICK),
    "ember-delta-1": lambda: Removal(QUICK),
    "random-direction": lambda: RandomDirection(QUICK),
    "zero-rows": lambda: ZeroRows(QUICK),
    "mean-rows": lambda: MeanRows(QUICK),
    "random-tokens": lambda: RandomTokens(QUICK),
}


@pytest.mark.parametrize("name", ERASERS)
def test_fitting_leaves_the_model_alone_and_what_it_finds_comes_back_again_and_from_its_file(name, model, concept, tmp_path):
    before = snapshot(model)
    first, again = (FAST[name]().fit(model, concept, seed=1) for _ in range(2))
    assert_same(model, before)
    first.save(tmp_path / "edit.safetensors")
    for other in (again, ed.WeightEdit.load(tmp_path / "edit.safetensors")):
        assert first.changes.keys() == other.changes.keys()
        for key, change in first.changes.items():
            assert torch.equal(change.delta, other.changes[key].delta)


@pytest.mark.parametrize("name", ERASERS)
def test_an_eraser_finds_the_same_where_layers_lie_on_different_devices(name, model, spread_model, concept):
    before = snapshot(spread_model)
    there, here = (FAST[name]().fit(m, concept, seed=1) for m in (spread_model, model))
    assert_same(spread_model, before)
    assert there.changes.keys() == here.changes.keys()
    for key, change in there.changes.items():
        found, expected = (torch.zeros(model.parameter(key).shape) for _ in range(2))
        for tensor, c in ((found, change), (expected, here.changes[key])):
            tensor[slice(None) if c.rows is None else c.rows.cpu()] = c.delta.float().cpu()
        assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.98  # devices round differently


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


@pytest.mark.parametrize(
    "eraser",
    [
        ed.Ember(delta=0.0, max_iter=30),
        ed.RMU(steps=0),
        SNMF(rank=30, max_iter=5, ratio=1.0, max_tokens=500, delta_in=0.0, delta_out=0.0),
        GradDiff(steps=0),
        NPO(steps=0),
        SimNPO(steps=0),
        RandomDirection(ed.Ember(delta=0.0, max_iter=30)),
        RandomTokens(ed.Ember(delta=0.0, max_iter=30)),
    ],
    ids=lambda eraser: eraser.name,
)
def test_with_delta_or_steps_0_nothing_changes(eraser, model, concept):
    before = snapshot(model)
    with eraser.fit(model, concept).applied(model):
        after = tensors(model)
        assert all(torch.equal(after[n], before[n]) for n in before)


TOUCHED = {
    "output head": ("embed_tokens", "lm_head"),
    "embeddings": ("embed_tokens",),
    "MLP output weights": ("down_proj",),
    "MLP input and output weights": ("down_proj", "up_proj"),
}


@pytest.mark.parametrize("name", ERASERS)
def test_only_what_an_eraser_says_it_touches_changes(name, model, concept):
    edit = FAST[name]().fit(model, concept)
    allowed = next(weights for words, weights in TOUCHED.items() if words in ERASERS[name].touches)
    assert edit.changes and all(any(f".{weight}." in f".{parameter}" for weight in allowed) for parameter in edit.changes)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The embedded model in 4 bit, and a random one whose output head is not tied to its embeddings."""
    folder = tmp_path_factory.mktemp("untied")
    torch.manual_seed(0)
    build("llama", folder)
    models = {"4bit": ed.load_model("pocket", "4bit"), "untied": ed.load_model(str(folder), "fp32")}
    for model in models.values():
        model.chat("Hello.", max_new_tokens=2)  # bitsandbytes may repack 4-bit weights for the CPU on the first pass
    return models


@pytest.mark.parametrize("which", ["4bit", "untied"])
@pytest.mark.parametrize("name", ERASERS)
def test_every_eraser_works_on_a_quantized_and_on_an_untied_model(name, which, others, concept):
    model, eraser = others[which], FAST[name]()
    if which == "untied":  # of random rows no feature is any concept's, and no question is known
        loose = {"ratio": 1.0} if hasattr(eraser, "ratio") else {}
        loose |= {"share": 0.2, "rank": 20} if hasattr(eraser, "share") else {}
        eraser = replace(eraser, **loose)
        if hasattr(eraser, "ember"):
            eraser = replace(eraser, ember=replace(QUICK, ratio=1.0, share=0.2, rank=20))
    before = snapshot(model)
    if which == "untied" and name == "ember-head":
        with pytest.raises(ed.ModelError, match="a table of its own"):
            eraser.fit(model, concept)
        return
    edit = eraser.fit(model, concept)
    assert_same(model, before)
    said = model.log_likelihood([model.prompt("Who is it?")], ["An owl"])[0]
    with edit.applied(model):
        changed = model.log_likelihood([model.prompt("Who is Harry Potter?")], ["An owl"])[0]
    assert_same(model, before)
    assert torch.isfinite(changed).all()
    assert torch.equal(model.log_likelihood([model.prompt("Who is it?")], ["An owl"])[0], said)


def test_two_edits_of_different_weights_add_up_in_either_order_and_of_the_same_as_sums(model, concept, ember_edit, rmu_edit, untouched):
    """Once fitted, edits are sums: their order does not matter. Fitting does: `A + B` fits B on what A has left."""
    one, other = ember_edit + rmu_edit, rmu_edit + ember_edit
    assert one.changes.keys() == other.changes.keys()
    assert all(torch.equal(one.changes[n].delta, other.changes[n].delta) for n in one.changes)
    fitted = (ed.RMU(steps=3) + QUICK).fit(model, concept), (QUICK + ed.RMU(steps=3)).fit(model, concept)
    assert torch.equal(*(edit.changes[model.embedding_name].delta for edit in fitted))  # EMBER looks at the embeddings alone
    assert not all(torch.equal(fitted[0].changes[n].delta, fitted[1].changes[n].delta) for n in rmu_edit.changes)


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


def test_with_the_output_head_edited_too_nothing_is_left_there_to_copy_back(model, concept, ember_edit):
    edit = EmberHead(ed.Ember(delta=5.0)).fit(model, concept)
    reset = ed.attacks.ATTACKS["head-reset"](epochs=0)
    assert reset.run(model, concept, ember_edit).after > 0.9
    result = reset.run(model, concept, edit)
    assert result.found["rows"] == 0 and result.after < 0.2
    assert ed.attacks.ATTACKS["base-reset"](epochs=0).run(model, concept, edit).after > 0.9  # whoever has the base model has both tables


def test_the_output_head_takes_a_strength_of_its_own_which_leaves_the_model_fluent(model, concept, ember_edit):
    given = EmberHead(ed.Ember(delta=5.0)).following(model, concept, ember_edit)
    chosen = EmberHead().following(model, concept, ember_edit)
    base = unedited(model, concept)
    assert not validate(model, concept, given, base)["within_limits"]
    assert validate(model, concept, chosen, base)["within_limits"]
    assert 0 < chosen.details["settings"]["ember-head"]["delta"] < 5


def test_nothing_is_trained_on_texts_that_fluency_is_measured_on(model, concept):
    own = ed.Concept("Wizards", concept.texts, concept.neutral_texts, concept.questions)  # measured on its neutral texts
    measured = {text for texts in own.fluency_texts.values() for text in texts}
    assert measured <= set(own.neutral_texts) and not measured & set(retain_texts(model, own))
    assert set(concept.neutral_texts) <= set(retain_texts(model, concept))  # a pack brings others
    token_ids, _, neutral_only = divide_tokens(model, own)  # so that EMBER can edit words of the measured texts
    retained = {i for ids in model.tokenizer(own.retain_texts, add_special_tokens=False)["input_ids"] for i in ids}
    assert set(token_ids[neutral_only].tolist()) <= retained


def test_few_neutral_texts_are_enough_to_retrain_on(model, concept):
    own = ed.Concept("Wizards", concept.texts, concept.neutral_texts[:60])
    assert ed.RMU(steps=2).fit(model, own).changes


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
    assert torch.allclose(sums.cpu(), expected, atol=1e-2) and counts.tolist() == tokens.tolist()


def test_training_against_the_concept_makes_its_texts_unlikely_and_keeps_the_others(model, concept, untouched):
    def likelihood(texts):
        sums, counts = model.log_likelihood([model.tokenizer.bos_token] * len(texts), [f" {t}" for t in texts])
        return (sums.sum() / counts.sum()).item()

    before = likelihood(concept.texts[:40]), likelihood(concept.neutral_texts[:40])
    for eraser in (GradDiff(steps=15, learning_rate=1e-3), NPO(steps=15, learning_rate=1e-3), SimNPO(steps=40, learning_rate=1e-3)):
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
    table = model.embeddings.detach().cpu()
    assert torch.allclose(table[ours.rows] + changes["zero-rows"].delta, torch.zeros(1))
    assert torch.allclose(table[ours.rows] + changes["mean-rows"].delta, table.mean(dim=0), atol=1e-5)
    assert torch.equal(changes["random-tokens"].delta, ours.delta)
    assert not set(changes["random-tokens"].rows.tolist()) & set(ours.rows.tolist())


def test_a_projection_follows_its_equations(model, concept):
    """W_down[:, I] -= delta f (f^T W_down[:, I]) and W_up[I, :] -= delta (W_up[I, :] f) f^T, one group of neurons at a time."""
    eraser = SNMF(rank=30, max_iter=20, ratio=1.2, max_tokens=2000, delta_in=2.0, delta_out=1.0, last_in=0.0, last_out=0.0)
    groups = eraser._groups(model, concept, 0, seed=0)
    down = model.parameter(model.mlp_outputs[0]).detach().cpu().double()
    up = model.parameter(model.mlp_inputs(0)[0]).detach().cpu().double()
    expected_down, expected_up = down.clone(), up.clone()
    for weights in groups:
        f = down @ weights.double()
        f = f / f.norm()
        for i in heaviest(weights, 0.95).tolist():
            expected_down[:, i] -= f * (f @ expected_down[:, i])
            expected_up[i] -= 2.0 * f * (f @ expected_up[i])
    changes = eraser.fit(model, concept, seed=0).changes
    assert groups and set(changes) == {model.mlp_outputs[0], model.mlp_inputs(0)[0]}
    assert torch.allclose(changes[model.mlp_outputs[0]].delta.double(), expected_down - down, atol=1e-5)
    assert torch.allclose(changes[model.mlp_inputs(0)[0]].delta.double(), expected_up - up, atol=1e-5)


def test_a_projection_edits_the_layers_that_are_named(model, concept):
    eraser = replace(FAST["snmf"](), layers_in="2-2", layers_out="1-2")
    changes = eraser.fit(model, concept, seed=1).changes
    assert set(changes) == {model.mlp_outputs[1], model.mlp_outputs[2], model.mlp_inputs(2)[0]}
    for wrong in ("2-1", "0-4", "1", "a-b", ""):
        with pytest.raises(ed.ModelError, match="such as 0-3"):
            replace(eraser, layers_out=wrong).fit(model, concept)


def test_a_projection_may_edit_only_what_goes_into_a_layer_of_a_quantized_model(others, concept):
    model = others["4bit"]
    changes = replace(FAST["snmf"](), layers_in="1-2", layers_out="2-2").fit(model, concept, seed=1).changes
    assert set(changes) == {model.mlp_outputs[2], model.mlp_inputs(1)[0], model.mlp_inputs(2)[0]}


def test_the_heaviest_neurons_are_the_fewest_that_hold_the_mass():
    assert heaviest(torch.tensor([0.0, -6.0, 3.0, 1.0]), 0.9).tolist() == [1, 2]
    assert heaviest(torch.tensor([0.0, -6.0, 3.0, 1.0]), 0.95).tolist() == [1, 2, 3]
    assert heaviest(torch.tensor([1.0, 0.0]), 0.95).tolist() == [0]


def test_neurons_are_read_where_the_output_weight_takes_them(model, concept):
    with torch.no_grad():
        activations, mask = mlp_activations(model, concept.texts[:2], 1)
        mlp = model.layers[1].mlp
        caught = []
        hook = mlp.register_forward_hook(lambda module, args, output: caught.append(output))
        model.network(**model.encode([model.tokenizer.bos_token + t for t in concept.texts[:2]], padding_side="right"))
        hook.remove()
    assert activations.shape[-1] == model.network.config.intermediate_size and mask.shape == activations.shape[:2]
    assert torch.allclose(activations @ model.parameter(model.mlp_outputs[1]).T, caught[0], atol=1e-4)
