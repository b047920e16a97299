"""What fits where: what each kind of work needs, and the precision a model is loaded in, as values that can be shown and tested."""

import gc
from dataclasses import dataclass
from importlib.util import find_spec

import psutil
import torch

from ember_demo.errors import ModelError

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
PRECISIONS = ("auto", "4bit", *BYTES)
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: nf4, with its scales quantized again (double quantization)
WORKS = ("chat", "ember", "rmu", "relearning")
WORDS = {
    "chat": "chatting",
    "ember": "EMBER and scoring",
    "rmu": "the baseline",
    "relearning": "the relearning attack",
}
ANSWERS = 64  # questions answered at once,
QUESTION, REPLY = 40, 16  # with so many tokens
SCORED = 2**26  # logits of a batch that is scored
TOKENS = 5000  # of the concept's and the neutral texts
TRAINED_TEXTS, TEXT = 16, 48  # of a step of RMU, and their tokens
CACHED_TEXTS = 600  # retain texts whose states RMU keeps
ADAPTER_RANK = 16


@dataclass(frozen=True)
class Shape:
    """The sizes that decide what a model needs: counts of weights, and widths."""

    parameters: int
    linear: int  # weights in linear layers of the blocks, which 4 bit shrinks
    vocabulary: int
    width: int
    layers: int
    mlp_width: int
    key_width: int
    tied: bool

    @classmethod
    def of(cls, network):
        """Of a transformers model, which may be on the meta device."""
        config = network.config.get_text_config()
        if not hasattr(config, "intermediate_size") or not hasattr(network.base_model, "layers"):
            raise ModelError(
                f"Models of type {config.model_type} are not supported; choose a Llama, Gemma, Qwen, Mistral, Phi-3, GPT-NeoX or OLMo model."
            )
        table = network.get_input_embeddings().weight
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head = network.get_output_embeddings().weight
        linear = sum(m.weight.numel() for m in network.base_model.modules() if isinstance(m, torch.nn.Linear))
        tied = head is table or config.tie_word_embeddings
        return cls(
            parameters=network.num_parameters()
            - (table.numel() if tied and head is not table else 0),  # on the meta device nothing is tied
            linear=linear,
            vocabulary=table.shape[0],
            width=table.shape[1],
            layers=config.num_hidden_layers,
            mlp_width=config.intermediate_size,
            key_width=heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
            tied=tied,
        )


@dataclass(frozen=True)
class Plan:
    """A precision, what each kind of work needs in it and what is free (bytes), and why it was chosen."""

    precision: str
    needs: dict
    free: float
    reason: str

    @property
    def fits(self):
        """By kind of work, whether there is room for it."""
        return {work: sum(parts.values()) <= self.free for work, parts in self.needs.items()}


def free_memory():
    """Bytes free on all GPUs, or in RAM where there is none."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        return sum(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))
    return psutil.virtual_memory().available


def weights_size(shape, precision):
    """Bytes of the weights; in 4 bit the linear layers of the blocks are packed and the rest is in half precision."""
    if precision == "4bit":
        return shape.linear * FOUR_BIT + (shape.parameters - shape.linear) * 2
    return shape.parameters * BYTES[precision]


def needs(shape, precision, work, cuda):
    """Bytes at the peak of a kind of work, as {"weights": ..., "work": ...}."""
    value = BYTES.get(precision, 2.0)
    table = shape.vocabulary * shape.width
    forward = (3 * shape.mlp_width + 6 * shape.width) * value  # of a token, inside one layer
    backward = (5 * shape.mlp_width + 16 * shape.width) * value  # of a token, kept by one layer for its gradient
    cache = 2 * shape.layers * shape.key_width * value  # of a token, its keys and values
    head = table * value if shape.tied else 0.0  # the output head's own copy once the embeddings are edited
    answering = ANSWERS * (QUESTION * forward + (QUESTION + REPLY) * cache + shape.vocabulary * 4)
    scoring = min(SCORED, ANSWERS * QUESTION * shape.vocabulary) * value
    scores = max(answering, scoring)
    packed = shape.linear if precision == "4bit" and not cuda else 0  # a CPU's 4-bit kernel has no gradient, so layers are unpacked for it
    if work == "chat":
        extra = 512 * (forward + cache)
    elif work == "ember":
        factorization = TOKENS * (4 * shape.width + 3 * 200) * 4
        extra = head + max(scores, factorization)
    elif work == "rmu":
        trained = 3 * shape.width * shape.mlp_width
        moments = trained * (value + (4 if value < 4 else 0) + 4 + 4 + 8)
        states = TRAINED_TEXTS * TEXT * 0.3 * shape.layers * backward + CACHED_TEXTS * TEXT * shape.width * value
        extra = head + max(scores, moments + states + packed * 2 * 3 / shape.layers)
    else:
        if precision == "4bit":
            adapters = ADAPTER_RANK * shape.layers * (8 * shape.width + 3 * shape.mlp_width)
            trained = adapters * 16 + table * (2 * value + 4 + 4 + 8)
        else:
            trained = shape.parameters * (2 * value + (8 if value < 4 else 0) + 8)
        states = 4 * TEXT * (shape.layers * backward + shape.vocabulary * 12)
        extra = head + packed * 2 + trained + max(states, scores)
    return {"weights": weights_size(shape, precision), "work": extra}


def plan_precision(shape, precision="auto", free=None, cuda=None):
    """The most exact precision in which EMBER and the baseline fit: half precision on a GPU, full on a CPU, else 4-bit.

    precision: the person's own choice is kept, and what fits in it is said.
    """
    free = free_memory() if free is None else free
    cuda = torch.cuda.is_available() if cuda is None else cuda
    choices = (precision,) if precision != "auto" else ("bf16",) if cuda else ("fp32", "bf16")
    if precision == "auto" and find_spec("bitsandbytes"):
        choices += ("4bit",)
    for chosen in choices:
        found = {work: needs(shape, chosen, work, cuda) for work in WORKS}
        if sum(found["rmu"].values()) <= free:
            break
    return Plan(chosen, found, free, _reason(chosen, found, free, cuda, precision))


def _reason(precision, found, free, cuda, asked):
    where = "on the GPU" if cuda else "in memory"
    total = {work: sum(parts.values()) for work, parts in found.items()}
    tight = [work for work in WORKS if total[work] > free]
    if precision == "4bit" and asked == "auto":
        start = f"Only {size(free)} are free {where}, so it is loaded in 4 bit"
    else:
        start = f"Loaded in {precision}"
    if tight and tight[0] == "chat":
        return f"It needs {size(total['chat'])} even in {precision}, and {size(free)} are free {where}: it does not fit. Choose a smaller model."
    lasts = (
        f"; {', '.join(WORDS[w] for w in tight)} would need {size(total[tight[0]])} and {'does' if len(tight) == 1 else 'do'} not fit"
        if tight
        else ""
    )
    fitting = [work for work in WORKS if work not in tight]
    return f"{start}: {WORDS[fitting[-1]]} needs {size(total[fitting[-1]])} of {size(free)} free {where}{lasts}."


def size(number):
    """Bytes as people read them."""
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
