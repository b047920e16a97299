"""What an attack is: something that tries to get erased knowledge back, and counts how much."""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from ember_demo.errors import ConceptError
from ember_demo.evaluation import ask, first_wordings, share_invalid, share_right, wilson
from ember_demo.progress import silent

# Threat models: what the attacker has.
PROMPTS = "asks questions only"
WEIGHTS = "holds the weights"
BASE = "holds the weights and the public base model"
THREATS = (PROMPTS, WEIGHTS, BASE)

PLAINLY = "asking plainly"


@dataclass(frozen=True)
class AttackResult:
    """Share of right answers to the concept's test questions along an attack.

    curve: before it, and after each of its steps; steps: what these points are called;
    interval: of the last, 95% Wilson over facts; replies: the answers after the attack; chance: the share of them that guessing gets right, which
    is taken out of the curve's last point. invalid: by point of the curve, the share of answers that cannot be read as one.
    found: what the attack found out on the way, such as which of its ways was the best.
    """

    attack: str
    settings: dict
    curve: list
    steps: list
    interval: list
    invalid: list
    replies: list = field(repr=False, default_factory=list)
    chance: float = 0.0
    found: dict = field(default_factory=dict)

    @property
    def before(self):
        return self.curve[0]

    @property
    def after(self):
        return self.curve[-1]

    def as_dict(self):
        shown = {"before": self.before, "after": self.after, "curve": self.curve, "steps": self.steps, "interval": self.interval}
        return shown | {"invalid": self.invalid, "chance": self.chance, "found": self.found}


class Attack(ABC):
    """Subclasses are frozen dataclasses of their settings, with a `name`, a `title` in plain words, a `threat_model` and a `description`."""

    name: str
    title: str
    threat_model: str
    description: str
    points = 2  # of its curve
    trains_on_facts = False  # whether the attacker trains something on facts of the concept, some of those that are not asked about
    counts = "right answers"  # what the points of its curve are shares of
    changes_weights = False  # whether the model holds what the attack made of it when the last point of the curve is made

    def run(self, model, concept, edit=None, seed=0, progress=silent, before=None):
        """Attack the model with `edit` applied; an AttackResult. The model is left as it was.

        before: the replies to the concept's test questions before the attack, where they are known already.
        `progress` gets `accuracy` and `step`, its name, whenever a point of the curve is known.
        Raises ConceptError where the concept lacks what the attack needs, ModelError as `check`.
        """
        self.check(model)
        questions = concept.select("concept", "test")
        if not questions:
            raise ConceptError(f"{concept.name} has no test questions, so recovery cannot be counted; give some.")
        with edit.applied(model) if edit else nullcontext():
            return self.attack(model, concept, seed, progress, self.begin(model, questions, progress, before))

    def check(self, model):
        """Raise ModelError where this machine has not the memory for it."""

    def begin(self, model, questions, progress, before=None):
        """The curve with its first point: the answers to the test questions as they are asked."""
        curve = Curve(progress)
        curve.add(before or ask(model, questions), "before", 0.0)
        return curve

    @abstractmethod
    def attack(self, model, concept, seed, progress, curve):
        """The AttackResult on the model as it stands, which is left so; `curve` has its first point."""

    def settings(self):
        return asdict(self)

    def result(self, curve, **found):
        """From a Curve, and from what was found out on the way."""
        return AttackResult(
            self.name, self.settings(), curve.shares, curve.steps, curve.interval, curve.invalid, curve.replies, curve.chance, found
        )


class Curve:
    """The points of an attack as they become known: the first is before it.

    chance: the share of right answers that guessing gives; it is taken out of the points, so that 0 is guessing and 1 all right.
    A point that is asked for in another way can have a chance of its own.
    """

    def __init__(self, progress, chance=0.0):
        self.shares, self.steps, self.interval, self.invalid, self.replies = [], [], [], [], []
        self.progress, self.chance = progress, chance

    def add(self, replies, step, fraction=1.0, chance=None):
        """A point from the replies to the test questions."""
        self.chance = self.chance if chance is None else chance
        right = share_right(replies)
        share = self._known(right)
        self.progress(fraction, f"{step.capitalize()}: {share:.0%} right", step=step, accuracy=share, number=len(self.shares))
        self.shares.append(share)
        self.steps.append(step)
        self.interval = [self._known(end) for end in wilson(right, len({r.question.fact for r in replies}))]
        self.invalid.append(share_invalid(replies))
        self.replies = replies

    def _known(self, share):
        return above_chance(share, self.chance)


def above_chance(share, chance):
    """A share of right answers without what guessing gets right: 0 is guessing, 1 all right."""
    return max(0.0, (share - chance) / (1 - chance))


def best_of(model, concept, ways, curve, progress, chances=MappingProxyType({})):
    """Ask the validation questions, one a fact, plainly and in every way, and add to the curve what the best of these gets on the test questions.

    ways: by name, a function from questions to the replies that it gets. Of equals the first counts. chances: by name, what guessing gets right
    where that is more than nothing.
    The curve's last point is that of asking plainly. Returns what was chosen and the shares of right answers that it was chosen by.
    """
    trials = first_wordings(concept.select("concept", "validation"))
    if not trials:
        raise ConceptError(f"{concept.name} has no validation questions to choose among the attack's ways; give some.")
    ways = {PLAINLY: lambda questions: ask(model, questions)} | ways
    found = {}
    for number, (name, way) in enumerate(ways.items()):
        progress(number / (len(ways) + 1), f"Trying {name}")
        found[name] = above_chance(share_right(way(trials)), chances.get(name, 0.0))
    chosen = max(found, key=found.get)
    replies = curve.replies if chosen == PLAINLY else ways[chosen](concept.select("concept", "test"))
    curve.add(replies, chosen, chance=chances.get(chosen, 0.0))
    return {"chosen": chosen, "on_validation": found}
