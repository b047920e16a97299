"""Choose among edits on the validation questions, never on those that score."""

from ember_demo.errors import ConceptError
from ember_demo.evaluation import evaluate
from ember_demo.progress import part, silent

MIN_ABILITY = 0.9
MIN_COHERENCE = 0.9


def choose(model, concept, candidates, progress=silent):
    """The candidate edit with the largest overall score whose general ability and coherence stay above 0.9.

    Ties go to the earlier candidate. Where none stays above the limits, the one that comes nearest is taken.
    Returns (edit, trials), a trial a candidate: its validation figures and whether it is within the limits.
    Raises ConceptError where the concept has no validation questions.
    """
    if not concept.select("concept", "validation"):
        raise ConceptError(f"{concept.name} has no validation questions to choose a setting on; give the setting, for instance delta=5.")
    base = evaluate(model, concept, split="validation", multiple_choice=False)
    trials = []
    for number, edit in enumerate(candidates):
        share = part(progress, number / len(candidates), (number + 1) / len(candidates))
        share(0, f"Trying setting {number + 1} of {len(candidates)} on the validation questions")
        with edit.applied(model):
            scores = evaluate(model, concept, base=base, split="validation", progress=share, multiple_choice=False)
        ability = min(1.0, scores.accuracy["general"] / base.accuracy["general"]) if base.accuracy.get("general") else 1.0
        trials.append(
            {
                "efficacy": scores.efficacy,
                "specificity": scores.specificity,
                "ability": ability,
                "coherence": scores.coherence,
                "overall": scores.overall,
                "within_limits": ability >= MIN_ABILITY and scores.coherence >= MIN_COHERENCE,
            }
        )
    within = [n for n, t in enumerate(trials) if t["within_limits"]]
    if within:
        best = max(within, key=lambda n: (trials[n]["overall"], -n))
    else:
        best = max(range(len(trials)), key=lambda n: (min(trials[n]["ability"], trials[n]["coherence"]), -n))
    return candidates[best], trials
