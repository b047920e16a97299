"""Controls of EMBER: other edits of the same rows, or the same edit of other rows. They show what in EMBER does the work."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ember_demo.edit import Change
from ember_demo.erasers.ember import FromEmber
from ember_demo.errors import ConceptError
from ember_demo.progress import silent


@dataclass(frozen=True)
class EmbeddingControl(FromEmber):
    """Takes EMBER's edit and puts another change in its place."""

    touches: ClassVar[str] = "token embeddings"

    @abstractmethod
    def change(self, model, rows, delta, generator):
        """The Change to the embeddings in the place of EMBER's, which adds `delta` (n, d) to `rows` (n,)."""

    def changes(self, model, edit, seed):
        ours = edit.changes[model.embedding_name]
        with model.unedited():
            return {model.embedding_name: self.change(model, ours.rows, ours.delta, torch.Generator().manual_seed(seed))}


@dataclass(frozen=True)
class RandomDirection(EmbeddingControl):
    name: ClassVar[str] = "random-direction"
    description: ClassVar[str] = (
        "EMBER's words, each moved as far as EMBER moves it, but in a random direction: tells the direction from mere noise."
    )

    def change(self, model, rows, delta, generator):
        noise = torch.randn(delta.shape, generator=generator)
        return Change(noise * (delta.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)), rows)


@dataclass(frozen=True)
class ZeroRows(EmbeddingControl):
    name: ClassVar[str] = "zero-rows"
    description: ClassVar[str] = "EMBER's words set to zero: nothing of them enters the model."

    def change(self, model, rows, delta, generator):
        return Change(-_table(model)[rows], rows)


@dataclass(frozen=True)
class MeanRows(EmbeddingControl):
    name: ClassVar[str] = "mean-rows"
    description: ClassVar[str] = "EMBER's words all set to the mean word: they enter the model as words without a meaning of their own."

    def change(self, model, rows, delta, generator):
        table = _table(model)
        return Change(table.mean(dim=0) - table[rows], rows)


@dataclass(frozen=True)
class RandomTokens(EmbeddingControl):
    name: ClassVar[str] = "random-tokens"
    description: ClassVar[str] = "EMBER's changes applied to as many random other words: tells whether it matters which words are changed."

    def change(self, model, rows, delta, generator):
        others = torch.ones(len(model.embeddings), dtype=torch.bool)
        others[rows] = False
        others[model.special_ids] = False
        candidates = others.nonzero().flatten()
        chosen = candidates[torch.randperm(len(candidates), generator=generator)[: len(rows)]]
        return Change(delta[: len(chosen)], chosen)


@dataclass(frozen=True)
class Removal(FromEmber):
    name: ClassVar[str] = "ember-delta-1"
    touches: ClassVar[str] = "token embeddings"
    description: ClassVar[str] = (
        "EMBER at strength 1: the concept's part is taken out of its words and nothing more, without the overshoot of larger strengths."
    )

    def fit(self, model, concept, seed=0, progress=silent):
        return self.following(model, concept, replace(self.ember, delta=1.0).fit(model, concept, seed, progress), seed)

    def following(self, model, concept, edit, seed=0, progress=silent):
        found = super().following(model, concept, edit, seed)
        return replace(found, details={"settings": {self.name: found.details["settings"][self.name] | {"delta": 1.0}}})

    def changes(self, model, edit, seed):
        ours, strength = edit.changes[model.embedding_name], edit.details["settings"]["ember"]["delta"]
        if not strength:
            raise ConceptError("EMBER at strength 0 changes nothing, so its part cannot be told; give a strength above 0.")
        return {model.embedding_name: Change(ours.delta / strength, ours.rows)}


def _table(model):
    return model.embeddings.detach().float().cpu()
