"""EMBER, and the same in the output head: what an owner can do against rows copied back from there."""

from dataclasses import dataclass
from typing import ClassVar

from ember_demo.erasers.ember import FromEmber
from ember_demo.errors import ModelError


@dataclass(frozen=True)
class EmberHead(FromEmber):
    """EMBER's change in both places of a model whose output head was tied to its embeddings; not in the paper, which leaves the head as it was."""

    name: ClassVar[str] = "ember-head"
    touches: ClassVar[str] = "token embeddings, and the same rows of the output head"
    description: ClassVar[str] = (
        "EMBER, and the same change in the output layer, where many models keep the same table a second time; nothing is left there to copy back."
    )

    def changes(self, model, edit, seed):
        if not model.tied:
            raise ModelError(f"The output layer of {model.id} is a table of its own, which EMBER's change does not fit; use ember.")
        return edit.changes | {model.head_name: edit.changes[model.embedding_name]}
