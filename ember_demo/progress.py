"""The one progress protocol of long work.

Long work takes `progress`, a callable `progress(fraction, message, **data)`: `fraction` in [0, 1],
`message` in plain words, `data` whatever a live view can use (a point of a curve, say). The callee
knows nothing of terminals or pages; a callable that raises `Stopped` ends the work, and the
model is restored on the way out.
"""

import sys


def silent(fraction, message, **data):
    """Progress for callers who do not care."""


def terminal(stream=sys.stderr):
    """Progress as lines on `stream`, one for each new message."""
    last = None

    def show(fraction, message, **data):
        nonlocal last
        if message != last:
            print(f"[{fraction:4.0%}] {message}", file=stream, flush=True)
            last = message

    return show


def part(progress, start, end, prefix=""):
    """The share [start, end] of `progress`, as a progress of its own."""

    def show(fraction, message, **data):
        progress(start + (end - start) * fraction, prefix + message, **data)

    return show
