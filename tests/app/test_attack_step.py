"""Step 5: attacks, what they report, and the weights that they leave."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import ember_demo as ed
from ember_demo.attacks import Relearning
from ember_demo.attacks.base import AttackResult
from ember_demo.progress import silent
from ember_demo.ui import attack_step, compare_step, verdict
from ember_demo.ui.session import shared_model
from tests.app.conftest import answers
from tests.conftest import assert_same, snapshot


def test_an_attack_reports_each_epoch_of_each_model_and_leaves_them_to_be_talked_to(erased):
    client, _ = erased
    before = snapshot(shared_model("pocket", "auto"))
    updates = list(client.submit(["relearning"], "relearning.epochs=1", api_name="/attack"))
    assert_same(shared_model("pocket", "auto"), before)
    status, _, table, _ = updates[-1]
    assert "attack is over" in status and "Never learned it" in table
    assert any("epoch" in update[0] for update in updates)
    question = next(q for q in ed.load_concept("Harry Potter").select("concept", "relearn"))
    shown = client.predict(question.text, ["rmu", "rmu after relearning"], False, api_name="/ask")
    assert list(answers(shown)) == ["Baseline (RMU)", "Baseline (RMU), after relearning"]
    assert_same(shared_model("pocket", "auto"), before)


def test_a_cancelled_attack_leaves_the_model_and_the_next_one_runs(erased):
    client, _ = erased
    before = snapshot(shared_model("pocket", "auto"))
    job = client.submit(["relearning"], "relearning.epochs=10", api_name="/attack")
    while not job.outputs():
        pass
    job.cancel()
    assert "attack is over" in client.predict(["quantization"], "", api_name="/attack")[0]
    assert_same(shared_model("pocket", "auto"), before)


def test_an_attack_that_is_stopped_keeps_the_one_before_it(erased):
    client, _ = erased
    assert "tick one" in client.predict([], "", api_name="/attack")[0]
    job = client.submit(["logit-lens", "relearning"], "relearning.epochs=10", api_name="/attack")
    while not any("Attack 2 of 2" in update[0] for update in job.outputs()):
        time.sleep(0.1)
    job.cancel()
    assert "logit-lens" in client.predict(["quantization"], "", api_name="/attack")[2]


def test_programs_can_run_the_attacks_of_every_attacker(erased):
    client, _ = erased
    updates = list(client.submit(["respelling", "quantization"], "", api_name="/attack"))
    assert any("Attack 2 of 2, Store its weights more coarsely (quantization)" in update[0] for update in updates)
    assert any("(quantization)</b>" in str(update[1]) for update in updates)
    status, _, table, _ = updates[-1]
    assert "attack is over" in status and "Spell names in other ways (respelling)" in table and "quantization" in table


def test_what_an_attack_left_can_be_gone(asked_in_step_4):
    session = replace(asked_in_step_4, attacked={"ember after x": ("ember", "x", "gone")})
    *_, (_, status, *_) = compare_step.ask(session, "Where is Hogwarts from?", ["ember after x"])
    assert "no longer kept" in status


def test_choices_among_options_are_marked_in_the_table_of_attacks(asked_in_step_4):
    chosen = AttackResult("linear-probe", {}, [0.2, 0.5], ["own", "layer 2"], [0.4, 0.6], [0.0, 0.0], chance=0.25)
    open_answers = replace(chosen, attack="relearning", chance=0.0)
    table = attack_step.result_table(
        replace(asked_in_step_4, results={"linear-probe": {"ember": chosen}, "relearning": {"ember": open_answers}})
    )
    assert (
        "20% → 50% *" in table.replace(attack_step.NO_BREAK, " ") and "guessing gets right is taken out" in table and table.count("*") == 2
    )
    assert "*" not in attack_step.result_table(replace(asked_in_step_4, results={"relearning": {"ember": open_answers}}))


def test_the_verdict_says_what_the_other_attacks_got():
    def rose(before, after, chance=0.0):
        return {"before": before, "after": after, "chance": chance}

    found = {"ember": rose(0.0, 0.1), "rmu": rose(0.1, 0.9), "control": rose(0.0, 0.0)}
    guessed = {"ember": rose(0.0, 0.4, 0.25)}
    said = verdict._others({"relearning": found, "linear-probe": guessed, "head-reset": found}, "head-reset")
    assert (
        "Of 2 attacks this one got most back" in said
        and "Retrain on facts: EMBER 1, Baseline (RMU) 9." in said
        and "inner states" not in said
        and "1 more counts choices among options" in said
    )
    nothing = {"ember": rose(0.1, 0.12)}
    assert "Of 2 attacks none got a tenth of the answers back" in verdict._others(
        {"relearning": nothing, "quantization": nothing}, "relearning"
    )
    assert verdict._others({"relearning": found}, "relearning") == ""


def test_of_attacked_models_those_of_the_latest_attack_are_ticked(asked_in_step_4):
    attacked = {f"ember after {name}": ("ember", name, "key") for name in ("relearning", "head-reset")}
    models, _ = compare_step.open_step(replace(asked_in_step_4, attacked=attacked))
    assert models["value"] == ["original", "ember", "control", "ember after head-reset"] and len(models["choices"]) == 5


@pytest.mark.parametrize("precision, talks", [("fp32", ["rmu"]), ("4bit", [])])
def test_weights_that_an_attack_left_are_kept_where_they_are_the_models_own(precision, talks, monkeypatch):
    """In 4 bit an attack leaves adapters and packed matrices, which no chat can take up."""
    network = torch.nn.Linear(2, 2)
    model = SimpleNamespace(parameter_count=6, precision=precision, network=network)
    attack = Relearning()

    def run_attack(chosen, model, concept, edits, seed, progress, scores):
        progress(1.0, "Trained", number=chosen.points - 1, variant="rmu", accuracy=1.0, step="epoch 3")

    monkeypatch.setattr(attack_step, "run_attack", run_attack)
    session = SimpleNamespace(model=model, edits={"rmu": "an edit"}, concept=None, seed=0, scores={})
    _, left, _ = attack_step._attacked(session, attack, silent)
    assert list(left) == talks
