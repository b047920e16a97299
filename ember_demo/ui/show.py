"""What every step says: how far the work is, what went wrong, what strangers may not do."""

import os
import re
from dataclasses import fields, is_dataclass

import gradio as gr

from ember_demo.erasers import Ember
from ember_demo.errors import EmberDemoError
from ember_demo.judge import SELF
from ember_demo.settings import read_settings, with_settings

FIRST_ERASE = "First erase a concept, in step 3."


def status(event):
    """What is happening, how far it is, and how long it may still take."""
    left = (
        "" if event.left is None else f", about {event.left:.0f} s left" if event.left < 90 else f", about {event.left / 60:.0f} min left"
    )
    return f"{event.message} ({event.fraction:.0%}{left})"


def is_running(said):
    """Whether what is said of a step is how far its work is."""
    return bool(re.search(r"\(\d+%(, about [^)]*)?\)$", said or ""))


def problem(error):
    return warn(str(error))


def warn(sentence):
    gr.Warning(sentence)
    return f"⚠ {sentence}"


def number(text, name, low, high):
    """A number from a field; EmberDemoError where it is none between `low` and `high`."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not low <= value <= high:
        raise EmberDemoError(f"{name} {text!r} is not a number from {low:g} to {high:g}; type one.")
    return value


def whole_seed(seed):
    """A seed from a field, 0 where it is empty; EmberDemoError where it is none."""
    return int(number(seed or 0, "The seed", 0, 2**32 - 1))


def is_public():
    """Whether strangers use this server: a Space, or an address that others reach. They are given neither its folders nor its keys."""
    return bool(os.environ.get("SPACE_ID") or os.environ.get("EMBER_PUBLIC"))


def settled(thing, settings):
    """An eraser or attack with the expert's settings, one NAME.SETTING=VALUE a line, as far as they are its own.

    EmberDemoError for one that it does not take, or that would spend a public server's keys or open its folders.
    """
    lines = [line for line in (settings or "").splitlines() if line.strip()]
    chosen = with_settings(thing, read_settings(lines).get(thing.name, {}))
    if is_public() and any(ember.published or ember.judge not in (None, SELF) for ember in _embers(chosen)):
        raise EmberDemoError(
            f"On a public server there is no judge but {SELF!r} and no published features; run the demo yourself for those."
        )
    return chosen


def _embers(thing):
    """EMBER and its settings wherever they stand: by themselves, and in what starts from EMBER."""
    if isinstance(thing, Ember):
        yield thing
    elif is_dataclass(thing):
        for field in fields(thing):
            yield from _embers(getattr(thing, field.name))
