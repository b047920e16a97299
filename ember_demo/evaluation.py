"""The paper's metrics: efficacy, specificity, coherence and their harmonic mean, with intervals."""

import math
import random
import re
import unicodedata
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import ks_2samp

from ember_demo.concept import KINDS
from ember_demo.errors import ConceptError
from ember_demo.memory import SMALL
from ember_demo.progress import part, silent

CHANCE = 0.25  # of four options
LETTERS = "ABCD"
OFFERING = "Offering four options"
# What an answer may say around what was asked for, beside the question's own words.
LITTLE = set("a an the is are was were be been it its this that there of by in on at to as for from called named known answer".split())


@dataclass(frozen=True)
class Reply:
    """A question, what the model answered, and whether that is right; valid is False where it cannot be read as an answer."""

    question: object
    text: str
    right: bool
    valid: bool


@dataclass(frozen=True)
class Scores:
    """Figures of one variant of a model on one concept.

    accuracy, interval, choice_accuracy: by kind of question: open answers, their 95% Wilson interval (over facts:
    several wordings of one fact count once), and multiple choice by option likelihood where options exist.
    choice_efficacy: efficacy on the four-option form, rescaled for chance; None where that was not asked.
    choice_form: how the four options are asked: "likelihood" (the likeliest of the four as an answer) or "letter" (A to D, as instruct models are used to).
    answer_probability: by kind, the probability a token of the reference answer (geometric mean over its tokens, mean over facts);
    where open answers seldom match word for word, it still tells what is known.
    invalid_rate: by kind, the share of open answers that cannot be read as one: empty, or without an end.
    mention_rate: by kind, the share of open answers that hold the right one word for word, whatever stands around it: "otter country" for "otter".
    truth_ratios: by kind, of every fact the mean likelihood of its wrong options by that of its answer, each a token (TOFU, arXiv 2401.06121, eq. 1).
    model_utility: harmonic mean over neighbouring and general questions of open accuracy, answer probability and max(0, 1 - truth ratio); TOFU has
    ROUGE where this has open accuracy. forget_quality: see the function; None where there is no control.
    perplexity: on general text, and on general text that follows a sentence on the concept.
    efficacy, specificity, coherence, overall: in [0, 1], see Metrics in the README; specificity is None where nothing else was asked about, and
    overall then leaves it out. derived: 95% intervals by bootstrap, of efficacy and specificity over subjects, of coherence over its texts.
    fluency: by the names of `perplexity`, (2, texts): each text's log-likelihood and its tokens.
    """

    accuracy: dict
    interval: dict
    choice_accuracy: dict
    choice_efficacy: float | None
    choice_form: str | None
    answer_probability: dict
    truth_ratios: dict = field(repr=False)
    model_utility: float | None
    invalid_rate: dict
    mention_rate: dict
    perplexity: dict
    efficacy: float
    specificity: float | None
    coherence: float
    overall: float
    derived: dict
    fluency: dict = field(repr=False)
    replies: list = field(repr=False, default_factory=list)
    forget_quality: float | None = None

    def as_dict(self):
        """JSON-able, in the form of report.json."""
        flat = {f"{kind}_accuracy": None for kind in KINDS}  # of a kind that was not asked about
        for kind in self.accuracy:
            flat[f"{kind}_accuracy"] = self.accuracy[kind]
            flat[f"{kind}_interval"] = self.interval[kind]
            flat[f"{kind}_invalid_rate"] = self.invalid_rate[kind]
            flat[f"{kind}_mention_rate"] = self.mention_rate[kind]
            if kind in self.choice_accuracy:
                flat[f"{kind}_choice_accuracy"] = self.choice_accuracy[kind]
            if kind in self.answer_probability:
                flat[f"{kind}_answer_probability"] = self.answer_probability[kind]
        return flat | {
            "invalid_rate": share_invalid(self.replies),
            "efficacy": self.efficacy,
            "choice_efficacy": self.choice_efficacy,
            "choice_form": self.choice_form,
            "specificity": self.specificity,
            "coherence": self.coherence,
            "overall": self.overall,
            "forget_quality": self.forget_quality,
            "model_utility": self.model_utility,
            "intervals": self.derived,
            "perplexity": self.perplexity,
            "n_questions": sum(r.question.kind == "concept" for r in self.replies),
        }


def evaluate(model, concept, base=None, split="test", progress=silent, multiple_choice=True):
    """Score the model as it stands, edits included, against its own unedited self.

    base: Scores of the unedited model on the same split, to save measuring them again.
    multiple_choice: whether the four-option form is asked too, in one wording a fact; it takes half of the time.
    Raises ConceptError where the concept has no questions in this split.
    """
    if base is None and model.applied_edits:
        with model.unedited():
            base = evaluate(model, concept, split=split, multiple_choice=multiple_choice)
    questions = [q for kind in KINDS for q in concept.select(kind, split)]
    if not any(q.kind == "concept" for q in questions):
        raise ConceptError(f"{concept.name} has no {split} questions, so nothing can be scored; give some.")
    replies = ask(model, questions, progress=part(progress, 0.1, 0.5, "Asking the questions"))
    accuracy = {kind: _mean(r.right for r in replies if r.question.kind == kind) for kind in KINDS if _of(replies, kind)}
    choice_accuracy, probability, ratios, form = {}, {}, {}, None
    if multiple_choice:
        facts = first_wordings(questions)  # the options decide, not the wording
        likelihoods = option_likelihoods(model, facts, part(progress, 0.5, 0.7, OFFERING))
        probability = _by_kind([(q, float(options[0].exp())) for q, options in zip(facts, likelihoods)])
        if any(len(q.wrong) == 3 for q in facts):
            form = "letter" if follows_instructions(model) else "likelihood"
            choices = (
                _choose_letters(model, facts, part(progress, 0.7, 0.9, OFFERING)) if form == "letter" else _likeliest(facts, likelihoods)
            )
            choice_accuracy = _by_kind(choices)
            ratios = _truth_ratios(facts, likelihoods)
    progress(0.9, "Measuring fluency")
    fluency = _fluency(model, concept, concept.fluency_texts["validation" if split == "validation" else "test"])
    base_fluency = base.fluency if base else fluency
    coherence = _coherence(fluency, base_fluency)
    efficacy, specificity = efficacy_and_specificity(accuracy, base.accuracy if base else accuracy)
    return Scores(
        accuracy=accuracy,
        interval={kind: wilson(accuracy[kind], len({r.question.fact for r in _of(replies, kind)})) for kind in accuracy},
        choice_accuracy=choice_accuracy,
        choice_efficacy=_choice_efficacy(choice_accuracy, base.choice_accuracy if base else choice_accuracy),
        choice_form=form,
        answer_probability=probability,
        truth_ratios=ratios,
        model_utility=_model_utility(accuracy, probability, ratios),
        invalid_rate={kind: share_invalid(_of(replies, kind)) for kind in accuracy},
        mention_rate={kind: _mean(mentions(r.text, r.question) for r in _of(replies, kind)) for kind in accuracy},
        perplexity={name: _perplexity(*texts) for name, texts in fluency.items()},
        efficacy=efficacy,
        specificity=specificity,
        coherence=coherence,
        overall=harmonic_mean([efficacy, specificity, coherence]),
        derived=_bootstrap(replies, base.replies if base else replies) | _bootstrap_coherence(fluency, base_fluency),
        fluency=fluency,
        replies=replies,
    )


def first_wordings(questions):
    """One question a fact."""
    return list({q.fact: q for q in reversed(questions)}.values())


def ask(model, questions, texts=None, progress=silent):
    """The model's greedy answers as `Reply` values. texts: how the questions are put, where not in their own words."""
    answers = model.answer(texts or [q.text for q in questions], progress=progress)
    return [
        Reply(q, text, finished and _is_right(text, q), finished and bool(normalise(text)))
        for q, (text, finished) in zip(questions, answers)
    ]


def _is_right(text, question):
    """Whether an answer is an accepted one, with nothing around it but words of its question: "Au", "The symbol of gold is Au."."""
    said = set(normalise(question.text).split()) | LITTLE
    for accepted in filter(None, map(normalise, (question.answer, *question.aliases))):
        before, found, after = f" {normalise(text)} ".partition(f" {accepted} ")
        if found and said.issuperset([*before.split(), *after.split()]):
            return True
    return False


def mentions(text, question):
    """Whether a free reply holds an accepted answer, word for word."""
    return any(f" {normalise(a)} " in f" {normalise(text)} " for a in (question.answer, *question.aliases))


def accuracy_of(model, questions):
    """Share of right answers in [0, 1]."""
    return share_right(ask(model, questions))


def share_right(replies):
    """Share of right answers in [0, 1]."""
    return _mean(r.right for r in replies)


def share_invalid(replies):
    """Share of answers that cannot be read as one."""
    return _mean(not r.valid for r in replies)


def normalise(text):
    """Lower case, without accents and punctuation, and without articles where anything else is left."""
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"[^\w\s]|_", " ", text)
    words = text.split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def wilson(share, n, z=1.96):
    """95% Wilson interval [low, high] of a share observed on n independent cases."""
    if n == 0:
        return [0.0, 1.0]
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))]


def harmonic_mean(values):
    """Of the values that are not None: 0 where one is 0; 1 of no values."""
    values = [value for value in values if value is not None]
    if not values:
        return 1.0
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / v for v in values)


def kept_fraction(accuracy, base):
    """What is left of an accuracy on open questions: min(1, accuracy / base); 1 where there was nothing to lose."""
    return min(1.0, accuracy / base) if base else 1.0


def kept_fraction_of_choices(accuracy, base):
    """The same for four options, rescaled for chance."""
    return float(np.clip((accuracy - CHANCE) / (base - CHANCE), 0, 1)) if base > CHANCE else 1.0


def efficacy_and_specificity(accuracy, base):
    """Efficacy and specificity from what is known by kind, now and before; specificity is None where there are no kinds but the concept."""
    efficacy = 1 - kept_fraction(accuracy["concept"], base["concept"])
    kept = [kept_fraction(accuracy[k], base[k]) for k in ("general", "similar") if k in accuracy]
    return efficacy, harmonic_mean(kept) if kept else None


def _choice_efficacy(accuracy, base):
    if "concept" not in accuracy or "concept" not in base:
        return None
    return 1 - kept_fraction_of_choices(accuracy["concept"], base["concept"])


def choose_options(model, questions):
    """Multiple choice by likelihood: (question, right) with the option of the highest mean log-probability a token."""
    return _likeliest(questions, option_likelihoods(model, questions))


def option_likelihoods(model, questions, progress=silent):
    """By question, the mean log-probability a token of its answer and of its wrong options, each as an answer to it."""
    contexts, options = [], []
    for question in questions:
        for option in (question.answer, *question.wrong):
            context, continuation = model.dialogue(question.text, option)
            contexts.append(context)
            options.append(continuation[: continuation.index(option) + len(option)])
    if not contexts:
        return []
    sums, counts = model.log_likelihood(contexts, options, progress)
    return torch.split(sums / counts.clamp(min=1), [1 + len(q.wrong) for q in questions])


def forget_quality(scores, control):
    """How alike the erased model and one that never learned the concept judge its right and wrong answers: the p-value of a two-sample
    Kolmogorov-Smirnov test between their truth ratios (TOFU, arXiv 2401.06121). None where either was not asked with four options."""
    ours, theirs = scores.truth_ratios.get("concept"), control.truth_ratios.get("concept")
    return float(ks_2samp(ours, theirs).pvalue) if ours and theirs else None


def _truth_ratios(facts, likelihoods):
    found = {}
    for question, options in zip(facts, likelihoods):
        if len(question.wrong) == 3:
            found.setdefault(question.kind, []).append(float(options[1:].exp().mean() / options[0].exp().clamp(min=1e-12)))
    return found


def _model_utility(accuracy, probability, ratios):
    kept = [kind for kind in ("similar", "general") if kind in ratios]
    parts = [(accuracy[k], probability[k], _mean(max(0.0, 1 - r) for r in ratios[k])) for k in kept]
    return harmonic_mean(value for part in parts for value in part) if parts else None


def follows_instructions(model):
    """Whether it is a chat model large enough to do as it is told; such a one is asked for few words, and for the letter of an option."""
    return bool(model.tokenizer.chat_template) and model.parameter_count >= SMALL


def _likeliest(questions, likelihoods):
    """Right where the answer is likelier than every other option; a tie, or what is no number, is not."""
    return [(q, bool(options[0] > options[1:].max())) for q, options in zip(questions, likelihoods) if len(q.wrong) == 3]


def _choose_letters(model, questions, progress):
    """Multiple choice as instruct models are asked: the likeliest letter after the four options, in an order drawn for each question."""
    asked = [q for q in questions if len(q.wrong) == 3]
    contexts, right = [], []
    for question in asked:
        options = [question.answer, *question.wrong]
        order = random.Random(question.text).sample(range(4), 4)
        lines = [f"{letter}) {options[i]}" for letter, i in zip(LETTERS, order)]
        contexts += [model.prompt("\n".join([question.text, *lines, "Answer with one letter."]))] * 4
        right.append(order.index(0))
    sums, _ = model.log_likelihood(contexts, list(LETTERS) * len(asked), progress)
    return [(q, choice == place) for q, choice, place in zip(asked, sums.reshape(-1, 4).argmax(dim=1).tolist(), right)]


def _by_kind(pairs):
    """Means by kind of question of (question, value) pairs."""
    return {kind: _mean(value for q, value in pairs if q.kind == kind) for kind in KINDS if any(q.kind == kind for q, _ in pairs)}


def _fluency(model, concept, texts):
    """(2, texts), log-likelihoods and tokens, of general texts at the start of a document, and after a sentence on the concept (which is not scored).

    The second tells whether meeting the concept's words throws the model off course.
    """
    start = model.tokenizer.bos_token or ""
    contexts = {
        "general": [start] * len(texts),
        "after_concept": [start + concept.texts[i % len(concept.texts)] for i in range(len(texts))],
    }
    return {name: np.stack(model.log_likelihood(prefixes, [f" {text}" for text in texts])) for name, prefixes in contexts.items()}


def _perplexity(sums, counts):
    return math.exp(min(50.0, -sums.sum() / counts.sum()))


def _coherence(fluency, base):
    return harmonic_mean(min(1.0, _perplexity(*base[k]) / _perplexity(*fluency[k])) for k in fluency)


def _bootstrap_coherence(fluency, base, samples=500):
    """95% interval of coherence: its texts are drawn anew, the same for variant and base."""
    count = next(iter(fluency.values())).shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(samples, count))
    values = [_coherence(*({k: texts[:, rows] for k, texts in of.items()} for of in (fluency, base))) for rows in drawn]
    return {"coherence": np.percentile(values, [2.5, 97.5]).tolist()}


def _bootstrap(replies, base_replies, samples=500):
    """95% intervals of efficacy and specificity: subjects are drawn anew, the same for variant and base."""
    rng = np.random.default_rng(0)
    draws = {}
    for kind in KINDS:
        pairs = [
            (a.question.subject or a.question.text, a.right, b.right) for a, b in zip(replies, base_replies) if a.question.kind == kind
        ]
        if not pairs:
            continue
        subjects = sorted({p[0] for p in pairs})
        row = {subject: n for n, subject in enumerate(subjects)}
        counts = np.zeros((len(subjects), 3))
        for subject, right, base_right in pairs:
            counts[row[subject]] += (right, base_right, 1)
        drawn = counts[rng.integers(len(subjects), size=(samples, len(subjects)))].sum(axis=1)
        draws[kind] = drawn[:, :2] / drawn[:, 2:]
    derived = [
        efficacy_and_specificity({k: d[i, 0] for k, d in draws.items()}, {k: d[i, 1] for k, d in draws.items()}) for i in range(samples)
    ]
    measured = {name: values for name, values in zip(("efficacy", "specificity"), zip(*derived)) if None not in values}
    return {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in measured.items()}


def _of(replies, kind):
    return [r for r in replies if r.question.kind == kind]


def _mean(values):
    values = list(values)
    return float(np.mean(values)) if values else 0.0
