"""EMBER: erase a concept from a language model's token embeddings, and try to get it back."""

import os

# Before huggingface_hub is imported: without it, a download through its Xet storage that fails raises plain RuntimeErrors.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from ember_demo import attacks, erasers
from ember_demo.concept import Concept, Question
from ember_demo.edit import WeightEdit
from ember_demo.erasers import RMU, Ember
from ember_demo.errors import ConceptError, EditError, EmberDemoError, ModelError, Stopped
from ember_demo.evaluation import evaluate
from ember_demo.factorization import SparseMatrixFactorization
from ember_demo.language_model import LanguageModel
from ember_demo.loading import load_control, load_model
from ember_demo.sources import concept_names, load_concept

__all__ = [
    "RMU",
    "Concept",
    "ConceptError",
    "EditError",
    "Ember",
    "EmberDemoError",
    "LanguageModel",
    "ModelError",
    "Question",
    "SparseMatrixFactorization",
    "Stopped",
    "WeightEdit",
    "attacks",
    "concept_names",
    "erasers",
    "evaluate",
    "load_concept",
    "load_control",
    "load_model",
]
