"""The command line: contracts, and one clear sentence for what a user can get wrong."""

import json
import subprocess
import sys

import pytest

from ember_demo.cli import main
from ember_demo.sources import concept_names


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    "command, keys",
    [
        ("models", {"name", "description"}),
        ("concepts", {"name", "description"}),
        ("erasers", {"name", "touches", "description"}),
        ("attacks", {"name", "threat_model", "description"}),
    ],
)
def test_lists_are_readable_by_people_and_by_programs(command, keys, capsys):
    status, out, err = run(capsys, command, "--json")
    rows = json.loads(out)
    assert status == 0 and err == "" and rows and all(keys <= row.keys() for row in rows)
    status, out, _ = run(capsys, command)
    assert status == 0 and len(out.splitlines()) == len(rows)


def test_bad_arguments_end_with_status_2(capsys):
    for arguments in ([], ["study"], ["study", "--concept", "x", "--out", "y", "--precision", "3bit"], ["nonsense"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--model", "nobody/nothing", "--concept", "Golf"], "embedded model"),
        (["--concept", "Knitting"], ", ".join(concept_names())),
        (["--concept", "Golf", "--erasers", "magic"], "ember, rmu"),
        (["--concept", "Golf", "--attacks", "magic"], "relearning"),
        (["--concept", "Golf", "--data", "nowhere"], "missing"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line_and_status_1(arguments, says, capsys, tmp_path):
    status, out, err = run(capsys, "study", "--out", str(tmp_path / "out"), *arguments)
    assert status == 1 and out == ""
    assert len(err.strip().splitlines()) == 1 and says in err and "Traceback" not in err


def test_an_out_folder_that_cannot_be_made_says_so(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = run(capsys, "study", "--concept", "Golf", "--out", str(tmp_path / "file" / "out"))
    assert status == 1 and "--out" in err


def test_the_study_writes_the_report_of_the_contract(tmp_path):
    command = [
        sys.executable,
        "-m",
        "ember_demo",
        "study",
        "--model",
        "pocket",
        "--concept",
        "harry potter",
        "--seed",
        "0",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["schema"] == 1 and report["concept"] == "Harry Potter" and report["seed"] == 0
    assert report["model"]["id"] == "pocket" and report["model"]["parameters"] > 3e6
    assert {"rank", "delta"} <= report["settings"]["ember"].keys() and report["settings"]["ember"]["delta"] > 0
    assert all({"token", "relative_change"} <= t.keys() for t in report["edited_tokens"]) and report["edited_tokens"]
    assert list(report["variants"]) == ["original", "ember", "rmu", "ember+rmu"]
    for scores in report["variants"].values():
        for key in (
            "concept_accuracy",
            "similar_accuracy",
            "general_accuracy",
            "invalid_rate",
            "efficacy",
            "specificity",
            "coherence",
            "overall",
        ):
            assert 0 <= scores[key] <= 1
        assert scores["n_questions"] > 50
    attack = report["attacks"]["relearning"]
    assert list(attack) == ["ember", "rmu", "ember+rmu", "control"]
    for variant, result in attack.items():
        assert result["before"] == result["curve"][0] and result["after"] == result["curve"][-1]
        if variant != "control":
            assert result["before"] == report["variants"][variant]["concept_accuracy"]
    assert {"factorize", "erase", "evaluate", "attack"} <= report["seconds"].keys()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "http://" not in page and "https://" not in page and "Never learned it" in page
