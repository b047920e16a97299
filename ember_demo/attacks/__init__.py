"""Attacks: each tries to get erased knowledge back. `ATTACKS` is the registry, from what asks to what holds most."""

from ember_demo.attacks.ablation import DirectionAblation
from ember_demo.attacks.asking import Prompting, Respelling, Rewording
from ember_demo.attacks.base import BASE, PROMPTS, THREATS, WEIGHTS, Attack, AttackResult
from ember_demo.attacks.lens import LinearProbe, LogitLens
from ember_demo.attacks.quantization import Quantization
from ember_demo.attacks.relearning import (
    Relearning,
    RelearningNeighbour,
    RelearningParagraphs,
    RelearningRows,
    RelearningSweep,
    RelearningUnrelated,
)
from ember_demo.attacks.reset import BaseReset, HeadReset, OutlierReset
from ember_demo.attacks.soft_prompt import SoftPrompt

ATTACKS = {
    attack.name: attack
    for attack in (
        Relearning,
        RelearningParagraphs,
        RelearningNeighbour,
        RelearningUnrelated,
        RelearningRows,
        RelearningSweep,
        Respelling,
        Rewording,
        Prompting,
        OutlierReset,
        HeadReset,
        Quantization,
        LogitLens,
        LinearProbe,
        SoftPrompt,
        BaseReset,
        DirectionAblation,
    )
}


def default_attack(concept):
    """The name of the relearning attack that a concept has material for: questions to retrain on, else paragraphs."""
    return Relearning.name if concept.select("concept", "relearn") else RelearningParagraphs.name


__all__ = [
    "ATTACKS",
    "BASE",
    "PROMPTS",
    "THREATS",
    "WEIGHTS",
    "Attack",
    "AttackResult",
    "BaseReset",
    "DirectionAblation",
    "HeadReset",
    "LinearProbe",
    "LogitLens",
    "OutlierReset",
    "Prompting",
    "Quantization",
    "Relearning",
    "RelearningNeighbour",
    "RelearningParagraphs",
    "RelearningRows",
    "RelearningSweep",
    "RelearningUnrelated",
    "Respelling",
    "Rewording",
    "SoftPrompt",
    "default_attack",
]
