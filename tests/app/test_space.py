"""What a Hugging Face Space needs: work in a child process that has the GPU, and nothing of the server's own for strangers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import psutil
import pytest
import torch
from gradio_client import Client

import app
from ember_demo import loading, memory
from ember_demo.erasers import ERASERS, Ember, EmberHead
from ember_demo.errors import EmberDemoError
from ember_demo.loading import describe
from ember_demo.ui import erase_step, model_step, work
from ember_demo.ui import session as session_module
from ember_demo.ui.session import Session, shared_model
from ember_demo.ui.show import is_public, settled
from tests.app.conftest import answers
from tests.servers import Handler, serving


@pytest.mark.skipif(sys.platform == "win32", reason="ZeroGPU forks, which Windows does not")
def test_work_in_a_forked_child_brings_edits_back_and_leaves_the_parent_alone():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.zerogpu"],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "all held" in done.stdout, done.stderr[-2000:]


class Lender(Handler):
    """What a Space with ZeroGPU asks for a GPU, which gets this machine's."""

    def do_POST(self):
        self.answer({"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "0", "allowToken": "token"})


@pytest.fixture
def forked(monkeypatch):
    """Calls with True and False put this process in the place of ZeroGPU's child, which has the GPU, and of the page, where torch says so too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70e9, 80e9))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5e9))
    return lambda is_child: monkeypatch.setitem(sys.modules, "spaces.zero.wrappers", SimpleNamespace(forked=is_child))


def test_a_page_without_its_gpu_holds_models_in_memory(forked):
    forked(False)
    plan = describe("pocket").plan
    assert loading._devices(None, plan) == "cpu" and memory.free_memory() == plan.free <= 5e9
    forked(True)
    plan = describe("pocket").plan
    assert loading._devices(None, plan) == "cuda" and memory.free_memory() == plan.free == 70e9


def test_a_child_moves_the_model_of_its_work_to_the_gpu_and_no_other_stays_there(forked, monkeypatch):
    def moved(where):
        if full:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        model.device = torch.device(where)

    full, model = False, SimpleNamespace(device=torch.device("cpu"), network=SimpleNamespace(to=moved))
    other = SimpleNamespace(device=torch.device("cuda"))
    held = OrderedDict({("other", "auto"): other, ("pocket", "auto"): model})
    monkeypatch.setattr(session_module, "_loaded", held)
    forked(False)
    assert shared_model("pocket", "auto").device.type == "cpu" and len(held) == 2
    forked(True)
    assert shared_model("pocket", "auto").device.type == "cuda" and list(held) == [("pocket", "auto")]
    full, model.device = True, torch.device("cpu")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        shared_model("pocket", "auto")
    assert not held  # what is half on the GPU is loaded again


@pytest.mark.parametrize(
    "error, says", [(gr.Error("You have exceeded your quota."), "exceeded your quota"), (RuntimeError(), "RuntimeError")]
)
def test_a_gpu_that_is_not_lent_is_a_sentence_and_the_model_is_free(error, says, monkeypatch):
    def refusing(*_):
        raise error
        yield

    monkeypatch.setattr(work, "events_on_gpu", refusing)
    *_, (status, *_) = erase_step.erase(Session("pocket", "auto"), "Golf", "5", 0)
    assert says in status and "Try again later, with a smaller model" in status
    assert work.MODEL_LOCK.acquire(timeout=20)
    work.MODEL_LOCK.release()


@pytest.mark.skipif(sys.platform == "win32" or not torch.cuda.is_available(), reason="ZeroGPU lends a GPU, and there is none here")
@pytest.mark.parametrize("precision", ["auto", "4bit"])
def test_the_app_as_it_is_erases_answers_and_attacks_on_a_lent_gpu(precision, tmp_path):
    """The `spaces` package as on a Space: torch pretends to have a GPU in the app, and a forked child has one."""
    with serving(Lender) as lender, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        space = {"SPACES_ZERO_GPU": "1", "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{lender.server_port}"}
        with open(tmp_path / "log", "w") as log:
            command = [sys.executable, "app.py", "--port", str(port)]
            served = subprocess.Popen(command, env=os.environ | space, stdout=log, stderr=log, start_new_session=True)
        try:
            client = connected(f"http://127.0.0.1:{port}/", served)
            assert "is ready" in client.predict("pocket", precision, api_name="/load")
            assert "is erased" in client.predict("Uranium", "5", 0, api_name="/erase")[0]
            said = answers(client.predict("Where is Hogwarts from?", ["original", "ember"], False, api_name="/ask"))
            assert said["Original"] == "Scotland"
            assert "attack is over" in client.predict(["relearning"], "relearning.epochs=1", api_name="/attack")[0]
            assert any(path.endswith("report.json") for path in client.predict(api_name="/export")[1])
        finally:
            os.killpg(served.pid, signal.SIGKILL)  # its children too
            served.wait()
            print((tmp_path / "log").read_text())


def connected(url, served):
    for _ in range(120):
        assert served.poll() is None
        try:
            return Client(url, verbose=False)
        except Exception:  # it does not listen yet
            time.sleep(1)
    raise TimeoutError(url)


def test_folders_of_a_public_server_are_not_opened(tmp_path):
    session = Session("pocket", "auto")
    *_, (status, _) = model_step.load(session, str(tmp_path), "auto", closed=True)
    assert "not open to visitors" in status
    assert "not open to visitors" in model_step.offer(str(tmp_path), "auto", closed=True)


@pytest.mark.parametrize(
    "options, public", [([], False), (["--host", "localhost"], False), (["--host", "0.0.0.0"], True), (["--share"], True)]
)
def test_an_address_that_others_reach_makes_a_server_public(options, public, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py", *options])
    monkeypatch.setattr(app, "load_behind", lambda *_: None)
    monkeypatch.setattr(app, "build_page", lambda *_: sys.exit("here it would be served"))
    monkeypatch.setenv("EMBER_PUBLIC", "")
    with pytest.raises(SystemExit, match="here it would be served"):
        app.main()
    assert is_public() == public


@pytest.mark.parametrize("setting", ["ember.judge=https://example.org/v1", "ember.judge=nobody/a-model", "ember.published=out"])
def test_a_public_server_spends_no_key_and_reads_no_folder_for_a_visitor(setting, monkeypatch):
    assert settled(Ember(), setting) != Ember()  # on one's own machine it counts
    monkeypatch.setenv("SPACE_ID", "somebody/ember-demo")
    with pytest.raises(EmberDemoError, match="public server"):
        settled(Ember(), setting)
    assert settled(Ember(), "ember.judge=self\nember.rank=50") == Ember(judge="self", rank=50)
    name, value = setting.removeprefix("ember.").split("=")
    for inside in (EmberHead(), ERASERS["random-direction"]()):  # what starts from EMBER holds its settings
        with pytest.raises(EmberDemoError, match="public server"):
            settled(inside, f'{inside.name}.ember={{"{name}": "{value}"}}')
        assert settled(inside, f'{inside.name}.ember={{"rank": 50}}').ember.rank == 50


def test_an_address_that_is_not_of_this_machine_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--host", "192.0.2.7"])  # of a range that nobody has
    with pytest.raises(SystemExit, match="2"):
        app.main()
    assert "this machine has no address 192.0.2.7" in capsys.readouterr().err
