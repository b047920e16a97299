"""Questions on a concept that no pack brings: written by the model, kept where it answers two phrasings alike."""

import random
import re
from dataclasses import replace

from ember_demo.concept import KINDS, Question
from ember_demo.errors import ConceptError
from ember_demo.evaluation import LITTLE, normalise
from ember_demo.progress import part, silent
from ember_demo.texts import FACETS

SHORT = " Answer in a few words."
AGAIN = "I have a question for you. "  # before a question that the model does not put in other words
LABEL = re.compile(r"^\s*(?:[-*]|(?:question|q)?\s*\d*\s*[.):])\s*", re.IGNORECASE)
CLAUSE_END = re.compile(r"([,;:!?]|(?<=\w{3})\.)(?=\s|$)|\s\(|\n")  # not the points of "J. K." and "St."
TURNS = ("relearn", "validation", "test", "test")  # splits, in turn
FEWEST = 8  # kept questions on the concept
LONGEST = 8  # words of an answer
WITHOUT = (
    "erase without questions, at a strength of your choice (on the command line by erase --delta 5, or by study --no-questions --set ember.delta=5; in "
    "Python by load_concept(..., write=False) and Ember(delta=5)); or, in Python, give questions of your own by Concept(..., questions=[...])."
)
GENERAL = ("geography", "history", "science", "animals", "food", "music", "sports", "everyday life")


def write_questions(model, name, progress=silent):
    """Questions of the three kinds, each with the model's own answer before erasure as its reference.

    A question is kept where the model gives the same short answer to it and to another phrasing of it, and
    the answer does not stand in the question; what the answer repeats of the question is left out of the reference. Raises ConceptError where too few on the concept are left.
    """
    neighbours = _neighbours(model, name)
    subjects = {
        "concept": [f"{name}: {facet}" for facet in FACETS],
        "similar": neighbours or [f"subjects close to {name}, but not {name} itself"],
        "general": [f"{subject}, nothing to do with {name}" for subject in GENERAL],
    }
    questions, written, asked = [], 0, set()
    split = {}  # by answer: two questions with one answer may ask for one fact, and of two kinds too
    for number, kind in enumerate(KINDS):
        found = _written(model, subjects[kind], part(progress, number / 3, (number + 1) / 3, f"Questions, {kind}: "))
        written += len(found) if kind == "concept" else 0
        found = [text for text in found if normalise(text) not in asked]
        asked |= {normalise(text) for text in found}
        for question in _kept(model, found):
            here = split.setdefault(normalise(question.answer), TURNS[len(split) % len(TURNS)])
            questions.append(replace(question, kind=kind, split=here))
    kept = sum(q.kind == "concept" for q in questions)
    if not written:
        raise ConceptError(f"The model could not write any question on {name}: take a chat model; {WITHOUT}")
    if kept < FEWEST:
        raise ConceptError(
            f"The model answers only {kept} of {written} questions on {name} alike in two phrasings; at least {FEWEST} are needed. "
            f"It may not know the subject, or be too small to write questions: choose a larger model; {WITHOUT}"
        )
    return [replace(q, wrong=_others(q, questions)) for q in questions]


def _others(question, questions):
    """Three other answers to questions of its kind, as wrong options; none where there are fewer."""
    answers = {normalise(q.answer): q.answer for q in questions if q.kind == question.kind}
    del answers[normalise(question.answer)]
    return tuple(random.Random(question.text).sample(list(answers.values()), 3)) if len(answers) >= 3 else ()


def _neighbours(model, name):
    reply = model.chat(
        f"Name six subjects that are close to {name} but not part of it, separated by commas. Only the list.", max_new_tokens=80
    )
    found = [LABEL.sub("", s).strip(" .\n") for s in re.split(r"[,\n]", reply)]
    return list(dict.fromkeys(s for s in found if 1 <= len(s.split()) <= 5 and normalise(s) != normalise(name)))[:6]


def _written(model, subjects, progress):
    """Questions as the model writes them, a request a subject."""
    found = []
    for number, subject in enumerate(subjects):
        progress(number / len(subjects), f"the model writes part {number + 1} of {len(subjects)}")
        reply = model.chat(
            f"Write eight short quiz questions about {subject}. Each has one short answer. Only the questions, one a line.",
            max_new_tokens=300,
        )
        lines = (LABEL.sub("", line).strip(" *") for line in reply.splitlines())
        found += [line for line in lines if line.endswith("?") and 3 <= len(line.split()) <= 30]
    return list(dict.fromkeys(found))


def _kept(model, questions):
    """Questions of which the model says the same when it is asked in its own rewording of them; where that is no question, asked with a word before."""
    if not questions:
        return []
    asked = model.answer([f"Say this question in other words, as one question: {q}" for q in questions], max_new_tokens=40)
    reworded = [text.split("\n")[0].strip() for text, _ in asked]
    reworded = [r if r.endswith("?") and normalise(r) != normalise(q) else AGAIN + q for q, r in zip(questions, reworded)]
    first, second = (model.answer([q + SHORT for q in wording]) for wording in (questions, reworded))
    kept = []
    for question, other, (answer, ended), again in zip(questions, reworded, first, second):
        short = _short(answer, ended, question)
        said = normalise(short)
        if (
            said
            and said == normalise(_short(*again, other))
            and len(said.split()) <= LONGEST
            and f" {said} " not in f" {normalise(question)} "
        ):
            whole = () if normalise(answer) == said else (answer,)
            kept.append(Question(question + SHORT, short, whole))
    return kept


def _short(answer, ended, question):
    """What the first clause of an answer says beyond the question's own words: "The symbol of gold is Au, from Latin." -> "Au"; "" where it has no end."""
    end = CLAUSE_END.search(answer.strip())
    if not end and not ended:
        return ""
    words = answer.strip()[: end.start() if end else None].split()
    said = set(normalise(question).split()) | LITTLE
    for side in (0, -1):
        while words and said.issuperset(normalise(words[side]).split()):
            words.pop(side)
    return " ".join(words).rstrip(".")
