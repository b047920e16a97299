"""The command line: contracts, and one clear sentence for what a user can get wrong."""

import json
import subprocess
import sys
from unittest.mock import Mock

import pytest

import ember_demo as ed
from ember_demo.cli import main
from ember_demo.evaluation import accuracy_of
from ember_demo.sources import concept_names, load_concept
from tests.checkpoints import build


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
    study = ["study", "--out", "y"]
    for arguments in (
        [],
        study,
        ["study", "--concept", "x"],
        [*study, "--concept", "x", "--precision", "3bit"],
        [*study, "--concept", "x", "--texts", "a.txt", "--data", "b"],
        [*study, "--grid", "g.json", "--concept", "x"],
        [*study, "--grid", "g.json", "--jobs", "0"],
        [*study, "--grid", "g.json", "--no-questions"],
        [*study, "--grid", "g.json", "--scheduler", "here:1"],
        [*study, "--concept", "Golf", "--no-questions"],
        [*study, "--concept", "Golf", "--texts", "golf.txt", "--no-questions", "--attacks", "relearning"],
        ["erase", "--concept", "Golf", "--out", "x", "--public"],
        [*study, "--grid", "g.json", "--set", "rmu.steps=80"],
        ["bench", "--precision", "fp32"],
        ["nonsense"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert ended.value.code == 2 and said.out == "" and len(said.err.strip().splitlines()) == 1
    with pytest.raises(SystemExit) as ended:
        main(["erase", "--concept", "Golf", "--out", "y", "--attacks", "all"])
    assert ended.value.code == 2 and "see python -m ember_demo erase --help" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell's pipe")
def test_a_reader_that_has_had_enough_is_no_error():
    command = f"{sys.executable} -m ember_demo erasers | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--model", "nobody/nothing", "--concept", "Golf"], "embedded model"),
        (["--concept", "Golf", "--data", "nowhere"], "missing"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_1(arguments, says, capsys, tmp_path):
    status, out, err = run(capsys, "study", "--out", str(tmp_path / "out"), *arguments)
    assert status == 1 and out == ""
    assert len(err.strip().splitlines()) == 1 and says in err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--concept", "Knitting"], ", ".join(concept_names())),
        (["--concept", "Golf", "--erasers", "magic"], "ember, rmu"),
        (["--concept", "Golf", "--attacks", "magic"], "relearning"),
        (["--concept", "Golf", "--seed", "-1"], "from 0 to 4294967295"),
        (["--concept", "Golf", "--seed", "4294967296"], "from 0 to 4294967295"),
        (["--concept", "Golf", "--seed", "x"], "from 0 to 4294967295"),
        (["--concept", "Golf", "--set", "magic.pace=80"], "choose from ember, rmu"),
        (["--concept", "Golf", "--set", "rmu.pace=80"], "it has alpha"),
        (["--concept", "Golf", "--set", "rmu.steps=many"], "whole number"),
        (["--concept", "Golf", "--set", "ember.share=1.5"], "from 0 to 1"),
        (["--concept", "Golf", "--set", "snmf.rank=5"], "snmf, which is not among --erasers or --attacks"),
        (["--concept", "Golf", "--attacks", "none", "--set", "relearning.epochs=1"], "relearning, which is not among --erasers or"),
        (["--concept", "Golf", "--tune", "-3"], "whole number from 1"),
        (["--concept", "Golf", "--erasers", "rmu", "--keep", "say"], "--keep is of EMBER"),
        (["--concept", "Golf", "--texts", "golf.txt", "--no-questions"], "--set ember.delta=5"),
    ],
)
def test_a_name_or_value_that_cannot_be_is_one_line_and_status_2(arguments, says, capsys, tmp_path):
    status, out, err = run(capsys, "study", "--out", str(tmp_path / "out"), *arguments)
    assert status == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and says in err and "Traceback" not in err


def test_a_setting_of_another_attack_than_the_concepts_default_is_refused(capsys, tmp_path):
    status, _, err = run(capsys, "study", "--concept", "Golf", "--set", "relearning-paragraphs.epochs=1", "--out", str(tmp_path))
    assert status == 2 and err.strip().endswith("not among --erasers or --attacks; add it there, or leave it out.")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to")
def test_an_out_folder_that_cannot_be_written_to_is_said_before_the_work(capsys):
    status, _, err = run(capsys, "study", "--concept", "Golf", "--out", "/proc/self/fd")
    assert status == 1 and "written to" in err


def test_settings_can_be_looked_up(capsys):
    _, out, _ = run(capsys, "attacks", "--json")
    found = {row["name"]: row["settings"] for row in json.loads(out)}
    assert found["relearning"]["epochs"] == 3 and found["relearning"]["learning_rate"] is None
    _, out, _ = run(capsys, "erasers")
    assert "Settings: rank, delta" in out


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
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
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
    assert len(page.encode()) < 1_500_000 and len(report["answers"]) > 300


def authors_files(folder, name):
    """Made-up content in the form of the authors' files: texts and questions of a pack."""
    concept = load_concept(name)
    asked = [{"q": q.text, "a": q.answer} for q in concept.select("concept", "test")[:8]]
    offered = [{"q": q.text, "correct_answer": q.answer, "options": [*q.wrong, q.answer]} for q in concept.select("concept", "test")[:8]]
    files = {
        "concept_sentences": [{"concept": name, "sentences": concept.texts}],
        "neutral_sentences": [{"url": "", "title": "", "sentence": text} for text in concept.neutral_texts],
        "open_questions": {name: {"QA_train": asked, "QA_test": asked}},
        "mc_questions": {name: {"QA_train": offered, "QA_test": offered}},
        "relearn_paragraphs": {name: {"RelearnParagraphs": concept.paragraphs[:3]}},
    }
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_authors_files_are_studied_and_a_model_that_knew_nothing_is_not_called_erased(tmp_path, capsys):
    build("llama", tmp_path / "model")
    authors_files(tmp_path, "Golf")
    status, out, err = run(
        capsys,
        "study",
        "--data",
        str(tmp_path),
        "--concept",
        "Golf",
        "--model",
        str(tmp_path / "model"),
        "--erasers",
        "rmu",
        "--set",
        "rmu.steps=3",
        "--set",
        "relearning-paragraphs.epochs=1",
        "--out",
        str(tmp_path / "out"),
    )
    assert status == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert list(report["attacks"]) == ["relearning-paragraphs"]
    assert report["settings"]["rmu"]["steps"] == 3 and report["settings"]["relearning-paragraphs"]["epochs"] == 1
    assert report["variants"]["original"]["choice_form"] == "likelihood" and report["variants"]["rmu"]["concept_answer_probability"] > 0
    assert out.startswith("Before any erasure") and "say little" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_an_erasure_is_saved_as_an_edit_that_loads_again(tmp_path, capsys, model, untouched):
    status, out, err = run(capsys, "erase", "--concept", "Golf", "--erasers", "ember", "--delta", "5", "--out", str(tmp_path))
    assert status == 0 and str(tmp_path) in out, err
    edit = ed.WeightEdit.load(tmp_path / "edit.safetensors")
    assert edit.details["settings"]["ember"]["delta"] == 5.0
    with edit.applied(model):
        assert accuracy_of(model, load_concept("Golf").select("concept", "test")) <= 0.3


@pytest.mark.parametrize(
    "arguments, says, ends",
    [
        (["--concept", "Knitting"], ", ".join(concept_names()), 2),
        (["--concept", "Golf", "--erasers", "none"], "Name an eraser", 2),
        (["--concept", "Golf", "--texts", "nowhere.txt"], "nowhere.txt", 1),
        (["--concept", "Golf", "--delta", "-1"], "from 0 to 1000", 2),
        (["--concept", "Golf", "--set", "rmu.steps=many"], "whole number", 2),
        (["--concept", "Golf", "--set", "relearning.epochs=1"], "relearning, which is not among --erasers;", 2),
    ],
)
def test_an_erasure_that_cannot_be_is_refused_before_a_model_is_loaded(arguments, says, ends, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("ember_demo.loading.load_model", lambda *_: pytest.fail("a model was loaded"))
    status, out, err = run(capsys, "erase", "--out", str(tmp_path / "out"), *arguments)
    assert status == ends and out == "" and says in err and len(err.strip().splitlines()) == 1


def test_an_erasure_takes_settings_as_a_study_does(tmp_path, capsys):
    status, _, err = run(capsys, "erase", "--concept", "Golf", "--set", "ember.delta=5", "--set", "rmu.steps=2", "--out", str(tmp_path))
    assert status == 0, err
    settings = ed.WeightEdit.load(tmp_path / "edit.safetensors").details["settings"]
    assert settings["ember"]["delta"] == 5.0 and settings["rmu"]["steps"] == 2


def test_texts_of_ones_own_take_the_place_of_a_pack(tmp_path, capsys):
    (tmp_path / "golf.txt").write_text("\n".join(load_concept("Golf").texts), encoding="utf-8")
    (tmp_path / "few.txt").write_text("Falcons are very fast birds indeed.", encoding="utf-8")
    common = ("--erasers", "ember", "--delta", "5", "--out", str(tmp_path / "out"))
    status, _, err = run(capsys, "erase", "--concept", "Falconry", "--texts", str(tmp_path / "few.txt"), *common)
    assert status == 1 and "at least 40" in err
    status, _, err = run(capsys, "erase", "--concept", "Falconry", "--texts", str(tmp_path / "texts.pdf"), *common)
    assert status == 1 and "There is no file" in err
    for strength in (("--delta", "5"), ("--set", "ember.delta=5")):  # each chooses nothing, so no questions are written
        command = ["erase", "--concept", "Falconry", "--texts", str(tmp_path / "golf.txt"), "--erasers", "ember", *strength]
        status, _, err = run(capsys, *command, "--out", str(tmp_path / strength[0]))
        assert status == 0 and (tmp_path / strength[0] / "edit.safetensors").is_file(), err


@pytest.mark.parametrize("attacks", [[], ["--attacks", "relearning"]])
def test_an_attack_without_room_is_refused_before_the_model_writes_its_questions(attacks, capsys, monkeypatch, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(load_concept("Golf").texts), encoding="utf-8")
    monkeypatch.setattr("ember_demo.attacks.relearning.check_room", Mock(side_effect=ed.ModelError("There is no room; load it in 4 bit.")))
    monkeypatch.setattr("ember_demo.sources.load_concept", writes := Mock())
    command = ["study", "--concept", "Chess", "--texts", str(tmp_path / "texts.txt"), "--out", str(tmp_path)]
    status, _, err = run(capsys, *command, *attacks)
    assert status == 1 and err.endswith("There is no room; load it in 4 bit.\n") and not writes.called
