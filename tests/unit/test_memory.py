"""The plan: what fits where, in which precision, and why."""

import pytest
import torch

import ember_demo as ed
from ember_demo.language_model import MODELS, SHAPES, describe
from ember_demo.memory import WORKS, needs, plan_precision, weights_size

GEMMA, LLAMA = SHAPES["google/gemma-2-2b-it"], SHAPES["meta-llama/Llama-3.1-8B-Instruct"]


@pytest.mark.parametrize(
    "shape, free, cuda, precision",
    [
        (GEMMA, 24e9, True, "bf16"),
        (GEMMA, 6e9, True, "4bit"),
        (GEMMA, 32e9, False, "fp32"),
        (GEMMA, 12e9, False, "bf16"),
        (GEMMA, 6e9, False, "4bit"),
        (LLAMA, 80e9, True, "bf16"),
        (LLAMA, 16e9, True, "4bit"),
    ],
)
def test_the_most_exact_precision_that_fits_is_taken(shape, free, cuda, precision):
    plan = plan_precision(shape, free=free, cuda=cuda)
    assert plan.precision == precision and precision in plan.reason.replace("4 bit", "4bit")
    assert plan.fits["chat"] and plan.fits["ember"]


def test_what_does_not_fit_is_said():
    plan = plan_precision(LLAMA, free=2e9, cuda=True)
    assert plan.precision == "4bit" and not plan.fits["chat"] and "Choose a smaller model" in plan.reason
    plan = plan_precision(GEMMA, free=12e9, cuda=True)
    assert plan.fits["rmu"] and not plan.fits["relearning"] and "relearning" in plan.reason


def test_a_persons_own_choice_is_kept():
    assert plan_precision(GEMMA, "fp32", free=6e9, cuda=True).precision == "fp32"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("cuda", [True, False])
def test_less_precision_and_less_work_need_less(shape, cuda):
    for work in WORKS:
        total = [sum(needs(shape, precision, work, cuda).values()) for precision in ("4bit", "bf16", "fp32")]
        if work == "relearning":  # half precision needs float32 masters beside it, and saves nothing
            total = total[:2]
        assert total == sorted(total), work
    for precision in ("4bit", "bf16", "fp32"):
        assert sum(needs(shape, precision, "chat", cuda).values()) <= sum(needs(shape, precision, "ember", cuda).values())
        assert sum(needs(shape, precision, "rmu", cuda).values()) <= sum(needs(shape, precision, "relearning", cuda).values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "4bit"])
def test_the_weights_have_the_size_that_the_plan_says(precision):
    model = ed.load_model("pocket", precision)
    held = sum(p.numel() * p.element_size() for p in model.network.parameters())
    scales = sum(
        t.numel() * t.element_size()
        for name, p in model.network.named_parameters()
        if f"{name}" in model.quantized
        for t in (p.quant_state.absmax, p.quant_state.state2.absmax)
    )
    assert held + scales == pytest.approx(weights_size(describe("pocket").shape, precision), rel=0.01)


def test_every_model_of_the_menu_says_what_it_needs_before_it_is_loaded():
    for id in MODELS:
        offer = describe(id)
        assert offer.shape.parameters > 1e6 and "free" in offer.sentence
    assert describe("pocket").download == 0
    with pytest.raises(ed.ModelError, match="internet"):
        describe("nobody/nothing")


def test_describing_a_model_leaves_other_threads_alone(monkeypatch):
    """A visitor who looks at what a model needs must not change the dtype in which another's work is done."""
    changed = []
    monkeypatch.setattr(torch, "set_default_dtype", changed.append)
    assert describe("pocket").shape.parameters
    assert not changed
