"""Where a concept comes from: a pack, the authors' published files, or texts on a name that anybody types."""

import json
import random
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from ember_demo.concept import FLUENCY_TEXTS, Concept, Question
from ember_demo.errors import ConceptError, UnknownConcept
from ember_demo.evaluation import follows_instructions
from ember_demo.pocket.world import load_world
from ember_demo.progress import part, silent
from ember_demo.questions import SHORT, write_questions
from ember_demo.texts import LARGEST_FILE, check_enough, from_model, from_wikipedia, neutral_sentences, read_file, split_sentences

TEXT_COUNT = 300  # texts a side, as in the paper
NEUTRAL_WORDINGS = 180  # of the neutral texts: facts in every wording; else the words of ordinary questions count as the concept's own
GENERAL_FACTS = 60  # a split; enough for an interval of +-10 points, and quick
WORDINGS_TO_RELEARN = 4


def concept_names():
    """The concepts that ship with texts and questions."""
    return sorted(load_world().packs)


def listed_name(name):
    """A concept's name as the list has it, however its capitals were typed; any other as it was typed, without space around it."""
    name = (name or "").strip()
    return {pack.lower(): pack for pack in load_world().packs}.get(name.lower(), name)


def load_concept(name, model=None, data=None, texts=None, write=True, progress=silent):
    """A concept by name: from the packs, from a folder with the authors' files (`data`), or from texts of any source.

    texts: None for a pack; "wikipedia"; "model" (the model writes them); the path of a txt, md or jsonl file;
    or the sentences themselves, as a list. Then `model`, where given, writes the questions too, unless `write` is False.
    A `model` that answers in sentences where it is not told to is asked to answer in a few words.
    Raises ConceptError where the name is unknown or the texts are too few.
    """
    name = listed_name(name)
    if not name:
        raise ConceptError("No concept was named; choose one of " + ", ".join(concept_names()) + ".")
    if data is not None:
        return _asked_briefly(_read_authors(name, Path(data)), model)
    if texts is not None:
        return _from_texts(name, model, texts, write, progress)
    world = load_world()
    if name not in world.packs:
        known = {pack.lower(): pack for pack in world.packs}
        near = get_close_matches(name.lower(), known, 1)
        meant = f"Did you mean {known[near[0]]}? " if near else ""
        raise UnknownConcept(
            f"There is no concept pack {name!r}. {meant}Choose one of {', '.join(concept_names())}, or bring texts on it "
            "(on the page in step 2, on the command line by --texts, in Python by texts=)."
        )
    return _asked_briefly(_from_pack(world, world.packs[name]), model)


def _asked_briefly(concept, model):
    if model is None or not follows_instructions(model):
        return concept
    return replace(concept, questions=[replace(q, text=q.text + SHORT) for q in concept.questions])


def _from_texts(name, model, texts, write, progress):
    sentences = check_enough(name, gather(name, model, texts, part(progress, 0, 0.4)))
    questions = write_questions(model, name, part(progress, 0.4, 1)) if model and write else []
    return Concept(name, sentences, neutral_sentences(), questions, fluency_texts=_fluency_texts(random.Random(name)))


def gather(name, model, texts, progress=silent):
    """The sentences on a concept from a source as `load_concept` takes it, to be looked at before they are used."""
    if texts == "wikipedia":
        return from_wikipedia(name)
    if texts == "model":
        if model is None:
            raise ConceptError("The model is to write the texts, but none is given.")
        return from_model(model, name, progress)
    return split_sentences("\n".join(texts)) if isinstance(texts, list | tuple) else read_file(texts)


def _from_pack(world, pack):
    rng = random.Random(pack.name)
    texts = list(pack.concept.sentences) + [f.statements()[i % 6] for i, f in enumerate(pack.concept.facts)]
    neutral = list(world.general.sentences)
    for other in world.packs.values():
        if other is not pack:
            neutral += other.concept.sentences + other.similar.sentences
    wordings = _every_wording(world.general.in_split("relearn"), rng)[:NEUTRAL_WORDINGS]
    questions = []
    topics = {"concept": pack.concept, "similar": pack.similar, "general": world.general}
    for kind, topic in topics.items():
        for split in ("relearn", "validation", "test"):
            facts = topic.in_split(split)
            if kind == "general":
                facts = rng.sample(facts, min(GENERAL_FACTS, len(facts)))
            questions += [q for fact in facts for q in _questions(fact, kind, split, rng)]
    return Concept(
        name=pack.name,
        texts=rng.sample(texts, min(TEXT_COUNT, len(texts))),
        neutral_texts=wordings + rng.sample(neutral, TEXT_COUNT - len(wordings)),
        questions=questions,
        paragraphs=_paragraphs(pack.concept.in_split("relearn"), rng),
        fluency_texts=_fluency_texts(rng),
    )


def _questions(fact, kind, split, rng):
    """Trained wordings where a question may be trained on, unseen ones where it scores."""
    if split == "relearn":
        texts = rng.sample(fact.trained_questions(), WORDINGS_TO_RELEARN)
    else:
        texts = fact.scored_questions()
    return [Question(text, fact.answer, fact.aliases, fact.wrong, kind, split, fact.subject, fact.relation) for text in texts]


def _every_wording(facts, rng):
    """Each statement wording of each relation with some fact, then each trained question wording, those in random order."""
    facts = rng.sample(facts, len(facts))
    stated = {(f.relation, i): text for f in facts for i, text in enumerate(f.statements())}
    asked = {(f.relation, i): text for f in facts for i, text in enumerate(f.trained_questions())}
    return list(stated.values()) + rng.sample(list(asked.values()), len(asked))


def _fluency_texts(rng, size=3):
    """By split, general facts as the world states them, a few together; what is known by heart word for word would measure recall."""
    found, general = {}, load_world().general
    for split in ("validation", "test"):
        stated = [f.statements() for f in general.in_split(split)]
        found[split] = [" ".join(rng.choice(s) for s in rng.sample(stated, size)) for _ in range(FLUENCY_TEXTS)]
    return found


def _paragraphs(facts, rng, size=5, count=100):
    statements = [s for fact in facts for s in fact.statements()]
    rng.shuffle(statements)
    return [" ".join(statements[i : i + size]) for i in range(0, len(statements), size)][:count]


def _read_authors(name, folder):
    """The authors' published files: concept_sentences, neutral_sentences, open_questions, mc_questions, relearn_paragraphs."""
    try:
        sentences = {row["concept"]: row["sentences"] for row in _read_json(folder / "concept_sentences.json")}
        known = {concept.lower(): concept for concept in sentences}
        if name.lower() not in known:
            raise ConceptError(f"{folder} holds no sentences on {name!r}; it has {', '.join(sorted(sentences)) or 'none'}.")
        name = known[name.lower()]
        return Concept(
            name=name,
            texts=_texts(sentences[name]),
            neutral_texts=_texts([row["sentence"] for row in _read_json(folder / "neutral_sentences.json")]),
            questions=_authors_questions(folder, name),
            paragraphs=_texts(_read_json(folder / "relearn_paragraphs.json")[name]["RelearnParagraphs"]),
            fluency_texts=_fluency_texts(random.Random(name)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConceptError(f"The files in {folder} do not have the authors' form for {name} ({error}); get them again.") from error


def _authors_questions(folder, name):
    """QA_train chooses settings, QA_test scores; Simdom sets are the neighbouring domain. General ability is not in their files."""
    multiple_choice = _read_json(folder / "mc_questions.json")[name]
    questions = []
    for key, rows in _read_json(folder / "open_questions.json")[name].items():
        wrong = {q["q"]: tuple(o for o in q["options"] if o != q["correct_answer"]) for q in multiple_choice[key]}
        kind = "similar" if key.startswith("Simdom") else "concept"
        split = "validation" if key.endswith("train") else "test"
        questions += [Question(*_texts([row["q"], row["a"]]), (), wrong.get(row["q"], ()), kind, split) for row in rows]
    return questions


def _texts(found):
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError("no texts where they should be")
    return found


def _read_json(path):
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConceptError(f"{path} is larger than {LARGEST_FILE / 1e6:.0f} MB, so it is not the authors'; get the file again.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConceptError(f"{path} is missing; --data wants a folder with the authors' files.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConceptError(f"{path} is not JSON ({error}); get the file again.") from error
