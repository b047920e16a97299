"""Shared fixtures: the embedded model, a concept, and small checkpoints of the supported families."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # they share the cores, and so do the processes that they start
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

import pytest
import torch
from accelerate import dispatch_model
from transformers import AutoModelForCausalLM

import ember_demo as ed
from ember_demo import loading
from ember_demo.memory import BYTES, Shape, weights_size


@pytest.fixture(scope="session")
def model():
    return ed.load_model("pocket", "fp32")  # a GPU would take bfloat16, in which equations hold to a few digits


@pytest.fixture(scope="session")
def concept():
    return ed.load_concept("Harry Potter")


@pytest.fixture(scope="session")
def ember_edit(model, concept):
    return ed.Ember(delta=5.0).fit(model, concept)


@pytest.fixture(scope="session")
def rmu_edit(model, concept):
    return ed.RMU(steps=40).fit(model, concept)


@pytest.fixture(scope="session")
def spread_model():
    """The same on two devices."""
    with pytest.MonkeyPatch.context() as patch:
        load_spread(patch)
        model = ed.load_model("pocket", "fp32")
        assert len(model.devices) == 1 + torch.cuda.is_available()
        return model


@pytest.fixture
def spread(monkeypatch):
    """Models that the test loads are spread over two devices."""
    load_spread(monkeypatch)


def load_spread(monkeypatch):
    """From now on models are loaded with about half of their layers on the GPU and the rest beside it.

    Without a GPU all are where they are else, but their modules are wrapped as they are then, as if each had a device of its own.
    """
    load = AutoModelForCausalLM.from_pretrained

    def halves(outline, plan):
        shape = Shape.of(outline)
        table = shape.table * BYTES.get(plan.precision, 2)
        layers = weights_size(shape, plan.precision) - table * (1 if shape.tied else 2)
        return loading.spread(outline, {0: table + 0.6 * layers}, plan.precision)

    def wrapped(*args, **options):
        network = load(*args, **options)
        return dispatch_model(network, {name: "cpu" for name, _ in network.named_modules() if name}, force_hooks=True)

    if torch.cuda.is_available():
        monkeypatch.setattr(loading, "_devices", halves)
    else:
        monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", wrapped)


@pytest.fixture
def untouched(model):
    """Fails the test where it leaves any tensor of the shared model changed by a single bit."""
    before = snapshot(model)
    yield
    assert_same(model, before)


def tensors(model):
    # Not state_dict(): bitsandbytes repacks its 4-bit weights on every call of it.
    return dict([*model.network.named_parameters(), *model.network.named_buffers()])


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in tensors(model).items()}


def assert_same(model, before):
    after = tensors(model)
    assert after.keys() == before.keys()
    for name in before:
        assert torch.equal(after[name], before[name]), f"{name} differs"
    assert not model.applied_edits
    assert (model.network.get_output_embeddings().weight is model.embeddings) == model.tied
