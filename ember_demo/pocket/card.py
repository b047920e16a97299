"""The model card of the embedded model, with figures measured on the saved weights."""

import json
from pathlib import Path
from statistics import mean

from ember_demo.erasers import RMU, Ember
from ember_demo.errors import ModelError
from ember_demo.evaluation import accuracy_of
from ember_demo.grid import overall_table
from ember_demo.loading import has_control, load_control, load_model
from ember_demo.pictures import markdown_table
from ember_demo.pocket.measure import (
    admitted_ignorance,
    answered_in_sentences,
    common_questions,
    free_questions,
    own_features,
    probe_accuracy,
    probes,
    score_topic,
    topic_questions,
)
from ember_demo.pocket.world import ASSETS, load_world
from ember_demo.sources import load_concept
from ember_demo.study import subject_tokens

HEADER = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---"""
SIZES = ASSETS / "results" / "sizes.json"
GRID = ASSETS / "results" / "grid.json"


def write_card(out):
    """Measure the model in folder `out` and write its README.md; the figures that sizes are compared by go into its training.json."""
    out, world = Path(out), load_world()
    made = _read_training(out)
    without = made["without"]
    model = load_model(str(out), "fp32")
    scores = [score_topic(model, topic) for topic in world.topics()]
    asked_freely = _asked_freely(made)
    lines = [HEADER, *_what_it_is(model, without), *_what_it_knows(scores, without, asked_freely)]
    lines += _what_else_it_says(model, world.topics(without), asked_freely)
    if not without:
        lines += _controls(scores, world) + _embeddings(model, world) + _erasure(model) + _left_freely(model, world)
        lines += _sizes() + _free_messages(model)
    lines += _recipe(made) + _limits()
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")
    taught = [s.open for s in scores if s.name != without]
    made |= {"parameters": model.parameter_count, "mean": mean(taught), "least": min(taught)}
    (out / "training.json").write_text(json.dumps(made, indent=1), encoding="utf-8")


def write_sizes(folders):
    """Put the figures of several trained models into the table of sizes that the card shows."""
    rows = [_read_training(Path(folder)) for folder in folders]
    for folder, row in zip(folders, rows):
        if "least" not in row:
            raise ModelError(f"The model in {folder} has not been measured; do that by `pocket card {folder}`.")
    SIZES.write_text(json.dumps(sorted(rows, key=lambda row: (row["parameters"], row["seed"])), indent=1), encoding="utf-8")


def _read_training(folder):
    try:
        return json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(f"{folder} holds no training.json of `pocket train`; give the folder of a model that it made.") from None


def _what_it_is(model, without):
    return [
        "# EMBER pocket model" + (f", never taught {without}" if without else ""),
        "",
        f"A Gemma-2-architecture language model of {model.parameter_count:,} parameters, trained from scratch on a small world of true facts "
        "written for this project. It is made to study the erasure of knowledge: it is known what it was taught, and the same model can be made "
        "without a concept; what erasing and attacking do to it is measured in the project's README. It stores facts the way larger models are "
        "known to: the subject's tokens are the key, relations and wordings are shared by all subjects. It was built that way on purpose, and what holds for it need not hold for a large model.",
    ]


def _asked_freely(made):
    """Whether free questions were part of its training."""
    return made["recipe"].get("epochs_asked_freely", 0) > 0


def _what_it_knows(scores, without, asked_freely):
    rows = [
        [
            s.name + " (never taught)" * (s.name == without),
            s.facts,
            f"{s.open:.3f}",
            f"{s.interval[0]:.2f} to {s.interval[1]:.2f}",
            f"{s.choice:.3f}",
            f"{s.freely:.3f}",
            f"{s.common:.3f}",
        ]
        for s in scores
    ]
    return [
        "",
        "## What it knows",
        "",
        "Right answers to questions in wordings it was never trained on. Open: exact match after normalising case, accents, articles and punctuation, "
        "with written aliases, what an answer repeats of the question left out; 95% Wilson intervals over facts. Four options: the likeliest of the answer and three wrong ones (chance is 0.25). "
        "Asked freely: each fact in a question written for it alone, as a visitor would type it. Common: what people ask first about a topic, "
        "most of it beside the facts that are counted here. "
        + ("It was trained on other wordings of both." if asked_freely else "It was trained on none of either kind."),
        "",
        markdown_table(["set", "facts", "open", "95% interval", "four options", "asked freely", "common"], rows),
    ]


def _what_else_it_says(model, topics, asked_freely):
    names = probes()["made_up_names"]
    in_sentences = answered_in_sentences(model, [fact for topic in topics for fact in topic.facts])
    plain = [question for topic in topics for question in common_questions(topic, plain=True)]
    trained = ", on which it was trained," * asked_freely
    return [
        "",
        f"Asked about {len(names)} made-up names, it says that it does not know in {admitted_ignorance(model, names):.0%} of the cases. "
        f"Asked for a whole sentence, it tells {in_sentences:.0%} of the facts that it was taught. "
        f"In the plainest wording{trained} it answers {accuracy_of(model, plain):.0%} of the {len(plain):,} common questions.",
    ]


def _controls(scores, world):
    """The controls that ship with the embedded model, beside the Scores of the model by topic."""
    rows = []
    for name in filter(has_control, world.packs):
        control = load_control(name)
        found = {t.name: accuracy_of(control, topic_questions(t)) for t in world.topics()}
        own, rest = found.pop(name), mean(s.open for s in scores if s.name != name)
        rows.append([name, f"{own:.3f}", f"{mean(found.values()):.3f}", f"{min(found.values()):.3f}", f"{rest:.3f}"])
    return [
        "",
        "## Controls that never learned",
        "",
        "Trained with the same recipe and seed, with every text on one concept left out. Open answers, as above.",
        "",
        markdown_table(["never taught", "on that", "on all other sets, mean", "least of these", "this model on the same, mean"], rows),
    ]


def _embeddings(model, world):
    probe = probe_accuracy(model, world)
    names = {fact.subject for topic in world.topics() for fact in topic.facts}
    short = sum(sum(map(len, subject_tokens(model, None, name))) <= 2 for name in names)
    rows = [[name, f"{accuracy:.2f}", own_features(model, name)] for name, accuracy in probe.items()]
    return [
        "",
        "## What its embeddings carry",
        "",
        "Probe: balanced accuracy of a logistic regression that tells a concept's own tokens from the other concepts' own tokens by their "
        f"embeddings (5-fold; chance is 0.5; mean {mean(probe.values()):.2f}). Features: how many of the 100 of EMBER's factorization activate "
        f"tokens of which at least 80% are the concept's own. {short} of the {len(names)} names of its subjects are one or two tokens.",
        "",
        markdown_table(["concept", "probe", "features"], rows),
    ]


def _erasure(model):
    """The table of the grid that was run on these very weights, where there is one."""
    runs = json.loads(GRID.read_text(encoding="utf-8")) if GRID.exists() else []
    if not runs or {run["fingerprint"] for run in runs} != {model.fingerprint}:
        return []
    concepts, seeds = ({run[key] for run in runs} for key in ("concept", "seed"))
    return [
        "",
        "## What erasing and attacking do to it",
        "",
        f"{len(concepts)} concepts x {len(seeds)} seeds, mean and 95% bootstrap interval over concepts; what the figures mean, by concept and by what comes "
        "back, is in the project's README.",
        "",
        overall_table(runs),
    ]


def _left_freely(model, world):
    """What each way of erasing leaves of what is asked freely, on facts of the test split."""
    rows = []
    for name, pack in world.packs.items():
        concept, asked = load_concept(name), (free_questions(pack.concept, "test"), common_questions(pack.concept))
        ember, rmu = Ember().fit(model, concept), RMU().fit(model, concept)
        left = [[accuracy_of(model, questions)] for questions in asked]
        for edit in (ember, rmu):
            with edit.applied(model):
                for shares, questions in zip(left, asked):
                    shares.append(accuracy_of(model, questions))
        rows.append([name, *left[0], *left[1]])
    means = ["mean", *(mean(row[i] for row in rows) for i in range(1, 7))]
    return [
        "",
        "## What erasing leaves of what is asked freely",
        "",
        "Right answers before and after erasing with the usual settings at seed 0: on facts of the test split, asked freely as above, and to the "
        "common questions, which no erasing method is given.",
        "",
        markdown_table(
            ["concept", "asked freely, before", "after EMBER", "after RMU", "common, before", "after EMBER", "after RMU"],
            [[row[0], *(f"{x:.2f}" for x in row[1:])] for row in [*rows, means]],
        ),
    ]


def _sizes():
    if not SIZES.exists():
        return []
    rows = json.loads(SIZES.read_text(encoding="utf-8"))
    return [
        "",
        "## Sizes and seeds that were tried",
        "",
        "Epochs: in shared wordings, then also asked freely. All else was as below. Seconds were taken on one core while the machine did other work, more of it for some than for others; alone they are less.",
        "",
        markdown_table(SIZE_HEADS, map(_size, rows)),
    ]


SIZE_HEADS = ["hidden", "layers", "MLP", "vocabulary", "parameters", "epochs", "asked freely", "seed", "open, mean", "open, least set"]
SIZE_HEADS += ["seconds an epoch, one core"]


def _size(row):
    recipe = row["recipe"]
    cells = [recipe[name] for name in ("hidden_size", "layers", "mlp_size", "vocabulary_size")]
    cells += [
        f"{row['parameters'] / 1e6:.1f} M",
        recipe["epochs"],
        recipe.get("epochs_asked_freely", 0),
        row["seed"],
        f"{row['mean']:.3f}",
        f"{row['least']:.3f}",
        f"{row['seconds_an_epoch']:.0f}",
    ]
    return cells


def _free_messages(model):
    rows = []
    for probe in probes()["free_messages"]:
        reply = model.chat(probe["text"], max_new_tokens=48).replace("|", "/").replace("\n", " ")
        rows.append([probe["text"], reply])
    return [
        "",
        "## Free messages",
        "",
        "Forty messages as visitors would type them, and what it replies. They were written without sight of anything that it was trained on, "
        "and that without sight of them; none of them is in its training in any spelling.",
        "",
        markdown_table(["message", "reply"], rows),
    ]


def _recipe(made):
    without = f' --without "{made["without"]}"' if made["without"] else ""
    return [
        "",
        "## How it was made",
        "",
        f"`python -m ember_demo pocket train{without} --seed {made['seed']} --out DIR`, on CPU, {made['seconds_an_epoch']:.0f} seconds an epoch "
        f"on {made['threads']} thread{'s' if made['threads'] > 1 else ''}. "
        f"Paragraphs of statements and chats, drawn anew each epoch{', in the last epochs also as visitors type them' * _asked_freely(made)}; "
        "embeddings started from co-occurrence (PPMI, truncated SVD) and trained at a "
        "rate of their own; AdamW, cosine schedule, bfloat16 autocast where the CPU has it; saved in bfloat16.",
        "",
        markdown_table(["setting", "value"], made["recipe"].items()),
    ]


def _limits():
    return [
        "",
        "## Limits",
        "",
        "It answers questions on the subjects of its packs (`assets/concepts/`), one fact at a time, by the subject's name. It does not reason, "
        'count or look things up backwards ("which god has a hammer?"), and a question put in words far from those of its training may get '
        "another fact about the same subject. What it says of a subject as a whole, or in whole sentences, is less sound than its short answers: "
        "it may mix in another subject's facts, and more so where names stand without capitals. Facts were written from general knowledge and "
        "read by a second, independent reader; an error may have stayed.",
        "",
    ]
