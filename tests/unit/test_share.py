"""What is saved opens elsewhere and still has the erasure; what is uploaded goes where the person said, and is private."""

import json
import os
import subprocess
import sys

import pytest
import torch

import ember_demo as ed
from ember_demo.cli import main
from ember_demo.share import save_edit, save_model
from tests.checkpoints import build
from tests.servers import Handler, serving

PROMPT = "What is Hogwarts?"


@pytest.mark.parametrize("family", ["gemma2", "llama", "pocket"])
def test_a_whole_model_opens_in_plain_transformers_with_the_same_logits(family, tmp_path, concept):
    id = "pocket"
    if family != "pocket":
        build(family, tmp_path / "base")
        id = str(tmp_path / "base")
    model = ed.load_model(id, "fp32")
    edit = ed.Ember(rank=20, delta=5.0, ratio=1.0, share=0.2, max_iter=30).fit(model, concept)
    with edit.applied(model), torch.inference_mode():
        ids = model.encode([model.prompt(PROMPT)])["input_ids"]
        torch.save({"ids": ids, "logits": model.network(ids).logits}, tmp_path / "expected.pt")
    save_model(model, "Harry Potter", edit, tmp_path / "whole")
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "network = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation=sys.argv[3] or None).eval()\n"
        "AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "expected = torch.load(sys.argv[2], weights_only=True)\n"
        "network.to(expected['ids'].device)\n"
        "with torch.inference_mode(): logits = network(expected['ids']).logits\n"
        "assert 'ember_demo' not in sys.modules\n"
        "print(torch.equal(logits, expected['logits']))"
    )
    attention = model.network.config._attn_implementation
    command = [sys.executable, "-c", code, str(tmp_path / "whole"), str(tmp_path / "expected.pt"), attention]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert done.stdout.strip() == "True", done.stderr
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert "Harry Potter" in card and "Limits" in card and "library_name: transformers" in card


def test_a_four_bit_model_is_not_saved_whole_and_says_why(tmp_path):
    model = ed.load_model("pocket", "4bit")
    with pytest.raises(ed.ModelError, match="bf16"):
        save_model(model, "Golf", None, tmp_path)


def test_an_edit_is_saved_with_what_made_it(model, ember_edit, untouched, tmp_path):
    save_edit(model, "Harry Potter", ember_edit, tmp_path / "edit")
    about = json.loads((tmp_path / "edit" / "edit.json").read_text(encoding="utf-8"))
    assert about["concept"] == "Harry Potter" and about["settings"]["ember"]["delta"] == 5.0 and about["edited_tokens"]
    assert "library_name" not in (tmp_path / "edit" / "README.md").read_text(encoding="utf-8")  # transformers does not load an edit
    with ed.WeightEdit.load(tmp_path / "edit" / "edit.safetensors").applied(model):
        assert model.applied_edits


def test_a_folder_that_cannot_be_made_says_so(model, ember_edit, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ed.EditError, match="cannot be made"):
        save_edit(model, "Golf", ember_edit, tmp_path / "file" / "edit")


@pytest.fixture
def hub():
    """(address, requests seen, a switch that makes it refuse) of a hub that takes uploads."""
    seen, state = [], {"refuse": False, "open": False}

    class Uploads(Handler):
        def do_GET(self):
            if state["refuse"]:
                return self.answer({"error": "no such repository"}, 404)
            self.answer({"id": "me/edit", "siblings": [], "sha": "0" * 40, "private": not state["open"]})

        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self.read_chunks()
            seen.append((self.path, body, self.headers.get("Authorization")))
            if state["refuse"]:
                return self.answer({"error": "no"}, 403)
            if self.path.endswith("/repos/create"):
                return self.answer({"url": f"http://{self.headers['Host']}/me/edit", "name": "me/edit"})
            if "/preupload/" in self.path:
                files = json.loads(body)["files"]
                return self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
            return self.answer({"commitUrl": f"http://{self.headers['Host']}/me/edit/commit/0", "commitOid": "0" * 40, "success": True})

        def read_chunks(self):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

    with serving(Uploads) as server:
        yield f"http://127.0.0.1:{server.server_port}", seen, state


def push_in_a_process(folder, address, repo="edit"):
    code = (
        "import sys; from ember_demo.share import push; import ember_demo as ed\n"
        "try: print(push(sys.argv[1], sys.argv[2], token='hf_secret'))\n"
        "except ed.EditError as error: print('error:', error)"
    )
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(folder), repo], env=environment, capture_output=True, text=True, timeout=120)
    assert "hf_secret" not in done.stdout + done.stderr
    return done.stdout.strip(), done.stderr


def test_an_upload_is_private_and_whole(hub, model, ember_edit, tmp_path):
    address, seen, _ = hub
    save_edit(model, "Harry Potter", ember_edit, tmp_path)
    out, err = push_in_a_process(tmp_path, address)
    assert out == f"{address}/me/edit", err
    created = json.loads(next(body for path, body, _ in seen if path.endswith("/repos/create")))
    assert created["visibility"] == "private"
    commit = next(body for path, body, _ in seen if "/commit/" in path).decode()
    assert all(name in commit for name in ("edit.safetensors", "edit.json", "README.md"))
    assert all(token == "Bearer hf_secret" for _, _, token in seen)


def test_what_is_to_be_private_does_not_go_where_everybody_sees_it(hub, model, ember_edit, tmp_path):
    address, seen, state = hub
    save_edit(model, "Harry Potter", ember_edit, tmp_path)
    state["open"] = True
    assert "open to everybody" in push_in_a_process(tmp_path, address)[0]
    assert not any("/commit/" in path for path, _, _ in seen)


def test_who_is_not_logged_in_is_told_before_anything_is_erased(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ember_demo.share.get_token", lambda: None)
    assert main(["erase", "--concept", "Golf", "--push", "edit", "--out", str(tmp_path / "edit")]) == 1
    assert "hf auth login" in capsys.readouterr().err and not (tmp_path / "edit").exists()


def test_nothing_is_written_among_other_files(model, ember_edit, tmp_path):
    (tmp_path / ".env").write_text("SECRET=1")
    with pytest.raises(ed.EditError, match="holds other files"):
        save_edit(model, "Golf", ember_edit, tmp_path)
    save_edit(model, "Golf", ember_edit, tmp_path / "new")
    save_edit(model, "Golf", ember_edit, tmp_path / "new")  # its own may be written again


def test_what_the_hub_refuses_is_a_sentence_and_the_files_stay(hub, model, ember_edit, tmp_path):
    address, _, state = hub
    save_edit(model, "Harry Potter", ember_edit, tmp_path)
    state["refuse"] = True
    assert "may write" in push_in_a_process(tmp_path, address)[0]
    assert "looks like" in push_in_a_process(tmp_path, address, "not a name!")[0]
    assert "cannot be reached" in push_in_a_process(tmp_path, "http://127.0.0.1:9")[0]
    assert (tmp_path / "edit.safetensors").is_file()
