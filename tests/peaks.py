"""The peak memory of each kind of work, in a process of its own: `python -m tests.peaks PRECISION FOLDER...` prints it as JSON, in bytes.

Linux only: its kernel keeps the peak, and forgets it when told to, so nothing is missed between two looks.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path

# Memory that is freed goes back to the system at once, and threads share one heap.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}


def can_measure():
    """Whether this system tells a process its peak, and forgets it on demand."""
    return os.access("/proc/self/clear_refs", os.W_OK)


def resident(field="VmRSS"):
    """Bytes of this process in memory now, or at most (VmHWM) since `settle`; the model's weights that are mapped from its files included."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def settle():
    """Give back what is not used any more, and forget the peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(precision, folders):
    """Peaks by folder and work, beyond what the process held before that model was loaded.

    Everything is done once on the first model before, so that the libraries are there.
    """
    concept = ed.load_concept("Golf")
    wide = broad_concept()
    model = ed.load_model(folders[0], precision)
    base = evaluate(model, _few(concept))
    for work in WORKS:
        _do(work, model, concept, wide, base)
    peaks = {}
    for folder in folders:
        model = None
        settle()
        start, peaks[folder] = resident(), {}
        model = ed.load_model(folder, precision)
        for work in WORKS:
            settle()
            _do(work, model, concept, wide, base)
            peaks[folder][work] = resident("VmHWM") - start
    return peaks


def _few(concept):
    """The concept with no more questions than fill a batch."""
    kinds = (("concept", "test", 64), ("similar", "test", 8), ("general", "test", 8), ("concept", "relearn", 12))
    questions = [question for kind, split, count in kinds for question in concept.select(kind, split)[:count]]
    return Concept(concept.name, concept.texts, concept.neutral_texts, questions, fluency_texts=concept.fluency_texts)


def _do(work, model, concept, wide, base):
    """One kind of work as a study does it, cut short where going on takes time but no more memory."""
    if work == "chat":
        ids = model.tokenizer(" ".join(concept.texts[:40]), add_special_tokens=False)["input_ids"]
        model.chat(model.tokenizer.decode(ids[: DIALOGUE - 24]), max_new_tokens=16)
        return
    ember = ed.Ember(delta=5.0, ratio=0.0, share=0.0, max_iter=2)
    edit = ember.fit(model, wide if work == "ember" else concept)
    if work == "relearning":
        ed.attacks.Relearning(epochs=1).run(model, _few(concept), edit)
        return
    with edit.applied(model):
        if work == "ember":
            evaluate(model, _few(concept), base)
        else:
            with suppress(Stopped):
                ed.RMU(steps=150).fit(model, concept, progress=_stop_after(2))


def _stop_after(steps):
    left = iter(range(steps))

    def progress(*_):
        if next(left, None) is None:
            raise Stopped()

    return progress


if __name__ == "__main__":
    from contextlib import suppress

    import torch

    import ember_demo as ed
    from ember_demo.bench import broad_concept
    from ember_demo.concept import Concept
    from ember_demo.errors import Stopped
    from ember_demo.evaluation import evaluate
    from ember_demo.memory import DIALOGUE, WORKS

    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1], sys.argv[2:])))
