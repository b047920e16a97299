"""For programs that keep no session, such as agents: a whole study in one call."""

import gradio as gr

from ember_demo.attacks import ATTACKS, Relearning
from ember_demo.erasers import RMU, Ember
from ember_demo.errors import EmberDemoError
from ember_demo.loading import POCKET
from ember_demo.sources import load_concept
from ember_demo.study import choose_by_name, run_study
from ember_demo.ui.session import shared_model
from ember_demo.ui.show import settled, whole_seed
from ember_demo.ui.work import run


def study(concept: str, attack: str = Relearning.name, seed: int = 0, settings: str = "") -> dict:
    """Erase a listed concept from the embedded model by EMBER, by RMU and by both, score them, attack them.

    While it runs it gives `progress` (0 to 1) and a `message`, at the end report.json. It stops when its caller leaves.

    Args:
        concept: a listed concept, such as Golf
        attack: a listed attack, such as relearning
        seed: the same seed gives the same figures
        settings: other settings than the usual ones, one NAME.SETTING=VALUE a line
    """
    try:
        if attack == "all":
            raise EmberDemoError("Choose one attack; with all of them a study takes many minutes. The command line runs them.")
        attacks = [settled(a, settings) for a in choose_by_name([attack], ATTACKS, "attack")]
        for event in run(_studied, concept, [settled(Ember(), settings), settled(RMU(), settings)], attacks, whole_seed(seed)):
            yield event.result if event.done else {"progress": round(event.fraction, 3), "message": event.message}
    except EmberDemoError as error:
        raise gr.Error(str(error)) from None


def _studied(concept, erasers, attacks, seed, progress):
    return run_study(shared_model(POCKET, "auto"), load_concept(concept), erasers, attacks, seed, progress)
