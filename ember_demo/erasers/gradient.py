"""Erasers that retrain the MLPs' output weights on a loss over forget and retain texts: GradDiff, NPO, SimNPO."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy, logsigmoid

from ember_demo.erasers.training import TrainingEraser


def log_likelihoods(model, texts, max_length=256):
    """Sums of log-probabilities of texts (n,), with gradient, and their token counts (n,)."""
    inputs = model.encode_texts(texts)
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
class GradientEraser(TrainingEraser):
    """Trains every layer on loss(forget) + alpha * NLL(retain)."""

    touches: ClassVar[str] = "MLP output weights of every layer"
    # `small` of each: chosen on the embedded model's validation questions, by `python -m ember_demo tune NAME`.
    large: ClassVar[dict] = {"alpha": 1.0, "learning_rate": 1e-5, "steps": 100}
    space: ClassVar[dict] = {"alpha": (0.3, 10.0), "learning_rate": (0.3, 10.0), "steps": (0.3, 2.0)}

    @abstractmethod
    def loss(self, sums, counts, reference):
        """The loss on forget texts from their log-likelihoods (n,), token counts (n,) and log-likelihoods before any training (n,)."""

    def trained(self, model):
        return range(len(model.layers))

    def objective(self, model, course, seed):
        reference = self._likelihoods(model, sorted({text for batch, _ in course for text in batch}))

        def loss(forget, retain):
            sums, counts = log_likelihoods(model, forget)
            before = torch.stack([reference[text] for text in forget]).to(sums.device)
            return self.loss(sums, counts, before) + self.alpha * mean_nll(*log_likelihoods(model, retain))

        return loss

    @torch.no_grad()
    def _likelihoods(self, model, texts):
        """By text, its log-likelihood."""
        found = {}
        for start in range(0, len(texts), self.batch_size):
            batch = texts[start : start + self.batch_size]
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
