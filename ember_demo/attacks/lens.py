"""Reading the answer from inside the model: the logit lens (arXiv 2309.17410), and a linear probe on hidden states."""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ember_demo.attacks.base import WEIGHTS, Attack, Curve, best_of
from ember_demo.concept import KINDS
from ember_demo.errors import ConceptError
from ember_demo.evaluation import CHANCE, Reply, ask, choose_options, first_wordings, share_right
from ember_demo.hidden import hidden_states

OWN_CHOICE = "the model's own choice"


@dataclass(frozen=True)
class LogitLens(Attack):
    """Answers after each layer, as if it were the last; the best layer on the validation questions counts."""

    name: ClassVar[str] = "logit-lens"
    title: ClassVar[str] = "Read the answer in inner layers"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = "Reads the answer after each layer inside the model, in case a later layer only covers it up."

    def attack(self, model, concept, seed, progress, curve):
        def asked(layers, questions):
            with _cut_after(model, layers):
                return ask(model, questions)

        ways = {f"layer {n}": partial(asked, n) for n in range(1, len(model.layers))}
        return self.result(curve, **best_of(model, concept, ways, curve, progress))


@contextmanager
def _cut_after(model, count):
    """The model with its first `count` layers only; norm and output head follow as after the last."""
    body, whole = model.network.base_model, model.layers
    body.layers = whole[:count]
    try:
        yield
    finally:
        body.layers = whole


@dataclass(frozen=True)
class LinearProbe(Attack):
    """A linear map from the hidden state at the end of a question to its answer, taken as the mean of its tokens' rows of the output head.

    It is fitted (ridge regression) on the questions that an attacker may know, of every kind, and picks of the four options of the others the one
    that lies nearest; 0 is guessing. The layer, or else the model's own choice among the options, is chosen on the validation questions.
    """

    name: ClassVar[str] = "linear-probe"
    title: ClassVar[str] = "Learn to read its inner states"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = (
        "Learns, on what the attacker knows, to read answers off the model's inner states, and lets that choose among four options for the rest, or "
        "else lets the model choose itself."
    )

    trains_on_facts: ClassVar[bool] = True
    counts: ClassVar[str] = "right choices among four options, guessing taken out"

    ridge: float = 10.0

    def begin(self, model, questions, progress, before=None):
        """With the model's own choice among the options."""
        curve, tests = Curve(progress, chance=CHANCE), [q for q in first_wordings(questions) if len(q.wrong) == 3]
        curve.add(_own_choices(model, tests), OWN_CHOICE, 0.0)
        return curve

    def attack(self, model, concept, seed, progress, curve):
        known, trials, tests = (
            [q for kind in kinds for q in first_wordings(concept.select(kind, split)) if len(q.wrong) == 3]
            for kinds, split in ((KINDS, "relearn"), (KINDS[:1], "validation"), (KINDS[:1], "test"))
        )
        if not (known and trials and tests):
            raise ConceptError(f"{concept.name} has no relearn, validation and test questions with four options for a probe; give some.")
        answers = _answers(model, [q.answer for q in known])
        found, chosen = {OWN_CHOICE: share_right(_own_choices(model, trials))}, {OWN_CHOICE: curve.replies}
        for layer in range(len(model.layers)):
            progress(layer / len(model.layers), f"Probing layer {layer + 1}")
            probe = make_pipeline(StandardScaler(), Ridge(alpha=self.ridge)).fit(_states(model, known, layer), answers)
            name = f"layer {layer + 1}"
            found[name] = share_right(_choices(model, probe, trials, layer))
            chosen[name] = _choices(model, probe, tests, layer)
        best = max(found, key=found.get)
        curve.add(chosen[best], best)
        return self.result(curve, chosen=best, on_validation=found)


def _own_choices(model, questions):
    return [Reply(q, q.answer if right else "", right, True) for q, right in choose_options(model, questions)]


def _states(model, questions, layer, batch_size=64):
    """States (n, d) of a layer at the end of each question, where the answer is to begin."""
    prompts, rows = [model.prompt(q.text) for q in questions], []
    for start in range(0, len(prompts), batch_size):
        with torch.no_grad():
            states, mask = hidden_states(model, prompts[start : start + batch_size], layer)
        last = mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)
        rows.append(states[torch.arange(len(states)), last].float().cpu())
    return torch.cat(rows).numpy()


def _answers(model, texts):
    """Mean rows (n, d) of the output head over the tokens of each text, of unit length."""
    head = model.network.get_output_embeddings().weight.detach()
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    means = torch.stack([head[row].float().mean(dim=0).cpu() for row in ids])
    return torch.nn.functional.normalize(means, dim=1).numpy()


def _choices(model, probe, questions, layer):
    """Replies with the option that lies nearest to what the probe reads; of equals the right answer is the last to be taken."""
    read, replies = probe.predict(_states(model, questions, layer)), []
    for question, state in zip(questions, read):
        options = (*question.wrong, question.answer)
        option = options[int(np.argmax(_answers(model, list(options)) @ state))]
        replies.append(Reply(question, option, option == question.answer, True))
    return replies
