"""RMU: representation misdirection for unlearning (WMDP, arXiv 2403.03218)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.erasers.training import TrainingEraser
from ember_demo.errors import ModelError
from ember_demo.hidden import hidden_states


@dataclass(frozen=True)
class RMU(TrainingEraser):
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

    def resolved(self, model):
        """These settings with every None replaced by what suits the model."""
        layer = max(2, round(0.27 * len(model.layers))) if self.layer is None else self.layer
        return replace(super().resolved(model), layer=layer)

    def trained(self, model):
        if not 0 <= self.layer < len(model.layers):
            raise ModelError(f"RMU's layer {self.layer} is not one of the {len(model.layers)} layers of {model.id}; choose one from 0.")
        return range(max(0, self.layer - self.trained_layers + 1), self.layer + 1)

    def objective(self, model, course, seed):
        generator = torch.Generator().manual_seed(seed)
        direction = torch.rand(model.embeddings.shape[1], generator=generator)
        target = self.steering * direction / direction.norm()
        frozen = self._states(model, sorted({text for _, batch in course for text in batch}))  # so that no second model is needed

        def loss(forget, retain):
            states, mask = hidden_states(model, forget, self.layer)
            steered = (states[mask].float() - target.to(states.device)).square().mean()
            states, mask = hidden_states(model, retain, self.layer)
            kept = torch.cat([frozen[text] for text in retain]).to(states.device)
            return steered + self.alpha * (states[mask].float() - kept.float()).square().mean()

        return loss

    @torch.no_grad()
    def _states(self, model, texts, batch_size=64):
        """By text, its hidden states (length, d) at the layer that is steered."""
        found = {}
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            states, mask = hidden_states(model, batch, self.layer)
            found.update({text: s[m].cpu() for text, s, m in zip(batch, states, mask)})
        return found
