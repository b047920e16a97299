"""How long each step takes on this machine, on the embedded model."""

import time

from ember_demo.attacks import Relearning
from ember_demo.erasers import RMU, Ember
from ember_demo.evaluation import evaluate
from ember_demo.language_model import load_model
from ember_demo.sources import load_concept


def run_bench(concept_name="Harry Potter"):
    """Seconds of wall time by step."""
    seconds = {}

    def timed(name, work):
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 3)
        return result

    model = timed("load", load_model)
    concept = timed("concept", lambda: load_concept(concept_name))
    timed("chat", lambda: model.chat(concept.select("concept", "test")[0].text))
    timed("evaluate", lambda: evaluate(model, concept))
    ember = Ember(delta=5.0)
    features = timed("factorize", lambda: ember.find_features(model, concept))
    edit = timed("ember", lambda: ember.edit(model, concept, features))
    timed("rmu", lambda: RMU().fit(model, concept))
    timed("relearning, 1 epoch", lambda: Relearning(epochs=1).run(model, concept, edit))
    return seconds
