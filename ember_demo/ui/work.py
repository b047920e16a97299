"""Long work behind a page: one at a time, with events to show, stopped when its visitor leaves."""

import atexit
import gc
import queue
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

from gradio.utils import SyncToAsyncIterator

from ember_demo.errors import NO_ROOM, EmberDemoError, Stopped, out_of_memory
from ember_demo.memory import trim

try:
    import spaces  # only there is where a Hugging Face Space may lend a GPU
except ImportError:
    spaces = None

# One model serves every visitor, and its weights change while somebody's work runs.
# Not an RLock: Gradio may advance a generator on another thread than the one that began it.
MODEL_LOCK = threading.Lock()
UNEXPECTED = "Something went wrong that was not foreseen ({}); the model is as it was. Try other settings or a smaller model; the log holds the details."
GPU_SECONDS = 120  # that a Space's lent GPU is asked for at a time
_line = deque()  # who waits for it, first come first served
_working = {}  # the threads that work, each with what stops it


@dataclass
class Event:
    """A step of the work: how far it is, what it does, data for a live view, seconds left where that can be told; the last is done and has the
    result, or what the work raised."""

    fraction: float
    message: str
    data: dict = field(default_factory=dict)
    left: float | None = None
    done: bool = False
    result: Any = None
    error: Exception | None = None


def run(work, *args, here=False, beside=False):
    """Yield events while `work(*args, progress)` runs on a thread of its own, holding the model.

    Closing the generator stops the work at its next progress call, and does not wait for it: Gradio closes on the loop that serves every visitor. The
    model is held until the work has put it back.
    What the work raises is raised here as an EmberDemoError, and so is why no GPU is lent; what nobody foresaw goes to the log too. On ZeroGPU the work runs in another process, which has the GPU: work,
    arguments and result must pickle, and what it does to a model is of no effect here; with `here` it runs in this one, without the GPU.
    beside: the work touches no model and runs beside what holds it, in this process.
    """
    yield Event(0.0, "Starting")  # at once: Gradio can only close a generator that has yielded
    if not beside:
        yield from waiting()
    running, latest = (events if here or beside else _lent)(work, args), Event(0.0, "")

    def end():
        try:
            _close(running)
            trim()
        finally:
            if not beside:
                MODEL_LOCK.release()

    try:
        for latest in running:
            if isinstance(latest.error, EmberDemoError):
                raise latest.error
            if latest.error:
                traceback.print_exception(latest.error)  # to the log
                raise EmberDemoError(UNEXPECTED.format(type(latest.error).__name__)) from latest.error
            yield latest
    finally:
        if latest.done or sys.is_finalizing():  # a process that ends starts no thread
            end()
        else:
            threading.Thread(target=end, daemon=True).start()


def _close(generator):
    """Close a generator, and wait where another thread does it already: Python's collector, which closes what nobody refers to."""
    while True:
        try:
            return generator.close()
        except ValueError:  # it is executing
            time.sleep(0.05)


def events(work, args):
    """The events of `work(*args, progress)`; the last holds its result or its error."""
    news, stop, began = queue.Queue(), threading.Event(), time.monotonic()

    def progress(fraction, message, **data):
        if stop.is_set():
            raise Stopped("Stopped.")
        seconds = time.monotonic() - began
        left = seconds * (1 - fraction) / fraction if fraction > 0.05 and seconds > 3 else None
        news.put(Event(fraction, message, data, left))

    def body():
        try:
            news.put(Event(1.0, "Done.", done=True, result=work(*args, progress)))
        except Exception as error:  # raised again on the visitor's side
            news.put(Event(1.0, "", done=True, error=EmberDemoError(NO_ROOM) if out_of_memory(error) else error))

    worker = threading.Thread(target=body, daemon=True)
    _working[worker] = stop
    try:
        worker.start()
        latest = Event(0.0, "Starting")
        while not latest.done:
            try:
                latest = news.get(timeout=0.5)
            except queue.Empty:
                pass  # yield the latest again, so that a visitor who left is noticed
            yield latest
    finally:
        stop.set()
        worker.join()
        del _working[worker]


@atexit.register
def _end():
    """The app is closed while somebody's work runs: torch aborts a process that ends under its threads."""
    for worker, stop in list(_working.items()):
        stop.set()
        worker.join(timeout=30)


def _close_held(closed):
    """Close the generators that a closed one still holds."""
    for held in gc.get_referents(closed):
        if isinstance(held, GeneratorType):
            held.close()
            _close_held(held)


_aclose = SyncToAsyncIterator.aclose


async def close_all(iterator):
    """As Gradio closes a handler's generator, with what that still holds."""
    await _aclose(iterator)
    _close_held(iterator.iterator)


# There a closed generator keeps what it held (CPython issue 118272), so Gradio's, of a visitor who left, would keep ours open.
if (3, 12) <= sys.version_info < (3, 12, 4):
    SyncToAsyncIterator.aclose = close_all


# Elsewhere than on ZeroGPU this is the same function.
events_on_gpu = spaces.GPU(duration=GPU_SECONDS)(events) if spaces else events


def _lent(work, args):
    """The events of work that runs where the GPU is; EmberDemoError where none is lent, or it is taken back."""
    running = events_on_gpu(work, args)
    try:
        while True:
            try:
                latest = next(running)
            except StopIteration:
                return
            except Exception as error:
                why = str(getattr(error, "message", "") or error) or type(error).__name__
                raise EmberDemoError(
                    f"The GPU could not be used: {why.rstrip('.')}. Try again later, with a smaller model or fewer steps."
                ) from error
            yield latest
    finally:
        _close(running)


def waiting():
    """Take the model in one's turn; until then, yield an event every half second that says how many are ahead."""
    ticket = object()
    _line.append(ticket)
    try:
        while _line[0] is not ticket or not MODEL_LOCK.acquire(timeout=0.5):
            ahead = _line.index(ticket) + MODEL_LOCK.locked()
            yield Event(0.0, f"Waiting: {ahead} ahead of you")
            if _line[0] is not ticket:
                time.sleep(0.5)
    finally:
        _line.remove(ticket)
