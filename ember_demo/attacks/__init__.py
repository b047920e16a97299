"""Attacks: each tries to get erased knowledge back. `ATTACKS` is the registry."""

from ember_demo.attacks.base import Attack, AttackResult
from ember_demo.attacks.relearning import Relearning, RelearningParagraphs

ATTACKS = {attack.name: attack for attack in (Relearning, RelearningParagraphs)}


def default_attack(concept):
    """The name of the relearning attack that a concept has material for: questions to retrain on, else paragraphs."""
    return Relearning.name if concept.select("concept", "relearn") else RelearningParagraphs.name


__all__ = ["ATTACKS", "Attack", "AttackResult", "default_attack", "Relearning", "RelearningParagraphs"]
