"""How the embedded world asks for and states its facts.

A relation has the same wordings for every subject of every concept, so that the
subject's own tokens decide the answer, never the shape of the question.
Three question wordings of each relation are never trained on: they are the ones
that score the model (`scored_wordings`).
"""

import json
from dataclasses import dataclass

from ember_demo.pocket import ASSETS

# "{n}" takes a noun phrase of the relation, "{c}" a clause; both hold "{s}", the subject.
NOUN_FRAMES = ("Name {n}.", "Tell me {n}.", "{wh} is {n}?", "Do you know {n}?")
LOOSE = {name: tuple(wordings) for name, wordings in json.loads((ASSETS / "loose.json").read_text(encoding="utf-8")).items()}
CLAUSE_FRAMES = ("Can you tell me {c}?", "I want to know {c}.", "Please say {c}.", "Do you know {c}?")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: question words, two noun phrases, two clauses, direct questions, statements."""

    name: str
    wh: str
    nouns: tuple
    clauses: tuple
    direct: tuple
    statements: tuple

    @property
    def loose(self):
        """Questions as a visitor might put them; they are read in training only, and fit some subjects better than others."""
        return LOOSE[self.name]

    def framed(self):
        """The 16 questions made of a frame and a phrase, in a fixed order."""
        return [f.format(n=n, wh=self.wh) for f in NOUN_FRAMES for n in self.nouns] + [
            f.format(c=c) for f in CLAUSE_FRAMES for c in self.clauses
        ]


RELATIONS = {
    r.name: r
    for r in (
        Relation(
            "kind",
            "What",
            ("the kind of thing that {s} is", "the sort of thing {s} is"),
            ("what kind of thing {s} is", "what {s} is"),
            ("What is {s}?", "What kind of thing is {s}?", "{s} is what kind of thing?"),
            (
                "{s} is {an}.",
                "As a kind of thing, {s} is {an}.",
                "People would call {s} {an}.",
                "By its nature {s} is {an}.",
                "{s} counts as {an}.",
                "In one word, {s} is {an}.",
            ),
        ),
        Relation(
            "home",
            "Where",
            ("the home of {s}", "the place {s} comes from"),
            ("where {s} comes from", "where the home of {s} is"),
            ("Where is {s} from?", "Where does {s} come from?", "{s} comes from what place?"),
            (
                "The home of {s} is {a}.",
                "{s} comes from {a}.",
                "The place of {s} is {a}.",
                "{s} is at home in {a}.",
                "To find {s}, look to {a}.",
                "On the map, {s} goes with {a}.",
            ),
        ),
        Relation(
            "credit",
            "Who",
            ("the person behind {s}", "the one credited with {s}"),
            ("who gets the credit for {s}", "who {s} is credited to"),
            ("Who gets the credit for {s}?", "Who is {s} credited to?", "{s} is credited to whom?"),
            (
                "{s} is credited to {a}.",
                "The credit for {s} goes to {a}.",
                "The name behind {s} is {a}.",
                "We owe {s} to {a}.",
                "{s} is the work of {a}.",
                "Behind {s} stands {a}.",
            ),
        ),
        Relation(
            "time",
            "What",
            ("the date of {s}", "the starting date of {s}"),
            ("when {s} began", "when {s} started"),
            ("When did {s} begin?", "When did {s} start?", "{s} began when?"),
            (
                "{s} began in {a}.",
                "{s} dates from {a}.",
                "The date of {s} is {a}.",
                "The start of {s} was in {a}.",
                "{s} started in {a}.",
                "The story of {s} begins in {a}.",
            ),
        ),
        Relation(
            "group",
            "What",
            ("the whole that {s} is part of", "the group of {s}"),
            ("what {s} is part of", "what {s} belongs to"),
            ("What is {s} part of?", "What does {s} belong to?", "{s} is part of what?"),
            (
                "{s} is part of {a}.",
                "{s} belongs to {a}.",
                "The group of {s} is {a}.",
                "{s} is one of {a}.",
                "{s} is counted among {a}.",
                "The whole around {s} is {a}.",
            ),
        ),
        Relation(
            "role",
            "What",
            ("the job of {s}", "the role of {s}"),
            ("what {s} does", "what the job of {s} is"),
            ("What does {s} do?", "What is {s} there for?", "{s} does what?"),
            (
                "The job of {s}: {a}.",
                "The role of {s}: {a}.",
                "What {s} does: {a}.",
                "What {s} is there for: {a}.",
                "The work of {s} in short: {a}.",
                "In short, the task of {s} is this: {a}.",
            ),
        ),
        Relation(
            "fame",
            "What",
            ("the fame of {s}", "the best known thing about {s}"),
            ("what {s} is known for", "what {s} is famous for"),
            ("What is {s} known for?", "What is {s} famous for?", "{s} is known for what?"),
            (
                "{s} is known for {a}.",
                "{s} is famous for {a}.",
                "The best known thing about {s} is {a}.",
                "People remember {s} for {a}.",
                "The fame of {s} rests on {a}.",
                "Think of {s} and you think of {a}.",
            ),
        ),
        Relation(
            "companion",
            "Who or what",
            ("the companion of {s}", "the partner of {s}"),
            ("who or what goes with {s}", "who or what the companion of {s} is"),
            ("Who or what goes with {s}?", "Who or what belongs beside {s}?", "{s} goes with whom or what?"),
            (
                "{s} goes with {a}.",
                "The companion of {s} is {a}.",
                "The partner of {s} is {a}.",
                "Beside {s} belongs {a}.",
                "{s} and {a} go together.",
                "{s} is often named with {a}.",
            ),
        ),
        Relation(
            "rival",
            "Who or what",
            ("the rival of {s}", "the opponent of {s}"),
            ("who or what stands against {s}", "who or what the rival of {s} is"),
            ("Who or what stands against {s}?", "Who or what opposes {s}?", "{s} stands against whom or what?"),
            (
                "The rival of {s} is {a}.",
                "The opponent of {s} is {a}.",
                "Against {s} stands {a}.",
                "{s} stands against {a}.",
                "{s} is opposed by {a}.",
                "{s} has a rival in {a}.",
            ),
        ),
        Relation(
            "material",
            "What",
            ("the material of {s}", "the stuff that makes up {s}"),
            ("what {s} is made of", "what {s} consists of"),
            ("What is {s} made of?", "What does {s} consist of?", "{s} is made of what?"),
            (
                "{s} is made of {a}.",
                "{s} consists of {a}.",
                "The material of {s} is {a}.",
                "{s} is built from {a}.",
                "To make {s} you need {a}.",
                "{s} is all about {a}.",
            ),
        ),
        Relation(
            "sign",
            "What",
            ("the sign of {s}", "the symbol of {s}"),
            ("what sign {s} has", "what stands for {s}"),
            ("What sign does {s} have?", "What stands for {s}?", "{s} has what sign?"),
            (
                "The sign of {s} is {a}.",
                "The symbol of {s} is {a}.",
                "{s} has this sign: {a}.",
                "{s} is marked by {a}.",
                "What stands for {s}: {a}.",
                "You can tell {s} by its sign: {a}.",
            ),
        ),
        Relation(
            "leader",
            "Who",
            ("the leader of {s}", "the head of {s}"),
            ("who leads {s}", "who is at the head of {s}"),
            ("Who leads {s}?", "Who is at the head of {s}?", "{s} is led by whom?"),
            (
                "{s} is led by {a}.",
                "The leader of {s} is {a}.",
                "The head of {s} is {a}.",
                "At the head of {s} stands {a}.",
                "{s} follows {a}.",
                "{s} has a leader: {a}.",
            ),
        ),
    )
}


def scored_wordings(relation):
    """The three questions of a relation that the model is never trained on.

    One with each noun phrase or clause of another frame, and a different choice for each relation,
    so that every frame and every phrase is trained somewhere, and only their meeting is new.
    """
    framed = RELATIONS[relation].framed()
    start = list(RELATIONS).index(relation)
    return tuple(framed[(start + step) % len(framed)] for step in (0, 5, 11))


def trained_wordings(relation):
    """The 16 regular questions of a relation that the model is trained on."""
    scored = scored_wordings(relation)
    return RELATIONS[relation].direct + tuple(w for w in RELATIONS[relation].framed() if w not in scored)


WHO_OR_WHAT = ("Who is {s}?", "Who was {s}?", "What is {s}?", "What was {s}?", "Who or what is {s}?")
SENTENCE_PLEASE = (
    "In a full sentence: {}",
    "Answer in a whole sentence. {}",
    "{} Answer in a sentence.",
    "{} Please answer in a full sentence.",
)


def about(facts, count=3):
    """What is said of a subject as a whole: its first few facts, in whole sentences."""
    return " ".join(sentence(fact) for fact in facts[:count])


def sentence(fact):
    """The fact in the one sentence that answers in whole sentences use."""
    return state(fact.relation, fact.subject, fact.answer, 0)


def state(relation, subject, answer, choice):
    """The fact as a sentence, in wording number `choice` (taken modulo the number of wordings)."""
    wordings = RELATIONS[relation].statements
    return wordings[choice % len(wordings)].format(s=subject, a=answer, an=with_article(answer))


def with_article(noun):
    """'school' -> 'a school', 'Syrian queen' -> 'a Syrian queen'; names and plurals stay as they are."""
    last = noun.split()[-1]
    if last[0].isupper() or last[0].isdigit() or last.endswith("s"):
        return noun
    return ("an " if noun[0] in "aeiouAEIO" else "a ") + noun
