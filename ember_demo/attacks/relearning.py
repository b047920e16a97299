"""Relearning: fine-tune the erased model on some of the knowledge, ask for the rest."""

import random
from abc import abstractmethod
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from peft import LoraConfig, get_peft_model

from ember_demo.attacks.base import WEIGHTS, Attack
from ember_demo.errors import ConceptError
from ember_demo.evaluation import ask
from ember_demo.optimizer import MasterAdamW
from ember_demo.progress import silent

SMALL_RATE, LARGE_RATE = 1e-4, 1e-5  # below and above 50 million parameters; the second is the paper's
ADAPTER_RANK, ADAPTER_RATE = 16, 2e-4  # LoRA on a 4-bit base, as in QLoRA (arXiv 2305.14314)
ADAPTERS = f"adapters of rank {ADAPTER_RANK} on every linear layer at a rate of {ADAPTER_RATE:g}, and the embedding table"


@dataclass(frozen=True)
class _FineTuning(Attack):
    """Full fine-tuning with AdamW and float32 masters; on a 4-bit base, of adapters on every linear layer and of the embedding table."""

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
        if self.learning_rate is None:
            rate = SMALL_RATE if model.parameter_count < 50e6 else LARGE_RATE
            return replace(self, learning_rate=rate).run(model, concept, edit, seed, progress)
        documents = [_encoded(model, *d, self.max_length) for d in self.documents(model, concept)]
        torch.manual_seed(seed)
        with edit.applied(model) if edit else nullcontext(), _trainable(model, self.learning_rate) as groups:
            return self._train(model, groups, documents, questions, seed, progress)

    def _train(self, model, groups, documents, questions, seed, progress):
        rng = random.Random(seed)
        optimizer = MasterAdamW(groups, weight_decay=self.weight_decay, fused=True)
        curve, replies = [], []
        for epoch in range(self.epochs + 1):
            if epoch:
                self._epoch(model, documents, optimizer, rng, epoch, progress)
            replies = ask(model, questions)
            curve.append(sum(r.right for r in replies) / len(replies))
            progress(epoch / self.epochs, f"After epoch {epoch}: {curve[-1]:.0%} right", epoch=epoch, accuracy=curve[-1])
        return self.result(curve, replies, trained=ADAPTERS if model.precision == "4bit" else "every weight")

    def _epoch(self, model, documents, optimizer, rng, epoch, progress):
        order = rng.sample(documents, len(documents))
        for start in range(0, len(order), self.batch_size):
            progress((epoch - 1 + start / len(order)) / self.epochs, f"Relearning, epoch {epoch} of {self.epochs}")
            ids, mask, scored = _batch(order[start : start + self.batch_size], model)
            kept = int(scored.any(dim=0).sum())  # padding is on the left: what is scored is at the end, and only there logits are made
            logits = model.network(input_ids=ids, attention_mask=mask, logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits[scored[:, -kept:]], ids[scored])
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


def _trainable(model, rate):
    """The parameters to train, as groups for the optimizer: all of them, or adapters where the base is in 4 bit; the model is restored after."""
    return _adapters(model, rate) if model.precision == "4bit" else _every_weight(model, rate)


@contextmanager
def _every_weight(model, rate):
    with model.preserved():
        yield [{"params": list(model.network.requires_grad_(True).parameters()), "lr": rate}]


@contextmanager
def _adapters(model, rate):
    """LoRA on every linear layer, and the embedding table as it is."""
    with model.dequantized(model.without_gradient()), model.preserved([model.embedding_name]):
        adapted = None
        modules = dict(model.network.named_modules())
        try:
            adapted = get_peft_model(model.network, LoraConfig(r=ADAPTER_RANK, lora_alpha=2 * ADAPTER_RANK, target_modules="all-linear"))
            adapters = [p for p in adapted.parameters() if p.requires_grad]
            yield [{"params": adapters, "lr": ADAPTER_RATE}, {"params": [model.embeddings.requires_grad_(True)], "lr": rate}]
        finally:
            if adapted:
                adapted.unload()
            for name, module in modules.items():  # where it failed halfway
                if isinstance(module, torch.nn.Linear) and model.network.get_submodule(name) is not module:
                    model.network.set_submodule(name, module)


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
