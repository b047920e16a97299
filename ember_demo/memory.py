"""What fits where: what each kind of work needs, and the precision a model is loaded in, as values that can be shown and tested."""

import ctypes
import gc
import math
import os
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from ember_demo.concept import FLUENCY_TEXTS
from ember_demo.errors import ModelError

# On a CPU, half precision keeps a kernel for every shape of batch that it met: 1024 of them by default, a quarter of a megabyte each.
for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(cache, "16")
# Blocks of 4 MB and more go back to the system when they are freed: glibc would keep up to 32 MB each, and a gigabyte lay idle between 4-bit weights.
if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ and hasattr(ctypes.CDLL(None), "mallopt"):
    M_MMAP_THRESHOLD = -3
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**22)

CPU = torch.device("cpu")
CGROUPS = Path("/sys/fs/cgroup")  # where Linux keeps a container's limits: of version 2, or in its folder memory of version 1
LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
SMALL = 50e6  # parameters: a smaller model is copied without a thought, and takes settings of its own
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
PRECISIONS = ("auto", "4bit", *BYTES)
FOUR_BIT = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: nf4, with its scales quantized again (double quantization)
WORKS = ("chat", "ember", "rmu", "relearning")
SLOWER = " What the GPU does not hold stays in memory, where it is slower."
WORDS = {
    "chat": "chatting",
    "ember": "EMBER and scoring",
    "rmu": "the baseline",
    "relearning": "the relearning attack",
}
# Counts of tokens are those of the longest texts of the shipped concepts, by the embedded model's tokenizer.
DIALOGUE = 256  # tokens of a chat, with its answer
ANSWERS = 64  # questions answered at once,
QUESTION, REPLY = 24, 16  # with so many tokens
SCORED = 2**26  # logits of a batch that is scored, at most
FLUENCY = 35  # tokens of a text that fluency is measured on
TOKENS = 5000  # that a concept's texts and the neutral ones hold, and EMBER factorizes
RANK = 100  # of that factorization
TRAINED_LAYERS = 3  # of RMU
TRAINED_TEXTS, TEXT = 16, 25  # of each of the two batches of its step, and their tokens
CACHED = 12_000  # tokens of retain texts, whose states RMU keeps
RELEARNED = 4  # texts of a step of relearning
ADAPTER_RANK = 16
# Bytes, as measured:
LOADED = 5e6  # Python objects of a model and its tokenizer
STUDIED = 6e6  # those of a concept's tokens, questions, features and answers
KERNEL = 0.25e6
PACKING = 7  # of a weight, while 4-bit weights are put in the order that a CPU's kernel reads, at their first use


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
    odd: int = 0  # weights in those linear layers that a CPU does not hold in 4 bit

    @property
    def table(self):
        """Weights of the embedding table."""
        return self.vocabulary * self.width

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
        linear = [m for m in network.base_model.modules() if isinstance(m, torch.nn.Linear)]
        tied = head is table or config.tie_word_embeddings
        return cls(
            parameters=network.num_parameters()
            - (table.numel() if tied and head is not table else 0),  # on the meta device nothing is tied
            linear=sum(m.in_features * m.out_features for m in linear),
            vocabulary=table.shape[0],
            width=table.shape[1],
            layers=config.num_hidden_layers,
            mlp_width=config.intermediate_size,
            key_width=heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
            tied=tied,
            odd=sum(m.in_features * m.out_features for m in linear if is_odd(m)),
        )


@dataclass(frozen=True)
class Plan:
    """A precision, what each kind of work needs in it and what is free (bytes), and why it was chosen.

    beside: whether a part of the model is to stay in RAM beside the GPUs, since it does not fit on them.
    """

    precision: str
    needs: dict
    free: float
    reason: str
    beside: bool = False

    @property
    def fits(self):
        """By kind of work, whether there is room for it."""
        return {work: sum(parts.values()) <= self.free for work, parts in self.needs.items()}


def is_odd(layer):
    """Whether bitsandbytes (0.50) gets a linear layer wrong in 4 bit on a CPU, where it takes inputs by 64 and outputs by 32."""
    return bool(layer.in_features % 64 or layer.out_features % 32)


def trim():
    """Give freed memory back to the system: else glibc keeps some for itself, more with every study."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def is_zerogpu_page():
    """Whether this process serves the page of a ZeroGPU Space: there torch says that it has a GPU, and only forked children, which do the work, have one."""
    return _forked() is False


def is_zerogpu_child():
    """Whether this process is such a child."""
    return _forked() is True


def _forked():
    """None where this is no ZeroGPU Space."""
    zero = sys.modules.get("spaces.zero.wrappers")
    return None if zero is None else bool(zero.forked)


def free_memory(device=None):
    """Bytes free on a device, by default on all GPUs, or where there is none in RAM, or what a container may have of it.

    On ZeroGPU, where a model is held in RAM between its turns on the GPU, the less of the two.
    """
    gc.collect()
    room = min(psutil.virtual_memory().available, container_room())
    if not torch.cuda.is_available() or (device == CPU and not is_zerogpu_page()):
        return room
    torch.cuda.empty_cache()
    gpus = range(torch.cuda.device_count()) if device in (None, CPU) else [device]
    on_gpus = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    return min(room, on_gpus) if is_zerogpu_page() else on_gpus


def container_room(folder=CGROUPS):
    """Bytes that a container's limit leaves, with those of cached files, which give way; infinite where there is no limit."""
    for limit, used in LIMITS:
        try:
            lines = (folder / limit).with_name("memory.stat").read_text().splitlines()
            cached = sum(int(line.split()[1]) for line in lines if line.startswith(("active_file ", "inactive_file ")))
            return int((folder / limit).read_text()) - int((folder / used).read_text()) + cached
        except (OSError, ValueError):  # there is none, or it is "max"
            pass
    return math.inf


def weights_size(shape, precision, cuda=True):
    """Bytes of the weights; in 4 bit the linear layers of the blocks are packed, on a CPU but for odd ones, and the rest is in half precision."""
    if precision == "4bit":
        packed = shape.linear - (0 if cuda else shape.odd)
        return packed * FOUR_BIT + (shape.parameters - packed) * 2
    return shape.parameters * BYTES[precision]


def needs(shape, precision, work, cuda):
    """Bytes at the peak of a kind of work, as {"weights": ..., "work": ...}, beyond what Python and its libraries take.

    RMU and relearning are on a model that EMBER has edited, as in a study.
    """
    value = BYTES.get(precision, 2.0)
    head = shape.table * value if shape.tied else 0.0  # the output head's own copy once the embeddings are edited
    copied = weights_size(shape, precision) if shape.parameters < SMALL and precision != "4bit" else 0.0  # while an edit is on
    edited = head + copied
    packing = PACKING * shape.width * shape.mlp_width if precision == "4bit" and not cuda else 0
    # For a prompt and for a token, those of the head and of the four sizes of a layer's matrices; in 4 bit, whose kernels are bitsandbytes' own, the head's.
    kernels = 2 * KERNEL * (1 if precision == "4bit" else 5) if value < 4 and not cuda else 0
    chat = packing + kernels + DIALOGUE * _of_token(shape, value)
    if work == "chat":
        extra = chat
    elif work == "ember":
        extra = STUDIED + max(chat, _factorization(shape), edited + max(_answering(shape, value), _likelihood(shape, value)))
    elif work == "rmu":
        extra = STUDIED + edited + _rmu(shape, precision, value, cuda)
    else:
        extra = STUDIED + edited + _relearning(shape, precision, value, cuda)
    return {"weights": weights_size(shape, precision, cuda), "work": LOADED + extra}


def _of_token(shape, value):
    """Of a token that is read: its states in one layer, and its keys and values in all of them."""
    return (3 * shape.mlp_width + 3 * shape.width + 2 * shape.layers * shape.key_width) * value


def _answering(shape, value):
    """A batch of questions: while they are read, or while their answers are written, with logits as the model gives them and in float32."""
    cache = 2 * shape.layers * shape.key_width * value
    writing = (QUESTION + REPLY) * cache + shape.vocabulary * (value + 4)
    return ANSWERS * max(QUESTION * _of_token(shape, value), writing)


def _likelihood(shape, value):
    """A batch of texts whose fluency is measured: their logits, and those of one text in float32 (a copy in half precision) with their logarithms."""
    texts = max(1, min(FLUENCY_TEXTS, SCORED // (64 * shape.vocabulary)))
    return FLUENCY * shape.vocabulary * (texts * value + (8 if value < 4 else 4))


def _factorization(shape):
    """The rows in float32, what is left of them in float64 and that squared; the activations, and the best ones so far."""
    return min(TOKENS, shape.vocabulary) * ((4 + 8 + 8) * shape.width + 2 * 4 * RANK)


def _rmu(shape, precision, value, cuda):
    matrix = shape.width * shape.mlp_width
    trained = TRAINED_LAYERS * matrix
    held = trained * (value + _optimizer(value)) + CACHED * shape.width * value  # with a copy to go back to, and states of retain texts
    if precision == "4bit":  # a CPU's 4-bit kernel has no gradient, so whole layers are unpacked for it
        held += (trained if cuda else TRAINED_LAYERS * shape.linear / shape.layers) * value
    kept = (
        4 * shape.mlp_width + 2 * shape.width + 2 * shape.key_width
    ) * value + 8 * shape.width  # of a token by a layer, for the gradient
    states = (
        2 * TRAINED_TEXTS * TEXT * ((TRAINED_LAYERS - 1) * kept + shape.mlp_width * value)
    )  # of the first layer, what the trained matrix reads
    step = trained * 4 + 2 * matrix * 4  # gradients in float32, and what AdamW makes of them a matrix at a time
    return held + max(states, step)


def _relearning(shape, precision, value, cuda):
    kept = (4 * shape.mlp_width + 8 * shape.width + 2 * shape.key_width) * value + (4 * shape.width if value < 4 else 0)
    states = RELEARNED * TEXT * shape.layers * kept
    if precision == "4bit":
        adapters = ADAPTER_RANK * shape.layers * (9 * shape.width + 2 * shape.key_width + 3 * shape.mlp_width)
        held = adapters * (4 + 8) + shape.table * (value + _optimizer(value)) + (0 if cuda else shape.linear * value)
        step = (adapters + shape.table) * 4
    else:
        trained = shape.parameters + (shape.table if shape.tied else 0)
        held = trained * (value + _optimizer(value))
        step = trained * 4
    step += shape.table * value if value < 4 else 0  # a gradient before it is in float32
    return held + max(step, states, _answering(shape, value))


def _optimizer(value):
    """Of a trained weight: AdamW's two moments, and a float32 master where it is not in float32 itself."""
    return 8 if value == 4 else 12


def plan_precision(shape, precision="auto", free=None, cuda=None, ram=0.0):
    """The most exact precision in which EMBER and the baseline fit: half precision on a GPU, full on a CPU, else 4-bit.

    precision: the person's own choice is kept, and what fits in it is said. free: bytes, of this machine by default; ram: those beside the GPUs, which
    are used where the model does not fit on these alone.
    """
    cuda = torch.cuda.is_available() if cuda is None else cuda
    if free is None:
        free, ram = free_memory(), free_memory(CPU) if cuda and not is_zerogpu_page() else 0.0
    alone = _plan(shape, precision, free, cuda)
    return alone if alone.fits["chat"] or not ram else _plan(shape, precision, free + ram, cuda, beside=True)


def _plan(shape, precision, free, cuda, beside=False):
    if precision != "auto":
        choices = (precision,)
    elif cuda:  # one without bfloat16 of its own would be slow in it, and float16 overflows in models such as Gemma-2
        choices = ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32",)
    else:
        choices = ("fp32", "bf16")
    if precision == "auto" and find_spec("bitsandbytes"):
        choices += ("4bit",)
    for chosen in choices:
        found = {work: needs(shape, chosen, work, cuda) for work in WORKS}
        if all(sum(found[work].values()) <= free for work in ("ember", "rmu")):
            break
    return Plan(chosen, found, free, _reason(chosen, found, free, cuda, beside, precision), beside)


def _reason(precision, found, free, cuda, beside, asked):
    where = "on the GPU and beside it" if beside else "on the GPU" if cuda else "in memory"
    total = {work: sum(parts.values()) for work, parts in found.items()}
    tight = [work for work in WORKS if total[work] > free]
    if precision == "4bit" and asked == "auto":
        start = f"Only {size(free)} are free {where}, so it is loaded in 4 bit"
    else:
        start = f"Loaded in {precision}"
    if tight and tight[0] == "chat":
        less = "" if precision == "4bit" else "a lower precision or "
        return (
            f"It needs {size(total['chat'])} even in {precision}, and {size(free)} are free {where}: it does not fit. "
            f"Choose {less}a smaller model."
        )
    lasts = (
        f"; {', '.join(WORDS[w] for w in tight)} would need {size(total[tight[0]])} and {'does' if len(tight) == 1 else 'do'} not fit"
        if tight
        else ""
    )
    fitting = [work for work in WORKS if work not in tight]
    return f"{start}: {WORDS[fitting[-1]]} needs {size(total[fitting[-1]])} of {size(free)} free {where}{lasts}.{SLOWER if beside else ''}"


def check_room(network, precision, work):
    """Raise ModelError where a kind of work with a loaded transformers model needs more than is free.

    Of a model on several devices each is to have room for its share: that of its weights, but for a 4-bit model's table, which is most of what is trained.
    """
    held, shape, home = Counter(), Shape.of(network), network.get_input_embeddings().weight.device
    for parameter in network.parameters():
        held[parameter.device] += parameter.nbytes
    for device, weights in held.items():
        share = 1 if precision == "4bit" and device == home else weights / held.total()
        needed = share * needs(shape, precision, work, device.type == "cuda" or is_zerogpu_page())["work"]
        free = free_memory(device)
        if needed > free:
            where = f" on {device}" if len(held) > 1 else ""
            less = "choose a smaller model" if precision == "4bit" else "load the model in 4 bit, or choose a smaller one"
            raise ModelError(
                f"For {WORDS[work]} {size(needed)} are needed beside the loaded model{where}, and {size(free)} are free; {less}."
            )


def size(number):
    """Bytes as people read them."""
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
