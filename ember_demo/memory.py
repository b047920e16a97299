"""What fits where: the precision a model is loaded in, as a value that can be shown and tested."""

from dataclasses import dataclass

import psutil
import torch

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
PRECISIONS = ("auto", "4bit", *BYTES)
HEADROOM = 1.2  # activations and the caches of generation, beside the weights


@dataclass(frozen=True)
class Plan:
    """A precision, what it needs and what is free (bytes), and why it was chosen."""

    precision: str
    needed: float
    free: float
    reason: str


def free_memory():
    """Bytes free on the GPU, or in RAM where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def weights_size(parameters, linear_parameters, precision):
    """Bytes of the weights; 4-bit stores linear layers at about 0.53 bytes a weight and the rest in half precision."""
    if precision == "4bit":
        return linear_parameters * 0.53 + (parameters - linear_parameters) * 2
    return parameters * BYTES[precision]


def plan_precision(parameters, linear_parameters, free=None, cuda=None):
    """The most exact precision that fits: half precision on a GPU, full on a CPU, else 4-bit.

    parameters: count of all weights; linear_parameters: those in linear layers of the blocks.
    """
    free = free_memory() if free is None else free
    cuda = torch.cuda.is_available() if cuda is None else cuda
    where = "on the GPU" if cuda else "in memory"
    for precision in ("bf16",) if cuda else ("fp32", "bf16"):
        needed = weights_size(parameters, linear_parameters, precision) * HEADROOM
        if needed <= free:
            return Plan(precision, needed, free, f"{precision} needs {needed / 1e9:.2g} GB and {free / 1e9:.3g} GB are free {where}.")
    needed = weights_size(parameters, linear_parameters, "4bit") * HEADROOM
    verdict = "so it is loaded in 4 bit" if needed <= free else "and even 4 bit does not fit"
    return Plan("4bit", needed, free, f"Only {free / 1e9:.3g} GB are free {where}, {verdict} ({needed / 1e9:.2g} GB).")
