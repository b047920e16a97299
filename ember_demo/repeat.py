"""A study as text that repeats it: Python on the package's own functions, and the command line."""

import json
import shlex
from dataclasses import is_dataclass

from ember_demo.attacks import Attack
from ember_demo.judge import public_name
from ember_demo.settings import changed_settings


def python_code(model_id, precision, concept, seed, erasers, attacks, texts=None, questions=True):
    """A Python script that runs the study: concept by name, erasers and attacks as instances, of which only unusual settings are written.

    texts: where the concept's texts come from, as `load_concept` takes it; None for a pack. questions: whether the model writes some for them.
    """
    source = (", model" if questions or not texts else "") + (f", texts={_python(texts)}" if texts else "")
    return "\n".join(
        [
            "from pathlib import Path",
            "",
            "import ember_demo as ed",
            "from ember_demo.report import summary, write_report",
            "from ember_demo.study import run_study",
            "",
            f"model = ed.load_model({_python(model_id)}, precision={_python(precision)})",
            f"concept = ed.load_concept({_python(concept)}{source})",
            f"erasers = {_list(erasers)}",
            f"attacks = {_list(attacks)}",
            f"report = run_study(model, concept, erasers, attacks, seed={seed})",
            "print(summary(report))",
            "write_report(report, Path())  # report.json and report.html, in the folder it is run in",
            "",
        ]
    )


def command_line(model_id, precision, concept, seed, erasers, attacks, texts=None, questions=True, out="out"):
    """The `study` that does the same, for a shell; `texts` as --texts takes them."""
    words = ["python", "-m", "ember_demo", "study", "--model", model_id, "--precision", precision, "--concept", concept]
    words += ["--texts", texts, *([] if questions else ["--no-questions"])] if texts else []
    words += ["--erasers", _names(erasers), "--attacks", _names(attacks), "--seed", str(seed)]
    for thing in (*erasers, *attacks):
        for name, value in _told(thing).items():
            words += ["--set", f"{thing.name}.{name}={json.dumps(value, default=_told, ensure_ascii=False)}"]
    return shlex.join([*words, "--out", out])


def _names(things):
    return ",".join(thing.name for thing in things) or "none"


def _list(things):
    return "[" + "".join(f"\n    {_python(thing)}," for thing in things) + ("\n]" if things else "]")


def _python(value):
    if is_dataclass(value):
        settings = ", ".join(f"{name}={_python(each)}" for name, each in _told(value).items())
        return f"ed.{'attacks' if isinstance(value, Attack) else 'erasers'}.{type(value).__name__}({settings})"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _told(thing):
    """The unusual settings; a judge's address without user and password."""
    told = changed_settings(thing)
    return told | {"judge": public_name(told["judge"])} if told.get("judge") else told
