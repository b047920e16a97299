"""Erasers: each fits a WeightEdit. `ERASERS` is the registry."""

from ember_demo.erasers.base import Eraser, Sequence, extend
from ember_demo.erasers.ember import Ember
from ember_demo.erasers.rmu import RMU

ERASERS = {eraser.name: eraser for eraser in (Ember, RMU)}

__all__ = ["ERASERS", "RMU", "Ember", "Eraser", "Sequence", "extend"]
