"""What one visitor has: model, concept, edits, scores, answers, attacks. Models are shared, edits never."""

import functools
import secrets
import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import gradio as gr
import torch

from ember_demo.erasers import RMU, Ember
from ember_demo.loading import describe, fetch, load_model
from ember_demo.memory import is_zerogpu_child
from ember_demo.progress import silent
from ember_demo.repeat import command_line
from ember_demo.report import write_report
from ember_demo.study import make_report


class Turn:
    """A visitor's own work goes one thing at a time, or the later would write over what the earlier found. A copy is another visitor's."""

    def __init__(self):
        self._lock, self.done = Lock(), 0
        self.latest = lambda: None  # a weak reference to the session as its work left it last

    def __reduce__(self):
        return Turn, ()

    @property
    def busy(self):
        return self._lock.locked()

    def wait(self, patience=3.0):
        """Until it is free, or for so many seconds. What follows on a cancelling waits so, and goes through the queue as the cancelled work's news
        did: else the last of these might come after it."""
        if self._lock.acquire(timeout=patience):
            self._lock.release()

    @contextmanager
    def taken(self, patience=3.0):
        """Hold it; gr.Error where it is not free within so many seconds, in which work that ends or was stopped lets go of it."""
        if not self._lock.acquire(timeout=patience):
            raise gr.Error("Your other work is still running; wait for it or stop it, then try again.", print_exception=False)
        try:
            yield
            self.done += 1
        finally:
            self._lock.release()


def in_turn(handler):
    """A handler, a generator whose first argument is the session, that waits a little for its visitor's other work, and goes on from what that left."""

    @functools.wraps(handler)
    def guarded(session, *args, **kwargs):
        done = session.turn.done
        if session.turn.busy:
            yield gr.skip()  # before the wait: Gradio can only close a generator that has yielded
        with session.turn.taken():
            if done != session.turn.done:  # other work ended since this one's session was read
                session = session.turn.latest() or session
            session.turn.latest = weakref.ref(session)
            with closing(handler(session, *args, **kwargs)) as going:
                for values in going:
                    for value in values:
                        if isinstance(value, Session):
                            session.turn.latest = weakref.ref(value)
                    yield values

    return guarded


@dataclass
class Session:
    """`texts`: the visitor's own, of the concept; `ember` and `baseline`: the erasers, as chosen; `searches`: by concept and baseline, the best
    one found and the trials; `traces`: of listed concepts, by name and seed; `features` of the factorization that `found_with` tells; `edits` and
    `scores` by variant; `results` by attack and variant; `turns` of the conversation, each with its answers by column; `attacked`: by column, the
    variant that an attack started from, its name and the key of the weights it left; `views`: what was shown, to be shown again after a reload; `hidden`:
    columns in the order of blind mode; `seconds` by kind of work; `skipped`: why a variant was left out; `ask_model`: whether the model wrote the questions; `key`: of its link, once something is erased."""

    model_id: str
    precision: str
    concept: object = None
    texts: str = ""
    seed: int = 0
    ember: object = field(default_factory=Ember)
    baseline: object = field(default_factory=RMU)
    searches: dict = field(default_factory=dict)
    traces: dict = field(default_factory=dict)
    features: list = field(default_factory=list)
    found_with: tuple = ()
    edits: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    attacks: dict = field(default_factory=dict)
    turns: list = field(default_factory=list)
    attacked: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)
    ask_model: bool = False
    views: dict = field(default_factory=dict)
    hidden: tuple = ()
    seconds: dict = field(default_factory=dict)
    key: str = ""
    turn: Turn = field(default_factory=Turn)

    @property
    def model(self):
        return shared_model(self.model_id, self.precision)

    @property
    def trace(self):
        """Where the model holds the concept, if that was looked at: a trace is of a listed concept, not of a visitor's texts."""
        return self.traces.get((self.concept.name, self.seed)) if self.concept and not self.texts else None

    def report(self):
        report = make_report(self.model, self.concept, self.edits, self.scores, self.results, self.seed, self.seconds)
        best, trials = self.searches.get((self.concept.name, self.baseline.name), (None, []))
        searched = best is not None and best == self.baseline  # else the baseline was not run with what the search found
        more = {"trace": self.trace, "skipped": self.skipped, "searches": {best.name: trials} if searched else {}}
        return report | more | {"command": self.repeated(command_line)}

    def repeated(self, form):
        """What was done, as `form` of ember_demo.repeat writes it; texts of the visitor's own stand in texts.txt."""
        return form(
            self.model_id,
            self.precision,
            self.concept.name,
            self.seed,
            [self.ember, self.baseline],
            list(self.attacks.values()),
            "texts.txt" if self.texts else None,
            self.ask_model,
        )

    def export(self):
        """Paths of report.html, the edits and report.json, written to a folder of this study that goes with it, or with the app."""
        folder = _files(self.key)
        folder.mkdir(exist_ok=True)
        write_report(self.report(), folder)
        for name, edit in self.edits.items():
            if edit:
                edit.save(folder / f"{name}.safetensors")
        return [str(path) for path in sorted(folder.iterdir(), key=lambda path: (path.suffix != ".html", path.name))]


_FILES = tempfile.TemporaryDirectory(prefix="ember-")


def _files(key):
    return Path(_FILES.name) / key


_loaded = OrderedDict()
KEPT = 2


def shared_model(model_id, precision, progress=silent):
    """One copy of a model for all visitors, the two used last; another is loaded again when it is asked for. Call it while holding the model lock."""
    key = (model_id, precision)
    if key not in _loaded:
        kept = 0 if describe(model_id, precision).plan.beside else KEPT - 1  # others must not hold the GPU that it is too large for
        if len(_loaded) > kept:
            fetch(model_id, progress=progress)  # what cannot be had takes no other's place
        while len(_loaded) > kept:
            _loaded.popitem(last=False)
        _loaded[key] = load_model(model_id, precision, progress=progress)
    _loaded.move_to_end(key)
    if is_zerogpu_child() and torch.cuda.is_available() and _loaded[key].device.type == "cpu":
        _move_to_lent_gpu(key)
    return _loaded[key]


def _move_to_lent_gpu(key):
    """Move a model that was loaded before this process was lent a GPU; others that are there make room, and are loaded again when they are asked for."""
    for other in [k for k, model in _loaded.items() if model.device.type == "cuda"]:
        del _loaded[other]
    try:
        _loaded[key].network.to("cuda")
    except BaseException:
        del _loaded[key]  # a part of it is there
        raise


class LeftWeights:
    """The weights that attacks left, each set as large as its model: the latest, up to `most` bytes in all, whoever they are of."""

    def __init__(self, most=5e8):
        self.most, self._kept, self._lock = most, OrderedDict(), Lock()

    def keep(self, weights):
        """The key by which they are found again, until later ones take their place."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[key] = weights
            while len(self._kept) > 1 and sum(w.nbytes for each in self._kept.values() for w in each.values()) > self.most:
                self._kept.popitem(last=False)
        return key

    def find(self, key):
        """The weights by name, or None."""
        with self._lock:
            return self._kept.get(key)

    def drop(self, keys):
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)


LEFT = LeftWeights()


class Studies:
    """Sessions by the key of their link, which nobody can guess: the latest few, with edits of up to `room` bytes in all, for an hour after they were
    last used."""

    def __init__(self, most=20, seconds=3600, room=4e9):
        self.most, self.seconds, self.room = most, seconds, room
        self._kept, self._lock = OrderedDict(), Lock()

    def keep(self, session):
        """Keep a session under its key, which it gets if it has none, or if another tab keeps its own under it."""
        with self._lock:
            _, kept = self._kept.get(session.key, (None, session))
            if not session.key or kept.turn is not session.turn:
                session = replace(session, key=secrets.token_urlsafe(16))
            self._kept[session.key] = (time.monotonic(), session)
            self._kept.move_to_end(session.key)
            self._sweep()
        return session

    def update(self, session):
        """Keep a session if something is erased in it; it is then as `keep` gives it."""
        return self.keep(session) if session.edits else session

    def find(self, key):
        """The session of that key, or None."""
        with self._lock:
            self._sweep()
            if key not in self._kept:
                return None
            _, session = self._kept[key]
            self._kept[key] = (time.monotonic(), session)
            self._kept.move_to_end(key)
        return session

    def _sweep(self):
        while self._kept:
            age = time.monotonic() - next(iter(self._kept.values()))[0]
            held = sum(edit.nbytes for _, kept in self._kept.values() for edit in kept.edits.values() if edit)
            if len(self._kept) <= self.most and age < self.seconds and (held <= self.room or len(self._kept) == 1):
                break
            key, (_, session) = self._kept.popitem(last=False)
            held = {left for _, kept in self._kept.values() for _, _, left in kept.attacked.values()}  # a link opened twice shares them
            LEFT.drop(left for _, _, left in session.attacked.values() if left not in held)
            shutil.rmtree(_files(key), ignore_errors=True)


STUDIES = Studies()
