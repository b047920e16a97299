"""Embedding reset: other rows in the place of those that look edited, and then retraining as in `relearning`."""

import re
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.attacks.base import BASE, WEIGHTS, Attack
from ember_demo.attacks.relearning import Relearning
from ember_demo.attacks.suspects import differing, outliers
from ember_demo.errors import ModelError
from ember_demo.evaluation import ask
from ember_demo.progress import part

SPACED = re.compile(r"([\u0120\u2581]?)(.*)", re.DOTALL)  # how vocabularies write the space before a word, and the word


@dataclass(frozen=True)
class Reset(Attack):
    """Writes other embedding rows into the erased model and asks; then, where the concept has questions for it, retrains and asks again.

    Where no row looks edited it retrains all the same, so that every variant and the control are attacked alike. Where there is no memory to
    retrain in, it does not, and says so (`not_retrained` in what was found): the rows alone tell most.
    """

    changes_weights: ClassVar[bool] = True
    epochs: int = 1
    learning_rate: float | None = None  # of the retraining, as in `relearning`

    @property
    def points(self):
        return self.epochs + 2

    @property
    def trains_on_facts(self):
        return self.epochs > 0

    @abstractmethod
    def rows(self, model):
        """Which rows (n,) to overwrite and with what (n, d), by the name of the table."""

    def attack(self, model, concept, seed, progress, curve):
        questions = concept.select("concept", "test")
        overwritten = self.rows(model)
        count = sum(len(rows) for rows, _ in overwritten.values())
        with model.preserved(overwritten):
            with torch.no_grad():
                for name, (rows, values) in overwritten.items():
                    table = model.parameter(name)
                    table[rows] = values.to(table)
            curve.add(ask(model, questions) if count else curve.replies, "reset", 0.1)
            relearning, why = Relearning(epochs=self.epochs, learning_rate=self.learning_rate).resolved(model), {}
            retrains = self.epochs > 0 and bool(concept.select("concept", "relearn"))
            if retrains:
                try:
                    relearning.check(model)
                except ModelError as error:
                    retrains, why = False, {"not_retrained": str(error)}
            if retrains:

                def asked(epoch):
                    curve.add(ask(model, questions), f"epoch {epoch}", 0.1 + 0.9 * epoch / self.epochs)

                relearning.train(model, relearning.documents(model, concept), seed, part(progress, 0.1, 1), asked)
        return replace(self, learning_rate=relearning.learning_rate).result(curve, rows=count, **why)


@dataclass(frozen=True)
class BaseReset(Reset):
    """The rows that differ from the public base model's, copied from it: of the embeddings and of the output head."""

    name: ClassVar[str] = "base-reset"
    title: ClassVar[str] = "Copy words back from the public model"
    threat_model: ClassVar[str] = BASE
    description: ClassVar[str] = (
        "Copies the words back from the public model that was erased, then fine-tunes; whoever has that model hardly needs the erased one."
    )

    def rows(self, model):
        found = {}
        for name in (model.embedding_name, model.head_name):
            with model.unedited():
                base = model.parameter(name).detach().clone()
            rows = (base != model.parameter(name)).any(dim=1).nonzero().flatten()
            found[name] = rows, base[rows]
        return found


@dataclass(frozen=True)
class HeadReset(Reset):
    """Rows copied back from the model's own output head, which kept the originals where the two were one table before."""

    name: ClassVar[str] = "head-reset"
    title: ClassVar[str] = "Copy words back from its output layer"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = (
        "Copies the words back from the erased model's own output layer, where many models keep the same table a second time, then fine-tunes."
    )

    def rows(self, model):
        rows, head = differing(model), model.network.get_output_embeddings().weight
        return {model.embedding_name: (rows, head[rows.to(head.device)])}


@dataclass(frozen=True)
class OutlierReset(Reset):
    """Unusually long rows replaced by that of the token's spelling in other case, where there is one, else by the mean of their nearest neighbours."""

    name: ClassVar[str] = "outlier-reset"
    title: ClassVar[str] = "Replace words that stand out"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = (
        "Finds unusually large words in the word table and puts their spelling in other case, or what lies nearest, in their place, then fine-tunes."
    )

    deviations: float = 3.0
    neighbours: int = 5

    def rows(self, model):
        rows = outliers(model, self.deviations)
        table = model.embeddings.detach().float()
        others = torch.ones(len(table), dtype=torch.bool, device=table.device)
        others[rows] = False
        values = torch.empty(len(rows), table.shape[1], device=table.device)
        unit = torch.nn.functional.normalize(table, dim=1)
        for start in range(0, len(rows), 64):
            batch = rows[start : start + 64]
            likeness = (unit[batch] @ unit.T).masked_fill(~others, -2)
            values[start : start + 64] = table[likeness.topk(min(self.neighbours, int(others.sum())), dim=1).indices].mean(dim=1)
        ids = {token: i for token, i in model.tokenizer.get_vocab().items() if i < len(table)}
        tokens = {i: token for token, i in ids.items()}
        for number, row in enumerate(rows.tolist()):
            mark, word = SPACED.match(tokens.get(row, "")).groups()
            spelled = (mark + other for other in (word.lower(), word.upper(), word.title()))
            other = [ids[t] for t in spelled if t in ids and others[ids[t]]]
            if other:
                values[number] = table[other[0]]
        return {model.embedding_name: (rows, values)}
