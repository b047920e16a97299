"""The study over concepts and seeds, and the choice of the erasers' settings: what the README's figures come from."""

import itertools
import json
import sys
from dataclasses import replace
from statistics import mean

import numpy as np

from ember_demo.attacks import Relearning
from ember_demo.concept import load_concept
from ember_demo.erasers import ERASERS, RMU, Ember
from ember_demo.language_model import load_model
from ember_demo.pocket.world import slug
from ember_demo.progress import part, terminal
from ember_demo.study import build_edits, make_report, run_attack, score_edits
from ember_demo.tuning import choose
from ember_demo.wording import label

TUNED = {  # what `tune` tries
    "ember": {"share": (0.5, 0.6, 0.7, 0.8)},
    "rmu": {"steering": (40.0, 80.0), "alpha": (10.0, 30.0), "steps": (60, 120)},
}
METRICS = ("efficacy", "specificity", "coherence")


def run_grid(concepts, seeds, folder):
    """Study every concept with every seed; one file a run, so that a cut grid goes on. Returns the tables as Markdown."""
    model = load_model()
    runs = list(itertools.product(concepts, seeds))
    for number, (name, seed) in enumerate(runs):
        path = folder / f"{slug(name)}-{seed}.json"
        if not path.exists():
            progress = part(terminal(), number / len(runs), (number + 1) / len(runs), f"{name}, seed {seed}: ")
            path.write_text(json.dumps(_study(model, load_concept(name), seed, progress)), encoding="utf-8")
    condensed = [_condensed(json.loads((folder / f"{slug(n)}-{s}.json").read_text(encoding="utf-8"))) for n, s in runs]
    (folder / "grid.json").write_text(json.dumps(condensed, ensure_ascii=False, indent=1), encoding="utf-8")
    return tables(condensed)


def _study(model, concept, seed, progress):
    """As `run_study`, without an attack on the original, which has nothing to get back."""
    edits = build_edits(model, concept, [Ember(), RMU()], seed, part(progress, 0, 0.4))
    scores = score_edits(model, concept, edits, part(progress, 0.4, 0.5))
    erased = {name: edit for name, edit in edits.items() if edit}
    results = {Relearning.name: run_attack(Relearning(), model, concept, erased, seed, part(progress, 0.5, 1))}
    return make_report(model, concept, edits, scores, results, seed)


def _condensed(report):
    """What the tables need of a run."""
    kept = ("concept_accuracy", *METRICS, "overall")
    attacks = report["attacks"]["relearning"]
    return {
        "concept": report["concept"],
        "seed": report["seed"],
        "delta": report["settings"]["ember"]["delta"],
        "variants": {n: {k: s[k] for k in kept} for n, s in report["variants"].items()},
        "relearning": {n: {k: r[k] for k in ("before", "after", "curve")} for n, r in attacks.items()},
        "facts": [[f["subject"], f["relation"], f["right"], len(f["edited"]), len(f["untouched"])] for f in attacks["ember+rmu"]["facts"]],
    }


def tables(runs):
    """Markdown: a row a variant over all runs, then accuracy after relearning by concept, delta, edited tokens and relation."""
    return "\n\n".join(table(runs) for table in (_overall, _by_concept, _by_delta, _by_tokens, _by_relation))


def _overall(runs):
    lines = ["| variant | efficacy | specificity | coherence | right before attack | right after relearning |", "|---|---|---|---|---|---|"]
    for variant in _variants(runs):
        scored = [r for r in runs if variant in r["variants"]]
        cells = [_interval([(r["concept"], r["variants"][variant][k]) for r in scored]) for k in METRICS]
        attacked = [r for r in runs if variant in r["relearning"]]
        cells += [_interval([(r["concept"], r["relearning"][variant][k]) for r in attacked]) for k in ("before", "after")]
        lines.append(f"| {label(variant)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_concept(runs):
    variants = _variants(runs)
    lines = ["| right after relearning | " + " | ".join(label(v) for v in variants) + " | delta |", "|---|" + "---|" * (len(variants) + 1)]
    for concept in dict.fromkeys(r["concept"] for r in runs):
        chosen = [r for r in runs if r["concept"] == concept]
        cells = []
        for variant in variants:
            values = [r["relearning"][variant]["after"] for r in chosen if variant in r["relearning"]]
            cells.append(f"{mean(values):.2f}" if values else "-")
        cells.append(", ".join(f"{r['delta']:g}" for r in chosen))
        lines.append(f"| {concept} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_delta(runs):
    lines = ["| delta that the validation questions chose | runs | EMBER + baseline, right after relearning |", "|---|---|---|"]
    for delta in sorted({r["delta"] for r in runs}):
        values = [r["relearning"]["ember+rmu"]["after"] for r in runs if r["delta"] == delta]
        lines.append(f"| {delta:g} | {len(values)} | {mean(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")
    return "\n".join(lines)


def _by_tokens(runs):
    """How much of the facts came back, by how much of the subject's name EMBER edits."""

    def group(relation, edited, untouched):
        return "no token edited" if not edited else "some tokens edited" if untouched else "every token edited"

    return _came_back(runs, "the subject's name", group)


def _by_relation(runs):
    return _came_back(runs, "what is asked of the subject", lambda relation, edited, untouched: relation)


def _came_back(runs, head, group):
    groups = {}
    for run in runs:
        for _, relation, right, edited, untouched in run["facts"]:
            groups.setdefault(group(relation, edited, untouched), []).append(right)
    lines = [f"| {head} | facts | EMBER + baseline, right after relearning |", "|---|---|---|"]
    ordered = sorted(groups.items(), key=lambda item: -mean(item[1]))
    return "\n".join(lines + [f"| {name} | {len(values)} | {mean(values):.2f} |" for name, values in ordered])


def _variants(runs):
    present = {v for r in runs for v in r["relearning"]}
    return [v for v in ("ember", "rmu", "ember+rmu", "control") if v in present]


def _interval(values, samples=2000):
    """Mean with a 95% bootstrap interval over concepts; `values` are (concept, value) pairs."""
    if not values:
        return "-"
    by_concept = {}
    for concept, value in values:
        by_concept.setdefault(concept, []).append(value)
    means = np.array([mean(v) for v in by_concept.values()])
    if len(means) == 1:
        return f"{means[0]:.2f}"
    rng = np.random.default_rng(0)
    low, high = np.percentile(means[rng.integers(len(means), size=(samples, len(means)))].mean(axis=1), [2.5, 97.5])
    return f"{means.mean():.2f} ({low:.2f} to {high:.2f})"


def tune(name, concepts):
    """An eraser's settings by their mean overall score on the concepts' validation questions, best first, as a Markdown table."""
    model, progress, grid = load_model(), terminal(sys.stderr), TUNED[name]
    candidates = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    scores = {number: [] for number in range(len(candidates))}
    for concept in map(load_concept, concepts):
        edits = [replace(ERASERS[name](), **c).fit(model, concept) for c in candidates]
        for number, trial in enumerate(choose(model, concept, edits, progress)[1]):
            scores[number].append(trial)
    lines = ["| " + " | ".join(grid) + " | efficacy | specificity | coherence | overall |", "|---" * (len(grid) + 4) + "|"]
    for number in sorted(scores, key=lambda n: -mean(t["overall"] for t in scores[n])):
        cells = [f"{v:g}" for v in candidates[number].values()]
        cells += [f"{mean(t[k] for t in scores[number]):.2f}" for k in (*METRICS, "overall")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
