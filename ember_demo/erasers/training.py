"""What erasers that retrain MLP output weights share: the texts to forget and to retain, and the course of training."""

import random
from abc import abstractmethod
from dataclasses import dataclass

from ember_demo.edit import WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.optimizer import MasterAdamW
from ember_demo.progress import silent


@dataclass(frozen=True)
class TrainingEraser(Eraser):
    """Trains `mlp.down_proj` of some layers with AdamW, each step on a batch of forget texts and one of retain texts.

    None means a value that suits the model.
    """

    alpha: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    batch_size: int = 16

    @abstractmethod
    def trained(self, model):
        """Indices of the layers that are trained."""

    @abstractmethod
    def objective(self, model, course, seed):
        """The loss as a function of a forget batch and a retain batch; what it compares with is taken from the model as it is now.

        course: all pairs of batches that will come, so that only the texts in it need be computed.
        """

    def fit(self, model, concept, seed=0, progress=silent):
        settings = self.resolved(model)
        layers = settings.trained(model)
        names = [model.mlp_outputs[i] for i in layers]
        with model.dequantized(model.without_gradient(layers)), model.preserved(names) as before:
            settings._train(model, concept, names, seed, progress)
            return WeightEdit.between(model, before, {"settings": {self.name: settings.settings()}})

    def _train(self, model, concept, names, seed, progress):
        title, rng = type(self).__name__, random.Random(seed)
        texts = forget_texts(model, concept), retain_texts(model, concept)
        course = [[rng.sample(t, min(self.batch_size, len(t))) for t in texts] for _ in range(self.steps)]
        loss = self.objective(model, course, seed)
        optimizer = MasterAdamW([{"params": [model.parameter(name).requires_grad_(True) for name in names]}], lr=self.learning_rate)
        for step, (forget, retain) in enumerate(course):
            progress(step / self.steps, f"{title}: training" if step % 20 else f"{title}: step {step + 1} of {self.steps}")
            loss(forget, retain).backward()
            optimizer.step()


def forget_texts(model, concept):
    """Sentences on the concept, and its questions that may be trained on, as chats."""
    return list(concept.texts) + [_chat(model, q) for q in concept.select("concept", "relearn")]


def retain_texts(model, concept):
    """Neutral sentences but for those that fluency is measured on, and the neighbouring and general questions that may be trained on, as chats."""
    questions = concept.select("similar", "relearn") + concept.select("general", "relearn")
    return concept.retain_texts + [_chat(model, q) for q in questions]


def _chat(model, question):
    return "".join(model.dialogue(question.text, question.answer))
