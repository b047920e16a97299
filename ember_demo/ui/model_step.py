"""Step 1: which model, in which precision, and what it needs here."""

import os
import sys
import time
from dataclasses import replace
from html import escape
from threading import Thread
from types import SimpleNamespace

import gradio as gr

from ember_demo.errors import EmberDemoError, ModelError
from ember_demo.loading import MODELS, POCKET, describe, fetch
from ember_demo.memory import PRECISIONS, is_zerogpu_page
from ember_demo.pictures import memory_bars
from ember_demo.ui.session import Session, in_turn, shared_model
from ember_demo.ui.show import problem, status
from ember_demo.ui.work import Event, run

_behind = {}  # by model that is loaded behind the page: how far it is


def layout(model_id, public):
    """The step's components; `public`: on a server for strangers, where no folder of its own is opened."""
    gr.Markdown(
        "A **language model** is a program that has read much text and continues what you write. Nothing you do here changes the model itself: "
        "every change is laid over it and taken off again."
    )
    with gr.Row():
        model = gr.Dropdown(
            list(dict.fromkeys([model_id, *MODELS])),
            value=model_id,
            allow_custom_value=True,
            label="Model",
            info="The embedded one needs no download; or type a model's name on the Hugging Face Hub"
            + ("." if public else ", or a folder."),
            min_width=240,
        )
        precision = gr.Dropdown(
            PRECISIONS, value="auto", label="Precision", info="How exactly its numbers are held; auto takes 4 bit when memory is tight."
        )
    offer = gr.HTML(elem_id="offer")
    with gr.Row():
        load = gr.Button("Load this model", min_width=140)
        stop = gr.Button("Stop", variant="stop", scale=0, min_width=90)
    said = gr.Markdown(in_use(model_id), elem_classes="status", elem_id="load-status")
    forward = gr.Button("Next: choose a concept", variant="primary")
    return SimpleNamespace(model=model, precision=precision, offer=offer, load=load, stop=stop, said=said, forward=forward)


def in_use(model_id):
    return f"**{model_id}** is in use; press *Load this model* after choosing another."


def offer(model_id, precision, closed=False):
    """What a model would need here, before it is loaded, as a sentence and bars. closed: whether folders are not to be read."""
    try:
        return memory_bars(describe(_named(model_id, closed), precision))
    except EmberDemoError as error:
        return f"<p>⚠ {escape(str(error))}</p>"


def load_behind(model_id):
    """Load a model on a thread of its own, so that the page opens at once; what needs the model waits in turn. ModelError where it cannot be had."""
    describe(model_id)
    _behind[model_id] = Event(0.0, "Starting")

    def body():
        try:
            for _behind[model_id] in _getting(model_id, "auto"):
                pass
        except Exception as error:  # said on the page and in the terminal
            _behind[model_id] = Event(1.0, "", done=True, error=error)
            print(f"app.py: {error}", file=sys.stderr)

    Thread(target=body, daemon=True).start()


def opening(model_id):
    """How far the model is that is loaded behind the page, until it is in use or cannot be had."""
    yield gr.skip()
    event = _behind.get(model_id)
    if event and (event.error or not event.done):
        while not event.done:
            yield f"**{model_id}** is being loaded; you can go on meanwhile. {status(event)}"
            time.sleep(0.5)
            event = _behind[model_id]
        yield problem(event.error) if event.error else in_use(model_id)


@in_turn
def load(session, model_id, precision, closed=False):
    """Load a model: (status, session). closed: whether folders are not to be read."""
    try:
        model_id = _named(model_id, closed)
        for event in _getting(model_id, precision):
            yield status(event), gr.skip()
        yield (
            event.result,
            Session(model_id, precision, turn=session.turn)
            if (session.model_id, session.precision) != (model_id, precision)
            else replace(session),
        )
    except EmberDemoError as error:
        yield problem(error), gr.skip()


def _named(model_id, closed):
    model_id = (model_id or POCKET).strip()
    if closed and os.path.exists(model_id):
        raise ModelError("Folders of this server are not open to visitors; type a model's name on the Hugging Face Hub.")
    return model_id


def _getting(model_id, precision):
    """The events of getting a model; what is downloaded first holds up nobody who works with another."""
    yield from (event for event in run(_downloaded, model_id, precision, beside=True) if not event.done)
    yield from run(_loaded, model_id, precision, here=True)


def _downloaded(model_id, precision, progress):
    """Nothing where it would not fit beside the models that are loaded now: whether it fits in their place is seen when it is loaded."""
    offer = describe(model_id, precision)
    if offer.download and offer.plan.fits["chat"]:
        fetch(model_id, progress=progress)


def _loaded(model_id, precision, progress):
    model = shared_model(model_id, precision, progress)
    where = "a GPU that is lent for each piece of work" if is_zerogpu_page() else " and ".join(model.devices)
    return f"**{model.id}** is ready: {model.parameter_count / 1e6:,.0f} million parameters, {model.precision}, on {where}."
