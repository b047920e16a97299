"""Relearning: the attacks recover what was only hidden, measure the control alike, and leave the model as it was."""

import pytest

import ember_demo as ed
from ember_demo.attacks import ATTACKS
from tests.conftest import assert_same, snapshot


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_the_model_alone_reports_every_epoch_and_is_reproducible(name, model, concept, rmu_edit):
    before = snapshot(model)
    seen = []
    attack = ATTACKS[name](epochs=1, batch_size=16)
    first = attack.run(model, concept, rmu_edit, seed=3, progress=lambda f, m, **d: seen.append(d["accuracy"]) if "accuracy" in d else None)
    assert_same(model, before)
    assert seen == first.curve and len(first.curve) == 2
    assert attack.run(model, concept, rmu_edit, seed=3).curve == first.curve


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
        assert attack.threat_model and attack.description.endswith(".")


def test_what_cannot_be_attacked_is_an_error(model, concept):
    bare = ed.Concept("Bare", concept.texts, concept.neutral_texts)
    with pytest.raises(ed.ConceptError, match="test questions"):
        ed.attacks.Relearning().run(model, bare)
    bare = ed.Concept("Bare", concept.texts, concept.neutral_texts, concept.select("concept", "test"))
    with pytest.raises(ed.ConceptError, match="relearning-paragraphs"):
        ed.attacks.Relearning().run(model, bare)
