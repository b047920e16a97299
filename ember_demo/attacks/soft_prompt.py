"""Soft prompt: vectors before the question, trained on some of the knowledge; every weight of the model stays as it is."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch

from ember_demo.attacks.base import best_of
from ember_demo.attacks.relearning import Relearning, questions_to_train_on
from ember_demo.evaluation import ask


@dataclass(frozen=True)
class SoftPrompt(Relearning):
    """Prompt tuning (arXiv 2104.08691). It can draw out what is there and hardly teach: the never-learned control shows how much it teaches.

    The vectors stand for made-up words at the start of the question, inside the chat, and start as those of a plain request.
    Whether they or asking plainly count is chosen on the validation questions.
    """

    name: ClassVar[str] = "soft-prompt"
    title: ClassVar[str] = "Train made-up words to put first"
    description: ClassVar[str] = (
        "Trains a few made-up words before the question, and no weight, on some facts of the concept, and asks about others: draws out what is there."
    )

    points: ClassVar[int] = 2
    changes_weights: ClassVar[bool] = False
    trains_all: ClassVar[bool] = False

    epochs: int = 4
    batch_size: int = 16
    virtual_tokens: int = 8
    faster: float = 300.0  # than the weights would be trained

    def trains(self, model):
        return f"{self.virtual_tokens} vectors before the question"

    @property
    def words(self):
        return [f"<made-up {number}>" for number in range(self.virtual_tokens)]

    def before(self, text):
        """The question with the made-up words before it."""
        return f"{''.join(self.words)} {text}"

    def documents(self, model, concept):
        return [model.dialogue(self.before(q.text), q.answer) for q in questions_to_train_on(concept, "concept")]

    def attack(self, model, concept, seed, progress, curve):
        settings, found = self.resolved(model), {}

        def asked_with_them(questions):
            return ask(model, questions, [self.before(q.text) for q in questions])

        def asked(epoch):
            if epoch == self.epochs:
                found.update(best_of(model, concept, {"made-up words": asked_with_them}, curve, progress))

        with _told(model, self.words):
            settings.train(model, self.documents(model, concept), seed, progress, asked)
        return settings.result(curve, trained=self.trains(model), **found)

    @contextmanager
    def trainable(self, model):
        start = model.tokenizer("Please answer this question in a few words: ", add_special_tokens=False)["input_ids"]
        start = torch.tensor([start[n % len(start)] for n in range(self.virtual_tokens)], device=model.device)
        table = model.network.get_input_embeddings()
        with torch.no_grad():
            vectors = table(start).float().requires_grad_(True)
        with model.dequantized(model.without_gradient()), _instead(table, model.tokenizer.convert_tokens_to_ids(self.words[0]), vectors):
            yield [{"params": [vectors], "lr": self.faster * self.learning_rate, "weight_decay": 0.0}]


@contextmanager
def _told(model, words):
    """The tokenizer of the model with each made-up word as one token, the last of all."""
    known = model.tokenizer
    try:
        model.tokenizer = copy.deepcopy(known)
        model.tokenizer.add_tokens(words, special_tokens=True)
        yield
    finally:
        model.tokenizer = known


@contextmanager
def _instead(table, first, vectors):
    """The table of embeddings with the vectors (n, d) for the ids from `first` on, which are none of its own rows."""
    asked = []

    def known(module, arguments):
        asked.append(arguments[0])
        return (arguments[0].clamp(max=module.num_embeddings - 1), *arguments[1:])

    def put(module, arguments, rows):
        ids = asked.pop()
        ours = ids >= first
        if not ours.any():
            return rows
        rows = rows.clone()
        rows[ours] = vectors[ids[ours] - first].to(rows)
        return rows

    hooks = table.register_forward_pre_hook(known), table.register_forward_hook(put)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
