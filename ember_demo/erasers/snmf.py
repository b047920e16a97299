"""SNMF projection: take the directions that the concept's groups of neurons write out of the MLPs (a baseline of arXiv 2606.03695)."""

import random
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ember_demo.edit import WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.errors import ConceptError, ModelError
from ember_demo.factorization import SemiNonnegativeFactorization
from ember_demo.hidden import mlp_activations
from ember_demo.progress import silent

MIN_NEURONS = 8  # of a feature, where a share of a small MLP would be fewer


@dataclass(frozen=True)
class SNMF(Eraser):
    """Factorize each MLP's activations into groups of neurons; for those that answer to the concept, project what they write out of their weights.

    With F_k the group's weights over neurons, f = W_down F_k normalised and I its neurons that hold `mass` of |F_k|:
    W_down[:, I] -= delta_out f (f^T W_down[:, I]) and W_up[I, :] -= delta_in (W_up[I, :] f) f^T.

    rank: groups a layer. sparsity: share of the neurons in a group. ratio: mean activation on the concept's texts by that on neutral ones from which a
    group counts as the concept's. last_in, last_out: where in the depth (0 to 1) the last edited layer lies; the first is layer 0.
    layers_in, layers_out: instead of these, the first and last edited layer, such as "9-17".
    """

    name: ClassVar[str] = "snmf"
    touches: ClassVar[str] = "MLP input and output weights of the concept's neurons, in early layers unless others are named"
    description: ClassVar[str] = (
        "Finds groups of neurons that respond to the concept, and takes out of their weights the direction in which they write."
    )

    # Chosen on the embedded model's validation questions, by `python -m ember_demo tune snmf`.
    small: ClassVar[dict] = {"ratio": 2.6, "delta_in": 1.4, "delta_out": 8.5, "last_in": 0.33, "last_out": 0.26}
    large: ClassVar[dict] = {"ratio": 2.0, "delta_in": 10.0, "delta_out": 1.0, "last_in": 0.33, "last_out": 0.33}
    space: ClassVar[dict] = {
        "ratio": (0.6, 2.0),
        "delta_in": (0.1, 1.0),
        "delta_out": (0.5, 10.0),
        "last_in": (0.3, 3.0),
        "last_out": (0.3, 3.0),
    }

    rank: int = 100
    sparsity: float = 0.01
    ratio: float | None = None
    delta_in: float | None = None
    delta_out: float | None = None
    last_in: float | None = None
    last_out: float | None = None
    layers_in: str | None = None
    layers_out: str | None = None
    mass: float = 0.95
    max_tokens: int = 5000
    max_iter: int = 100

    def fit(self, model, concept, seed=0, progress=silent):
        return self.resolved(model)._fit(model, concept, seed, progress)

    def _fit(self, model, concept, seed, progress):
        into, out = _layers(model, self.layers_in, self.last_in), _layers(model, self.layers_out, self.last_out)
        layers = sorted({*into, *out})
        names = [model.mlp_outputs[i] for i in out] + [model.mlp_inputs(i)[0] for i in into]
        with model.dequantized([model.mlp_outputs[i] for i in layers]), model.preserved(names) as before:
            found = {}
            for number, layer in enumerate(layers):
                progress(number / len(layers), f"Grouping the neurons of layer {number + 1} of {len(layers)}")
                found[layer] = self._groups(model, concept, layer, seed)
            if not any(found.values()):
                raise ConceptError(f"No group of neurons responds to {concept.name}; give more texts, or lower the ratio.")
            with torch.no_grad():
                for layer, groups in found.items():
                    self._project(model, layer, groups, layer in into, layer in out)
            details = {"settings": {self.name: self.settings()}, "groups": {str(layer): len(groups) for layer, groups in found.items()}}
            return WeightEdit.between(model, before, details)

    def _groups(self, model, concept, layer, seed):
        """Weights over the layer's neurons (m,), one tensor for each group that answers to the concept."""
        ours, theirs = (self._activations(model, texts, layer, seed) for texts in (concept.texts, concept.retain_texts))
        sparsity = max(self.sparsity, min(1.0, MIN_NEURONS / ours.shape[1]))
        factors = SemiNonnegativeFactorization(
            self.rank, sparsity, max_iter=self.max_iter, random_state=42 + seed, device=str(model.device)
        ).fit(torch.cat([ours, theirs]))
        on_concept, elsewhere = factors.activations_[: len(ours)].mean(axis=0), factors.activations_[len(ours) :].mean(axis=0)
        chosen = np.nonzero(on_concept >= self.ratio * np.maximum(elsewhere, 1e-9))[0]
        return [torch.from_numpy(factors.components_[k]) for k in chosen if on_concept[k] > 0]

    @torch.no_grad()
    def _activations(self, model, texts, layer, seed, batch_size=32):
        """Activations (n, m) of the texts' tokens in random order, at most half of `max_tokens`."""
        texts, rows, count = random.Random(seed).sample(texts, len(texts)), [], 0
        for start in range(0, len(texts), batch_size):
            states, mask = mlp_activations(model, texts[start : start + batch_size], layer)
            rows.append(states[mask].float().cpu())
            count += len(rows[-1])
            if count >= self.max_tokens // 2:
                break
        return torch.cat(rows)[: self.max_tokens // 2]

    def _project(self, model, layer, groups, into, out):
        down = model.parameter(model.mlp_outputs[layer])
        name, first = model.mlp_inputs(layer)
        up = model.parameter(name) if into else None
        before = down.detach().float().clone()
        for weights in groups:
            weights = weights.to(before)
            direction = before @ weights
            direction = direction / direction.norm().clamp(min=1e-12)
            neurons = heaviest(weights, self.mass)
            if out:
                columns = down[:, neurons].float()
                down[:, neurons] = (columns - self.delta_out * torch.outer(direction, direction @ columns)).to(down.dtype)
            if into:
                unit = direction.to(up.device)
                rows = up[first + neurons].float()
                up[first + neurons] = (rows - self.delta_in * torch.outer(rows @ unit, unit)).to(up.dtype)


def _layers(model, named, last):
    """The layers from 0 to the share `last` of the depth, or those that are named, such as "9-17"; ModelError where the model has them not."""
    deepest = len(model.layers) - 1
    if named is None:
        return range(round(last * deepest) + 1)
    numbers = re.fullmatch(r"(\d{1,3})-(\d{1,3})", named)
    if not numbers or not int(numbers[1]) <= int(numbers[2]) <= deepest:
        raise ModelError(f"SNMF's layers {named!r} are not layers of {model.id}; give the first and the last, such as 0-{deepest}.")
    return range(int(numbers[1]), int(numbers[2]) + 1)


def heaviest(weights, mass):
    """Indices of the fewest neurons that hold this share of the sum of absolute weights (m,)."""
    ordered, order = weights.abs().sort(descending=True)
    held = ordered.cumsum(0)
    count = int((held < mass * held[-1] - 1e-6 * held[-1]).sum()) + 1
    return order[:count]
