"""Relearning: the attacks recover what was only hidden, measure the control alike, and leave the model as it was."""

import itertools
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

import ember_demo as ed
from ember_demo.attacks import ATTACKS, THREATS, SoftPrompt
from ember_demo.attacks.asking import HINT
from ember_demo.attacks.lens import OWN_CHOICE
from ember_demo.attacks.quantization import eight_bit, four_bit
from ember_demo.attacks.suspects import differing, outliers, suspects
from ember_demo.concept import KINDS
from ember_demo.erasers import ERASERS
from ember_demo.evaluation import CHANCE, ask, share_right
from tests.checkpoints import build
from tests.conftest import assert_same, snapshot

FAST = {
    "relearning": {"epochs": 1, "batch_size": 16},
    "relearning-paragraphs": {"epochs": 1, "batch_size": 16},
    "relearning-neighbour": {"epochs": 1, "batch_size": 16},
    "relearning-unrelated": {"epochs": 1, "batch_size": 16},
    "relearning-rows": {"epochs": 1, "batch_size": 16},
    "relearning-sweep": {"epochs": 1, "batch_size": 16, "rates": (1.0, 3.0)},
    "outlier-reset": {"epochs": 1},
    "head-reset": {"epochs": 1},
    "base-reset": {"epochs": 1},
    "soft-prompt": {"epochs": 1, "batch_size": 16},
}
HERE = [name for name in ATTACKS if name != "rewording"]  # which takes a model that follows instructions


@pytest.fixture(scope="module")
def small(concept):
    """The concept with few questions of each split, all wordings of a fact together."""
    kept = []
    for kind, split in itertools.product(KINDS, ("relearn", "validation", "test")):
        questions = concept.select(kind, split)
        subjects = list(dict.fromkeys(q.subject for q in questions))[:6]
        kept += [q for q in questions if q.subject in subjects][:90]
    return replace(concept, questions=kept, paragraphs=concept.paragraphs[:10])


@pytest.fixture(scope="module")
def both_edit(model, ember_edit, rmu_edit):
    """EMBER's and RMU's changes together, so that every attack has something to undo."""
    return ember_edit + rmu_edit


@pytest.mark.parametrize("name", HERE)
def test_an_attack_leaves_the_model_alone_reports_every_point_and_is_reproducible(name, model, small, both_edit):
    before = snapshot(model)
    seen = []
    attack = ATTACKS[name](**FAST.get(name, {}))
    first = attack.run(model, small, both_edit, seed=3, progress=lambda f, m, **d: seen.append(d["accuracy"]) if "accuracy" in d else None)
    assert_same(model, before)
    assert seen == first.curve and len(first.curve) == len(first.steps) == attack.points
    assert attack.run(model, small, both_edit, seed=3).curve == first.curve
    assert 0 <= first.interval[0] <= first.after <= first.interval[1] <= 1


@pytest.mark.parametrize("name", HERE)
def test_an_attack_finds_the_same_where_layers_lie_on_different_devices(name, model, spread_model, small, both_edit):
    before, attack = snapshot(spread_model), ATTACKS[name](**FAST.get(name, {}))
    there, here = (attack.run(m, small, both_edit, seed=3) for m in (spread_model, model))
    assert_same(spread_model, before)
    assert there.curve == pytest.approx(here.curve, abs=0.1)  # devices round differently


@pytest.mark.parametrize("name", [name for name in HERE if name != "prompting"])  # its four options hold the right answer, as a hint
def test_an_attack_cannot_read_the_answers_that_score_it(name, model, small, both_edit):
    """With other reference answers to the test questions the model says the same under attack: nothing of them went into it."""

    def said(concept):
        result = ATTACKS[name](**FAST.get(name, {})).run(model, concept, both_edit, seed=3)
        return [r.text for r in result.replies]

    shuffled = [replace(q, answer="Nonsense", aliases=()) if q.kind == "concept" and q.split == "test" else q for q in small.questions]
    if name == "linear-probe":  # its replies are the options themselves
        shuffled = [replace(q, wrong=q.wrong[::-1]) if q.split == "test" else q for q in small.questions]
    assert said(replace(small, questions=shuffled)) == said(small)


@pytest.mark.parametrize("name", [name for name in HERE if name != "linear-probe"])  # a choice of four, of which some are right by chance
def test_on_a_model_that_never_learned_an_attack_gets_no_more_than_learning_explains(name, small):
    control = ed.load_control("Harry Potter")
    assert ATTACKS[name](**FAST.get(name, {})).run(control, small).after <= 0.25


def test_stopping_an_attack_restores_the_model(model, concept, rmu_edit):
    before = snapshot(model)

    def stop(fraction, message, **data):
        if fraction > 0.3:
            raise ed.Stopped("Stopped.")

    with pytest.raises(ed.Stopped):
        ed.attacks.Relearning(epochs=1).run(model, concept, rmu_edit, progress=stop)
    assert_same(model, before)


def test_weight_only_erasure_comes_back_from_other_facts_and_a_control_does_not(model, concept):
    edit = ed.RMU().fit(model, concept)
    attack = ed.attacks.Relearning(epochs=2)
    erased = attack.run(model, concept, edit)
    control = attack.run(ed.load_control("Harry Potter"), concept)
    assert erased.before < 0.4
    assert erased.after > erased.before + 0.3
    assert control.before <= 0.05 and control.after <= 0.2
    assert erased.interval[0] > control.interval[1]


def test_ember_first_keeps_clearly_more_erased(model, concept, ember_edit):
    attack = ed.attacks.Relearning(epochs=2)
    both = (ed.Ember(delta=5.0) + ed.RMU()).fit(model, concept)
    assert attack.run(model, concept, both).interval[1] < attack.run(model, concept, ed.RMU().fit(model, concept)).interval[0]


def test_attacks_say_what_they_hold():
    for attack in ATTACKS.values():
        assert attack.threat_model in THREATS and attack.description.endswith(".")


def test_what_cannot_be_attacked_is_an_error(model, concept):
    bare = ed.Concept("Bare", concept.texts, concept.neutral_texts)
    with pytest.raises(ed.ConceptError, match="test questions"):
        ed.attacks.Relearning().run(model, bare)
    bare = ed.Concept("Bare", concept.texts, concept.neutral_texts, concept.select("concept", "test"))
    with pytest.raises(ed.ConceptError, match="relearning-paragraphs"):
        ed.attacks.Relearning().run(model, bare)


@pytest.mark.parametrize("name", ["soft-prompt", "relearning-rows"])
def test_an_attack_that_trains_on_questions_refuses_where_there_are_none(name, model, small):
    bare = replace(small, questions=[q for q in small.questions if q.split != "relearn"])
    with pytest.raises(ed.ConceptError, match="no concept questions to relearn from"):
        ATTACKS[name]().run(model, bare)


def test_resets_retrain_every_variant_and_say_how(model, small, rmu_edit):
    """RMU leaves no row to reset; what comes back is the retraining's."""
    for name in ("outlier-reset", "head-reset", "base-reset"):
        result = ATTACKS[name](epochs=1, learning_rate=3e-4).run(model, small, rmu_edit)
        before, reset, after = result.curve
        assert result.found["rows"] == 0 and reset == before and after != before, name
        assert result.settings["learning_rate"] == 3e-4


def test_the_vectors_of_a_soft_prompt_are_trained(model, small, rmu_edit, monkeypatch):
    seen, trainable = [], SoftPrompt.trainable

    @contextmanager
    def watched(attack, model):
        with trainable(attack, model) as groups:
            seen.append((groups[0]["params"][0].detach().clone(), groups[0]["params"][0]))
            yield groups

    monkeypatch.setattr(SoftPrompt, "trainable", watched)
    result = SoftPrompt(epochs=1).run(model, small, rmu_edit)
    ((start, end),) = seen
    assert len(start) == 8 and ((end - start).norm(dim=1) > 0.03 * start.norm(dim=1)).all()
    assert {"made-up words", "asking plainly"} == set(result.found["on_validation"])


@pytest.mark.parametrize("family, precision", [("gemma3_text", "fp32"), ("llama", "4bit")])
def test_a_tokenizer_may_have_more_special_tokens_than_the_table_has_rows(family, precision, small, tmp_path):
    """As that of Gemma 3 has one for images."""
    build(family, tmp_path)
    model = ed.load_model(str(tmp_path), precision)
    model.chat("Hello.", max_new_tokens=2)
    model.tokenizer.add_special_tokens({"extra_special_tokens": ["<image_soft_token>"]})
    assert max(model.tokenizer.all_special_ids) == len(model.embeddings) and model.special_ids
    edit = ERASERS["random-tokens"](ed.Ember(rank=10, delta=5.0, max_iter=50, ratio=0.0, share=0.0)).fit(model, small)
    before = snapshot(model)
    for name in ("soft-prompt", "outlier-reset", "head-reset", "relearning-rows"):
        ATTACKS[name](epochs=1).run(model, small, edit)
        assert_same(model, before)


def test_rewording_takes_a_model_that_follows_instructions_and_asks_in_the_words_of_the_base_model(model, small, ember_edit, monkeypatch):
    attack = ATTACKS["rewording"]()
    with pytest.raises(ed.ModelError, match="too small"):
        attack.run(model, small, ember_edit)
    monkeypatch.setattr("ember_demo.attacks.asking.follows_instructions", lambda model: True)
    answers, spelled = type(model).answer, {q.text: f"{q.text} (described)" for q in small.questions}

    def answer(self, questions, *args, **settings):
        if not any("\n\n" in q for q in questions):
            return answers(self, [q.removesuffix(" (described)") for q in questions], *args, **settings)
        assert not self.applied_edits or torch.equal(self.embeddings, base)
        return [(spelled[q.split("\n\n")[1]] if q.startswith("Put this") else "", True) for q in questions]

    base = model.embeddings.detach().clone()
    monkeypatch.setattr(type(model), "answer", answer)
    result = attack.run(model, small, ember_edit)
    assert set(result.found["on_validation"]) == {"asking plainly", "in French", "in German", "in Spanish", "described"}
    assert result.after == result.before and torch.equal(model.embeddings, base)
    telling = {q.text: q.answer for q in small.questions}  # a rewording that holds the answer is not asked
    monkeypatch.setattr(type(model), "answer", lambda self, asked, *a, **k: [(telling.get(q.partition("\n\n")[2], q), True) for q in asked])
    assert attack.run(model, small, ember_edit).after == 0


def test_a_hint_is_given_only_beside_wrong_options_and_guessing_counts_as_nothing(model, small):
    attack = ATTACKS["prompting"]()
    bare = ed.Concept(small.name, small.texts, small.neutral_texts, [replace(q, wrong=()) for q in small.questions])
    assert HINT in attack.tricks(small) and HINT not in attack.tricks(bare)
    with pytest.MonkeyPatch.context() as patched:  # a model that knows nothing and takes the first option
        patched.setattr(type(model), "answer", lambda self, asked, *a, **k: [(q.split("Is it ")[-1].split(",")[0], True) for q in asked])
        result = attack.run(model, small)
    assert result.chance in (0.0, CHANCE) and result.after <= 0.2


def test_an_outlier_is_given_the_row_of_its_other_spelling(model):
    ids = model.tokenizer.get_vocab()  # in another order each time
    words = [token[1:] for token in sorted(ids) if token[0] == "\u0120" and token[1:].isalpha() and token[1:].islower()]
    in_capitals = {word for word in words if "\u0120" + word.upper() in ids}
    word = next(word for word in words if word not in in_capitals and "\u0120" + word.title() in ids)
    row, other = ids["\u0120" + word], ids["\u0120" + word.title()]
    with model.preserved([model.embedding_name]):
        with torch.no_grad():
            model.embeddings[row] *= 100
        rows, values = ATTACKS["outlier-reset"]().rows(model)[model.embedding_name]
        assert torch.equal(values[rows.tolist().index(row)], model.embeddings[other].float())


def test_a_reset_from_the_base_gives_ember_alone_back_and_the_head_keeps_a_copy(model, small, ember_edit):
    knew = share_right(ask(model, small.select("concept", "test")))
    for name in ("base-reset", "head-reset"):
        result = ATTACKS[name](epochs=0).run(model, small, ember_edit)
        assert result.before <= knew - 0.5 and result.after == pytest.approx(knew, abs=0.02), name
        assert result.found["rows"] == len(ember_edit.changes[model.embedding_name].rows)


def test_a_reset_needs_no_memory_to_retrain_in_and_says_where_it_did_not(model, small, ember_edit, monkeypatch):
    def refuse(attack, model):
        raise ed.ModelError("There is no room.")

    monkeypatch.setattr(ed.attacks.Relearning, "check", refuse)
    result = ATTACKS["head-reset"](epochs=1).run(model, small, ember_edit)
    assert len(result.curve) == 2 and result.after >= result.before + 0.5
    assert result.found["not_retrained"] == "There is no room."


def test_edited_rows_stand_out_by_their_norm_and_against_the_head(model, ember_edit):
    edited = set(ember_edit.changes[model.embedding_name].rows.tolist())
    assert not len(differing(model))
    with ember_edit.applied(model):
        assert set(suspects(model).tolist()) == edited
        far = set(outliers(model).tolist())
    assert len(far & edited) > 0.5 * len(edited)
    assert not far & set(model.tokenizer.all_special_ids)


def test_rounding_keeps_as_many_bits_as_it_says():
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    assert (eight_bit(weight) - weight).abs().max() <= weight.abs().max() / 254 * 1.001
    assert all(len(row.unique()) <= 16 for row in four_bit(weight).reshape(-1, 64))
    assert torch.equal(eight_bit(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_quantization_refuses_a_model_that_is_quantized(concept):
    with pytest.raises(ed.ModelError, match="4 bit already"):
        ATTACKS["quantization"]().run(ed.load_model("pocket", "4bit"), concept)


def test_the_strongest_attacker_is_chosen_on_the_validation_questions(model, small, rmu_edit):
    result = ATTACKS["relearning-sweep"](**FAST["relearning-sweep"]).run(model, small, rmu_edit)
    best = max(trial["on_validation"] for trial in result.found["trials"])
    assert {**result.found["chosen"], "on_validation": best} in result.found["trials"]
    assert result.after >= result.before
    usual = ATTACKS["relearning"](epochs=1).resolved(model).learning_rate
    everything = {t["learning_rate"] for t in result.found["trials"] if t["documents"] == len(small.select("concept", "relearn"))}
    assert usual in everything  # so that it holds plain relearning


def test_an_attacker_of_the_edited_rows_changes_no_other(model, small, ember_edit):
    attack = ATTACKS["relearning-rows"](epochs=1).resolved(model)
    edited = ember_edit.changes[model.embedding_name].rows
    with ember_edit.applied(model):
        before = model.embeddings.detach().clone()
        moved = []
        attack.train(model, attack.documents(model, small), 0, lambda *a, **k: None, lambda epoch: moved.append(model.embeddings != before))
    changed = moved[0].any(dim=1).nonzero().flatten()
    assert len(changed) and set(changed.tolist()) <= set(edited.tolist())


def test_a_probe_reads_what_the_model_knows_and_finds_nothing_in_one_that_never_learned(model, concept):
    knows = ATTACKS["linear-probe"]().run(model, concept)
    never = ATTACKS["linear-probe"]().run(ed.load_control("Harry Potter"), concept)
    assert knows.after > 0.5 > never.after
    assert OWN_CHOICE in knows.found["on_validation"] and knows.steps[0] == OWN_CHOICE
