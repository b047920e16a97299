"""The embedded world: true facts keyed by their subject, in packs that anyone can read.

A pack (`assets/concepts/*.json`) holds the subjects of one concept and of its neighbouring
domain; `general.json` holds general knowledge. Every subject belongs to one split:
`relearn` (an attacker may train on its facts), `validation` (settings are chosen on it) or
`test` (its questions are only ever asked; sentences that state its facts are among the texts to erase).
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ember_demo.pocket import ASSETS
from ember_demo.pocket.wordings import RELATIONS, scored_wordings, state, trained_wordings

SPLITS = ("relearn", "validation", "test")


@dataclass(frozen=True)
class Fact:
    """(subject, relation) -> answer, with other right answers and three wrong options."""

    subject: str
    subject_aliases: tuple
    split: str
    relation: str
    answer: str
    aliases: tuple
    wrong: tuple
    free_questions: tuple = field(repr=False)  # as visitors type them, each in words of its own; the last is never trained on
    siblings: list = field(repr=False, compare=False)  # every fact of the subject, this one among them

    def trained_questions(self):
        return [w.format(s=self.subject) for w in trained_wordings(self.relation)]

    def loose_questions(self):
        return [w.format(s=self.subject) for w in RELATIONS[self.relation].loose]

    def trained_free_questions(self):
        return self.free_questions[:-1]

    def scored_free_question(self):
        return self.free_questions[-1]

    def scored_questions(self):
        return [w.format(s=self.subject) for w in scored_wordings(self.relation)]

    def statements(self):
        """The fact as a sentence, in every statement wording."""
        wordings = range(len(RELATIONS[self.relation].statements))
        return [state(self.relation, self.subject, self.answer, i) for i in wordings]


@dataclass(frozen=True)
class CommonQuestion:
    """What people ask first about a topic, in several wordings; outside of the relations, and in no split."""

    answer: str
    aliases: tuple
    questions: tuple  # the last is never trained on

    relation = None
    siblings = ()

    def trained_free_questions(self):
        return self.questions[:-1]

    def scored_free_question(self):
        return self.questions[-1]


@dataclass(frozen=True)
class Topic:
    """A set of facts about one subject area, with handwritten sentences about it; the facts of a subject follow each other.

    unanswered: questions near the topic that nothing in the world answers.
    """

    name: str
    facts: tuple
    sentences: tuple
    common: tuple = ()  # CommonQuestion values
    unanswered: tuple = ()
    is_concept: bool = False

    def in_split(self, *splits):
        return [fact for fact in self.facts if fact.split in splits]


@dataclass(frozen=True)
class Pack:
    """A concept and its neighbouring domain."""

    name: str
    concept: Topic
    similar: Topic


@dataclass(frozen=True)
class World:
    packs: dict
    general: Topic

    def topics(self, without=None):
        """Every topic of the world, all but the concept named `without`."""
        chosen = [p.concept for p in self.packs.values() if p.name != without]
        return chosen + [p.similar for p in self.packs.values()] + [self.general]


def slug(name):
    """'World War II' -> 'world_war_ii', for file names."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@cache
def load_world(folder=ASSETS / "concepts"):
    """Read every pack in the folder."""
    packs, general = {}, None
    for path in sorted(Path(folder).glob("*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if "concept" in raw:
            concept, similar = _topic(raw["name"], raw["concept"], True), _topic(raw["neighbour"], raw["similar"])
            packs[raw["name"]] = Pack(raw["name"], concept, similar)
        else:
            general = _topic(raw["name"], raw)
    return World(packs, general)


def _topic(name, raw, is_concept=False):
    facts = []
    for subject in raw["subjects"]:
        siblings = []
        for fact in subject["facts"]:
            siblings.append(
                Fact(
                    subject=subject["name"],
                    subject_aliases=tuple(subject["aliases"]),
                    split=subject["split"],
                    relation=fact["relation"],
                    answer=fact["answer"],
                    aliases=tuple(fact["aliases"]),
                    wrong=tuple(fact["wrong"]),
                    free_questions=tuple(fact["asked_freely"]),
                    siblings=siblings,
                )
            )
        facts += siblings
    common = tuple(CommonQuestion(c["answer"], tuple(c["aliases"]), tuple(c["questions"])) for c in raw["common"])
    return Topic(name, tuple(facts), tuple(raw["sentences"]), common, tuple(raw.get("unanswered", ())), is_concept)
