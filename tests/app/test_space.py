"""What a Hugging Face Space needs: work in a child process that has the GPU, and nothing of the server's own for strangers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ember_demo.ui import model_step
from ember_demo.ui.session import Session


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
    *_, (status, _) = model_step.load(session, str(tmp_path), "auto", public=True)
    assert "not open to visitors" in status
