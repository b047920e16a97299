"""Direction ablation: take out of the model's states the direction that the erasure put in (arXiv 2409.18025)."""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ember_demo.attacks.base import BASE, Attack, best_of
from ember_demo.errors import ConceptError
from ember_demo.evaluation import ask
from ember_demo.hidden import hidden_states


@dataclass(frozen=True)
class DirectionAblation(Attack):
    """Projects the mean difference between the erased and the base model's states on the attacker's questions out of every layer.

    The layer that the difference is taken at is chosen on the validation questions.
    """

    name: ClassVar[str] = "direction-ablation"
    title: ClassVar[str] = "Take out what tells it from the public model"
    threat_model: ClassVar[str] = BASE
    description: ClassVar[str] = (
        "Compares the erased model's inner states with the public model's, and takes the direction between the two out of them."
    )

    questions: int = 64

    def attack(self, model, concept, seed, progress, curve):
        known = concept.select("concept", "relearn")[: self.questions]
        if not known:
            raise ConceptError(f"{concept.name} has no relearn questions to find the direction with; give some.")
        prompts = [model.prompt(q.text) for q in known]
        progress(0.0, "Comparing with the base model")
        erased = _mean_states(model, prompts)
        with model.unedited():
            differences = [ours - base for ours, base in zip(erased, _mean_states(model, prompts))]
        # of a model without an edit there is nothing to take out
        directions = {f"layer {n}": difference / difference.norm() for n, difference in enumerate(differences, 1) if difference.any()}

        def asked(direction, questions):
            with _without(model, direction):
                return ask(model, questions)

        ways = {name: partial(asked, direction) for name, direction in directions.items()}
        return self.result(curve, **best_of(model, concept, ways, curve, progress))


@torch.no_grad()
def _mean_states(model, prompts):
    """By layer, the mean state (d,) over all tokens of the prompts."""
    means = []
    for layer in range(len(model.layers)):
        states, mask = hidden_states(model, prompts, layer)
        means.append(states[mask].float().mean(dim=0))
    return means


@contextmanager
def _without(model, direction):
    """The model with a unit direction (d,) projected out of what every layer gives."""

    def project(module, args, output):
        states = output[0] if isinstance(output, tuple) else output
        unit = direction.to(states)
        states = states - (states @ unit)[..., None] * unit
        return (states, *output[1:]) if isinstance(output, tuple) else states

    hooks = [layer.register_forward_hook(project) for layer in model.layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
