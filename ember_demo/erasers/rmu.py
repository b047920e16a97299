"""RMU: representation misdirection for unlearning (WMDP, arXiv 2403.03218)."""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.edit import WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.errors import ModelError
from ember_demo.hidden import hidden_states
from ember_demo.optimizer import MasterAdamW
from ember_demo.progress import silent


@dataclass(frozen=True)
class RMU(Eraser):
    """Steer the hidden states of concept texts at one layer towards a random direction; hold those of other texts.

    loss = MSE(h_l(forget), steering * u) + alpha * MSE(h_l(retain), h_l of the model before), with u a fixed random
    unit vector; trains `mlp.down_proj` of the `trained_layers` layers up to and with `layer`.
    None means a value that suits the model: the layer at 0.27 of its depth (as published), at least 2.
    """

    name: ClassVar[str] = "rmu"
    touches: ClassVar[str] = "MLP output weights of three early layers"
    description: ClassVar[str] = (
        "Retrains three early layers so that texts on the concept end in noise inside the model while other texts stay as they were."
    )

    # Chosen on the embedded model's validation questions, by `python -m ember_demo tune rmu` (the hidden states of that layer have a norm near 54).
    small: ClassVar[dict] = {"steering": 80.0, "alpha": 30.0, "learning_rate": 1e-3, "steps": 60}
    # From the published grids of the EMBER paper.
    large: ClassVar[dict] = {"steering": 300.0, "alpha": 30.0, "learning_rate": 1e-4, "steps": 150}
    space: ClassVar[dict] = {"steering": (0.25, 4.0), "alpha": (0.1, 3.0), "learning_rate": (0.3, 3.0), "steps": (0.5, 3.0)}

    layer: int | None = None
    trained_layers: int = 3
    steering: float | None = None
    alpha: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int = 16

    def resolved(self, model):
        """These settings with every None replaced by what suits the model."""
        layer = max(2, round(0.27 * len(model.layers))) if self.layer is None else self.layer
        return replace(super().resolved(model), layer=layer)

    def fit(self, model, concept, seed=0, progress=silent):
        settings = self.resolved(model)
        if not 0 <= settings.layer < len(model.layers):
            raise ModelError(f"RMU's layer {settings.layer} is not one of the {len(model.layers)} layers of {model.id}; choose one from 0.")
        trained = range(max(0, settings.layer - self.trained_layers + 1), settings.layer + 1)
        names = [model.mlp_outputs[i] for i in trained]
        with model.dequantized(model.without_gradient(trained)), model.preserved(names) as before:
            settings._train(model, concept, names, seed, progress)
            return WeightEdit.between(model, before, {"settings": {"rmu": settings.settings()}})

    def _train(self, model, concept, names, seed, progress):
        rng = random.Random(seed)
        forget, retain = forget_texts(model, concept), retain_texts(model, concept)
        frozen = {}  # hidden states of retain texts before training, so that no second model is needed
        generator = torch.Generator().manual_seed(seed)
        direction = torch.rand(model.embeddings.shape[1], generator=generator)
        target = self.steering * direction / direction.norm()
        # The whole course of batches is drawn first, so that only the texts in it are cached.
        course = [(_draw(forget, self.batch_size, rng), _draw(retain, self.batch_size, rng)) for _ in range(self.steps)]
        needed = sorted({text for _, batch in course for text in batch})
        for start in range(0, len(needed), 64):
            texts = needed[start : start + 64]
            with torch.no_grad():
                states, mask = hidden_states(model, texts, self.layer)
            frozen.update({text: s[m].cpu() for text, s, m in zip(texts, states, mask)})
        parameters = [model.parameter(name).requires_grad_(True) for name in names]
        optimizer = MasterAdamW([{"params": parameters}], lr=self.learning_rate)
        for step, (forget_batch, retain_batch) in enumerate(course):
            progress(step / self.steps, f"RMU: step {step + 1} of {self.steps}" if step % 20 == 0 else "RMU: training")
            states, mask = hidden_states(model, forget_batch, self.layer)
            loss = (states[mask].float() - target.to(states.device)).square().mean()
            states, mask = hidden_states(model, retain_batch, self.layer)
            kept = torch.cat([frozen[text] for text in retain_batch]).to(states.device)
            loss = loss + self.alpha * (states[mask].float() - kept.float()).square().mean()
            loss.backward()
            optimizer.step()


def forget_texts(model, concept):
    """Sentences on the concept, and its questions that may be trained on, as chats."""
    return list(concept.texts) + [_chat(model, q) for q in concept.select("concept", "relearn")]


def retain_texts(model, concept):
    """Neutral sentences but for those that fluency is measured on, and the neighbouring and general questions that may be trained on, as chats."""
    questions = concept.select("similar", "relearn") + concept.select("general", "relearn")
    return concept.retain_texts + [_chat(model, q) for q in questions]


def _chat(model, question):
    return "".join(model.dialogue(question.text, question.answer))


def _draw(texts, count, rng):
    return rng.sample(texts, min(count, len(texts)))
