"""The plan: what fits where, in which precision, and why."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig

import ember_demo as ed
from ember_demo import memory
from ember_demo.bench import write_random
from ember_demo.loading import MODELS, SHAPES, describe
from ember_demo.memory import WORKS, container_room, needs, plan_precision, weights_size
from ember_demo.pocket.world import ASSETS
from ember_demo.study import run_study
from tests import peaks

MEASURED = {
    "tiny": LlamaConfig(vocab_size=10240, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4),
    "embedded": Gemma2Config.from_pretrained(ASSETS / "pocket"),
    "middle": LlamaConfig(
        vocab_size=24576,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    ),
}
GEMMA, LLAMA = SHAPES["google/gemma-2-2b-it"], SHAPES["meta-llama/Llama-3.1-8B-Instruct"]


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch):
    """GPUs, where a test plans for one, multiply in bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


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


def test_a_gpu_without_bfloat16_gets_no_half_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)  # as of a T4
    assert plan_precision(GEMMA, free=32e9, cuda=True).precision == "fp32"
    assert plan_precision(GEMMA, free=10e9, cuda=True).precision == "4bit"


@pytest.mark.parametrize(
    "files, room",
    [
        ({"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 600\nactive_file 40\ninactive_file 50\nshmem 10"}, 390),
        ({"memory.max": "max", "memory.current": "700", "memory.stat": "anon 600"}, float("inf")),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "700",
                "memory/memory.stat": "active_file 40\ninactive_file 50\ntotal_inactive_file 60",
            },
            390,
        ),
        ({}, float("inf")),
    ],
)
def test_a_container_has_what_its_limit_leaves(files, room, tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert container_room(tmp_path) == room
    monkeypatch.setattr("ember_demo.memory.container_room", lambda: 1e6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "1 MB are free" in describe("google/gemma-2-2b-it").sentence


def test_retraining_that_does_not_fit_is_refused_before_the_work(model, concept, untouched, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda *_: 40e6)
    with pytest.raises(
        ed.ModelError, match="the relearning attack .* are needed beside the loaded model, and 40 MB are free; load the model in 4 bit"
    ):
        run_study(model, concept, [ed.RMU(steps=10**6)], [ed.attacks.Relearning()])
    report = run_study(model, concept, [ed.RMU(steps=2)], [ed.attacks.HeadReset(), ed.attacks.LogitLens()])
    assert list(report["attacks"]) == ["head-reset", "logit-lens"] and not report["skipped"]  # these retrain nothing


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


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders with random weights of the measured shapes, each weight in a file of its own: a file stays mapped as long as one of its weights is."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MEASURED}
    for name, config in MEASURED.items():
        write_random(config, folders[name], shard_bytes=1)
    return folders


JITTER = 4e6  # bytes by which two measurements of the same work differ; only of the embedded model is that more than 15%


@pytest.mark.skipif(not peaks.can_measure(), reason="only Linux tells a process the peak of its memory since a moment of its choice")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "4bit"])
def test_the_plan_is_within_15_percent_of_the_measured_peak(precision, checkpoints):
    folders = [str(folder) for folder in checkpoints.values()]
    command = [sys.executable, "-m", "tests.peaks", precision, *folders]
    settings = os.environ | peaks.ALLOCATOR | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=ASSETS.parent)
    assert not run.returncode, run.stderr
    measured = json.loads(run.stdout)
    rows = []
    for name, folder in checkpoints.items():
        for work in WORKS:
            peak, plan = measured[str(folder)][work], sum(needs(describe(str(folder)).shape, precision, work, cuda=False).values())
            off = abs(plan - peak) > max(0.15 * peak, JITTER)
            rows.append((off, plan / peak, f"{name}, {precision}, {work}: {peak / 1e6:.1f} MB measured, {plan / 1e6:.1f} MB planned"))
    print(*(f"{row} ({ratio:.2f})" for _, ratio, row in rows), sep="\n")
    assert not [row for off, _, row in rows if off]
