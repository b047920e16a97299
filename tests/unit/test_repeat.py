"""A study as text that repeats it, and the settings that such a text names."""

import json
import runpy
import shlex
from dataclasses import replace

import pytest

import ember_demo as ed
from ember_demo.arguments import read
from ember_demo.attacks import ATTACKS
from ember_demo.cli import _named, main
from ember_demo.erasers import ERASERS
from ember_demo.repeat import command_line, python_code
from ember_demo.settings import changed_settings, read_settings, with_settings
from ember_demo.study import choose_by_name

UNUSUAL = (
    [
        ed.Ember(delta=5.0, keep=("magic wand", 'a "quoted" one, with a comma')),
        ed.RMU(steps=80, learning_rate=1.25e-4, layer=0),
        ed.erasers.ZeroRows(ember=ed.Ember(rank=50, judge="self")),
    ],
    [ed.attacks.Relearning(epochs=2), ed.attacks.RelearningSweep(rates=(0.5, 2.0)), ed.attacks.LogitLens()],
)
USUAL = [cls() for cls in ERASERS.values()], [cls() for cls in ATTACKS.values()]


def _run(text, folder):
    (folder / "study.py").write_text(text, encoding="utf-8")
    return runpy.run_path(str(folder / "study.py"))


@pytest.mark.parametrize("erasers, attacks", [UNUSUAL, USUAL, ([ed.Ember()], [])])
def test_the_command_line_says_the_same_erasers_and_attacks(erasers, attacks):
    words = shlex.split(command_line("some/model", "bf16", "Valentine's Day", 3, erasers, attacks))
    assert words[:3] == ["python", "-m", "ember_demo"]
    options = read(words[3:])
    assert (options.model, options.precision, options.concept, options.seed) == ("some/model", "bf16", "Valentine's Day", 3)
    settings = read_settings(options.set)
    for text, registry, things in ((options.erasers, ERASERS, erasers), (options.attacks, ATTACKS, attacks)):
        named = choose_by_name(_named(text), registry, "")
        assert [with_settings(thing, settings.get(thing.name, {})) for thing in named] == things


@pytest.mark.parametrize("erasers, attacks", [UNUSUAL, USUAL, ([ed.Ember() + ed.RMU(steps=2)], [])])
def test_the_python_text_says_the_same_erasers_and_attacks(erasers, attacks, tmp_path):
    text = python_code("some/model", "auto", 'The "Odyssey"', 3, erasers, attacks, texts="wikipedia")
    compile(text, "study.py", "exec")
    assert 'ed.load_concept("The \\"Odyssey\\"", model, texts="wikipedia")' in text
    lists = text[text.index("erasers = ") : text.index("report = ")]
    found = _run(f"import ember_demo as ed\n{lists}", tmp_path)
    assert (found["erasers"], found["attacks"]) == (erasers, attacks)


def test_only_unusual_settings_are_written():
    text = python_code("pocket", "fp32", "Uranium", 0, [ed.Ember(delta=5.0), ed.RMU()], [ed.attacks.Relearning()])
    assert "ed.erasers.Ember(delta=5.0)," in text and "ed.erasers.RMU()," in text and "ed.attacks.Relearning()," in text
    line = command_line("pocket", "fp32", "Uranium", 0, [ed.Ember(delta=5.0), ed.RMU()], [ed.attacks.Relearning()])
    assert line.count("--set") == 1 and "--set ember.delta=5.0" in line


def test_a_judges_user_and_password_are_not_told():
    erasers = [ed.Ember(judge="https://ann:secret@judge.example/v1?key=secret")]
    for text in (python_code("pocket", "auto", "Golf", 0, erasers, []), command_line("pocket", "auto", "Golf", 0, erasers, [])):
        assert "https://judge.example/v1" in text and "secret" not in text


def test_the_python_text_repeats_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = _run(python_code("pocket", "auto", "Uranium", 2, [ed.Ember(delta=5.0, rank=60)], []), tmp_path)["report"]
    assert report["concept"] == "Uranium" and report["seed"] == 2 and report["attacks"] == {}
    asked = ed.Ember(delta=5.0, rank=60).settings()
    assert report["settings"] == {"ember": asked}
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["settings"]["ember"] == json.loads(json.dumps(asked)) and (tmp_path / "report.html").is_file()


def test_both_texts_repeat_an_erasure_from_texts_without_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(ed.load_concept("Uranium").texts), encoding="utf-8")
    done = ("pocket", "auto", "Wizards", 0, [ed.Ember(delta=5.0)], [], "texts.txt", False)
    report = _run(python_code(*done), tmp_path)["report"]
    assert main(shlex.split(command_line(*done))[3:]) == 0
    again = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["variants"] == again["variants"] == {} and report["edited_tokens"]
    assert [t["token"] for t in again["edited_tokens"]] == [t["token"] for t in report["edited_tokens"]]


@pytest.mark.parametrize(
    "text, thing",
    [
        ("rmu.steps=80", ed.RMU(steps=80)),
        ("rmu.steps=80.0", ed.RMU(steps=80)),
        ("rmu.steps=null", ed.RMU()),
        ("ember.delta=5", ed.Ember(delta=5.0)),
        ("ember.delta=auto", ed.Ember()),
        ("ember.judge=self", ed.Ember(judge="self")),
        ('ember.judge="https://judge.example/v1?a=b"', ed.Ember(judge="https://judge.example/v1?a=b")),
        ('ember.keep=["say", "play"]', ed.Ember(keep=("say", "play"))),
        ("ember.skip_features=[0, 7]", ed.Ember(skip_features=(0, 7))),
        ("relearning-sweep.rates=[1, 3]", ed.attacks.RelearningSweep(rates=(1.0, 3.0))),
        ('zero-rows.ember={"delta": 5}', ed.erasers.ZeroRows(ember=ed.Ember(delta=5.0))),
    ],
)
def test_a_setting_is_read_as_its_field_holds_it(text, thing):
    settings = read_settings([text])
    assert with_settings(type(thing)(), settings[thing.name]) == thing
    types = [type(value) for value in changed_settings(thing).values()]
    assert [type(value) for value in changed_settings(with_settings(type(thing)(), settings[thing.name])).values()] == types


@pytest.mark.parametrize(
    "text, says",
    [
        ("rmu.steps", "NAME.SETTING=VALUE"),
        ("steps=80", "NAME.SETTING=VALUE"),
        ("magic.steps=80", "choose from ember, rmu"),
        ("all.steps=80", "choose from ember, rmu"),
        ("rmu.pace=80", "it has alpha, learning_rate"),
        ("logit-lens.layer=1", "it has none"),
        ("rmu.steps=many", "whole number from 1 to 10000 or null, not 'many'"),
        ("rmu.steps=2.5", "whole number"),
        ("rmu.steps=true", "whole number"),
        ("rmu.batch_size=0", "from 1"),
        ("rmu.batch_size=1e300", "to 100000"),
        ("relearning.epochs=101", "from 0 to 100"),
        ("ember.delta=1001", "to 1000"),
        ("rmu.alpha=-1", "a number from 0"),
        ("rmu.alpha=NaN", "a number from 0"),
        ("rmu.alpha=1" + "0" * 400, "a number from 0"),
        ("ember.delta=strong", 'a number from 0 to 1000 or "auto"'),
        ("ember.delta=null", "a number from 0"),
        ("ember.keep=say", "a list"),
        ("ember.keep=" + "[" * 100_000, "a list"),
        ("relearning-sweep.rates=[]", "a list, each of it a number"),
        ('relearning-sweep.rates=["fast"]', "a list, each of it a number"),
        ('zero-rows.ember={"pace": 1}', "ember has no setting called 'pace'"),
        ("zero-rows.ember=5", "settings of ember in braces"),
    ],
)
def test_what_is_no_setting_is_one_clear_sentence(text, says):
    with pytest.raises(ed.EmberDemoError, match=".*") as told:
        read_settings([text])
    assert says in str(told.value) and len(str(told.value).splitlines()) == 1


def test_settings_that_are_not_named_stay():
    assert with_settings(ed.RMU(steps=5), {"alpha": 2}) == replace(ed.RMU(), steps=5, alpha=2.0)
