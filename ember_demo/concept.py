"""Concept: the texts and questions that say what is to be erased, and what is to be kept."""

from dataclasses import dataclass, field

from ember_demo.errors import ConceptError

KINDS = ("concept", "similar", "general")
SPLITS = ("relearn", "validation", "test")
FLUENCY_TEXTS = 40  # a split


@dataclass(frozen=True)
class Question:
    """One question with its reference answer.

    kind: "concept", "similar" (neighbouring domain) or "general".
    split: "relearn" (an attacker may train on it, erasers too), "validation" (settings are chosen
    on it) or "test" (it is only asked). wrong: three options for the multiple-choice form.
    subject: what the question is about; the wordings of a fact share (subject, answer, relation).
    """

    text: str
    answer: str
    aliases: tuple = ()
    wrong: tuple = ()
    kind: str = "concept"
    split: str = "test"
    subject: str = ""
    relation: str = ""

    def __post_init__(self):
        for name, value, known in (("kind", self.kind, KINDS), ("split", self.split, SPLITS)):
            if value not in known:
                raise ConceptError(f"A question of the {name} {value!r}: there is {', '.join(known)}; choose one.")
        if isinstance(self.wrong, str) or isinstance(self.aliases, str):
            raise ConceptError(f"The aliases and wrong options of {self.text!r} are lists of texts; put them in brackets.")
        object.__setattr__(self, "answer", self.answer.strip())
        object.__setattr__(self, "wrong", tuple(option.strip() for option in self.wrong))

    @property
    def fact(self):
        return (self.subject or self.text, self.relation, self.answer)


@dataclass
class Concept:
    """What to erase: sentences on it, sentences on anything else, and questions of three kinds.

    paragraphs: what an attacker of the paper's form trains on; a pack's say nothing of a test subject, other sources are taken as they are.
    fluency_texts: general text on which fluency is measured, by split; where none is given, a quarter of the neutral texts at most, which then
    no eraser sees (`retain_texts`).
    """

    name: str
    texts: list
    neutral_texts: list
    questions: list = field(default_factory=list)
    paragraphs: list = field(default_factory=list)
    fluency_texts: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.name.strip():
            raise ConceptError("The concept has no name; type one.")
        if not self.texts or not self.neutral_texts:
            raise ConceptError(f"{self.name} needs sentences on the concept and neutral ones; give both.")
        self.questions = [q if isinstance(q, Question) else Question(**q) for q in self.questions]
        if not self.fluency_texts:
            halves = self.neutral_texts[::2], self.neutral_texts[1::2] or self.neutral_texts
            count = max(1, min(FLUENCY_TEXTS, len(self.neutral_texts) // 8))
            self.fluency_texts = {split: texts[:count] for split, texts in zip(("validation", "test"), halves)}

    @property
    def retain_texts(self):
        """The neutral texts that erasers may use: those that fluency is not measured on; ConceptError where there are none."""
        measured = {text for texts in self.fluency_texts.values() for text in texts}
        kept = [text for text in self.neutral_texts if text not in measured]
        if not kept:
            raise ConceptError(f"Fluency is measured on all neutral texts of {self.name}, so none is left to erase by; give more of them.")
        return kept

    def select(self, kind, split):
        """The questions of one kind and split."""
        return [q for q in self.questions if q.kind == kind and q.split == split]

    def facts(self, kind, split):
        """The facts that these ask about, each once however many wordings it has."""
        return list(dict.fromkeys(q.fact for q in self.select(kind, split)))
