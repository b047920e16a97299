"""Settings as published in the paper (arXiv 2606.03695), per model."""

from ember_demo.attacks import Relearning, RelearningParagraphs
from ember_demo.erasers import RMU, SNMF, Ember

PAPER = "paper"
WIDE = 3072  # hidden size from which Llama-3.1-8B's settings are taken, below it Gemma-2-2B's
STRENGTHS = (1.0, 4.0, 7.0, 10.0)
# The grids that the paper searches on its training questions, with how many layers the model has.
GEMMA = (
    26,
    {
        RMU.name: {
            "layer": (6, 7, 8),
            "learning_rate": (1e-5, 1e-4, 3e-4),
            "alpha": (10.0, 30.0, 50.0, 100.0),
            "steering": (30.0, 100.0, 300.0, 1000.0),
        },
        SNMF.name: {
            "delta_in": STRENGTHS,
            "delta_out": STRENGTHS,
            "layers_in": ("0-8", "0-12", "0-25"),
            "layers_out": ("0-8", "9-17", "13-25"),
        },
    },
)
LLAMA = (
    32,
    {
        RMU.name: {
            "layer": (7, 9, 11),
            "learning_rate": (1e-5, 1e-4, 3e-4),
            "alpha": (30.0, 50.0, 100.0, 300.0),
            "steering": (30.0, 100.0, 300.0, 1000.0),
        },
        SNMF.name: {
            "delta_in": STRENGTHS,
            "delta_out": STRENGTHS,
            "layers_in": ("0-10", "0-16", "0-31"),
            "layers_out": ("0-10", "11-21", "16-31"),
        },
    },
)


def paper_grids(model):
    """The paper's grids by eraser, for a model of this size; RMU's layers where the model is not much less deep than the paper's, SNMF's where it is as deep."""
    depth, grids = LLAMA if model.width >= WIDE else GEMMA
    as_deep = {RMU.name: max(grids[RMU.name]["layer"]) < len(model.layers) // 2, SNMF.name: len(model.layers) == depth}
    return {
        name: {key: values for key, values in grid.items() if as_deep[name] or not key.startswith("layer")} for name, grid in grids.items()
    }


def paper_settings(model):
    """Erasers and attacks by name, with the paper's settings for a model of this size.

    EMBER: rank 100 or 200, 1% of the tokens a feature, ratio 2 and no share rule (the paper has a judge instead), delta from its grid.
    RMU: the middle of its grids, which `--tune` searches. SNMF: as for the one concept whose setting is published, 10 in and 1 out on the first third of
    the paper's models; `--tune` searches its grids too. Relearning: AdamW at 1e-5, weight decay 0.01, batch 1, 256 tokens, 2 epochs.
    """
    grids = paper_grids(model)
    middle = {name: values[(len(values) - 1) // 2] for name, values in grids[RMU.name].items()}
    early = {name: values[0] for name, values in grids[SNMF.name].items() if name.startswith("layers")}
    relearning = {"epochs": 2, "learning_rate": 1e-5, "batch_size": 1, "weight_decay": 0.01, "max_length": 256}
    return {
        Ember.name: Ember(rank=200 if model.width >= WIDE else 100, sparsity=0.01, ratio=2.0, share=0.0),
        RMU.name: RMU(**middle),
        SNMF.name: SNMF(delta_in=10.0, delta_out=1.0, **early),
        Relearning.name: Relearning(**relearning),
        RelearningParagraphs.name: RelearningParagraphs(**relearning),
    }
