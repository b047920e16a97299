"""The study over concepts and seeds: what the README's figures come from."""

import itertools
import json
from collections import Counter
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from statistics import mean
from threading import Lock

import numpy as np
from joblib import Parallel, delayed, parallel_config

from ember_demo.attacks import ATTACKS, THREATS, Relearning
from ember_demo.erasers import ERASERS, FromEmber
from ember_demo.errors import EmberDemoError
from ember_demo.loading import POCKET, load_model
from ember_demo.pictures import markdown_table
from ember_demo.pocket.world import slug
from ember_demo.progress import part, terminal
from ember_demo.sources import concept_names, load_concept
from ember_demo.study import CONTROL, choose_by_name, run_study
from ember_demo.texts import LARGEST_FILE
from ember_demo.wording import label

RUNNING = Lock()  # a study changes the one model of its process while it runs, and a worker may have several threads
RELEARNING = Relearning.name
METRICS = ("efficacy", "specificity", "coherence")
MORE = {  # which runs of before lack
    "choice_efficacy": "efficacy on four options",
    "concept_invalid_rate": "unreadable answers",
    "concept_mention_rate": "answers that hold the right one",
}


@dataclass(frozen=True)
class Grid:
    """What a grid studies: every concept with every seed, on every model, in the ways that `study` does it.

    concepts: names of packs; empty means all of them.
    wordings: in how many ways each fact is asked, of those that there are; 0 means all. Facts are what is counted, so fewer cost little certainty.
    """

    models: tuple = (POCKET,)
    concepts: tuple = ()
    seeds: tuple = (0, 1, 2)
    erasers: tuple = ("ember", "rmu")
    attacks: tuple = ("relearning",)
    precision: str = "auto"
    wordings: int = 0

    @classmethod
    def read(cls, path):
        """From a JSON file with any of these fields; EmberDemoError where it is not one."""
        if not path.is_file():
            raise EmberDemoError(f"There is no file {path}; check the path.")
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise EmberDemoError(f"{path} is too large for a grid.")
            given = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(given, dict):
                raise TypeError("it must be an object in braces")
            keys = [field.name for field in fields(cls)]
            if unknown := [key for key in given if key not in keys]:
                raise TypeError(f"there is no key {unknown[0]!r}; the keys are {', '.join(keys)}")
            grid = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
            for name in ("models", "concepts", "seeds", "erasers", "attacks"):
                wanted = int if name == "seeds" else str
                if not isinstance(getattr(grid, name), tuple) or not all(isinstance(v, wanted) for v in getattr(grid, name)):
                    raise TypeError(f"{name} must be a list")
            if not isinstance(grid.wordings, int) or grid.wordings < 0:
                raise TypeError("wordings must be a whole number, 0 for all")
            return grid
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            example = '{"concepts": ["Golf"], "seeds": [0, 1]}'
            raise EmberDemoError(f"{path} is not a grid ({error}); it is JSON such as {example}.") from None

    def ways(self):
        """What every run of the grid has in common, as it stands in its file."""
        return {"erasers": list(self.erasers), "attacks": list(self.attacks), "precision": self.precision, "wordings": self.wordings}

    def runs(self):
        return list(itertools.product(self.models, self.concepts or concept_names(), self.seeds))


def run_grid(grid, folder, jobs=1, backend="loky"):
    """Study all of a grid; one file a run, so that a cut grid goes on and repeats nothing that is done. Returns the tables as Markdown.

    jobs, backend: of joblib: processes of this machine ("loky"), or "dask" or "ray" with a client connected, which spread the runs over machines
    that share the folder.
    """
    for names, registry, what in ((grid.erasers, ERASERS, "eraser"), (grid.attacks, ATTACKS, "attack")):
        choose_by_name(names, registry, what)
    for concept in grid.concepts:
        load_concept(concept)
    todo = [run for run in grid.runs() if not _path(folder, *run).exists()]
    for run in grid.runs():
        if run not in todo and not _is_of(_read(folder, run), grid, run):
            raise EmberDemoError(f"{_path(folder, *run)} was made with another model, erasers, attacks or precision; give another --out.")
    with parallel_config(backend=backend, n_jobs=jobs):
        Parallel()(delayed(_run)(grid, folder, *run, part_of=(number, len(todo))) for number, run in enumerate(todo))
    condensed = [_condensed(_read(folder, run)) for run in grid.runs()]
    for model_id in grid.models:
        if len({run["fingerprint"] for run in condensed if run["model"] == model_id}) > 1:
            raise EmberDemoError(f"{folder} holds runs on other weights of {model_id}; give another --out.")
    (folder / "runs.json").write_text(json.dumps(condensed, ensure_ascii=False, indent=1), encoding="utf-8")
    return tables(condensed)


def _path(folder, model_id, concept, seed):
    return folder / f"{slug(model_id)}-{slug(concept)}-{seed}.json"


def _is_of(report, grid, run):
    return (report.get("grid"), report.get("model", {}).get("id")) == (grid.ways(), run[0])


def _read(folder, run):
    try:
        return json.loads(_path(folder, *run).read_text(encoding="utf-8"))
    except ValueError:
        raise EmberDemoError(f"{_path(folder, *run)} is damaged; delete it, and it is made again.") from None


def _run(grid, folder, model_id, concept, seed, part_of):
    number, count = part_of
    progress = part(terminal(), number / count, (number + 1) / count, f"{concept}, seed {seed}: ")
    erasers = choose_by_name(grid.erasers, ERASERS, "eraser")
    attacks = choose_by_name(grid.attacks, ATTACKS, "attack")
    with RUNNING:
        model = _loaded(model_id, grid.precision)
        pack = load_concept(concept, model)
        report = run_study(model, limited(pack, grid.wordings) if grid.wordings else pack, erasers, attacks, seed, progress) | {
            "grid": grid.ways()
        }
    path = _path(folder, model_id, concept, seed)
    path.with_suffix(".part").write_text(json.dumps(report), encoding="utf-8")
    path.with_suffix(".part").replace(path)


def limited(concept, wordings):
    """The concept with no more than so many test wordings a fact."""
    counts, kept = Counter(), []
    for question in concept.questions:
        key = (question.kind, question.fact)
        counts[key] += question.split == "test"
        if question.split != "test" or counts[key] <= wordings:
            kept.append(question)
    return replace(concept, questions=kept)


_loaded = lru_cache(maxsize=1)(load_model)  # a worker studies many runs on one model


def _condensed(report):
    """What the tables need of a run."""
    kept = ("concept_accuracy", *METRICS, "overall", *MORE)
    attacks = report["attacks"]
    return {
        "model": report["model"]["id"],
        "fingerprint": report["model"].get("fingerprint"),
        "concept": report["concept"],
        "seed": report["seed"],
        "delta": report["settings"].get("ember", {}).get("delta"),
        "variants": {n: {k: s.get(k) for k in kept} for n, s in report["variants"].items()},
        "control": {k: report["control"].get(k) for k in kept} if report.get("control") else None,
        "attacks": {a: {n: {k: r[k] for k in ("before", "after", "curve", "chance")} for n, r in by.items()} for a, by in attacks.items()},
        "facts": [
            [f["subject"], f["relation"], f["right"], len(f["edited"]), len(f["untouched"])]
            for f in attacks.get(RELEARNING, {}).get("ember+rmu", {}).get("facts", [])
        ],
    }


def tables(runs):
    """Markdown: a row a variant over all runs; what each attack and each threat model gets back; then, of relearning, accuracy by concept, delta,
    edited tokens and relation."""
    wanted = [overall_table]
    if any(len(r["attacks"]) > 1 for r in runs):
        wanted += [_by_threat, _by_attack]
    if all(r["facts"] for r in runs):
        wanted += [_by_concept, _by_delta, _by_tokens, _by_relation, _by_fact]
    return "\n\n".join(table(runs) for table in wanted)


def overall_table(runs):
    """Markdown: efficacy, specificity, coherence and relearning by variant; over the runs that have them, also efficacy when the model only has to pick
    one of four options, and the share of answers on the concept that cannot be read as one."""
    keys = [*METRICS, *(key for key in MORE if any(s.get(key) is not None for r in runs for s in r["variants"].values()))]
    heads = ["variant", *(MORE.get(key, key) for key in keys), "correct before attack", "correct after relearning"]
    rows = []
    for variant in _variants(runs):
        scored = [(r["concept"], r.get("control") if variant == CONTROL else r["variants"].get(variant)) for r in runs]
        cells = [_interval([(concept, scores[k]) for concept, scores in scored if scores and scores.get(k) is not None]) for k in keys]
        attacked = [r for r in runs if variant in r["attacks"].get(RELEARNING, {})]
        cells += [_interval([(r["concept"], r["attacks"][RELEARNING][variant][k]) for r in attacked]) for k in ("before", "after")]
        rows.append([label(variant), *cells])
    return markdown_table(heads, rows)


def recovered(run, attack, variant):
    """What an attack gets back from a variant above what it teaches a model that never learned the concept, in points of accuracy."""
    results = run["attacks"][attack]
    return results[variant]["after"] - results[CONTROL]["after"]


def _comparable(run, attack, variant):
    return {variant, CONTROL} <= run["attacks"].get(attack, {}).keys()


def _chosen(run, attack, variant):
    """Whether what an attack got from a variant are choices among options, with what guessing gets right taken out, and not answers."""
    return run["attacks"][attack][variant]["chance"] > 0


def _by_threat(runs):
    """The worst case, over the runs in which every attack was tried that was tried in any: which answers the best attacker of each threat model gets
    back above the control, choices among options left out; one who holds more can also do what asks for less."""
    tried = {attack for r in runs for attack in r["attacks"]}
    runs = [r for r in runs if tried <= r["attacks"].keys()]
    heads, rows = ["recovered above the control", *(f"best attacker who {threat}" for threat in THREATS)], []
    for variant in _variants(runs):
        if variant == CONTROL:
            continue
        cells = []
        for threat in THREATS:
            names = [n for n, attack in ATTACKS.items() if THREATS.index(attack.threat_model) <= THREATS.index(threat)]
            values = [
                (r["concept"], [recovered(r, a, variant) for a in names if _comparable(r, a, variant) and not _chosen(r, a, variant)])
                for r in runs
            ]
            cells.append(_interval([(concept, max(found)) for concept, found in values if found]))
        rows.append([label(variant), *cells])
    return markdown_table(heads, rows)


def _by_attack(runs):
    """What each attack gets back above the control, and in the last column what it teaches the control; many variants in several tables."""
    return "\n\n".join(_by_attack_of(runs, group) for group in _groups([v for v in _variants(runs) if v != CONTROL]))


def _groups(variants, width=6):
    """All of a few variants, or of many each eraser alone, those after EMBER, and what follows from EMBER."""
    if len(variants) <= width:
        return [variants]
    after = [v for v in variants if "+" in v]
    follow = [v for v in variants if issubclass(ERASERS.get(v, object), FromEmber)]
    alone = [v for v in variants if v not in after and v not in follow]
    return [group for group in (alone, after, follow) if group]


def _by_attack_of(runs, variants):
    heads, rows = ["recovered above the control", *map(label, variants), "the control itself"], []
    for attack in ATTACKS:
        cells = [_interval([(r["concept"], recovered(r, attack, v)) for r in runs if _comparable(r, attack, v)]) for v in variants]
        cells.append(
            _interval([(r["concept"], r["attacks"][attack][CONTROL]["after"]) for r in runs if CONTROL in r["attacks"].get(attack, {})])
        )
        if set(cells) != {"-"}:
            chosen = all(_chosen(r, attack, v) for r in runs for v in r["attacks"].get(attack, {}))
            named = f"{attack} (choices among four)" if chosen else attack
            rows.append([named, *cells])
    return markdown_table(heads, rows)


def _by_concept(runs):
    variants = _variants(runs)
    heads, rows = ["correct after relearning", *map(label, variants), "delta"], []
    for concept in dict.fromkeys(r["concept"] for r in runs):
        chosen = [r for r in runs if r["concept"] == concept]
        cells = []
        for variant in variants:
            values = [r["attacks"][RELEARNING][variant]["after"] for r in chosen if variant in r["attacks"][RELEARNING]]
            cells.append(f"{mean(values):.2f}" if values else "-")
        cells.append(", ".join(f"{r['delta']:g}" for r in chosen))
        rows.append([concept, *cells])
    return markdown_table(heads, rows)


def _by_delta(runs):
    rows = []
    for delta in sorted({r["delta"] for r in runs}):
        values = [r["attacks"][RELEARNING]["ember+rmu"]["after"] for r in runs if r["delta"] == delta]
        rows.append([f"{delta:g}", len(values), f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"])
    return markdown_table(["delta that the validation questions chose", "runs", "EMBER + baseline, correct after relearning"], rows)


def _by_tokens(runs):
    """How much of the facts came back, by how much of the subject's name EMBER edits."""

    def group(relation, edited, untouched):
        return "no token edited" if not edited else "some tokens edited" if untouched else "every token edited"

    return _came_back(runs, "the subject's name", group)


def _by_relation(runs):
    return _came_back(runs, "what is asked of the subject", lambda relation, edited, untouched: relation)


def _by_fact(runs):
    """The facts that EMBER + baseline gives again after relearning in every run of their concept, in at least three wordings of four."""
    found = {}
    for run in runs:
        for subject, relation, right, edited, untouched in run["facts"]:
            found.setdefault((run["concept"], subject, relation), []).append((right, edited, edited + untouched))
    rows = []
    for (concept, subject, relation), each in found.items():
        if min(right for right, _, _ in each) >= 0.75:
            rows.append([concept, f"{subject}, {relation}", ", ".join(dict.fromkeys(f"{e} of {n}" for _, e, n in each))])
    return markdown_table(["concept", "fact that comes back in every run", "tokens of the subject's name that EMBER edits"], rows)


def _came_back(runs, head, group):
    groups = {}
    for run in runs:
        for _, relation, right, edited, untouched in run["facts"]:
            groups.setdefault(group(relation, edited, untouched), []).append(right)
    ordered = sorted(groups.items(), key=lambda item: -mean(item[1]))
    rows = [[name, len(values), f"{mean(values):.2f}"] for name, values in ordered]
    return markdown_table([head, "facts x seeds", "EMBER + baseline, correct after relearning"], rows)


def _variants(runs):
    """All but the original: each eraser alone, then after EMBER, the control last."""
    present = {v for r in runs for v in (*r["variants"], *(v for by in r["attacks"].values() for v in by))}
    order = [*ERASERS, *(f"ember+{name}" for name in ERASERS), CONTROL]
    return [v for v in order if v in present]


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
