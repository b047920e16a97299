"""What an attack is: something that tries to get erased knowledge back, and counts how much."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field

from ember_demo.evaluation import wilson
from ember_demo.progress import silent

WEIGHTS = "holds the weights"


@dataclass(frozen=True)
class AttackResult:
    """Accuracy on the concept's test questions along an attack.

    curve: before it, and after each epoch; interval: of the last, 95% Wilson over facts;
    replies: the answers after the attack.
    """

    attack: str
    settings: dict
    curve: list
    interval: list
    replies: list = field(repr=False, default_factory=list)

    @property
    def before(self):
        return self.curve[0]

    @property
    def after(self):
        return self.curve[-1]

    def as_dict(self):
        return {"before": self.before, "after": self.after, "curve": self.curve, "interval": self.interval}


class Attack(ABC):
    """Subclasses are frozen dataclasses of their settings, with a `name`, a `threat_model` and a `description`."""

    name: str
    threat_model: str
    description: str

    @abstractmethod
    def run(self, model, concept, edit=None, seed=0, progress=silent):
        """Attack the model with `edit` applied; an AttackResult. The model is left as it was.

        `progress` gets `epoch` and `accuracy` whenever a point of the curve is known.
        """

    def settings(self):
        return asdict(self)

    def result(self, curve, replies, **settings):
        """`settings` are what was found out on the way, beside the attack's own."""
        facts = {r.question.fact for r in replies}
        return AttackResult(self.name, self.settings() | settings, curve, wilson(curve[-1], len(facts)), replies)
