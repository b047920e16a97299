"""Loading from the Hub, against a local server that answers like it."""

import hashlib
import json
import os
import subprocess
import sys
from urllib.parse import urlparse

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import build
from tests.servers import Handler, serving

COMMIT = "0" * 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with the model tiny/llama, the gated tiny/gated and tiny/gated-anonymous, tiny/pickled without safetensors, and tiny/xet in a storage that is out of reach."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub")
    build("llama", folder)
    large = tmp_path_factory.mktemp("large")
    save_file(
        {"padding": torch.zeros(26_000_000, dtype=torch.uint8)}, large / "padding.safetensors"
    )  # more than the 10 MB that are written at once

    class Hub(Handler):
        def do_HEAD(self):
            self.give(body=False)

        def do_GET(self):
            self.give(body=True)

        def give(self, body):
            parts = urlparse(self.path).path.strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                parts = parts[2:]
            repo, rest = "/".join(parts[:2]), parts[2:]
            if repo in ("tiny/gated", "tiny/gated-anonymous"):
                return self.refuse(403 if repo == "tiny/gated" else 401, "GatedRepo")
            if repo == "tiny/private":
                return self.refuse(401, "RepoNotFound")
            if repo not in ("tiny/llama", "tiny/large", "tiny/pickled", "tiny/xet"):
                return self.refuse(404, "RepoNotFound")
            files = [p for p in folder.iterdir() if repo != "tiny/pickled" or p.suffix != ".safetensors"]
            files += large.iterdir() if repo == "tiny/large" else []
            if rest[:1] != ["resolve"]:
                listing = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0"} for p in files]
                found = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
                return self.send(json.dumps(listing if rest[:1] == ["tree"] else found).encode(), body)
            path = next((p for p in files if p.name == "/".join(rest[2:])), None)
            if path is None:
                return self.refuse(404, "EntryNotFound")
            self.send(path.read_bytes(), body, cut=path.parent == large, xet=repo == "tiny/xet" and path.suffix == ".safetensors")

        def send(self, content, body, cut=False, xet=False):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if body and start:
                self.server.resumed.append(start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if xet:
                self.send_header("X-Xet-Hash", "a" * 64)
                self.send_header("X-Xet-Refresh-Route", "http://127.0.0.1:9/token")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if body and cut and self.server.broken:
                self.server.broken -= 1
                self.wfile.write(content[start : len(content) // 2])  # no more than half of it, however often it is asked for
                self.close_connection = True
            elif body:
                self.wfile.write(content[start:])

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Hub) as server:
        server.broken, server.resumed = 0, []  # how many transfers it will cut; where transfers went on
        yield server


def address(hub):
    return hub if isinstance(hub, str) else f"http://127.0.0.1:{hub.server_port}"


def load_in_a_process(id, hub, home):
    """What a fresh process prints when it loads a model from that hub and chats with it."""
    code = (
        "import sys, ember_demo as ed\n"
        "try: print('answer:', repr(ed.load_model(sys.argv[1]).chat('Hello', max_new_tokens=3)))\n"
        "except ed.ModelError as error: print('error:', error)"
    )
    environment = os.environ | {"HF_ENDPOINT": address(hub), "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_TOKEN": "hf_secret"}
    done = subprocess.run([sys.executable, "-c", code, id], env=environment, capture_output=True, text=True, timeout=180)
    assert "hf_secret" not in done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_hub_model_loads_and_later_needs_no_network(hub, tmp_path):
    first = load_in_a_process("tiny/llama", hub, tmp_path)
    assert first.startswith("answer:")
    assert load_in_a_process("tiny/llama", "http://127.0.0.1:9", tmp_path) == first
    for weights in tmp_path.rglob("model.safetensors"):
        weights.unlink()
    cut = load_in_a_process("tiny/llama", "http://127.0.0.1:9", tmp_path)
    assert cut.startswith("error:") and "was cut" in cut and "connect to the internet" in cut


def test_a_model_in_xet_storage_is_downloaded_without_it(hub, tmp_path):
    assert load_in_a_process("tiny/xet", hub, tmp_path).startswith("answer:")


@pytest.mark.parametrize(
    "id, says",
    [
        ("tiny/gated", "accept its licence"),
        ("tiny/gated-anonymous", "accept its licence"),
        ("tiny/private", "log in if it is private"),
        ("tiny/nowhere", "no model called"),
        ("tiny/pickled", "safetensors"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(id, says, hub, tmp_path):
    answer = load_in_a_process(id, hub, tmp_path)
    assert answer.startswith("error:") and says in answer


def test_a_download_that_breaks_once_goes_on_where_it_stopped(hub, tmp_path):
    hub.broken, hub.resumed = 1, []
    assert load_in_a_process("tiny/large", hub, tmp_path).startswith("answer:")
    assert hub.resumed and min(hub.resumed) >= 10_000_000


def test_a_download_that_keeps_breaking_is_a_sentence_and_can_be_done_again(hub, tmp_path):
    hub.broken = 100
    try:
        answer = load_in_a_process("tiny/large", hub, tmp_path)
    finally:
        hub.broken = 0
    assert answer.startswith("error:") and "was cut" in answer
    assert load_in_a_process("tiny/large", hub, tmp_path).startswith("answer:")


def test_an_unreachable_hub_is_a_sentence(tmp_path):
    assert "cannot be reached" in load_in_a_process("tiny/llama", "http://127.0.0.1:9", tmp_path)
