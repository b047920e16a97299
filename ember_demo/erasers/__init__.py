"""Erasers: each fits a WeightEdit. `ERASERS` is the registry."""

from ember_demo.erasers.base import Eraser, Sequence, extend
from ember_demo.erasers.controls import MeanRows, RandomDirection, RandomTokens, Removal, ZeroRows
from ember_demo.erasers.ember import Ember, FromEmber
from ember_demo.erasers.ember_head import EmberHead
from ember_demo.erasers.gradient import NPO, GradDiff, SimNPO
from ember_demo.erasers.rmu import RMU
from ember_demo.erasers.snmf import SNMF

ERASERS = {
    eraser.name: eraser
    for eraser in (Ember, RMU, SNMF, GradDiff, NPO, SimNPO, EmberHead, Removal, RandomDirection, ZeroRows, MeanRows, RandomTokens)
}
BASELINES = [
    name for name, eraser in ERASERS.items() if eraser.combines and eraser is not Ember
]  # what EMBER is compared and combined with

__all__ = [
    "BASELINES",
    "ERASERS",
    "NPO",
    "RMU",
    "SNMF",
    "Ember",
    "EmberHead",
    "Eraser",
    "FromEmber",
    "GradDiff",
    "MeanRows",
    "RandomDirection",
    "RandomTokens",
    "Removal",
    "Sequence",
    "SimNPO",
    "ZeroRows",
    "extend",
]
