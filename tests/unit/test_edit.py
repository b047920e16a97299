"""An edit is a value: it goes on, comes off bit for bit, adds up, travels as a file."""

import json

import pytest
import torch
from safetensors.torch import save_file

import ember_demo as ed
from ember_demo.edit import Change, WeightEdit
from ember_demo.erasers import extend
from tests.conftest import assert_same, snapshot, tensors


@pytest.fixture(params=["ember", "rmu", "ember+rmu"])
def edit(request, model, concept, ember_edit, rmu_edit):
    if request.param == "ember+rmu":
        return extend(ember_edit, ed.RMU(steps=5), model, concept)
    return {"ember": ember_edit, "rmu": rmu_edit}[request.param]


def test_revert_restores_every_tensor_bit_for_bit(model, edit):
    before = snapshot(model)
    edit.apply(model)
    assert any(not torch.equal(t, before[n]) for n, t in tensors(model).items() if n in before)
    edit.revert(model)
    assert_same(model, before)


def test_the_model_is_restored_when_the_block_fails(model, edit, untouched):
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        1 / 0


def test_whatever_is_done_to_other_weights_in_the_block_is_undone(model, edit, untouched):
    with torch.no_grad(), edit.applied(model):
        for tensor in tensors(model).values():
            tensor.add_(1)


def test_an_edit_goes_on_once_and_only_the_very_one_comes_off(model, ember_edit, untouched, tmp_path):
    ember_edit.save(tmp_path / "edit.safetensors")
    with ember_edit.applied(model):
        with pytest.raises(ed.EditError, match="already"):
            ember_edit.apply(model)
        with pytest.raises(ed.EditError, match="the very edit"):
            ed.WeightEdit.load(tmp_path / "edit.safetensors").revert(model)
    assert len(repr(ember_edit)) < 200


def test_nested_edits_come_off_in_reverse_order(model, ember_edit, rmu_edit, untouched):
    with ember_edit.applied(model):
        inside = snapshot(model)
        with rmu_edit.applied(model):
            pass
        assert all(torch.equal(t, inside[n]) for n, t in tensors(model).items())
        rmu_edit.apply(model)
        with pytest.raises(ed.EditError):
            ember_edit.revert(model)


def test_an_embedding_edit_leaves_the_output_head_alone(model, ember_edit, untouched):
    head = model.network.get_output_embeddings().weight.clone()
    with ember_edit.applied(model):
        assert torch.equal(model.network.get_output_embeddings().weight, head)
        assert not torch.equal(model.embeddings, head)


def test_it_touches_only_what_it_says(model, ember_edit, rmu_edit):
    assert list(ember_edit.changes) == [model.embedding_name]
    assert len(rmu_edit.changes) == 3 and all(name.endswith("mlp.down_proj.weight") for name in rmu_edit.changes)


def test_edits_add_up(model, ember_edit, rmu_edit, untouched):
    with ember_edit.applied(model), rmu_edit.applied(model):
        both = snapshot(model)
    with (ember_edit + rmu_edit).applied(model):
        assert all(torch.equal(t, both[n]) for n, t in tensors(model).items())


def test_a_sum_keeps_the_settings_of_both(ember_edit, rmu_edit):
    details = (ember_edit + rmu_edit).details
    assert details["settings"] == ember_edit.details["settings"] | rmu_edit.details["settings"]
    assert details["features"] == ember_edit.details["features"]


@pytest.mark.parametrize("sparse", [(True, True), (True, False), (False, True), (False, False)])
def test_changes_add_like_matrices(sparse):
    a = Change(torch.ones(2, 3), torch.tensor([1, 4])) if sparse[0] else Change(torch.ones(6, 3))
    b = Change(2 * torch.ones(2, 3), torch.tensor([4, 5])) if sparse[1] else Change(2 * torch.ones(6, 3))
    assert torch.equal((a + b).dense((6, 3)), a.dense((6, 3)) + b.dense((6, 3)))


def test_it_survives_a_file(model, edit, tmp_path, untouched):
    edit.save(tmp_path / "edit.safetensors")
    loaded = WeightEdit.load(tmp_path / "edit.safetensors")
    with edit.applied(model):
        expected = snapshot(model)
    with loaded.applied(model):
        assert all(torch.equal(t, expected[n]) for n, t in tensors(model).items())
    assert loaded.details == json.loads(json.dumps(edit.details))


def test_an_edit_of_another_model_is_refused(model, ember_edit, untouched):
    control = ed.load_control("Harry Potter")
    with pytest.raises(ed.EditError, match="other weights"):
        ember_edit.apply(control)
    with pytest.raises(ed.EditError, match="different base"):
        ember_edit + WeightEdit({}, control.fingerprint)


def test_a_row_of_the_words_that_differs_makes_it_another_model(model, untouched):
    for row in (0, 1, len(model.embeddings) // 2 + 1, len(model.embeddings) - 1):
        edit = WeightEdit({model.embedding_name: Change(torch.ones(1, model.embeddings.shape[1]), torch.tensor([row]))}, model.fingerprint)
        with edit.applied(model):
            assert model._fingerprint() != model.fingerprint


def test_a_damaged_or_foreign_file_is_refused(ember_edit, tmp_path):
    whole = tmp_path / "edit.safetensors"
    ember_edit.save(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "text.safetensors").write_text("not an edit")
    save_file({"x": torch.ones(1)}, tmp_path / "foreign.safetensors")
    save_file({}, tmp_path / "nested.safetensors", {"fingerprint": "", "details": "[" * 100_000})
    for name in ("cut", "text", "foreign", "nested"):
        with pytest.raises(ed.EditError, match="not an edit|damaged"):
            WeightEdit.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(ed.EditError, match="no edit file"):
        WeightEdit.load(tmp_path / "missing.safetensors")
