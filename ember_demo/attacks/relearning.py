"""Relearning: fine-tune the erased model on some of the knowledge, ask for the rest."""

import random
from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.attacks.base import WEIGHTS, Attack
from ember_demo.attacks.suspects import suspects
from ember_demo.errors import ConceptError
from ember_demo.evaluation import accuracy_of, ask, first_wordings
from ember_demo.memory import ADAPTER_RANK, SMALL, check_room
from ember_demo.optimizer import MasterAdamW
from ember_demo.progress import part

SMALL_RATE, LARGE_RATE = 1e-4, 1e-5  # below and above 50 million parameters; the second is the paper's
ADAPTER_RATE = 2e-4  # LoRA on a 4-bit base, as in QLoRA (arXiv 2305.14314)
ADAPTERS = f"adapters of rank {ADAPTER_RANK} on every linear layer, at {{:g}}, and the embedding table"


@dataclass(frozen=True)
class FineTuning(Attack):
    """Full fine-tuning with AdamW and float32 masters; on a 4-bit base, of adapters on every linear layer and of the embedding table."""

    threat_model: ClassVar[str] = WEIGHTS
    changes_weights: ClassVar[bool] = True
    trains_all: ClassVar[bool] = True  # or the adapters and the table of a 4-bit base: what the plan of memory is for

    epochs: int = 3
    learning_rate: float | None = None
    batch_size: int = 4
    weight_decay: float = 0.01
    max_length: int = 256

    @property
    def points(self):
        return self.epochs + 1

    @abstractmethod
    def documents(self, model, concept):
        """What is trained on: list of (context, text); the loss is on the text."""

    def resolved(self, model):
        """These settings with the learning rate that suits the model where it is None."""
        if self.learning_rate is not None:
            return self
        return replace(self, learning_rate=_usual_rate(model))

    def attack(self, model, concept, seed, progress, curve):
        questions = concept.select("concept", "test")
        documents = self.documents(model, concept)
        settings = self.resolved(model)

        def asked(epoch):
            curve.add(ask(model, questions), f"epoch {epoch}", epoch / self.epochs)

        settings.train(model, documents, seed, progress, asked)
        return settings.result(curve, trained=settings.trains(model))

    def check(self, model):
        if self.trains_all:
            check_room(model.network, model.precision, "relearning")

    def train(self, model, documents, seed, progress, each_epoch):
        """Train the model on documents, call `each_epoch` with 1, 2, ... after each epoch, and put the model back."""
        documents = [(ids, start) for ids, start in (_encoded(model, *d, self.max_length) for d in documents) if len(ids) > max(1, start)]
        if not documents:
            raise ConceptError(f"No document reaches its answer within max_length, {self.max_length} tokens; give a larger one.")
        torch.manual_seed(seed)
        rng = random.Random(seed)
        with self.trainable(model) as groups:
            optimizer = MasterAdamW(groups, weight_decay=self.weight_decay, fused=True)
            for epoch in range(1, self.epochs + 1):
                self._epoch(model, documents, optimizer, rng, epoch, progress)
                each_epoch(epoch)

    def trains(self, model):
        """What is trained, in words."""
        return ADAPTERS.format(_adapter_rate(model, self.learning_rate)) if model.precision == "4bit" else "every weight"

    def trainable(self, model):
        """A context with the parameters to train, as groups for the optimizer; the model is put back after it."""
        return (_adapters if model.precision == "4bit" else _every_weight)(model, self.learning_rate)

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
class Relearning(FineTuning):
    """Retraining on facts T, tested on independent facts V (RTT, arXiv 2410.08827): what returns was never deleted."""

    name: ClassVar[str] = "relearning"
    title: ClassVar[str] = "Retrain on facts"
    trains_on_facts: ClassVar[bool] = True
    description: ClassVar[str] = (
        "Fine-tunes the erased model on some facts of the concept and asks about others: what comes back had only been hidden."
    )

    def documents(self, model, concept):
        return _dialogues(model, concept, "concept")


@dataclass(frozen=True)
class RelearningParagraphs(FineTuning):
    """Full fine-tuning on paragraphs about the concept (the attack of arXiv 2606.03695, appendix)."""

    name: ClassVar[str] = "relearning-paragraphs"
    title: ClassVar[str] = "Retrain on texts"
    description: ClassVar[str] = "Fine-tunes the erased model on paragraphs about the concept, as in the paper, and asks it questions."

    epochs: int = 2
    batch_size: int = 1

    def documents(self, model, concept):
        if not concept.paragraphs:
            raise ConceptError(f"{concept.name} has no paragraphs to relearn from; use relearning.")
        return [(model.tokenizer.bos_token or "", f" {p}{model.tokenizer.eos_token}") for p in concept.paragraphs[:100]]


@dataclass(frozen=True)
class RelearningNeighbour(FineTuning):
    """Benign relearning: on what is close to the concept and not of it (arXiv 2406.13356)."""

    name: ClassVar[str] = "relearning-neighbour"
    title: ClassVar[str] = "Retrain on a neighbouring subject"
    description: ClassVar[str] = (
        "Fine-tunes the erased model on a neighbouring subject, where nothing of the concept is said, and asks about the concept."
    )

    epochs: int = 2
    batch_size: int = 16

    def documents(self, model, concept):
        return _dialogues(model, concept, "similar")


@dataclass(frozen=True)
class RelearningUnrelated(FineTuning):
    """The control of benign relearning: on general knowledge. What comes back under it takes any training at all."""

    name: ClassVar[str] = "relearning-unrelated"
    title: ClassVar[str] = "Retrain on anything else"
    description: ClassVar[str] = "Fine-tunes the erased model on general knowledge: the comparison for the neighbouring subject."

    epochs: int = 2
    batch_size: int = 16

    def documents(self, model, concept):
        return _dialogues(model, concept, "general")


@dataclass(frozen=True)
class RelearningRows(Relearning):
    """Trains only the embedding rows that look edited, at a high rate; of a weight-only erasure that is next to nothing."""

    name: ClassVar[str] = "relearning-rows"
    title: ClassVar[str] = "Retrain the edited words alone"
    description: ClassVar[str] = (
        "Fine-tunes only the words that look edited, ten times as fast, on some facts of the concept, and asks about others."
    )

    trains_all: ClassVar[bool] = False

    epochs: int = 2
    batch_size: int = 16
    faster: float = 10.0

    def trains(self, model):
        return "the embedding rows that look edited"

    @contextmanager
    def trainable(self, model):
        """Without weight decay, which would move every row."""
        with model.dequantized(model.without_gradient()), model.preserved([model.embedding_name]):
            mask = torch.zeros(len(model.embeddings), 1, device=model.device)
            mask[suspects(model)] = 1
            table = model.embeddings.requires_grad_(True)
            hook = table.register_hook(lambda gradient: gradient * mask.to(gradient.dtype))
            try:
                yield [{"params": [table], "lr": self.faster * self.learning_rate, "weight_decay": 0.0}]
            finally:
                hook.remove()


@dataclass(frozen=True)
class RelearningSweep(Relearning):
    """The strongest of many: rates, epochs and numbers of facts, chosen on the validation questions.

    Every rate is tried for an epoch on a share of the facts; then the usual rate, and the best where it is another, for more epochs on all of them.
    """

    name: ClassVar[str] = "relearning-sweep"
    title: ClassVar[str] = "Retrain at several rates"
    description: ClassVar[str] = (
        "Fine-tunes at several rates, on half of the facts and at the best rates on all of them, and keeps the attacker that gets most back."
    )

    rates: tuple = (1.0, 3.0)  # times the usual one
    share: float = 0.5  # of the facts, on which the rates are tried
    points: ClassVar[int] = 2
    changes_weights: ClassVar[bool] = False

    def attack(self, model, concept, seed, progress, curve):
        questions, trials = concept.select("concept", "test"), first_wordings(concept.select("concept", "validation"))
        if not trials:
            raise ConceptError(f"{concept.name} has no validation questions to choose the strongest attacker on; use relearning.")
        documents, settings = self.documents(model, concept), self.resolved(model)
        facts = concept.facts("concept", "relearn")
        known = set(random.Random(seed).sample(facts, max(1, round(self.share * len(facts)))))
        few = [d for q, d in zip(concept.select("concept", "relearn"), documents) if q.fact in known]
        found, replies, attackers = [], [], len(self.rates) + 2

        def attacker(number, rate, documents, epochs):
            def tried(epoch):
                right, best = accuracy_of(model, trials), max((t["on_validation"] for t in found), default=-1.0)
                found.append({"learning_rate": rate, "documents": len(documents), "epochs": epoch, "on_validation": right})
                if right > best:  # only then it may be the strongest, whose answers count
                    replies[:] = ask(model, questions)

            here = part(progress, number / attackers, (number + 1) / attackers, f"Attacker {number + 1} of {attackers}: ")
            replace(settings, learning_rate=rate, epochs=epochs).train(model, documents, seed, here, tried)

        for number, times in enumerate(self.rates):
            attacker(number, times * settings.learning_rate, few, 1)
        best = _strongest(found)["learning_rate"]
        for number, rate in enumerate(dict.fromkeys((settings.learning_rate, best)), len(self.rates)):
            attacker(number, rate, documents, self.epochs)
        curve.add(replies, "strongest attacker")
        return settings.result(curve, chosen=_strongest(found), trials=found)


def _usual_rate(model):
    return SMALL_RATE if model.parameter_count < SMALL else LARGE_RATE


def _adapter_rate(model, rate):
    """As many times the adapters' usual rate as `rate` is times that of the weights."""
    return ADAPTER_RATE * rate / _usual_rate(model)


def _strongest(trials):
    return max(trials, key=lambda trial: trial["on_validation"])


def _dialogues(model, concept, kind):
    """Questions of a kind with their answers, no more than there are of the concept, so that attackers train alike."""
    most = len(concept.select("concept", "relearn"))
    return [model.dialogue(q.text, q.answer) for q in questions_to_train_on(concept, kind)[: most or None]]


def questions_to_train_on(concept, kind):
    """The questions of that kind that an attacker may know; ConceptError where there are none."""
    questions = concept.select(kind, "relearn")
    if not questions:
        raise ConceptError(f"{concept.name} has no {kind} questions to relearn from; use relearning-paragraphs.")
    return questions


@contextmanager
def _every_weight(model, rate):
    with model.preserved():
        yield [{"params": list(model.network.requires_grad_(True).parameters()), "lr": rate}]


@contextmanager
def _adapters(model, rate):
    """LoRA on every linear layer, and the embedding table as it is."""
    from peft import LoraConfig, get_peft_model  # takes a while, and only this needs it

    with model.dequantized(model.without_gradient()), model.preserved([model.embedding_name]):
        adapted = None
        modules = dict(model.network.named_modules())
        try:
            adapted = get_peft_model(model.network, LoraConfig(r=ADAPTER_RANK, lora_alpha=2 * ADAPTER_RANK, target_modules="all-linear"))
            adapters = [p for p in adapted.parameters() if p.requires_grad]
            yield [{"params": adapters, "lr": _adapter_rate(model, rate)}, {"params": [model.embeddings.requires_grad_(True)], "lr": rate}]
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
