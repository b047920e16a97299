"""Relearning: fine-tune the erased model on some of the knowledge, ask for the rest."""

import random
from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.attacks.base import WEIGHTS, Attack
from ember_demo.errors import ConceptError, ModelError
from ember_demo.evaluation import ask
from ember_demo.progress import silent

SMALL_RATE, LARGE_RATE = 1e-4, 1e-5  # below and above 50 million parameters; the second is the paper's


@dataclass(frozen=True)
class _FineTuning(Attack):
    """Full fine-tuning with AdamW in float32, whatever the model is held in, so that no small step rounds away."""

    epochs: int = 3
    learning_rate: float | None = None
    batch_size: int = 4
    weight_decay: float = 0.01
    max_length: int = 256

    @abstractmethod
    def documents(self, model, concept):
        """What is trained on: list of (context, text); the loss is on the text."""

    def run(self, model, concept, edit=None, seed=0, progress=silent):
        questions = concept.select("concept", "test")
        if not questions:
            raise ConceptError(f"{concept.name} has no test questions, so recovery cannot be counted; give some.")
        if model.precision == "4bit":
            raise ModelError("Relearning trains every weight, which a 4-bit model does not allow; load it with --precision bf16.")
        if self.learning_rate is None:
            rate = SMALL_RATE if model.parameter_count < 50e6 else LARGE_RATE
            return replace(self, learning_rate=rate).run(model, concept, edit, seed, progress)
        documents = [_encoded(model, *d, self.max_length) for d in self.documents(model, concept)]
        with edit.applied(model) if edit else nullcontext(), model.preserved():
            return self._train(model, documents, questions, seed, progress)

    def _train(self, model, documents, questions, seed, progress):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        for parameter in model.network.parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(model.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        curve, replies = [], []
        for epoch in range(self.epochs + 1):
            if epoch:
                self._epoch(model, documents, optimizer, rng, epoch, progress)
            replies = ask(model, questions)
            curve.append(sum(r.right for r in replies) / len(replies))
            progress(epoch / self.epochs, f"After epoch {epoch}: {curve[-1]:.0%} right", epoch=epoch, accuracy=curve[-1])
        return self.result(curve, replies)

    def _epoch(self, model, documents, optimizer, rng, epoch, progress):
        order = rng.sample(documents, len(documents))
        for start in range(0, len(order), self.batch_size):
            progress((epoch - 1 + start / len(order)) / self.epochs, f"Relearning, epoch {epoch} of {self.epochs}")
            ids, mask, scored = _batch(order[start : start + self.batch_size], model)
            kept = int(scored.any(dim=0).sum())  # padding is on the left: what is scored is at the end, and only there logits are made
            logits = model.network(input_ids=ids, attention_mask=mask, logits_to_keep=kept + 1).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits[scored[:, -kept:]], ids[scored])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@dataclass(frozen=True)
class Relearning(_FineTuning):
    """Retraining on facts T, tested on independent facts V (RTT, arXiv 2410.08827): what returns was never deleted."""

    name: ClassVar[str] = "relearning"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = (
        "Fine-tunes the erased model on some facts of the concept and asks about others: what comes back had only been hidden."
    )

    def documents(self, model, concept):
        questions = concept.select("concept", "relearn")
        if not questions:
            raise ConceptError(f"{concept.name} has no questions to relearn from; use relearning-paragraphs.")
        return [model.dialogue(q.text, q.answer) for q in questions]


@dataclass(frozen=True)
class RelearningParagraphs(_FineTuning):
    """Full fine-tuning on paragraphs about the concept (the attack of arXiv 2606.03695, appendix)."""

    name: ClassVar[str] = "relearning-paragraphs"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = "Fine-tunes the erased model on paragraphs about the concept, as in the paper, and asks it questions."

    epochs: int = 2
    batch_size: int = 1

    def documents(self, model, concept):
        if not concept.paragraphs:
            raise ConceptError(f"{concept.name} has no paragraphs to relearn from; use relearning.")
        return [(model.tokenizer.bos_token or "", f" {p}{model.tokenizer.eos_token}") for p in concept.paragraphs[:100]]


def _encoded(model, context, text, max_length):
    """Token ids and where the text begins among them."""
    ids = model.tokenizer(context + text, add_special_tokens=False)["input_ids"][:max_length]
    return ids, len(model.tokenizer(context, add_special_tokens=False)["input_ids"])


def _batch(documents, model):
    length = max(len(ids) for ids, _ in documents)
    ids = torch.full((len(documents), length), model.tokenizer.pad_token_id)
    mask, scored = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (document, start) in enumerate(documents):
        first = length - len(document)
        ids[row, first:] = torch.tensor(document)
        mask[row, first:] = 1
        scored[row, first + max(1, start) :] = True
    return ids.to(model.device), mask.to(model.device), scored.to(model.device)
