"""The page: the tour, the verdict, five steps, what is taken away, the expert's view."""

from types import SimpleNamespace

import gradio as gr

from ember_demo.loading import POCKET
from ember_demo.ui import attack_step, compare_step, concept_step, erase_step, expert, model_step, take_away, verdict
from ember_demo.ui.look import ATTACK, COMPARE, CONCEPT, ERASE, MODEL, STEPS
from ember_demo.ui.session import Session
from ember_demo.ui.show import is_public
from ember_demo.ui.wiring import wire

TITLE = "EMBER: erase a concept, then try to get it back"
INTRO = """
# EMBER: erase a concept, then try to get it back
A language model can be made to *forget* a subject. Many methods hide the knowledge rather than remove it, and a little retraining brings it back.
**EMBER** also edits the model's word table, where a word's meaning enters the model. See for yourself, in five steps.
"""


def build_page(model_id=POCKET, with_tour=False):
    """The Blocks of the demo; `model_id` is offered first. with_tour: whether the guided tour stands open."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 7200)) as demo:
        wire(demo, _layout(model_id, with_tour), model_id)
    return demo


def _layout(model_id, with_tour):
    """The page's components by name; those of a step, in a namespace of its own."""
    session = gr.State(Session(model_id, "auto"))
    gr.Markdown(INTRO)
    with gr.Accordion("Guided tour: a story of ten minutes, with notes for whoever presents it", open=with_tour, elem_classes="folded"):
        played, announced = gr.State(-1), gr.State(0)  # numbers of scenes
        notes = gr.Markdown("Every scene is computed live, on the embedded model. The tour begins a new study.", elem_id="tour-notes")
        with gr.Row(elem_id="tour-bar"):
            next_scene = gr.Button("Start the tour", variant="primary", scale=0, min_width=160)
            stop_tour = gr.Button("Stop the tour", variant="stop", scale=0, min_width=170)
    shown_verdict = gr.HTML(verdict.view(Session(model_id, "auto")), elem_id="verdict")
    with gr.Walkthrough(selected=MODEL, elem_id="steps") as steps:
        with gr.Step(STEPS[MODEL], id=MODEL):
            model = model_step.layout(model_id, is_public())
        with gr.Step(STEPS[CONCEPT], id=CONCEPT):
            concept = concept_step.layout()
        with gr.Step(STEPS[ERASE], id=ERASE):
            erase = erase_step.layout()
        with gr.Step(STEPS[COMPARE], id=COMPARE):
            compare = compare_step.layout()
        with gr.Step(STEPS[ATTACK], id=ATTACK):
            attack = attack_step.layout()
    taken = take_away.layout()
    expertly = expert.layout()
    return SimpleNamespace(**locals())
