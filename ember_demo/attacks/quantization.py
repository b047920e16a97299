"""Quantization: load the erased model in fewer bits, in which small changes of weights round away (arXiv 2410.16454)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ember_demo.attacks.base import WEIGHTS, Attack, best_of
from ember_demo.errors import ModelError
from ember_demo.evaluation import ask


@dataclass(frozen=True)
class Quantization(Attack):
    """Every linear weight of the blocks to 8 and to 4 bits and back; the better of the two on the validation questions counts."""

    name: ClassVar[str] = "quantization"
    title: ClassVar[str] = "Store its weights more coarsely"
    threat_model: ClassVar[str] = WEIGHTS
    description: ClassVar[str] = "Rounds the erased model's weights to 8 and to 4 bits: what was erased by small changes may round back."

    def attack(self, model, concept, seed, progress, curve):
        if model.precision == "4bit":
            raise ModelError("The model is in 4 bit already, so rounding changes nothing; load it in a higher precision for this attack.")
        head = model.network.get_output_embeddings()
        modules = model.network.named_modules()
        names = [f"{name}.weight" for name, m in modules if isinstance(m, torch.nn.Linear) and m is not head]

        def asked(rounded, questions):
            with model.preserved(names), torch.no_grad():
                for name in names:
                    parameter = model.parameter(name)
                    parameter.copy_(rounded(parameter))
                return ask(model, questions)

        ways = {"8 bits": partial(asked, eight_bit), "4 bits": partial(asked, four_bit)}
        return self.result(curve, **best_of(model, concept, ways, curve, progress))


def four_bit(weight):
    """A matrix to nf4 with double quantization and back, as bitsandbytes loads a model in 4 bit."""
    from bitsandbytes import functional  # only here, as it is not on every system

    packed, state = functional.quantize_4bit(weight.detach().contiguous(), quant_type="nf4", compress_statistics=True)
    return functional.dequantize_4bit(packed, state).to(weight.dtype)


def eight_bit(weight):
    """A matrix (n, m) to 8 bits and back, row by row, the largest value of a row to 127, as LLM.int8 stores its weights."""
    scale = weight.detach().float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (torch.round(weight.detach().float() / scale) * scale).to(weight.dtype)
