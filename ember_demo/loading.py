"""Loading a model: the embedded one, one from the Hub, one from a folder; what it needs here, and why it cannot be had."""

import errno
import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.utils import cached_file

from ember_demo.errors import ModelError, out_of_memory
from ember_demo.language_model import LanguageModel
from ember_demo.memory import BYTES, CPU, FOUR_BIT, PRECISIONS, Plan, Shape, free_memory, is_odd, is_zerogpu_page, plan_precision, size
from ember_demo.pocket.world import ASSETS, slug
from ember_demo.progress import silent

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it advises a package that fetches code; 4 bit works without it

# Else transformers asks a public service to convert weights that are not safetensors.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

POCKET = "pocket"
CONTROLS = ASSETS / "pocket_controls"
MODELS = {
    POCKET: "the embedded model: no download, knows a small world of facts",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "the smallest that chats",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "small, knows a little of everything",
    "Qwen/Qwen2.5-0.5B-Instruct": "small, good at following instructions",
    "Qwen/Qwen2.5-1.5B-Instruct": "knows well-known concepts",
    "google/gemma-2-2b-it": "used in the paper; asks for a licence",
    "meta-llama/Llama-3.1-8B-Instruct": "used in the paper; asks for a licence",
}
# Their shapes, so that what they need can be said without asking the Hub.
SHAPES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Shape(134_515_008, 106_168_320, 49_152, 576, 30, 1_536, 192, True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": Shape(361_821_120, 314_572_800, 49_152, 960, 32, 2_560, 320, True),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(494_032_768, 357_826_560, 151_936, 896, 24, 4_864, 128, True),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(1_543_714_304, 1_310_195_712, 151_936, 1_536, 28, 8_960, 256, True),
    "google/gemma-2-2b-it": Shape(2_614_341_888, 2_024_275_968, 256_000, 2_304, 26, 9_216, 1_024, True),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(8_030_261_248, 6_979_321_856, 128_256, 4_096, 32, 14_336, 1_024, False),
}
DOWNLOADED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    HTTPError,
)
CUT = ("RemoteProtocolError", "ReadError", "ReadTimeout", "IncompleteRead")  # how HTTP libraries call a transfer that ends too early
DUPLICATES = ["consolidated*", "original/*", "onnx/*"]
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")  # how configurations call their number
MOST_LAYERS = 500  # more than any model has; what is made of a million would fill the memory before anything is refused
LARGEST_CONFIG = 1_000_000  # bytes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(id=POCKET, precision="auto", trust_remote_code=False, progress=silent):
    """Load a model: "pocket", a Hub id or a local folder; weights from safetensors only, no code of its own
    unless `trust_remote_code` says so.

    precision: "auto" (the most exact that fits), "4bit", "bf16", "fp16" or "fp32".
    Raises ModelError with what to do where it cannot be had.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    with _explained(id):
        config = _config(id, trust_remote_code)
        outline = _outline(config, trust_remote_code)
        plan = plan_precision(Shape.of(outline), precision)
        fits = plan.fits["chat"] if precision == "auto" else plan.needs["chat"]["weights"] <= plan.free
        if not fits:
            raise ModelError(plan.reason)
        precision = plan.precision
        source = _fetched(_source(id), trust_remote_code, progress)
        progress(0.9, "Reading the weights")
        devices = _devices(outline, plan)
        on_cpu = CPU in devices.values() if isinstance(devices, dict) else devices == "cpu"
        options = {"dtype": DTYPES[precision]} if precision in DTYPES else _four_bit(_kept_whole(outline, id) if on_cpu else None)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        network = AutoModelForCausalLM.from_pretrained(
            source,
            use_safetensors=True,
            device_map=devices,
            attn_implementation=_attention(config),
            trust_remote_code=trust_remote_code,
            **options,
        )
    if precision == "4bit":
        # A file stays mapped, whole, for as long as one weight is a part of it; the small ones first, so that most files go before the table is copied.
        for parameter in sorted(network.parameters(), key=torch.numel):
            if parameter.is_floating_point() and parameter.device.type == "cpu":
                parameter.data = parameter.data.clone()
    return LanguageModel(network, tokenizer, id, precision)


@dataclass(frozen=True)
class Offer:
    """What a model would need here, before it is loaded: its shape, the plan for it, and what would be downloaded (bytes, 0 where it is here)."""

    shape: Shape
    plan: Plan
    download: float

    @property
    def sentence(self):
        fetched = f" {size(self.download)} are downloaded first." if self.download else ""
        return f"{self.shape.parameters / 1e6:,.0f} million parameters. {self.plan.reason}{fetched}"


def describe(id, precision="auto"):
    """The Offer for a model; its configuration is read, from the Hub where it is not among MODELS, but no weights. ModelError as `load_model`."""
    shape = SHAPES.get(id)
    with _explained(id):
        shape = shape or Shape.of(_outline(_config(id, False), False))
        here = _is_here(_source(id))
    return Offer(shape, plan_precision(shape, precision), 0.0 if here else shape.parameters * 2.0)


def fetch(id, trust_remote_code=False, progress=silent):
    """Download what of a model is not on this machine yet; the folder it is in. ModelError as `load_model`."""
    with _explained(id):
        return _fetched(_source(id), trust_remote_code, progress)


def _source(id):
    return str(ASSETS / "pocket") if id == POCKET else id


def _config(id, with_code):
    """The configuration of a model; ModelError where its model is not to be built."""
    source = _source(id)
    file = Path(cached_file(source, "config.json"))
    if file.stat().st_size > LARGEST_CONFIG:
        raise ModelError(f"The config.json of {id} is larger than 1 MB, so it is not one of a model; get the file again.")
    counts = []
    json.loads(file.read_text(encoding="utf-8"), object_hook=lambda entries: counts.extend(map(entries.get, LAYERS)))
    if any(isinstance(count, int) and count > MOST_LAYERS for count in counts):
        raise ModelError(f"The config.json of {id} names more than {MOST_LAYERS} layers; choose another model.")
    config = AutoConfig.from_pretrained(source, trust_remote_code=with_code)
    if getattr(config, "quantization_config", None):
        raise ModelError(f"{id} is quantized already; give the model it was made from.")
    return config


def _is_here(source):
    """Whether all of a model's weights are on this machine."""
    if os.path.isdir(source):
        return True
    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        return False
    index = Path(config).with_name("model.safetensors.index.json")
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ["model.safetensors"]
    return all(index.with_name(file).is_file() for file in files)


def _fetched(source, with_code, progress):
    """The folder with the model's files: the one given, or the Hub's copy of them here, downloaded or completed as needed."""
    if os.path.isdir(source):
        return source

    class Reported(tqdm):
        def update(self, n=1):
            shown = super().update(n)
            if self.unit == "B" and self.total:
                done = min(1.0, self.n / self.total)
                progress(0.9 * done, f"Downloading {size(self.n)} of {size(self.total)}")
            return shown

    class Unseen(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"disable": True})

    wanted = {"allow_patterns": DOWNLOADED + ["*.py"] * with_code, "ignore_patterns": DUPLICATES}
    reached = True
    try:
        files = snapshot_download(source, **wanted, dry_run=True, tqdm_class=Unseen)
        _check_room(source, sum(file.file_size or 0 for file in files if file.will_download))
    except DryRunError:
        reached = False
        if not _is_here(source):
            raise ModelError(
                f"The download of {source} was cut before all of its weights were here, and the Hub cannot be reached; "
                "connect to the internet and load it again."
            ) from None
    return snapshot_download(source, **wanted, tqdm_class=Reported, local_files_only=not reached)


def _check_room(source, needed):
    """Raise ModelError where what is still to be downloaded does not fit on the disk."""
    folder = Path(HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if needed > free:
        raise ModelError(
            f"Downloading {source} needs {size(needed)} on the disk, and {size(free)} are free; "
            "make room, or set HF_HOME to a folder on another disk."
        )


def _outline(config, trust_remote_code):
    """The model of a configuration, without weights."""
    with torch.device("meta"):  # of this thread alone: other visitors' models must not land there
        if (
            type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        ):  # by its class, as from_config changes the default dtype of every thread for a while
            return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def _devices(outline, plan):
    """Where the weights go: all to the one device, or module by module over several GPUs, with what these do not hold in RAM."""
    if is_zerogpu_page() or not torch.cuda.is_available():
        return "cpu"
    if torch.cuda.device_count() == 1 and not plan.beside:
        return "cuda"
    free = {gpu: free_memory(gpu) for gpu in range(torch.cuda.device_count())}
    first = next(name for name, module in outline.named_modules() if module is outline.base_model.layers[0])
    for room in _rooms(plan, free):
        devices = spread(outline, room, plan.precision)
        if CPU not in devices.values() or (plan.beside and devices[first] != CPU):
            break
    return devices


def _rooms(plan, free):
    """What weights may take of the bytes that are free, by GPU, from what leaves most room for work to what leaves least.

    Relearning works where the weights are, RMU on the early layers, which the first GPU has.
    """
    *_, last = free
    if plan.fits["relearning"] and not plan.beside:
        trained = plan.needs["relearning"]
        share = trained["weights"] / sum(trained.values())
        yield {gpu: room if gpu == last else share * room for gpu, room in free.items()}
    for first, others in (("rmu", "ember"), ("ember", "ember"), ("chat", "chat")):
        yield {gpu: room - plan.needs[others if gpu else first]["work"] for gpu, room in free.items()}


def spread(outline, room, precision):
    """A device for every module, in the model's order: each GPU gets what it has room for (bytes), RAM the rest.

    accelerate would keep a layer's room free on the first GPU, for weights that it fetches there; here they stay, so that edits reach them.
    """
    layers = set(outline.base_model.layers)
    inside = {module for layer in layers for module in layer.modules()} - layers
    packed = {m for m in inside if isinstance(m, torch.nn.Linear)} if precision == "4bit" else set()
    value = BYTES.get(precision, 2)
    tied = outline.config.get_text_config().tie_word_embeddings
    gpus, left, devices, home = list(room), dict(room), {}, CPU
    for name, piece in outline.named_modules():
        if piece in inside or (piece not in layers and list(piece.children())):
            continue  # a part of another, or made of others
        if tied and piece is outline.get_output_embeddings():
            devices[name] = home
            continue
        size = sum(p.numel() * (FOUR_BIT if m in packed else value) for m in piece.modules() for p in m.parameters(recurse=False))
        while gpus and left[gpus[0]] < size:
            gpus.pop(0)
        devices[name] = gpus[0] if gpus else CPU
        if gpus:
            left[gpus[0]] -= size
        if piece is outline.get_input_embeddings():
            home = devices[name]
    return devices


def load_control(concept_name, precision="fp32"):
    """The shipped pocket model that never learned the concept, or None where there is none."""
    return load_model(str(CONTROLS / slug(concept_name)), precision) if has_control(concept_name) else None


def has_control(concept_name):
    """Whether a pocket model that never learned the concept ships."""
    return (CONTROLS / slug(concept_name)).is_dir()


def cpu_has_bfloat16():
    """Whether this machine's CPU multiplies in bfloat16; one that does not takes several times as long in it as in float32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _kept_whole(outline, id):
    """Names of the linear layers that stay as they are on a CPU: the output head and the odd ones. None where the head, which is kept anyway, is the only one."""
    head = outline.get_output_embeddings()
    linear = {name: m for name, m in outline.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    odd = [name for name, m in linear.items() if is_odd(m)]
    if len(odd) == len(linear):
        raise ModelError(
            f"On a CPU no layer of {id} can be held in 4 bit, since bitsandbytes takes inputs by 64 and outputs by 32 there; choose bf16 or fp32."
        )
    return [*odd, *(name for name, m in outline.named_modules() if m is head)] if odd else None


def _four_bit(kept_whole=None):
    """Held in bfloat16, where float16 overflows, as in Gemma-2; computed in it too where the machine does so itself."""
    quick = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bfloat16()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=kept_whole,
        bnb_4bit_compute_dtype=torch.bfloat16 if quick else torch.float32,
    )
    return {"quantization_config": quantization, "dtype": torch.bfloat16}


def _attention(config):
    # Gemma-2 caps its attention scores, which only the eager kernel does on a CPU.
    return "eager" if config.model_type == "gemma2" else None


@contextmanager
def _explained(id):
    """What goes wrong inside, as one sentence; a full memory is told by the caller."""
    if not id.strip():
        raise ModelError("No model was named; type pocket, a Hub id or a folder.")
    try:
        yield
    except UNREADABLE as error:
        if out_of_memory(error):
            raise
        raise ModelError(_explain(id, error)) from error


def _explain(id, error):
    """One sentence on why a model cannot be opened, with what to do next."""
    causes = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    text = " ".join(str(cause) for cause in causes)

    def caused_by(*kinds):
        return any(isinstance(cause, kinds) for cause in causes)

    if any(getattr(cause, "errno", None) == errno.ENOSPC for cause in causes):
        return f"The disk is full, so {id} could not be stored; make room, or set HF_HOME to a folder on another disk."
    if "custom code" in text or "trust_remote_code" in text:
        return f"{id} needs code of its own to run, which is not executed here; choose a model of a standard family, or allow it with --trust-remote-code."
    if caused_by(SafetensorError):
        return f"The weights of {id} are damaged or cut short; get the files again."
    if caused_by(ImportError) and "bitsandbytes" in text:
        return "4-bit needs bitsandbytes; install it, or choose --precision bf16."
    if "CUDA" in text:
        return f"The GPU failed while {id} was loaded ({text.splitlines()[0]}); check its driver, or hide it by CUDA_VISIBLE_DEVICES= to use the CPU."
    if os.path.isdir(id):
        return f"The folder {id} does not hold a causal language model with safetensors weights and a tokenizer; check its config.json."
    if caused_by(GatedRepoError):
        return f"{id} is gated: accept its licence on huggingface.co, then log in with `hf auth login` or set HF_TOKEN."
    if id.startswith((".", "/", "~")) or "\\" in id:
        return f"There is no folder {id}; check the path."
    if caused_by(RepositoryNotFoundError, HFValidationError):
        return f"There is no model called {id} that can be seen from here; check the spelling, or log in if it is private."
    if any(type(cause).__name__ in CUT for cause in causes):
        return f"The download of {id} was cut, and trying again did not help; load it again later: files that came whole are kept."
    if caused_by(LocalEntryNotFoundError, OfflineModeIsEnabled) or "connect" in text.lower():
        return f"{id} is not on this machine and the Hub cannot be reached; connect to the internet, or use the embedded model (pocket)."
    if "safetensors" in text:
        return f"{id} has no safetensors weights, and other kinds are not opened, since they can run code; choose another model."
    return (
        f"{id} could not be opened as a causal language model ({type(causes[0]).__name__}); choose a Llama, Gemma, Qwen or Mistral model."
    )
