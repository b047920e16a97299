"""What a visitor takes along: the report, the edits, a link to come back by."""

from types import SimpleNamespace

import gradio as gr

from ember_demo.errors import EmberDemoError
from ember_demo.ui.session import STUDIES, in_turn
from ember_demo.ui.show import FIRST_ERASE, problem, status, warn
from ember_demo.ui.work import run


def layout():
    with gr.Accordion("Take it with you: report, edits, link", open=False, elem_classes="folded"):
        with gr.Row():
            make = gr.Button("Make the report, and files of the edits")
            stop = gr.Button("Cancel", variant="stop", scale=0, min_width=90)
        said = gr.Markdown(elem_classes="status", elem_id="files-status")
        files = gr.Files(
            label="report.html to read, report.json as data, each edit as safetensors; press a size to download",
            elem_id="files",
            visible=False,
        )
        shown_link = gr.Textbox(label="Link to this study, good for up to an hour", interactive=False, elem_id="link")
    return SimpleNamespace(make=make, stop=stop, said=said, files=files, link=shown_link)


def link(session):
    """The end of an address that brings this study back."""
    return f"?study={session.key}" if session.key else ""


@in_turn
def export(session):
    """Files of the report and the edits: (status, files)."""
    if not session.edits:
        yield warn(FIRST_ERASE), gr.skip()
        return
    try:
        for event in run(_exported, session, here=True):
            yield status(event), gr.skip()
        yield "", event.result
    except EmberDemoError as error:
        yield problem(error), gr.skip()


def _exported(session, progress):
    return STUDIES.keep(session).export()  # the files go with it
