"""EMBER, and the same in the output head: what an owner can do against rows copied back from there."""

from dataclasses import asdict, dataclass, field
from typing import ClassVar

from ember_demo.edit import WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.erasers.ember import Ember
from ember_demo.errors import ModelError
from ember_demo.progress import silent


@dataclass(frozen=True)
class EmberHead(Eraser):
    """EMBER's change in both places of a model whose output head was tied to its embeddings; not in the paper, which leaves the head as it was."""

    name: ClassVar[str] = "ember-head"
    touches: ClassVar[str] = "token embeddings, and the same rows of the output head"
    description: ClassVar[str] = (
        "EMBER, and the same change in the output layer, where many models keep the same table a second time; nothing is left there to copy back."
    )

    combines: ClassVar[bool] = False

    ember: Ember = field(default_factory=Ember)

    def settings(self):
        return asdict(self.ember)

    def fit(self, model, concept, seed=0, progress=silent):
        if not model.tied:
            raise ModelError(f"The output layer of {model.id} is a table of its own, which EMBER's change does not fit; use ember.")
        edit = self.ember.fit(model, concept, seed, progress)
        change = edit.changes[model.embedding_name]
        return WeightEdit(
            edit.changes | {model.head_name: change}, model.fingerprint, {"settings": {self.name: edit.details["settings"]["ember"]}}
        )
