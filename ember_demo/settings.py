"""Settings of erasers and attacks as a command line or a page gives them: read, checked, and told from the usual ones."""

import json
import reprlib
import sys
from dataclasses import MISSING, fields, is_dataclass, replace
from numbers import Real
from types import NoneType, UnionType
from typing import get_args, get_origin

from ember_demo.attacks import ATTACKS
from ember_demo.erasers import ERASERS
from ember_demo.errors import ArgumentError

KNOWN = ERASERS | ATTACKS
MOST = {"sparsity": 1, "share": 1, "last_in": 1, "last_out": 1, "mass": 1}  # shares of a whole
MOST |= {"delta": 1000, "epochs": 100, "steps": 10_000, "rank": 2_000, "virtual_tokens": 500}  # beyond these a slip, or somebody's mischief
MOST_COUNTED = 100_000  # by any other whole number
MOST_LISTED = 1000
# Whole numbers count something, of which there is at least 1 but for these; beta is divided by.
LEAST = {"layer": 0, "epochs": 0, "skip_features": 0, "max_length": 32, "beta": 1e-6}


def read_settings(texts):
    """Settings by eraser or attack, from texts NAME.SETTING=VALUE with the value as JSON or a bare word.

    Raises ArgumentError where there is no such name or setting, or the value is not what it takes.
    """
    found = {}
    for text in texts:
        place, equals, value = (piece.strip() for piece in text.partition("="))
        name, dot, setting = place.partition(".")
        if not (equals and dot):
            raise ArgumentError(f"{text!r} is not NAME.SETTING=VALUE, such as rmu.steps=80.")
        if name not in KNOWN:
            raise ArgumentError(f"There is no eraser or attack called {name!r}; choose from {', '.join(KNOWN)}.")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass  # a bare word
        with_settings(KNOWN[name](), {setting: value})
        found.setdefault(name, {})[setting] = value
    return found


def with_settings(thing, changes):
    """The eraser or attack with other values for some of its settings: numbers, words, lists, None, as JSON has them.

    Raises ArgumentError where there is no such setting, or the value is not what it takes.
    """
    known, found = {f.name: f for f in fields(thing)}, {}
    for name, value in changes.items():
        if name not in known:
            raise ArgumentError(f"{thing.name} has no setting called {name!r}; it has {', '.join(known) or 'none'}.")
        kinds, usual = _kinds(known[name].type), _usual(known[name])
        try:
            found[name] = _read(value, kinds, name, usual)
        except TypeError:
            raise ArgumentError(f"{thing.name}.{name} takes {_in_words(kinds, name, usual)}, not {reprlib.repr(value)}.") from None
    return replace(thing, **found)


def changed_settings(thing):
    """Those settings of an eraser or attack that are not the usual ones."""
    return {f.name: getattr(thing, f.name) for f in fields(thing) if getattr(thing, f.name) != _usual(f)}


def _usual(field):
    return field.default if field.default_factory is MISSING else field.default_factory()


def _kinds(kind):
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _read(value, kinds, name, usual):
    """The value as the setting holds it; TypeError where it is of none of these kinds."""
    number = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
    for kind in kinds:
        if kind is NoneType and value is None:
            return None
        if kind is int and number and _least(name) <= value <= MOST.get(name, MOST_COUNTED) and int(value) == value:
            return int(value)
        if kind is float and number and LEAST.get(name, 0) <= value <= MOST.get(name, value):
            return float(value)
        if kind is str and isinstance(value, str) and (value == usual or not isinstance(usual, str)):
            return value
        if _is_tuple(kind) and isinstance(value, list | tuple) and (value or not usual) and len(value) <= MOST_LISTED:
            return tuple(_read(each, _elements(kind, usual), name, None) for each in value)
        if is_dataclass(kind) and isinstance(value, dict):
            return with_settings(usual, value)
    raise TypeError


def _in_words(kinds, name, usual):
    """What a setting of these kinds takes."""
    words = []
    for kind in kinds:
        if kind is NoneType:
            words.append("null")
        elif kind is int:
            words.append(f"a whole number from {_least(name)} to {MOST.get(name, MOST_COUNTED)}")
        elif kind is float:
            words.append(f"a number from {LEAST.get(name, 0):g}{f' to {MOST[name]}' if name in MOST else ''}")
        elif kind is str:
            words.append(f'"{usual}"' if isinstance(usual, str) else "a text")
        elif _is_tuple(kind):
            words.append(f"a list, each of it {_in_words(_elements(kind, usual), name, None)}")
        else:
            words.append(f"settings of {kind.name} in braces")
    return " or ".join(words)


def _least(name):
    return LEAST.get(name, 1)


def _is_tuple(kind):
    return tuple in (kind, get_origin(kind))


def _elements(kind, usual):
    """The kinds of a tuple's elements: as it says itself, else as the usual ones are."""
    return tuple(k for k in get_args(kind) if k is not ...) or tuple({type(each) for each in usual}) or (str, int)
