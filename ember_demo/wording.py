"""What things are called before people: labels, colours and one-line definitions, for page and report alike."""

from ember_demo.erasers import ERASERS

LABELS = {
    "original": "Original",
    "rmu": "Baseline (RMU)",
    "ember": "EMBER",
    "ember+rmu": "EMBER + baseline",
    "control": "Never learned it",
    "snmf": "SNMF projection",
    "graddiff": "GradDiff",
    "simnpo": "SimNPO",
    "ember-head": "EMBER, output layer too",
    "ember-delta-1": "EMBER at strength 1",
    "random-direction": "Random direction",
    "zero-rows": "Zeroed words",
    "mean-rows": "Mean words",
    "random-tokens": "Random other words",
}
ABOUT = {
    "original": "The model as it was loaded.",
    "control": "The same training, with every text on the concept left out: what not knowing it looks like.",
}
# Colours that stay apart for colour-blind readers (after Okabe and Ito, and Tol) and from light and dark pages, and lines that stay apart without them.
COLORS = {"original": "#6b7280", "rmu": "#d55e00", "ember": "#aa4499", "ember+rmu": "#0072b2", "control": "#009e73"}
DASHES = {"original": "", "rmu": "", "ember": "12 4", "ember+rmu": "2 3", "control": "6 4"}

DEFINITIONS = {
    "concept accuracy": "share of right answers to questions on the concept, in wordings the model was never trained on.",
    "concept choice accuracy": "the same with four options to choose from: guessing gets 0.25.",
    "concept answer probability": "how likely the model finds the right answers to these questions, a token, whatever it answers itself.",
    "concept invalid rate": "share of answers to these questions that cannot be read as an answer: empty, or without an end. Gibberish is not erasure.",
    "concept mention rate": "share of answers to these questions in which the right one can be read, whatever stands around it. Among other words it counts as wrong, but is not gone.",
    "similar accuracy": "share of right answers on a neighbouring subject that should be kept.",
    "general accuracy": "the same for general knowledge that should be kept.",
    "efficacy": "how much of the concept is gone: 0 nothing, 1 all of it.",
    "choice efficacy": "the same when the model only has to pick the right one of four options; guessing counts as nothing known.",
    "specificity": "how much of everything else is left: 1 all of it. Harmonic mean of general and neighbouring accuracy, against the original.",
    "coherence": "how fluent the model still is: how likely it finds ordinary text, alone and right after a sentence on the concept, "
    "against the original (a ratio of perplexities; no judge of style is used here).",
    "overall": "harmonic mean of efficacy, specificity and coherence.",
    "forget quality": "how alike the erased model and one that never learned the concept judge right and wrong answers (TOFU): a probability; "
    "under 0.05 the two can be told apart.",
    "model utility": "harmonic mean of right answers, their probability and how clearly they are preferred to wrong ones, on neighbouring and "
    "general questions (TOFU).",
}


def label(variant):
    """The name of a variant as people see it."""
    return LABELS.get(variant) or " + ".join(LABELS.get(part, part.upper() if part in ERASERS else part) for part in variant.split("+"))


def about(variant):
    """What a variant is, in a line or two; empty for an edit that no eraser here made."""
    return ABOUT.get(variant) or " Then: ".join(ERASERS[part].description for part in variant.split("+") if part in ERASERS)


def color(variant):
    """The colour of a variant: that of its role."""
    return COLORS[_role(variant)]


def dash(variant):
    """How the line of a variant is dashed in a plot (SVG stroke-dasharray)."""
    return DASHES[_role(variant)]


def _role(variant):
    """The baseline's is the same whichever it is."""
    return variant if variant in COLORS else "ember+rmu" if variant.startswith("ember+") else "rmu"
