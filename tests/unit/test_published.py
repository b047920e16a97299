"""The authors' published features: read without running anything in them."""

import csv
import os
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HTTPError

import ember_demo as ed
from ember_demo.features import divide_tokens
from ember_demo.presets import paper_grids, paper_settings
from ember_demo.published import CHOSEN, FACTORS, load_factors, read_published

PLACE = {"rank": 6, "seed": 42, "concept": "Harry_Potter"}


class Harmful:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def pickled(path, content, monkeypatch):
    """Pickle as the authors do: `nmf` is a torch module, of a class in a package that is not installed here, and its factors are parameters."""
    module = types.ModuleType("factorization.smf")
    module.SparseMatrixFactorization = type("SparseMatrixFactorization", (torch.nn.Module,), {"__module__": "factorization.smf"})
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "factorization", types.ModuleType("factorization"))
        patched.setitem(sys.modules, "factorization.smf", module)
        nmf = module.SparseMatrixFactorization()
        nmf.fitting_device = torch.device("cpu")
        for name, value in content.pop("nmf").items():
            setattr(nmf, name, torch.nn.Parameter(value))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps({"nmf": nmf, **content}))


@pytest.fixture
def published(tmp_path, model, concept, monkeypatch):
    """A folder laid out like their dataset, with six features for the embedded model of which numbers 1 and 4 were kept."""
    token_ids, _, _ = divide_tokens(model, concept)
    generator = torch.Generator().manual_seed(0)
    F, G = torch.randn(model.width, 6, generator=generator), torch.randn(len(token_ids), 6, generator=generator)
    pickled(tmp_path / "pocket" / FACTORS.format(**PLACE), {"nmf": {"F_": F, "G_": G}, "vprime_token_ids": token_ids.tolist()}, monkeypatch)
    table = tmp_path / "pocket" / CHOSEN.format(**PLACE)
    table.parent.mkdir(parents=True)
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["feature", "ratio_abs"], [1, 3.0], [4, 2.5], [5, 1.0]])
    return tmp_path, F, G


def test_published_features_make_the_edit(published, model, concept, untouched):
    folder, F, G = published
    edit = ed.Ember(rank=6, delta=2.0, published=str(folder)).fit(model, concept)
    token_ids, concept_only, _ = divide_tokens(model, concept)
    change = edit.changes[model.embedding_name]
    assert change.rows.tolist() == token_ids[concept_only].tolist()
    expected = -2.0 * G[torch.from_numpy(concept_only)][:, [1, 4]] @ F[:, [1, 4]].T / model.embedding_scale
    assert torch.allclose(change.delta, expected, atol=1e-4)


def test_features_for_another_model_or_rank_say_so(published, model, concept, monkeypatch):
    folder, _, _ = published
    with pytest.raises(ed.ConceptError, match="rank 7"):
        ed.Ember(rank=7, published=str(folder)).fit(model, concept)
    with pytest.raises(ed.ConceptError, match="neither a folder nor a dataset"):
        ed.Ember(rank=6, published=str(folder / "nowhere")).fit(model, concept)
    content = {"nmf": {"F_": torch.randn(5, 6), "G_": torch.randn(3, 6)}, "vprime_token_ids": [1, 2, 3]}
    pickled(folder / "pocket" / FACTORS.format(**PLACE), content, monkeypatch)
    with pytest.raises(ed.ConceptError, match="width 5"):
        ed.Ember(rank=6, published=str(folder)).fit(model, concept)


def test_a_harmful_pickle_runs_nothing(tmp_path):
    path, trace = tmp_path / "embedding.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"nmf": Harmful(trace), "vprime_token_ids": [1]}))
    with pytest.raises(ed.ConceptError, match="nothing in it was run"):
        load_factors(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the trap is a real one
    assert trace.exists()


def test_a_harmful_pickle_inside_a_tensor_runs_nothing(tmp_path):
    trace = tmp_path / "trace"
    hidden = pickle.dumps(Harmful(trace))

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (hidden,)

    path = tmp_path / "embedding.pkl"
    path.write_bytes(pickle.dumps({"nmf": Storage(), "vprime_token_ids": [1]}))
    with pytest.raises(ed.ConceptError):
        load_factors(path)
    assert not trace.exists()


def write_ids(folder, model, ids, monkeypatch):
    content = {"nmf": {"F_": torch.randn(model.width, 6), "G_": torch.randn(len(ids), 6)}, "vprime_token_ids": ids}
    pickled(folder / "pocket" / FACTORS.format(**PLACE), content, monkeypatch)


def test_a_forged_array_is_refused_unread(tmp_path):
    """An object array holds addresses: reading one that is made up ends the process."""
    path = tmp_path / "embedding.pkl"
    path.write_bytes(pickle.dumps({"nmf": 1, "vprime_token_ids": np.zeros(1, dtype=object)}))
    with pytest.raises(ed.ConceptError, match="asks for numpy"):
        load_factors(path)


@pytest.mark.parametrize("ids", [[], [-5, 1], [2**70, 1], [[1], [2]]])
def test_token_ids_that_cannot_be_say_so(ids, published, model, concept, monkeypatch):
    write_ids(published[0], model, ids, monkeypatch)
    with pytest.raises(ed.ConceptError, match="token ids"):
        ed.Ember(rank=6, published=str(published[0])).fit(model, concept)


@pytest.mark.parametrize("rows", [b"\xff,3\n", b"1" * 200_000 + b",3\n", b"inf,3\n", b"1e400,3\n", b"\n,", b"one,3\n"])
def test_a_damaged_table_of_features_says_so(rows, published, model, concept):
    (published[0] / "pocket" / CHOSEN.format(**PLACE)).write_bytes(b"feature,ratio_abs\n" + rows)
    with pytest.raises(ed.ConceptError, match="table of features"):
        ed.Ember(rank=6, published=str(published[0])).fit(model, concept)


def test_a_short_row_of_the_table_says_so(published, model, concept):
    (published[0] / "pocket" / CHOSEN.format(**PLACE)).write_bytes(b"ratio_abs,feature\n3.0\n")
    with pytest.raises(ed.ConceptError, match="table of features"):
        ed.Ember(rank=6, published=str(published[0])).fit(model, concept)


@pytest.mark.parametrize("error", [HTTPError("cut"), RuntimeError("storage"), OSError("disk")])
def test_a_download_that_fails_says_so(error, monkeypatch):
    monkeypatch.setattr("ember_demo.published.snapshot_download", Mock(side_effect=error))
    with pytest.raises(ed.ConceptError, match="connection"):
        read_published("ClSu/ember-features", "pocket", "Golf", 6)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"nmf": 1})])
def test_what_is_not_a_file_of_factors_says_so(content, tmp_path):
    path = Path(tmp_path / "embedding.pkl")
    path.write_bytes(content)
    with pytest.raises(ed.ConceptError, match="file of factors"):
        load_factors(path)


def test_the_preset_of_the_paper_has_its_numbers():
    settings = paper_settings(SimpleNamespace(width=2304, layers=range(26)))
    ember, relearning = settings["ember"], settings["relearning-paragraphs"]
    assert (ember.rank, ember.sparsity, ember.ratio, ember.delta) == (100, 0.01, 2.0, "auto")
    assert (relearning.epochs, relearning.learning_rate, relearning.batch_size, relearning.max_length) == (2, 1e-5, 1, 256)
    assert (settings["rmu"].layer, settings["rmu"].learning_rate, settings["rmu"].alpha, settings["rmu"].steering) == (7, 1e-4, 30.0, 100.0)
    snmf = settings["snmf"]
    assert (snmf.delta_in, snmf.delta_out, snmf.layers_in, snmf.layers_out) == (10.0, 1.0, "0-8", "0-8")
    llama = SimpleNamespace(width=4096, layers=range(32))
    assert paper_settings(llama)["ember"].rank == 200
    assert paper_grids(llama)["rmu"]["layer"] == (7, 9, 11) and paper_grids(llama)["snmf"]["layers_out"] == ("0-10", "11-21", "16-31")
    shallow = paper_grids(SimpleNamespace(width=64, layers=range(4)))
    assert "layer" not in shallow["rmu"] and list(shallow["snmf"]) == ["delta_in", "delta_out"]


def test_the_preset_suits_a_model_of_another_depth(model, concept, untouched):
    settings = paper_settings(model)
    assert replace(settings["rmu"], steps=1).fit(model, concept).changes
    with pytest.raises(ed.ModelError, match="not one of the 4 layers"):
        ed.RMU(layer=7, steps=1).fit(model, concept)
