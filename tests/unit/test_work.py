"""Work behind the page: one at a time, in turn, stopped when its visitor leaves."""

import asyncio
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from gradio.utils import SyncToAsyncIterator

from ember_demo.errors import EmberDemoError
from ember_demo.ui import work
from ember_demo.ui.session import Session, in_turn


def slow(steps, progress):
    for step in range(steps):
        progress(step / steps, f"Step {step}")
        time.sleep(0.05)
    return steps


def failing(progress):
    raise EmberDemoError("It cannot be done; do another thing.")


def test_work_tells_how_far_it_is_and_gives_its_result():
    events = list(work.run(slow, 3))
    assert [e.message for e in events if e.message.startswith("Step")][-1] == "Step 2"
    assert events[-1].done and events[-1].result == 3


def test_what_the_work_raises_is_raised_and_the_model_is_free_again():
    with pytest.raises(EmberDemoError, match="do another thing"):
        list(work.run(failing))
    assert not work.MODEL_LOCK.locked()


def test_what_nobody_foresaw_is_said_in_a_sentence_and_logged(capsys):
    def breaking(progress):
        return 1 / 0

    with pytest.raises(EmberDemoError, match="not foreseen .ZeroDivisionError."):
        list(work.run(breaking))
    assert "1 / 0" in capsys.readouterr().err and not work.MODEL_LOCK.locked()


def test_closing_stops_the_work_and_frees_the_model_without_a_wait():
    speaks = threading.Event()

    def silent(progress):
        progress(0, "Nothing is said for a while")
        speaks.wait(20)
        progress(0.5, "Something is said")

    events = work.run(silent)
    next(events)
    next(events)
    began = time.monotonic()
    events.close()
    assert time.monotonic() - began < 1 and work.MODEL_LOCK.locked()  # by the work, which changes the model until it has put it back
    speaks.set()
    assert work.MODEL_LOCK.acquire(timeout=10)
    work.MODEL_LOCK.release()


def test_visitors_are_served_in_turn_and_told_how_many_are_ahead():
    work.MODEL_LOCK.acquire()
    seen, served = {1: [], 2: []}, []

    def visit(number):
        for event in work.run(slow, 1):
            seen[number].append(event.message)
        served.append(number)

    visitors = []
    for number in (1, 2):
        visitors.append(threading.Thread(target=visit, args=(number,)))
        visitors[-1].start()
        time.sleep(0.8)
    work.MODEL_LOCK.release()
    for visitor in visitors:
        visitor.join(timeout=20)
    assert served == [1, 2]
    assert "1 ahead of you" in seen[1][1] and "2 ahead of you" in seen[2][1]


def test_work_beside_what_holds_the_model_does_not_wait_for_it():
    with work.MODEL_LOCK:
        assert list(work.run(slow, 3, beside=True))[-1].result == 3
        with pytest.raises(EmberDemoError, match="do another thing"):
            list(work.run(failing, beside=True))
        assert work.MODEL_LOCK.locked()


def test_who_leaves_the_line_holds_nobody_up():
    work.MODEL_LOCK.acquire()
    first = work.run(slow, 1)
    next(first)
    next(first)
    first.close()
    work.MODEL_LOCK.release()
    assert list(work.run(slow, 1))[-1].done


def test_events_can_be_sent_between_processes():
    for event in work.events(slow, (2,)):
        assert pickle.loads(pickle.dumps(event)).message == event.message


def test_a_process_that_ends_amid_work_ends_well():
    """Torch aborts a process that ends while one of its threads computes."""
    amid = """
import torch
from ember_demo.ui import work
def busy(progress):
    table = torch.rand(1000, 1000)
    while True:
        progress(0.5, "Working")
        table = (table @ table).sigmoid()
going = work.run(busy)
while next(going).message != "Working":
    pass
"""
    ended = subprocess.run([sys.executable, "-c", amid], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_is_left_as_garbage_works_on_for_nobody_and_waits_for_nobody():
    """Python's collector closes generators in any order, on a thread of its choice."""
    code = (
        "import gc, threading, time; from ember_demo.ui import work\n"
        "working = threading.Event()\n"
        "def slow(progress):\n"
        "    working.set()\n"
        "    try:\n"
        "        for _ in range(2000):\n"
        "            progress(0.5, 'Working')\n"
        "            time.sleep(0.05)\n"
        "    finally:\n"
        "        time.sleep(1)\n"
        "        working.clear()\n"
        "def leave(after):\n"
        "    updates = work.run(slow)\n"
        "    for _ in range(after): next(updates)\n"
        "    left = [updates]; left.append(left)\n"
        "gc.disable()\n"
        "leave(4); leave(2)\n"
        "assert work.MODEL_LOCK.locked() and work._line and working.is_set()\n"
        "threading.Thread(target=gc.collect, daemon=True).start()\n"
        "ended = time.monotonic() + 60\n"
        "while work.MODEL_LOCK.locked() and time.monotonic() < ended: time.sleep(0.001)\n"
        "assert not work.MODEL_LOCK.locked() and not working.is_set(), 'the model is given away while it is worked on'\n"
        "while work._line and time.monotonic() < ended: time.sleep(0.1)\n"
        "print('held' if work._line else 'free')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)
    assert done.stdout.strip() == "free", done.stderr


def test_what_a_closed_generator_still_holds_is_closed():
    """As on Python 3.12.0 to 3.12.3, where closing one ends it and leaves what it reads as it was."""

    class Closed(list):
        """To the collector it looks like one that holds others."""

        def close(self):
            pass

    def handler():
        for event in work.run(slow, 200):
            yield event

    ours = handler()
    while next(ours).message != "Step 3":
        pass
    asyncio.run(work.close_all(SyncToAsyncIterator(Closed([ours]), None)))
    ended = time.monotonic() + 30
    while work.MODEL_LOCK.locked() and time.monotonic() < ended:
        time.sleep(0.05)
    assert not work.MODEL_LOCK.locked()


def test_work_begun_while_other_work_ends_goes_on_from_what_that_left():
    """A visitor presses Attack on seeing the last answer, a moment before the asking has ended."""

    @in_turn
    def ask(session):
        yield "Asking", replace(session, turns=["asked"])
        yield "", replace(session, turns=["asked", "answered"])

    @in_turn
    def attack(session):
        yield "Over", replace(session, results={"after": session.turns})

    session = Session("pocket", "auto")
    asking, attacking = ask(session), attack(session)
    kept = [next(asking)]
    next(attacking)  # as it stood when it was pressed; it waits
    kept += asking
    assert next(attacking)[1].results == {"after": ["asked", "answered"]}


def test_work_that_is_closed_closes_what_it_runs():
    closed = []

    @in_turn
    def handler(session):
        try:
            yield "Working", session
        finally:
            closed.append(session)

    session = Session("pocket", "auto")
    working = handler(session)
    next(working)
    working.close()
    assert closed and not session.turn.busy
