"""Attacks: each tries to get erased knowledge back. `ATTACKS` is the registry."""

from ember_demo.attacks.base import Attack, AttackResult
from ember_demo.attacks.relearning import Relearning, RelearningParagraphs

ATTACKS = {attack.name: attack for attack in (Relearning, RelearningParagraphs)}

__all__ = ["ATTACKS", "Attack", "AttackResult", "Relearning", "RelearningParagraphs"]
