"""Choose among edits and settings on the validation questions, never on those that score."""

import hashlib
import json
from dataclasses import asdict, replace
from statistics import mean

from ember_demo.errors import ConceptError, EmberDemoError
from ember_demo.evaluation import efficacy_and_specificity, evaluate, harmonic_mean, kept_fraction
from ember_demo.progress import part, silent

MIN_ABILITY = 0.9
MIN_COHERENCE = 0.9
MIN_KNOWN = 0.1  # right open answers, word for word, under which their loss says little, as of chat models that answer in sentences
FIGURES = ("efficacy", "specificity", "ability", "coherence", "overall")


def choose(model, concept, candidates, progress=silent):
    """The candidate edit with the largest overall score whose general ability and coherence stay above 0.9.

    Ties go to the earlier candidate. Where none stays above the limits, the one that comes nearest is taken.
    Returns (edit, trials), a trial a candidate: its validation figures and whether it is within the limits.
    Raises ConceptError where the concept has no validation questions.
    """
    base, trials = unedited(model, concept), []
    for number, edit in enumerate(candidates):
        share = part(progress, number / len(candidates), (number + 1) / len(candidates))
        share(0, f"Trying setting {number + 1} of {len(candidates)} on the validation questions")
        trials.append(validate(model, concept, edit, base, share))
    best = max(range(len(trials)), key=lambda number: (worth(trials[number]), -number))
    return candidates[best], trials


def unedited(model, concept):
    """Scores of the model as it stands on the validation questions, to compare with; with the answers' probability where it seldom answers word for word."""
    if not concept.select("concept", "validation"):
        raise ConceptError(f"{concept.name} has no validation questions to choose a setting on; give the setting, for instance delta=5.")
    scores = evaluate(model, concept, split="validation", multiple_choice=False)
    return scores if scores.accuracy["concept"] >= MIN_KNOWN else evaluate(model, concept, split="validation")


def validate(model, concept, edit, base, progress=silent):
    """The figures of an edit on the validation questions, against `unedited`, and whether they are within the limits.

    ability: what is kept of general questions; where there are none, of neighbouring ones.

    kept_of: "answers", or "probability" where the unedited model hardly answers word for word: what is kept of each kind, and so efficacy, specificity
    and ability, is then read off the reference answers' probability.
    """
    source = kept_of(base)
    with edit.applied(model):
        scores = evaluate(model, concept, base, "validation", progress, multiple_choice=source == "probability")
    now, before = (s.answer_probability if source == "probability" else s.accuracy for s in (scores, base))
    efficacy, specificity = efficacy_and_specificity(now, before)
    others = [kind for kind in ("general", "similar") if kind in before]
    ability = kept_fraction(now[others[0]], before[others[0]]) if others else 1.0
    figures = (efficacy, specificity, ability, scores.coherence, harmonic_mean([efficacy, specificity, scores.coherence]))
    within_limits = ability >= MIN_ABILITY and scores.coherence >= MIN_COHERENCE
    return dict(zip(FIGURES, figures)) | {"within_limits": within_limits, "kept_of": source}


def kept_of(base):
    """What it is read off how much is kept, from the Scores of `unedited`."""
    return "probability" if base.answer_probability else "answers"


def worth(trial):
    """What trials are compared by: the overall score within the limits; below zero, and the lower the further off, outside of them."""
    return trial["overall"] if trial["within_limits"] else min(trial["ability"], trial["coherence"]) - 1


def search(model, concepts, eraser, count, seed=0, journal=None, progress=silent, grid=None):
    """Look for an eraser's settings by `count` trials (Optuna's tree-structured Parzen estimator), each on the validation questions of every concept.

    An eraser names in `space` what may vary, and between which multiples of its usual value. The first trial is the usual setting.
    grid: values by setting, which are tried instead; a setting that has another value keeps that.
    journal: a file that keeps the trials, so that a cut search goes on. Returns (eraser with the best settings, trials).
    Raises EmberDemoError where the eraser has nothing to search.
    """
    import optuna  # takes a while, and only this needs it

    if count < 1:
        raise EmberDemoError(f"A search of {count} trials finds nothing; give at least 1.")
    if not (eraser.space or grid):
        raise EmberDemoError(f"{eraser.name} has no settings to search; its strength is chosen on the validation questions as it is.")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    usual = eraser.resolved(model)
    grid = {name: values for name, values in (grid or {}).items() if getattr(usual, name) in values}
    told = json.dumps(
        [asdict(usual), grid or eraser.space, FIGURES, [asdict(concept) for concept in concepts]], sort_keys=True, default=str
    )
    storage = None
    if journal:
        backend = optuna.storages.journal
        storage = optuna.storages.JournalStorage(
            backend.JournalFileBackend(str(journal), lock_obj=backend.JournalFileOpenLock(str(journal)))
        )
    study = optuna.create_study(
        storage=storage,
        study_name=f"{eraser.name}/{model.fingerprint[:16]}/{seed}/{hashlib.sha256(told.encode()).hexdigest()[:16]}",
        direction="maximize",
        load_if_exists=True,
    )
    study.sampler = optuna.samplers.TPESampler(seed=(seed + len(study.trials)) % 2**32)  # what goes on does not draw its first trials again

    def finished():
        return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))

    if not finished():
        study.enqueue_trial({name: getattr(usual, name) for name in grid} if grid else dict.fromkeys(eraser.space, 1.0))
    bases = [unedited(model, concept) for concept in concepts]

    def settings_of(params):
        if grid:
            return params
        values = {name: getattr(usual, name) * times for name, times in params.items()}
        return {name: max(1, round(v)) if isinstance(getattr(usual, name), int) else v for name, v in values.items()}

    def objective(trial):
        done = len(finished())
        share = part(progress, done / count, (done + 1) / count, f"Search, trial {done + 1} of {count}: ")
        if grid:
            params = {name: trial.suggest_categorical(name, values) for name, values in grid.items()}
        else:
            params = {name: trial.suggest_float(name, *bounds, log=True) for name, bounds in eraser.space.items()}
        candidate, rows = replace(usual, **settings_of(params)), []
        for number, (concept, base) in enumerate(zip(concepts, bases)):
            here = part(share, number / len(concepts), (number + 1) / len(concepts))
            try:
                edit = candidate.fit(model, concept, seed, part(here, 0, 0.7))
            except ConceptError:  # such settings find nothing to erase
                rows.append(dict.fromkeys(FIGURES, 0.0) | {"within_limits": False, "kept_of": kept_of(base)})
                continue
            rows.append(validate(model, concept, edit, base, part(here, 0.7, 1)))
        found = {name: _mean(row[name] for row in rows) for name in FIGURES}
        found |= {"within_limits": all(r["within_limits"] for r in rows)}
        found |= {"kept_of": " and ".join(sorted({r["kept_of"] for r in rows}))}
        trial.set_user_attr("figures", found)
        return mean(worth(row) for row in rows)

    study.optimize(objective, n_trials=max(0, count - len(finished())))
    trials = [{"settings": settings_of(t.params)} | t.user_attrs["figures"] for t in finished()]
    return replace(usual, **settings_of(study.best_params)), trials


def _mean(values):
    """Of those that were measured; None where none was."""
    measured = [value for value in values if value is not None]
    return mean(measured) if measured else None
