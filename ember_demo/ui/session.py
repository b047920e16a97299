"""What one visitor has: model, concept, edits, scores, attacks. Models are shared, edits never."""

import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from ember_demo.erasers import RMU
from ember_demo.language_model import load_model
from ember_demo.progress import silent
from ember_demo.report import write_report
from ember_demo.study import make_report


@dataclass
class Session:
    """`edits`, `scores` by variant; `results` by attack and variant; `histories` of chat messages by variant; `baseline`: the eraser beside EMBER,
    as a search may have set it; `searches`: its trials, by eraser."""

    model_id: str
    precision: str
    concept: object = None
    seed: int = 0
    edits: dict = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    results: dict = field(default_factory=dict)
    histories: dict = field(default_factory=dict)
    baseline: object = field(default_factory=RMU)
    searches: dict = field(default_factory=dict)

    @property
    def model(self):
        return shared_model(self.model_id, self.precision)

    def report(self):
        report = make_report(self.model, self.concept, self.edits, self.scores, self.results, self.seed)
        return report | {"searches": self.searches}

    def export(self):
        """Paths of report.json, report.html and the edits, written to a fresh folder."""
        folder = Path(tempfile.mkdtemp(prefix="ember-"))
        write_report(self.report(), folder)
        for name, edit in self.edits.items():
            if edit:
                edit.save(folder / f"{name}.safetensors")
        return [str(path) for path in sorted(folder.iterdir())]


_loaded = OrderedDict()
KEPT = 2


def shared_model(model_id, precision, progress=silent):
    """One copy of a model for all visitors, the two used last; another is loaded again when it is asked for. Call it while holding the model lock."""
    key = (model_id, precision)
    if key not in _loaded:
        while len(_loaded) >= KEPT:
            _loaded.popitem(last=False)
        _loaded[key] = load_model(model_id, precision, progress=progress)
    _loaded.move_to_end(key)
    return _loaded[key]
