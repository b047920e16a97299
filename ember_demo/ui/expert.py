"""For engineers: every setting of the library, and the code that repeats what was just done."""

from dataclasses import fields
from types import SimpleNamespace

import gradio as gr

from ember_demo.attacks import ATTACKS
from ember_demo.erasers import BASELINES, ERASERS, Ember
from ember_demo.pictures import table
from ember_demo.repeat import command_line, python_code

NOTHING_DONE = "# First erase a concept."


def layout():
    with gr.Accordion("Expert view: every setting, and the code that repeats this", open=False, elem_classes="folded"):
        settings = gr.Textbox(
            "",
            label="Settings, one NAME.SETTING=VALUE a line",
            info="For instance rmu.steps=80 or relearning.epochs=5; those of the erasers count at the next erasure, those of an attack at the next attack.",
            lines=3,
            max_lines=10,
            elem_id="settings",
        )
        with gr.Accordion("All settings and their usual values", open=False, elem_classes="folded"):
            gr.HTML(all_settings())
        gr.Markdown("What was done, as Python and as a command line:")
        python = gr.Textbox(NOTHING_DONE, label="Python", interactive=False, lines=3, max_lines=30, buttons=["copy"], elem_id="python")
        command = gr.Textbox(NOTHING_DONE, label="Command line", interactive=False, lines=2, buttons=["copy"], elem_id="command")
    return SimpleNamespace(settings=settings, python=python, command=command)


def all_settings():
    """A table; a value that suits the loaded model is shown as such."""
    rows = []
    for name, kind in [*((n, ERASERS[n]) for n in (Ember.name, *BASELINES)), *ATTACKS.items()]:
        for field in fields(kind):
            rows.append([f"{name}.{field.name}", "what suits the model" if field.default is None else str(field.default)])
    return table(["setting", "usual value"], rows)


def repeat(session):
    """(Python, command line) that repeat what was done in this session; texts of the visitor's own are to be saved to a file first."""
    if not session.edits:
        return NOTHING_DONE, NOTHING_DONE
    first = "# First save the sentences of step 2 as texts.txt.\n" if session.texts else ""
    return first + session.repeated(python_code), first + session.repeated(command_line)
