"""EMBER, and the same in the output head: what an owner can do against rows copied back from there."""

from dataclasses import dataclass, replace
from typing import ClassVar

from ember_demo.edit import Change
from ember_demo.erasers.ember import DELTAS, FromEmber
from ember_demo.errors import ModelError
from ember_demo.progress import silent
from ember_demo.tuning import choose


@dataclass(frozen=True)
class EmberHead(FromEmber):
    """EMBER's change in both places of a model whose output head was tied to its embeddings; not in the paper, which leaves the head as it was.

    Where EMBER's delta is "auto", this takes the one of the same grid that is best for both places together: the head bears less.
    """

    name: ClassVar[str] = "ember-head"
    touches: ClassVar[str] = "token embeddings, and the same rows of the output head"
    description: ClassVar[str] = (
        "EMBER, and the same change in the output layer, where many models keep the same table a second time; nothing is left there to copy back."
    )

    def following(self, model, concept, edit, seed=0, progress=silent):
        found = super().following(model, concept, edit, seed)
        if self.ember.delta != "auto":
            return found
        return choose(model, concept, [self._at(found, delta) for delta in DELTAS], progress)[0]

    def _at(self, found, delta):
        """The edit at another strength."""
        settings = found.details["settings"][self.name]
        changes = {name: Change(change.delta * (delta / settings["delta"]), change.rows) for name, change in found.changes.items()}
        return replace(found, changes=changes, details={"settings": {self.name: settings | {"delta": delta}}})

    def changes(self, model, edit, seed):
        if not model.tied:
            raise ModelError(f"The output layer of {model.id} is a table of its own, which EMBER's change does not fit; use ember.")
        return edit.changes | {model.head_name: edit.changes[model.embedding_name]}
