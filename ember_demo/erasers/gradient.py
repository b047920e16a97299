"""Erasers that retrain the MLPs' output weights on a loss over forget and retain texts: GradDiff, NPO, SimNPO."""

import random
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from ember_demo.edit import WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.erasers.rmu import forget_texts, retain_texts
from ember_demo.optimizer import MasterAdamW
from ember_demo.progress import silent


def log_likelihoods(model, texts, max_length=256):
    """Sums of log-probabilities of texts (n,), with gradient, and their token counts (n,); a text that lacks the start token gets it."""
    start = model.tokenizer.bos_token or ""
    inputs = model.encode([t if t.startswith(start) else start + t for t in texts], padding_side="right")
    ids, mask = (inputs[key][:, :max_length] for key in ("input_ids", "attention_mask"))
    logits = model.network(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    scored = mask[:, 1:].bool()
    losses = torch.zeros(scored.shape, device=logits.device)
    losses[scored] = cross_entropy(logits[scored].float(), ids[:, 1:][scored], reduction="none")
    return -losses.sum(dim=1), scored.sum(dim=1)


def mean_nll(sums, counts):
    """Mean negative log-likelihood a token, over all texts of a batch."""
    return -sums.sum() / counts.sum()


def npo_loss(sums, reference, beta):
    """-(2/beta) mean log sigmoid(-beta (log pi - log pi_ref)), over whole texts (NPO, arXiv 2404.05868, eq. 3)."""
    return -(2 / beta) * logsigmoid(-beta * (sums - reference)).mean()


def simnpo_loss(sums, counts, beta, margin):
    """-(2/beta) mean log sigmoid(-(beta / length) log pi - margin): no reference model, and no favour for long texts (SimNPO, arXiv 2410.07163, eq. 4)."""
    return -(2 / beta) * logsigmoid(-(beta / counts) * sums - margin).mean()


@dataclass(frozen=True)
class GradientEraser(Eraser):
    """Trains `mlp.down_proj` of every layer with AdamW on loss(forget) + alpha * NLL(retain)."""

    touches: ClassVar[str] = "MLP output weights of every layer"
    # `small` of each: chosen on the embedded model's validation questions, by `python -m ember_demo tune NAME`.
    large: ClassVar[dict] = {"alpha": 1.0, "learning_rate": 1e-5, "steps": 100}
    space: ClassVar[dict] = {"alpha": (0.3, 10.0), "learning_rate": (0.3, 10.0), "steps": (0.3, 2.0)}

    alpha: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int = 16

    @abstractmethod
    def loss(self, sums, counts, reference):
        """The loss on forget texts from their log-likelihoods (n,), token counts (n,) and log-likelihoods before any training (n,)."""

    def fit(self, model, concept, seed=0, progress=silent):
        names, settings = model.mlp_outputs, self.resolved(model)
        with model.dequantized(model.without_gradient()), model.preserved(names) as before:
            settings._train(model, concept, names, seed, progress)
            return WeightEdit.between(model, before, {"settings": {self.name: settings.settings()}})

    def _train(self, model, concept, names, seed, progress):
        rng = random.Random(seed)
        forget, retain = forget_texts(model, concept), retain_texts(model, concept)
        course = [[rng.sample(texts, min(self.batch_size, len(texts))) for texts in (forget, retain)] for _ in range(self.steps)]
        reference = self._reference(model, sorted({text for batch, _ in course for text in batch}))
        parameters = [model.parameter(name).requires_grad_(True) for name in names]
        optimizer = MasterAdamW([{"params": parameters}], lr=self.learning_rate)
        for step, (forget_batch, retain_batch) in enumerate(course):
            progress(step / self.steps, f"{self.name}: training" if step % 20 else f"{self.name}: step {step + 1} of {self.steps}")
            sums, counts = log_likelihoods(model, forget_batch)
            before = torch.stack([reference[text] for text in forget_batch]).to(sums.device)
            loss = self.loss(sums, counts, before) + self.alpha * mean_nll(*log_likelihoods(model, retain_batch))
            loss.backward()
            optimizer.step()

    def _reference(self, model, texts):
        found = {}
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
            with torch.no_grad():
                found |= zip(batch, log_likelihoods(model, batch)[0].cpu())
        return found


@dataclass(frozen=True)
class GradDiff(GradientEraser):
    """-gamma NLL(forget) + alpha NLL(retain) (TOFU, arXiv 2401.06121)."""

    name: ClassVar[str] = "graddiff"
    description: ClassVar[str] = (
        "Trains the model to find texts on the concept unlikely and other texts likely; simple, and it easily goes too far."
    )
    small: ClassVar[dict] = {"alpha": 2.0, "learning_rate": 4e-4, "steps": 60}

    gamma: float = 1.0

    def loss(self, sums, counts, reference):
        return -self.gamma * mean_nll(sums, counts)


@dataclass(frozen=True)
class NPO(GradientEraser):
    """Negative preference optimization: away from the concept's texts, the less the further they are from the model as it was."""

    name: ClassVar[str] = "npo"
    description: ClassVar[str] = (
        "Treats texts on the concept as answers that are not preferred, and stops pushing once they are unlikely enough."
    )
    small: ClassVar[dict] = {"alpha": 5.0, "learning_rate": 4.5e-4, "steps": 80}

    beta: float = 0.1

    def loss(self, sums, counts, reference):
        return npo_loss(sums, reference, self.beta)


@dataclass(frozen=True)
class SimNPO(GradientEraser):
    """NPO without the reference model, by likelihood a token."""

    name: ClassVar[str] = "simnpo"
    description: ClassVar[str] = "As NPO, but judges each text by its likelihood a word and needs no comparison with the model as it was."

    # With the published beta the loss is flat where a text's tokens are as unlikely as most of a small model's are from the start.
    small: ClassVar[dict] = {"alpha": 2.0, "learning_rate": 1.7e-4, "steps": 110, "beta": 0.08, "gamma": 1.8}
    large: ClassVar[dict] = GradientEraser.large | {"beta": 4.5, "gamma": 0.125}
    space: ClassVar[dict] = {"beta": (0.1, 5.0), "gamma": (0.3, 5.0), "learning_rate": (0.3, 3.0), "steps": (0.5, 2.0)}

    beta: float | None = None
    gamma: float | None = None
    margin: float = 0.0

    def loss(self, sums, counts, reference):
        return self.gamma * simnpo_loss(sums, counts, self.beta, self.margin)
