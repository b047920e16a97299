"""One run from concept to report: erase in every way asked for, score, attack."""

import hashlib
import json
import platform
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version

from ember_demo.attacks.base import above_chance
from ember_demo.erasers import Ember, FromEmber, extend
from ember_demo.errors import ArgumentError, ConceptError, ModelError
from ember_demo.evaluation import evaluate, forget_quality
from ember_demo.loading import POCKET, load_control
from ember_demo.progress import part, silent
from ember_demo.understanding import causal_trace, traceable, what_changed
from ember_demo.wording import label

ORIGINAL = "original"
CONTROL = "control"
PACKAGES = ("torch", "transformers", "scikit-learn", "safetensors", "accelerate", "peft", "bitsandbytes", "optuna", "gradio")


@contextmanager
def timed(seconds, name):
    """Adds to seconds[name] what the block takes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began


def choose_by_name(names, registry, what):
    """Instances with default settings for a list of names, or for "all"; ArgumentError with what there is for an unknown one."""
    names = list(registry) if list(names) == ["all"] else names
    unknown = [name for name in names if name not in registry]
    if unknown:
        raise ArgumentError(f"There is no {what} called {unknown[0]!r}; choose from {', '.join(registry)}.")
    return [registry[name]() for name in dict.fromkeys(names)]


def build_edits(model, concept, erasers, seed=0, progress=silent, seconds=None, skipped=None):
    """The variants of a model as edits, by name: `original` (None), each eraser alone, and `ember+X` for each other X that combines.

    seconds: a dictionary for what factorizing and erasing take. skipped: one for the reasons, by variant, why one other than EMBER finds nothing to erase; without it that raises ConceptError.
    """
    seconds = {} if seconds is None else seconds
    erasers = sorted(erasers, key=lambda e: not isinstance(e, Ember))
    has_ember = bool(erasers) and isinstance(erasers[0], Ember)
    steps = len(erasers) + (sum(e.combines for e in erasers) if has_ember else 0)
    edits, done = {ORIGINAL: None}, 0
    for eraser in erasers:
        share = part(progress, done / steps, (done + 1) / steps)
        if isinstance(eraser, Ember):
            with timed(seconds, "factorize"):
                features = eraser.find_features(model, concept, seed, part(share, 0, 0.3))
            with timed(seconds, "erase"):
                edits[eraser.name] = eraser.edit(model, concept, features, part(share, 0.3, 1))
            done += 1
            continue
        if has_ember and isinstance(eraser, FromEmber) and eraser.ember == erasers[0]:
            ways = {eraser.name: lambda share, eraser=eraser: eraser.following(model, concept, edits[Ember.name], seed, share)}
        else:
            ways = {eraser.name: lambda share, eraser=eraser: eraser.fit(model, concept, seed, share)}
        if has_ember and eraser.combines:
            ways[f"{Ember.name}+{eraser.name}"] = lambda share, eraser=eraser: extend(
                edits[Ember.name], eraser, model, concept, seed, share
            )
        for name, fit in ways.items():
            share = part(progress, done / steps, (done + 1) / steps, "" if name == eraser.name else "After EMBER, ")
            try:
                with timed(seconds, "erase"):
                    edits[name] = fit(share)
            except (ConceptError, ModelError) as error:
                if skipped is None:
                    raise
                skipped[name] = str(error)
            done += 1
    return edits


def score_edits(model, concept, edits, progress=silent):
    """Scores by variant name, each against the original; where there is a never-learned control, its likeness to that, and last the control's own scores.

    Empty without test questions.
    """
    if not concept.select("concept", "test"):
        return {}
    scores, targets = {}, _targets(model, concept, edits)
    for number, (name, network, edit) in enumerate(targets):
        share = part(progress, number / len(targets), (number + 1) / len(targets), f"{label(name)}: ")
        with edit.applied(network) if edit else nullcontext():
            scores[name] = evaluate(network, concept, base=scores.get(ORIGINAL), progress=share)
    if never := scores.get(CONTROL):
        scores = {name: replace(found, forget_quality=forget_quality(found, never)) for name, found in scores.items()}
    return scores


def run_attack(attack, model, concept, edits, seed=0, progress=silent, scores=None):
    """AttackResult by variant name, and of the never-learned `control` where there is one.

    scores: of the variants, whose answers need not be asked for again.
    `progress` gets `variant` with every event.
    """
    results, targets = {}, _targets(model, concept, edits)
    for number, (name, network, edit) in enumerate(targets):
        share = part(progress, number / len(targets), (number + 1) / len(targets), f"{label(name)}: ")

        def tagged(fraction, message, _share=share, _name=name, **data):
            _share(fraction, message, variant=_name, **data)

        before = [r for r in scores[name].replies if r.question.kind == "concept"] if scores and name in scores else None
        results[name] = attack.run(network, concept, edit, seed, tagged, before)
    return results


def _targets(model, concept, edits):
    """(name, model, edit) of every variant, and last of the never-learned control where there is one."""
    control = load_control(concept.name, model.precision) if model.id == POCKET else None
    return [(name, model, edit) for name, edit in edits.items()] + ([(CONTROL, control, None)] if control else [])


def coverage(model, concept, edit):
    """Which test subjects have a token that the edit changes in the embedding table: covered and uncovered names."""
    subjects = sorted({q.subject for q in concept.select("concept", "test") if q.subject})
    covered = [s for s in subjects if subject_tokens(model, edit, s)[0]]
    return {"covered": covered, "uncovered": [s for s in subjects if s not in covered]}


def subject_tokens(model, edit, subject):
    """(edited, untouched): the tokens of a subject's name, as it stands in a sentence, that the edit changes in the embedding table, and the others."""
    change = edit.changes.get(model.embedding_name) if edit else None
    rows = set(change.rows.tolist()) if change is not None else set()
    groups = ([], [])
    before = "About"
    encoded = model.tokenizer(f"{before} {subject}", add_special_tokens=False, return_offsets_mapping=True)
    for token in (token for token, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"]) if end > len(before) + 1):
        groups[token not in rows].append(model.tokenizer.decode([token]).strip())
    return groups


def run_study(model, concept, erasers, attacks=(), seed=0, progress=silent, searches=None, command=None):
    """The whole run as the dictionary of report.json (see the README for its fields).

    searches: the trials by which the erasers' settings were found, by eraser, to be reported; command: the command line that repeats it, likewise.
    Without test questions nothing is scored.
    Of several erasers or attacks, one that finds nothing to do on the concept or model is left out and reported as skipped; the only one raises.
    """
    seconds, trace, skipped = {}, None, {}
    if len(attacks) == 1:
        attacks[0].check(model)  # before the work that it would lose
    if traceable(concept):
        with timed(seconds, "trace"):
            trace = causal_trace(model, concept, seed=seed, progress=part(progress, 0, 0.05)).as_dict()
    edits = build_edits(model, concept, erasers, seed, part(progress, 0.05, 0.35), seconds, skipped if len(erasers) > 1 else None)
    with timed(seconds, "evaluate"):
        scores = score_edits(model, concept, edits, part(progress, 0.35, 0.5))
    results = {}
    erased = {name: edit for name, edit in edits.items() if edit}  # the original has nothing to get back
    for number, attack in enumerate(attacks):
        share = part(progress, 0.5 + 0.5 * number / len(attacks), 0.5 + 0.5 * (number + 1) / len(attacks))
        try:
            with timed(seconds, "attack"):
                results[attack.name] = run_attack(attack, model, concept, erased, seed, share, scores)
        except (ConceptError, ModelError) as error:  # one of many that this concept or model has nothing for
            if len(attacks) == 1:
                raise
            skipped[attack.name] = str(error)
    return make_report(model, concept, edits, scores, results, seed, seconds) | {
        "trace": trace,
        "searches": searches or {},
        "skipped": skipped,
        "command": command,
    }


def make_report(model, concept, edits, scores, results, seed=0, seconds=None):
    """report.json from its parts: edits and scores by variant, attack results by attack and variant."""
    settings = {}
    for edit in edits.values():
        settings |= edit.details["settings"] if edit else {}
    for by_variant in results.values():
        settings |= {r.attack: r.settings for r in by_variant.values()}
    ember = edits.get(Ember.name)
    details = ember.details if ember else {}
    return {
        "schema": 1,
        "model": {
            "id": model.id,
            "architecture": type(model.network).__name__,
            "precision": model.precision,
            "parameters": model.parameter_count,
            "fingerprint": model.fingerprint,
        },
        "concept": concept.name,
        "seed": seed,
        "settings": settings,
        "edited_tokens": what_changed(model, concept, ember) if ember else [],
        "features": details.get("features", []),
        "delta_trials": details.get("delta_trials", []),
        "coverage": coverage(model, concept, ember),
        "facts_to_train_on": len(concept.facts("concept", "relearn")),
        "variants": {name: s.as_dict() for name, s in scores.items() if name != CONTROL},
        "control": scores[CONTROL].as_dict() if CONTROL in scores else None,
        "attacks": {
            attack: {name: r.as_dict() | _by_coverage(model, ember, r, scores.get(name)) for name, r in by_variant.items()}
            for attack, by_variant in results.items()
        },
        "answers": _answers({name: s for name, s in scores.items() if name != CONTROL}),
        "hashes": {"texts_and_questions": _sha256(concept)} | {name: edit.sha256 for name, edit in edits.items() if edit},
        "seconds": {name: round(value, 2) for name, value in (seconds or {}).items()},
        "made": _made(),
    }


def _sha256(concept):
    """Of all that a concept holds."""
    return hashlib.sha256(json.dumps(asdict(concept), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _answers(scores):
    """Every test question with its reference answer, and what each variant answered."""
    rows = []
    for replies in zip(*(s.replies for s in scores.values()), strict=True):
        question = replies[0].question
        given = {name: {"text": reply.text, "right": reply.right} for name, reply in zip(scores, replies)}
        rows.append({"question": question.text, "reference": question.answer, "kind": question.kind, "given": given})
    return rows


def _made():
    """When (UTC) and on what a report was made, and with which versions of Python and of the packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "platform": platform.platform(), "versions": versions}


def _by_fact(replies):
    """The share of right answers, by fact."""
    facts = {}
    for reply in replies:
        facts.setdefault(reply.question.fact, []).append(reply.right)
    return {fact: sum(rights) / len(rights) for fact, rights in facts.items()}


def _by_coverage(model, ember, result, scores):
    """Accuracy after the attack on subjects whose tokens EMBER edits and on those it leaves alone, and fact by fact, with what was right before it.

    scores: the variant's, where it was scored.
    """
    if ember is None:
        return {}
    after, before = _by_fact(result.replies), _by_fact(scores.replies if scores else [])
    rows = []
    for fact, right in after.items():
        subject, relation, answer = fact
        edited, untouched = subject_tokens(model, ember, subject)
        row = {"subject": subject, "relation": relation, "answer": answer, "before": before.get(fact), "right": right}
        rows.append(row | {"edited": edited, "untouched": untouched})
    groups = {
        "after_covered": [r["right"] for r in rows if r["edited"]],
        "after_uncovered": [r["right"] for r in rows if not r["edited"]],
    }
    found = {name: above_chance(sum(values) / len(values), result.chance) for name, values in groups.items() if values}
    return found if result.chance else found | {"facts": rows}  # a fact that can be guessed has not come back
