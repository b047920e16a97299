"""What a Hugging Face Space needs: work in a child process that has the GPU, and nothing of the server's own for strangers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import app
from ember_demo.erasers import Ember
from ember_demo.errors import EmberDemoError
from ember_demo.ui import model_step
from ember_demo.ui.session import Session
from ember_demo.ui.show import is_public, settled


@pytest.mark.skipif(sys.platform == "win32", reason="ZeroGPU forks, which Windows does not")
def test_work_in_a_forked_child_brings_edits_back_and_leaves_the_parent_alone():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.zerogpu"],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "all held" in done.stdout, done.stderr[-2000:]


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


def test_an_address_that_is_not_of_this_machine_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["app.py", "--host", "192.0.2.7"])  # of a range that nobody has
    with pytest.raises(SystemExit, match="2"):
        app.main()
    assert "this machine has no address 192.0.2.7" in capsys.readouterr().err
