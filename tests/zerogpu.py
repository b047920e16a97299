"""Run by a test, in a process of its own: a page's work in a forked child by the `spaces` package's own wrappers, as on ZeroGPU.

What asks Hugging Face for a GPU and moves weights to it is left out: there is none here.
"""

import multiprocessing
import os
import sys
import types

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

torch.set_num_threads(1)  # threads of a parent do not live on in a forked child

import spaces.zero

without_cuda = types.ModuleType("spaces.zero.torch")
for name in ("unpatch", "init", "move", "enter_mode"):
    setattr(without_cuda, name, lambda *args, **kwargs: None)
without_cuda.size = lambda: 0
spaces.zero.torch = sys.modules["spaces.zero.torch"] = without_cuda

from spaces.zero import client, wrappers

client.schedule = lambda **kwargs: types.SimpleNamespace(allowToken="token", nvidiaIndex=0, nvidiaUUID="uuid", idle=True)
client.release = client.allow = lambda *args, **kwargs: None
client.get_duration_seconds = lambda *args: 1000

import warnings

from ember_demo.ui import attack_step, compare_step, erase_step, work
from ember_demo.ui.session import Session, shared_model
from tests.conftest import assert_same, snapshot

work.events_on_gpu = wrappers.generator_function_wrapper(work.events, None, None)
warnings.simplefilter("ignore")


def last(updates):
    *_, final = updates
    return final


def main():
    model = shared_model("pocket", "auto")
    before = snapshot(model)
    *shown, session = last(erase_step.erase(Session("pocket", "auto"), "Uranium", "5", 0, settings="rmu.steps=3"))
    assert "strength is 5" in shown[0], shown[0]
    assert_same(model, before)
    assert len(multiprocessing.active_children()) == 1, "the work ran in this very process"
    with session.edits["ember+rmu"].applied(model):
        assert not torch.equal(model.embeddings, before[model.embedding_name])
    assert_same(model, before)

    session = last(compare_step.ask(session, "Where is Hogwarts from?", ["original", "ember"]))[-1]
    assert session.turns[-1]["answers"]["original"]["text"] == "Scotland"
    status, _, _, _, session = last(attack_step.attack(session, ["relearning"], "relearning.epochs=1"))
    assert "attack is over" in status and session.results["relearning"]["control"].steps == ["before", "epoch 1"]
    assert "There is no concept pack" in last(erase_step.erase(Session("pocket", "auto"), "Knitting", "5", 0))[0]

    leaving = erase_step.erase(Session("pocket", "auto"), "Golf", "auto", 0)
    next(leaving)
    next(leaving)
    leaving.close()
    assert work.MODEL_LOCK.acquire(timeout=20)
    work.MODEL_LOCK.release()
    assert_same(model, before)
    print("all held", flush=True)


try:
    main()
finally:
    for child in multiprocessing.active_children():  # which would wait for more work, and hold on to the output
        child.kill()
