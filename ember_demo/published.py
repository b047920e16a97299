"""The paper authors' published features (Hub dataset `ClSu/ember-features`), read without running any code in them."""

import csv
import io
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from ember_demo.errors import ConceptError

FACTORS = "pickles/rank{rank}/seed{seed}/{concept}/embedding/embedding.pkl"
CHOSEN = "interpretations/rank{rank}/seed{seed}/{concept}/embedding/potential_features.csv"
SEED = 42  # of their factorizations
LARGEST = 2**31  # bytes of a factor file


class Factors:
    """What the authors' factorization object holds, as plain attributes; its own class is never imported."""

    def __setstate__(self, state):
        self.__dict__.update(state)

    def matrix(self, name):
        """A factor as a float32 array; their class is a torch module, which keeps its factors among `_parameters` or `_buffers`."""
        holders = (self.__dict__, self.__dict__.get("_parameters", {}), self.__dict__.get("_buffers", {}))
        value = next((holder[name] for holder in holders if name in holder), None)
        if value is None:
            raise KeyError(name)
        return torch.as_tensor(value).detach().cpu().float().numpy()


def read_published(source, model_id, concept_name, rank):
    """(token_ids (n,), directions F^T (K, d), activations G (n, K), rows of the feature table) for a concept.

    source: a folder laid out like the dataset, or the id of a dataset on the Hub. Raises ConceptError where something is missing or unsafe.
    """
    place = {"rank": rank, "seed": SEED, "concept": re.sub(r"[^\w\-]+", "_", concept_name)}
    model_folder = model_id.replace("/", "_")
    wanted = [f"{model_folder}/{path.format(**place)}" for path in (FACTORS, CHOSEN)]
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(str(source), repo_type="dataset", allow_patterns=wanted))
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            raise ConceptError(
                f"{source} is neither a folder nor a dataset on the Hub that can be read from here ({type(error).__name__}); check the name and the connection."
            ) from None
    factors, table = (folder / path for path in wanted)
    for path in (factors, table):
        if not path.is_file():
            raise ConceptError(f"{source} has no {path.relative_to(folder)}: no features of {concept_name} for {model_id} at rank {rank}.")
    payload = load_factors(factors)
    try:
        F, G = (payload["nmf"].matrix(name) for name in ("F_", "G_"))
        token_ids = np.asarray(payload["vprime_token_ids"], dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        raise ConceptError(f"{factors} does not hold factors F_ and G_ and a list of token ids ({error}).") from None
    fit = F.ndim == G.ndim == 2 and token_ids.ndim == 1 and G.shape == (len(token_ids), F.shape[1])
    if not fit or not token_ids.size or token_ids.min() < 0:
        raise ConceptError(f"{factors} does not hold factors F (d, K) and G (tokens, K) and token ids that fit each other.")
    try:
        with open(table, encoding="utf-8", newline="") as file:
            return token_ids, F.T, G, list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ConceptError(f"{table} is not a table of features ({error}); get the file again.") from None


def load_factors(path):
    """A factor pickle, by an unpickler that knows tensors and the factorization class alone; ConceptError for anything else."""
    if path.stat().st_size > LARGEST:
        raise ConceptError(f"{path} is larger than factors are ({path.stat().st_size / 1e9:.1f} GB); it is not read.")
    try:
        with open(path, "rb") as file:
            payload = _Unpickler(file).load()
        if isinstance(payload, dict) and isinstance(payload.get("nmf"), Factors) and "vprime_token_ids" in payload:
            return payload
    except Exception as error:  # what is forged can fail in any way
        raise ConceptError(f"{path} is not a file of factors, or holds more than tensors ({error}); nothing in it was run.") from None
    raise ConceptError(f"{path} is not a file of factors: it needs `nmf` and `vprime_token_ids`.")


def _storage(data):
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


class _Unpickler(pickle.Unpickler):
    ALLOWED = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch", "device"): torch.device,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch.storage", "_load_from_bytes"): _storage,
    }

    def find_class(self, module, name):
        if name == "SparseMatrixFactorization":
            return Factors
        if (module, name) in self.ALLOWED:
            return self.ALLOWED[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
