"""Soft prompt: vectors before the question, trained on some of the knowledge; every weight of the model stays as it is."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from ember_demo.attacks.relearning import Relearning


@dataclass(frozen=True)
class SoftPrompt(Relearning):
    """Prompt tuning (arXiv 2104.08691). It can draw out what is there and hardly teach: the never-learned control shows how much it teaches."""

    name: ClassVar[str] = "soft-prompt"
    description: ClassVar[str] = (
        "Trains a few made-up words before the question, and no weight, on some facts of the concept, and asks about others: draws out what is there."
    )

    changes_weights: ClassVar[bool] = False

    epochs: int = 2
    batch_size: int = 16
    virtual_tokens: int = 8
    faster: float = 100.0

    def trains(self, model):
        return f"{self.virtual_tokens} vectors before the question"

    @contextmanager
    def trainable(self, model):
        from peft import PromptTuningConfig, get_peft_model  # takes a while, and only this needs it

        network = model.network
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.virtual_tokens)
        with model.dequantized(model.without_gradient()):
            model.network = get_peft_model(network, config)
            try:
                prompts = [p for p in model.network.parameters() if p.requires_grad]
                yield [{"params": prompts, "lr": self.faster * self.learning_rate, "weight_decay": 0.0}]
            finally:
                model.network = network
                network.requires_grad_(False).eval()
