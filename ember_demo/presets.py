"""Settings as published in the paper (arXiv 2606.03695), per model."""

from ember_demo.attacks import Relearning, RelearningParagraphs
from ember_demo.erasers import RMU, Ember

PAPER = "paper"
WIDE = 3072  # hidden size from which Llama-3.1-8B's settings are taken, below it Gemma-2-2B's
# The grids that the paper searches on its training questions.
RMU_GRIDS = {
    "gemma": {
        "layer": (6, 7, 8),
        "learning_rate": (1e-5, 1e-4, 3e-4),
        "alpha": (10.0, 30.0, 50.0, 100.0),
        "steering": (30.0, 100.0, 300.0, 1000.0),
    },
    "llama": {
        "layer": (7, 9, 11),
        "learning_rate": (1e-5, 1e-4, 3e-4),
        "alpha": (30.0, 50.0, 100.0, 300.0),
        "steering": (30.0, 100.0, 300.0, 1000.0),
    },
}


def paper_grids(model):
    """The paper's grids by eraser, for a model of this size; of layers that a model much less deep than the paper's has not, none is tried."""
    grid = RMU_GRIDS["llama" if model.width >= WIDE else "gemma"]
    deep = max(grid["layer"]) < len(model.layers) // 2
    return {RMU.name: {name: values for name, values in grid.items() if deep or name != "layer"}}


def paper_settings(model):
    """Erasers and attacks by name, with the paper's settings for a model of this size.

    EMBER: rank 100 or 200, 1% of the tokens a feature, ratio 2 and no share rule (the paper has a judge instead), delta from its grid.
    RMU: the middle of its grids, which `--tune` searches. Relearning: AdamW at 1e-5, weight decay 0.01, batch 1, 256 tokens, 2 epochs.
    """
    middle = {name: values[(len(values) - 1) // 2] for name, values in paper_grids(model)[RMU.name].items()}
    relearning = {"epochs": 2, "learning_rate": 1e-5, "batch_size": 1, "weight_decay": 0.01, "max_length": 256}
    return {
        Ember.name: Ember(rank=200 if model.width >= WIDE else 100, sparsity=0.01, ratio=2.0, share=0.0),
        RMU.name: RMU(**middle),
        Relearning.name: Relearning(**relearning),
        RelearningParagraphs.name: RelearningParagraphs(**relearning),
    }
