"""What a visitor takes along, and what is kept of a study."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ember_demo.ui.session import LEFT, LeftWeights, Session, Studies, Turn, _files


def test_the_report_and_the_edits_can_be_taken_away(erased):
    client, _ = erased
    files = {path.replace("\\", "/").rsplit("/", 1)[-1]: path for path in client.predict(api_name="/export")[1]}
    assert {"report.html", "report.json", "ember.safetensors", "rmu.safetensors", "ember+rmu.safetensors"} <= files.keys()
    report = json.loads(Path(files["report.json"]).read_text(encoding="utf-8"), parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    assert {"trace", "skipped", "searches", "answers", "made"} <= report.keys() and {"factorize", "erase", "evaluate"} <= report[
        "seconds"
    ].keys()


def test_the_latest_studies_are_kept_as_far_as_their_edits_have_room(asked_in_step_4):
    size = asked_in_step_4.edits["ember"].nbytes
    studies = Studies(room=2.5 * size)
    keys = [studies.keep(replace(asked_in_step_4, turn=Turn())).key for _ in range(4)]
    assert [bool(studies.find(key)) for key in keys] == [False, False, True, True]
    assert studies.update(Session("pocket", "auto")).key == ""  # of nothing erased there is nothing to come back to
    alone = Studies(room=0)
    assert alone.find(alone.keep(asked_in_step_4).key)


def test_what_attacks_left_is_kept_within_bounds():
    left = LeftWeights(most=1000)
    first, second, third = (left.keep({"table": torch.zeros(100)}) for _ in range(3))
    assert left.find(first) is None and left.find(second) is not None and left.find(third) is not None
    assert left.find(left.keep({"table": torch.zeros(1000)})) is not None  # the latest is kept, however large


def test_a_study_comes_back_by_its_key_until_it_is_old_or_there_are_too_many():
    studies = Studies(most=2, seconds=3600)
    kept = [studies.keep(Session("pocket", "auto")) for _ in range(2)]
    files = _files(kept[0].key)
    files.mkdir()
    (files / "report.json").touch()
    kept.append(studies.keep(Session("pocket", "auto")))
    assert not files.exists()
    assert len({s.key for s in kept}) == 3 and all(len(s.key) >= 16 for s in kept)
    assert studies.find(kept[0].key) is None and studies.find(kept[2].key) is kept[2]
    assert studies.find("") is None and studies.find("guess") is None
    studies = Studies()
    first = studies.keep(Session("pocket", "auto"))
    assert studies.keep(replace(first, seed=1)).key == first.key
    other_tab = studies.keep(replace(first, turn=Turn()))
    assert other_tab.key != first.key and studies.find(first.key).seed == 1
    brief = Studies(seconds=0)
    assert brief.find(brief.keep(Session("pocket", "auto")).key) is None


def test_what_attacks_left_goes_with_its_study():
    key = LEFT.keep({"table": torch.zeros(1)})
    studies = Studies(most=1)
    studies.keep(Session("pocket", "auto", attacked={"ember after relearning": ("ember", "relearning", key)}))
    assert LEFT.find(key) is not None
    studies.keep(Session("pocket", "auto"))
    assert LEFT.find(key) is None
