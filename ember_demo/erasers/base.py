"""What an eraser is: something that fits a WeightEdit to a model and a concept."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from ember_demo.memory import SMALL
from ember_demo.progress import part, silent


class Eraser(ABC):
    """Subclasses are frozen dataclasses of their settings, with a `name`, what it `touches` and a `description`."""

    name: str
    touches: str
    description: str
    combines = True  # whether a study also fits it on the model that EMBER has edited
    small: ClassVar[dict] = {}  # what a setting of None means for a model of under 50 million parameters,
    large: ClassVar[dict] = {}  # and for a larger one
    space: ClassVar[dict] = {}  # what a search varies, between which multiples of its usual value

    @abstractmethod
    def fit(self, model, concept, seed=0, progress=silent):
        """The WeightEdit that erases `concept` from `model`, which is left as it was."""

    def settings(self):
        return asdict(self)

    def resolved(self, model):
        """These settings with every None replaced by what suits the model."""
        usual = self.small if model.parameter_count < SMALL else self.large
        return replace(self, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    def __add__(self, other):
        """This eraser, and then the other on the model so edited."""
        return Sequence(self, other)


@dataclass(frozen=True)
class Sequence(Eraser):
    """Two erasers, the second fitted on the model as the first left it."""

    first: Eraser
    second: Eraser

    @property
    def name(self):
        return f"{self.first.name}+{self.second.name}"

    @property
    def touches(self):
        return f"{self.first.touches}; {self.second.touches}"

    @property
    def description(self):
        return f"{self.first.description} Then: {self.second.description}"

    def fit(self, model, concept, seed=0, progress=silent):
        first = self.first.fit(model, concept, seed, part(progress, 0, 0.5))
        return extend(first, self.second, model, concept, seed, part(progress, 0.5, 1))


def extend(edit, eraser, model, concept, seed=0, progress=silent):
    """`edit`, and what `eraser` changes on the model that has it."""
    with edit.applied(model):
        return edit + eraser.fit(model, concept, seed, progress)
