"""WeightEdit: the change to a model as a value."""

import hashlib
import json
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ember_demo.errors import EditError
from ember_demo.memory import SMALL


@dataclass(frozen=True)
class Change:
    """What is added to one parameter: `delta` (n, width) on the given rows, or, without rows, on all of it."""

    delta: torch.Tensor
    rows: torch.Tensor | None = None

    def dense(self, shape):
        if self.rows is None:
            return self.delta
        return torch.zeros(shape, dtype=self.delta.dtype).index_add(0, self.rows, self.delta)

    def __add__(self, other):
        if self.rows is None or other.rows is None:
            shape = (self if self.rows is None else other).delta.shape
            return Change(self.dense(shape) + other.dense(shape))
        rows = torch.cat([self.rows, other.rows]).unique()
        delta = torch.zeros(len(rows), self.delta.shape[1])
        for change in (self, other):
            delta.index_add_(0, torch.searchsorted(rows, change.rows), change.delta)
        return Change(delta, rows)


@dataclass(frozen=True)
class WeightEdit:
    """Changes to some parameters of one model, by parameter name; float32, on the CPU.

    fingerprint: of the base weights it belongs to (`LanguageModel.fingerprint`).
    details: what made it, JSON-able: settings, features, edited tokens.
    """

    changes: dict = field(repr=False)
    fingerprint: str
    details: dict = field(default_factory=dict, repr=False)

    @property
    def nbytes(self):
        """What it takes in memory."""
        return sum(change.delta.nbytes + (0 if change.rows is None else change.rows.nbytes) for change in self.changes.values())

    @classmethod
    def between(cls, model, before, details=None):
        """The edit that leads from the tensors `before` (name -> tensor) to the model's present ones."""
        changes = {}
        for name, old in before.items():
            delta = model.parameter(name).detach().float().cpu() - old.float().cpu()
            if delta.any():
                changes[name] = Change(delta)
        return cls(changes, model.fingerprint, details or {})

    def apply(self, model):
        """Add the changes to the model in place; `revert` puts the very tensors back."""
        if self.fingerprint != model.fingerprint:
            raise EditError(
                f"This edit was made for other weights than those of {model.id} in {model.precision}; "
                "load the model it was made for, in the same precision, or erase the concept again."
            )
        if any(edit is self for edit, _ in model.applied_edits):
            raise EditError("This edit is on the model already; revert it first.")
        model.dequantize(self.changes)
        backup = {}
        try:
            if model.embedding_name in self.changes:
                model.untie()
            for name, change in self.changes.items():
                parameter = model.parameter(name)
                rows = slice(None) if change.rows is None else change.rows.to(parameter.device)
                with torch.no_grad():
                    backup[name] = parameter[rows].clone()
                    new = parameter[rows].float() + change.delta.to(parameter.device)
                    parameter[rows] = new.to(parameter.dtype)
        except BaseException:
            model.applied_edits.append((self, backup))
            self.revert(model)
            raise
        model.applied_edits.append((self, backup))
        return self

    def revert(self, model):
        """Undo `apply`, bit for bit. Edits come off in the reverse order in which they went on."""
        if not any(edit is self for edit, _ in model.applied_edits):
            raise EditError("This edit is not on the model; revert the very edit that was applied.")
        if model.applied_edits[-1][0] is not self:
            raise EditError("This edit is not the one applied last; revert the later one first.")
        _, backup = model.applied_edits.pop()
        with torch.no_grad():
            for name, old in backup.items():
                rows = self.changes[name].rows
                model.parameter(name)[slice(None) if rows is None else rows.to(old.device)] = old
        model.requantize(self.changes)
        if not any(model.embedding_name in edit.changes for edit, _ in model.applied_edits):
            model.tie()
        return self

    @contextmanager
    def applied(self, model):
        """The model with this edit inside the block; every tensor is restored after it, whatever happens.

        In a quantized model, or one of 50 million parameters and more, whose copy would be large, those tensors that edits change.
        """
        depth, whole = len(model.applied_edits), model.parameter_count < SMALL and model.precision != "4bit"
        with model.preserved() if whole else nullcontext():
            try:
                yield self.apply(model)
            finally:
                while len(model.applied_edits) > depth:
                    model.applied_edits[-1][0].revert(model)

    @property
    def sha256(self):
        """Of its changes, for a report."""
        digest = hashlib.sha256()
        for name, change in sorted(self.changes.items()):
            for part in (change.delta, change.rows):
                if part is not None:
                    digest.update(f"{name}{tuple(part.shape)}".encode() + part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __add__(self, other):
        if self.fingerprint != other.fingerprint:
            raise EditError("These two edits belong to different base weights and cannot be added.")
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = changes[name] + change if name in changes else change
        settings = self.details.get("settings", {}) | other.details.get("settings", {})
        details = self.details | other.details | ({"settings": settings} if settings else {})
        return WeightEdit(changes, self.fingerprint, details)

    def save(self, path):
        """Write the edit as safetensors, with the base model's fingerprint in its header."""
        tensors = {}
        for name, change in self.changes.items():
            tensors[f"{name}:delta"] = change.delta.clone(memory_format=torch.contiguous_format)  # two places may share one
            if change.rows is not None:
                tensors[f"{name}:rows"] = change.rows.clone(memory_format=torch.contiguous_format)
        save_file(tensors, str(path), {"fingerprint": self.fingerprint, "details": json.dumps(self.details)})

    @classmethod
    def load(cls, path):
        """Read a saved edit; EditError where the file is not one."""
        if not Path(path).is_file():
            raise EditError(f"There is no edit file {path}; check the path.")
        try:
            with safe_open(str(path), "pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            names = [key.removesuffix(":delta") for key in tensors if key.endswith(":delta")]
            changes = {name: Change(tensors[f"{name}:delta"], tensors.get(f"{name}:rows")) for name in names}
            return cls(changes, header["fingerprint"], json.loads(header["details"]))
        except (SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise EditError(f"{path} is not an edit saved by this program, or it is damaged; save the edit again.") from error
