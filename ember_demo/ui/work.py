"""Long work behind a page: one at a time, with events to show, stopped when its visitor leaves."""

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

from ember_demo.errors import NO_ROOM, EmberDemoError, Stopped, out_of_memory

# One model serves every visitor, and its weights change while somebody's work runs.
# Not an RLock: Gradio may advance a generator on another thread than the one that began it.
MODEL_LOCK = threading.Lock()
WAITING = "Another visitor's work is running; yours is next."


@dataclass
class Event:
    """A step of the work: how far it is, what it does, data for a live view; the last one is done and has the result."""

    fraction: float
    message: str
    data: dict = field(default_factory=dict)
    done: bool = False
    result: Any = None


def run(work):
    """Yield events while `work(progress)` runs on a thread of its own, holding the model.

    Closing the generator stops the work at its next progress call and waits until it has put the model back.
    What the work raises is raised here.
    """
    yield from waiting()
    events, stop = queue.Queue(), threading.Event()

    def progress(fraction, message, **data):
        if stop.is_set():
            raise Stopped("Stopped.")
        events.put(Event(fraction, message, data))

    def body():
        try:
            events.put(Event(1.0, "Done.", done=True, result=work(progress)))
        except BaseException as error:  # raised again on the visitor's side
            events.put(EmberDemoError(NO_ROOM) if out_of_memory(error) else error)

    worker = threading.Thread(target=body, daemon=True)
    try:
        worker.start()
        latest = Event(0.0, "Starting")
        while not latest.done:
            try:
                latest = events.get(timeout=0.5)
            except queue.Empty:
                pass  # yield the latest again, so that a visitor who left is noticed
            if isinstance(latest, BaseException):
                raise latest
            yield latest
    finally:
        stop.set()
        worker.join()
        MODEL_LOCK.release()


def waiting():
    """Take the lock, yielding an event every half second until it is had."""
    while not MODEL_LOCK.acquire(timeout=0.5):
        yield Event(0.0, WAITING)
