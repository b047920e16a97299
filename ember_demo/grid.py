"""The study over concepts and seeds, and the choice of RMU's settings: what the README's figures come from."""

import itertools
import json
import sys
from dataclasses import replace
from statistics import mean, stdev

from ember_demo.attacks import Relearning
from ember_demo.concept import concept_names, load_concept
from ember_demo.erasers import RMU, Ember
from ember_demo.language_model import load_model
from ember_demo.progress import part, terminal
from ember_demo.study import run_study
from ember_demo.tuning import choose
from ember_demo.wording import label

RMU_GRID = {"steering": (20.0, 40.0, 60.0), "alpha": (10.0, 30.0), "learning_rate": (1e-3,)}


def run_grid(concepts, seeds, folder):
    """Study every concept with every seed; one file a run, so that a cut grid goes on. Returns the table as Markdown."""
    model = load_model()
    reports = []
    runs = list(itertools.product(concepts, seeds))
    for number, (name, seed) in enumerate(runs):
        path = folder / f"{name.lower().replace(' ', '_')}-{seed}.json"
        if not path.exists():
            progress = part(terminal(), number / len(runs), (number + 1) / len(runs), f"{name}, seed {seed}: ")
            report = run_study(model, load_concept(name), [Ember(), RMU()], [Relearning()], seed, progress)
            path.write_text(json.dumps(report), encoding="utf-8")
        reports.append(json.loads(path.read_text(encoding="utf-8")))
    (folder / "grid.json").write_text(json.dumps(_condensed(reports), indent=1), encoding="utf-8")
    return table(_condensed(reports))


def _condensed(reports):
    """What the table needs of each run."""
    kept = ("concept_accuracy", "efficacy", "specificity", "coherence", "overall")
    return [
        {
            "concept": r["concept"],
            "seed": r["seed"],
            "variants": {n: {k: s[k] for k in kept} for n, s in r["variants"].items()},
            "relearning": r["attacks"]["relearning"],
            "delta": next((t["delta"] for t in r["delta_trials"] if t["delta"] == r["settings"]["ember"]["delta"]), None),
        }
        for r in reports
    ]


def table(runs):
    """Markdown: a row a variant, mean and standard deviation over runs; then the accuracy after relearning by concept."""
    variants = [v for v in runs[0]["relearning"] if v != "control"] + ["control"]
    lines = ["| variant | efficacy | specificity | coherence | right before attack | right after relearning |", "|---|---|---|---|---|---|"]
    for variant in variants:
        cells = [
            _spread(r["variants"][variant][k] for r in runs if variant in r["variants"]) for k in ("efficacy", "specificity", "coherence")
        ]
        attacks = [r["relearning"][variant] for r in runs if variant in r["relearning"]]
        cells += [_spread(a[k] for a in attacks) for k in ("before", "after")]
        lines.append(f"| {label(variant)} | " + " | ".join(cells) + " |")
    concepts = list(dict.fromkeys(r["concept"] for r in runs))
    lines += ["", "| right after relearning | " + " | ".join(concepts) + " |", "|---|" + "---|" * len(concepts)]
    for variant in variants:
        cells = [
            _spread(r["relearning"][variant]["after"] for r in runs if r["concept"] == c and variant in r["relearning"]) for c in concepts
        ]
        lines.append(f"| {label(variant)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values):
    values = list(values)
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def tune_rmu():
    """RMU's settings with the largest mean overall score on the validation questions of all packs, as a Markdown table."""
    model, progress = load_model(), terminal(sys.stderr)
    candidates = [dict(zip(RMU_GRID, values)) for values in itertools.product(*RMU_GRID.values())]
    scores = {number: [] for number in range(len(candidates))}
    for name in concept_names():
        concept = load_concept(name)
        edits = [replace(RMU(), **c).fit(model, concept) for c in candidates]
        for number, trial in enumerate(choose(model, concept, edits, progress)[1]):
            scores[number].append(trial)
    lines = ["| " + " | ".join(RMU_GRID) + " | efficacy | specificity | coherence | overall |", "|---" * (len(RMU_GRID) + 4) + "|"]
    for number in sorted(scores, key=lambda n: -mean(t["overall"] for t in scores[n])):
        cells = [f"{v:g}" for v in candidates[number].values()]
        cells += [f"{mean(t[k] for t in scores[number]):.2f}" for k in ("efficacy", "specificity", "coherence", "overall")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
