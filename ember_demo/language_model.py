"""A causal language model with its tokenizer: load, chat, answer in batches, score text."""

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
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
    StoppingCriteria,
    TextIteratorStreamer,
)
from transformers.utils import cached_file

from ember_demo.errors import ModelError, out_of_memory
from ember_demo.memory import PRECISIONS, SCORED, Plan, Shape, plan_precision, size
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
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
)
CUT = ("RemoteProtocolError", "ReadError", "ReadTimeout", "IncompleteRead")  # how HTTP libraries call a transfer that ends too early
DUPLICATES = ["consolidated*", "original/*", "onnx/*"]
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")  # how configurations call their number
MOST_LAYERS = 500  # more than any model has; what is made of a million would fill the memory before anything is refused
LARGEST_CONFIG = 1_000_000  # bytes
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LanguageModel:
    """`network` is the transformers model, `tokenizer` its tokenizer; edits go on and come off in place."""

    def __init__(self, network, tokenizer, id, precision):
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.id = id
        self.precision = precision
        self.applied_edits = []
        self._in_full = {}  # name -> [the 4-bit module, how many hold it in full precision]
        head = network.get_output_embeddings()
        head.register_forward_pre_hook(_in_a_row)
        self.tied = head.weight is network.get_input_embeddings().weight
        self.fingerprint = self._fingerprint()

    # What the model is made of

    @property
    def device(self):
        return self.network.device

    @property
    def parameter_count(self):
        return self.network.num_parameters()

    @cached_property
    def embedding_name(self):
        """Name of the input-embedding parameter."""
        table = self.network.get_input_embeddings().weight
        return next(name for name, p in self.network.named_parameters() if p is table)

    @property
    def head_name(self):
        """Name of the output head's weight, tied or not."""
        head = self.network.get_output_embeddings()
        return next(f"{name}.weight" for name, module in self.network.named_modules() if module is head)

    @property
    def embeddings(self):
        """The input-embedding table E (V, d)."""
        return self.network.get_input_embeddings().weight

    @property
    def embedding_scale(self):
        """What the model multiplies an embedding row by in its forward pass: sqrt(d) for Gemma, else 1."""
        return float(getattr(self.network.get_input_embeddings(), "embed_scale", 1.0))

    @property
    def layers(self):
        """The decoder layers, in order."""
        try:
            return self.network.base_model.layers
        except AttributeError:
            raise ModelError(
                f"{self.id} does not hold its layers like Llama, Gemma, Qwen or Mistral do; choose a model of such a family."
            ) from None

    @cached_property
    def mlp_outputs(self):
        """By layer, the name of the weight with which its MLP writes to the residual stream (d, MLP width)."""
        names = {id(layer): name for name, layer in self.network.named_modules()}
        found = []
        for layer in self.layers:
            linear = [n for n, m in layer.mlp.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == self.width]
            if not linear:
                raise ModelError(
                    f"The MLPs of {self.id} have no output layer that can be edited; choose a dense model (no mixture of experts)."
                )
            found.append(f"{names[id(layer)]}.mlp.{linear[-1]}.weight")
        return found

    def mlp_inputs(self, layer):
        """Name of the weight whose rows make the neurons of a layer's MLP (or, beside a gate, what is gated), and the row of neuron 0.

        Where one matrix holds gate and input together, as in Phi-3, the input is its second half.
        """
        output = self.mlp_outputs[layer]
        inside = self.network.get_submodule(output.removesuffix(".weight").rpartition(".")[0])
        into = [
            (name, m) for name, m in inside.named_modules() if isinstance(m, torch.nn.Linear) and not output.endswith(f".{name}.weight")
        ]
        name, module = into[-1]
        neurons = self.network.get_submodule(output.removesuffix(".weight")).in_features
        return f"{output.removesuffix('.weight').rpartition('.')[0]}.{name}.weight", module.out_features - neurons

    @property
    def width(self):
        """Hidden size d."""
        return self.embeddings.shape[1]

    def parameter(self, name):
        """The parameter of that name; ModelError where the model has none, or holds it quantized (see `dequantized`)."""
        parameter = self._find(name)
        if not parameter.is_floating_point():
            raise ModelError(
                f"{name} is quantized to 4 bit; edit it inside `model.dequantized([...])`, or load the model with --precision bf16."
            )
        return parameter

    def _find(self, name):
        try:
            return self.network.get_parameter(name)
        except AttributeError:
            raise ModelError(f"{self.id} has no weight called {name}.") from None

    @property
    def quantized(self):
        """Names of the weights that are held in 4 bit now."""
        return [
            f"{name}.weight"
            for name, m in self.network.named_modules()
            if isinstance(m, torch.nn.Linear) and not m.weight.is_floating_point()
        ]

    def dequantize(self, names):
        """Hold these weights in full precision until `requantize` is called as often; what is not quantized stays as it is."""
        packed = [name for name in names if not self._find(name).is_floating_point()]
        modules = {name: self.network.get_submodule(name.removesuffix(".weight")) for name in packed}
        plain = {name: _plain(module, self.embeddings.dtype) for name, module in modules.items()}  # all of them before the first is put in
        for name in names:
            if name in self._in_full:
                self._in_full[name][1] += 1
            elif name in plain:
                self._in_full[name] = [modules[name], 1]
                self.network.set_submodule(name.removesuffix(".weight"), plain[name])

    def requantize(self, names):
        """Undo one `dequantize`; the very 4-bit weights are back after the last."""
        for name in names:
            if name in self._in_full:
                self._in_full[name][1] -= 1
                if not self._in_full[name][1]:
                    module, _ = self._in_full.pop(name)
                    self.network.set_submodule(name.removesuffix(".weight"), module)

    def without_gradient(self, layers=None):
        """Names of the 4-bit weights, of these layers or of all, that let no gradient through: on a CPU, whose 4-bit kernel has none, all of them."""
        if self.device.type != "cpu":
            return []
        names = {id(m.weight): n for n, m in self.network.named_modules() if hasattr(m, "weight")}
        modules = [self.network] if layers is None else [self.layers[i] for i in layers]
        inside = {names[id(m.weight)] for module in modules for m in module.modules() if isinstance(m, torch.nn.Linear)}
        return [name for name in self.quantized if name.removesuffix(".weight") in inside]

    @contextmanager
    def dequantized(self, names):
        """These weights in full precision inside the block, as the 4-bit ones act; the very 4-bit ones are back after it."""
        self.dequantize(names)
        try:
            yield
        finally:
            self.requantize(names)

    def untie(self):
        """Give the output head a copy of its own, so that an edit of the embeddings leaves it alone."""
        head = self.network.get_output_embeddings()
        if head.weight is self.embeddings:
            head.weight = torch.nn.Parameter(self.embeddings.detach().clone(), requires_grad=False)
            self.network.config.tie_word_embeddings = False

    def tie(self):
        """Undo `untie` on a model whose head shares the embeddings."""
        if self.tied:
            self.network.get_output_embeddings().weight = self.embeddings
            self.network.config.tie_word_embeddings = True

    @contextmanager
    def preserved(self, names=None):
        """Whatever is done to these parameters (all by default) inside the block, in full precision, is undone after it."""
        names = [name for name, _ in self.network.named_parameters()] if names is None else list(names)
        with self.dequantized(names):
            parameters = {name: self.parameter(name) for name in names}
            backup = {n: p.detach().clone() for n, p in parameters.items()}
            try:
                yield backup
            finally:
                for name, old in backup.items():
                    parameters[name].data = old
                self.network.zero_grad(set_to_none=True)
                self.network.requires_grad_(False).eval()

    @contextmanager
    def holding(self, tensors):
        """The model with these tensors, by parameter name, in the place of its own inside the block."""
        with self.preserved(tensors):
            with torch.no_grad():
                for name, tensor in tensors.items():
                    self.parameter(name).copy_(tensor)
            yield self

    @contextmanager
    def unedited(self):
        """The base weights inside the block; the applied edits go on again after it."""
        edits = [edit for edit, _ in self.applied_edits]
        for edit in reversed(edits):
            edit.revert(self)
        try:
            yield self
        finally:
            for edit in edits:
                edit.apply(self)

    def _fingerprint(self, samples=1024):
        """SHA-256 over names, shapes and evenly spaced values of every weight, and one value of every row of the embeddings and the head."""
        digest = hashlib.sha256()
        for name, tensor in self.network.named_parameters():
            flat = tensor.detach().flatten()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            values = [flat[:: max(1, flat.numel() // samples)]]
            if name in (self.embedding_name, self.head_name):
                values.append(flat[:: tensor.shape[1] + 1])  # the next row, the next column
            for found in values:
                digest.update(found.double().cpu().numpy().tobytes())
        return digest.hexdigest()

    # Text in, text out

    def prompt(self, text_or_messages):
        """The chat template around a question or a list of messages, ready for the answer."""
        messages = text_or_messages
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not messages or not messages[-1]["content"].strip():
            raise ModelError("The question is empty; type one.")
        if self.tokenizer.chat_template:
            return self._in_template(messages, add_generation_prompt=True)
        turns = [("Answer: " if m["role"] == "assistant" else "Question: ") + m["content"] for m in messages]
        return (self.tokenizer.bos_token or "") + "\n".join([*turns, "Answer:"])

    def dialogue(self, question, answer):
        """(context, continuation): the prompt of a question, and the answer as the chat template goes on with it, end included."""
        context = self.prompt(question)
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            whole = self._in_template(messages)
            if whole.startswith(context):
                return context, whole[len(context) :]
        return context, f" {answer}{self.tokenizer.eos_token}"

    def _in_template(self, messages, **options):
        """Messages in the chat template; a model that thinks before it answers, where its template can say so, is told not to."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False, **options)

    @cached_property
    def ends(self):
        """Ids of the tokens that end an answer: those that the model names, and the special one that its chat template puts after an answer."""
        named = self.network.generation_config.eos_token_id or self.tokenizer.eos_token_id
        found = set(named if isinstance(named, list) else [named]) - {None}
        after = self.dialogue("Who?", "Nobody")[1].partition("Nobody")[2]
        first = self.tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        added = self.tokenizer.added_tokens_decoder
        return sorted(found | {i for i in first if i in added and added[i].special})

    def encode(self, prompts, padding_side="left"):
        """Token ids and attention mask of prompts that already hold their special tokens."""
        batch = self.tokenizer(prompts, add_special_tokens=False, padding=True, padding_side=padding_side, return_tensors="pt")
        return {key: batch[key].to(self.device) for key in ("input_ids", "attention_mask")}

    def chat(self, text_or_messages, max_new_tokens=128):
        """The greedy answer to a question, or to a list of chat messages."""
        return "".join(self.stream(text_or_messages, max_new_tokens))

    def stream(self, text_or_messages, max_new_tokens=128):
        """Yield the greedy answer piece by piece; closing the generator stops the model."""
        inputs = self.encode([self.prompt(text_or_messages)])
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, failure = threading.Event(), []

        def generate():
            try:
                self.network.generate(
                    **inputs,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=self.ends,
                    streamer=streamer,
                    stopping_criteria=[_StopOn(stop)],
                )
            except Exception as error:  # handed to the reader below
                failure.append(error)
                streamer.end()

        worker = threading.Thread(target=generate, daemon=True)
        worker.start()
        first = True
        try:
            for piece in streamer:
                piece = piece.lstrip() if first else piece
                if piece:
                    first = False
                    yield piece
        finally:
            stop.set()
            worker.join()
        if failure:
            raise failure[0]

    @torch.inference_mode()
    def answer(self, questions, max_new_tokens=16, batch_size=64):
        """Greedy answers to single questions, in batches: list of (text, finished)."""
        answers = []
        for start in range(0, len(questions), batch_size):
            inputs = self.encode([self.prompt(q) for q in questions[start : start + batch_size]])
            output = self.network.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=self.ends)
            output = output[:, inputs["input_ids"].shape[1] :]
            ended = torch.isin(output, torch.tensor(self.ends, device=output.device)).any(dim=1)
            texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
            answers += [(text.strip(), bool(done)) for text, done in zip(texts, ended)]
        return answers

    @torch.inference_mode()
    def log_likelihood(self, contexts, continuations):
        """Sum of log-probabilities and token count of each continuation after its context: two (n,) tensors.

        Contexts hold their special tokens already (`prompt`); a continuation follows without a gap of its own.
        """
        sums, counts = [], []
        batch_size = max(1, min(64, SCORED // (self.embeddings.shape[0] * 64)))
        for start in range(0, len(contexts), batch_size):
            pairs = list(zip(contexts[start : start + batch_size], continuations[start : start + batch_size]))
            inputs = self.encode([c + t for c, t in pairs])
            ids = inputs["input_ids"]
            total = inputs["attention_mask"].sum(dim=1).cpu()
            before = torch.tensor([len(self.tokenizer(c, add_special_tokens=False)["input_ids"]) for c, _ in pairs])
            count = total - before.clamp(min=1)  # the last tokens, as padding is on the left; one without a predecessor has no likelihood
            kept = int(count.max())
            logits = self.network(**inputs, logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]
            # A text at a time: what a softmax over the vocabulary takes is more than the logits themselves.
            loss = [torch.nn.functional.cross_entropy(row.float(), right, reduction="none") for row, right in zip(logits, ids[:, -kept:])]
            del logits  # before the next batch makes its own
            scores = -torch.stack(loss).cpu()
            scored = torch.arange(kept)[None, :] >= kept - count[:, None]
            sums.append((scores * scored).sum(dim=1))
            counts.append(count)
        return torch.cat(sums), torch.cat(counts)


def _plain(module, dtype, rows=512):
    """A plain linear layer in `dtype` with the weights that a 4-bit one acts with, read by passing it the identity.

    Not by bitsandbytes' own dequantization: on a CPU its packing of the weights cannot be undone exactly.
    """
    device = module.weight.device
    plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, dtype=dtype, device=device)
    bias, module.bias = module.bias, None
    try:
        with torch.no_grad():
            for start in range(0, module.in_features, rows):
                columns = torch.arange(start, min(start + rows, module.in_features), device=device)
                unit = torch.nn.functional.one_hot(columns, module.in_features).to(dtype)
                plain.weight[:, columns] = module(unit).T
    finally:
        module.bias = bias
    plain.bias = None if bias is None else torch.nn.Parameter(bias.to(dtype))  # 4-bit layers hold theirs as they compute
    return plain.requires_grad_(False).eval()


def _in_a_row(module, args):
    """The states of the last tokens in memory of their own: given a slice of all, bfloat16 on a CPU copies the head for every text of a batch."""
    return (args[0].clone(memory_format=torch.contiguous_format),)


class _StopOn(StoppingCriteria):
    def __init__(self, event):
        self.event = event

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def load_model(id=POCKET, precision="auto", trust_remote_code=False, progress=silent):
    """Load a model: "pocket", a Hub id or a local folder; weights from safetensors only, no code of its own
    unless `trust_remote_code` says so.

    precision: "auto" (the most exact that fits), "4bit", "bf16", "fp16" or "fp32".
    Raises ModelError with what to do where it cannot be had.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"There is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}.")
    if not id.strip():
        raise ModelError("No model was named; type pocket, a Hub id or a folder.")
    with _explained(id):
        config = _config(id, trust_remote_code)
        plan = plan_precision(_shape(config, trust_remote_code), precision)
        fits = plan.fits["chat"] if precision == "auto" else plan.needs["chat"]["weights"] <= plan.free
        if not fits:
            raise ModelError(plan.reason)
        precision = plan.precision
        source = _fetched(_source(id), trust_remote_code, progress)
        progress(0.9, "Reading the weights")
        options = {"dtype": DTYPES[precision]} if precision in DTYPES else _four_bit()
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        network = AutoModelForCausalLM.from_pretrained(
            source,
            use_safetensors=True,
            device_map=_devices(),
            attn_implementation=_attention(config),
            trust_remote_code=trust_remote_code,
            **options,
        )
    if _devices() == "auto" and {"cpu", "disk"} & {str(device) for device in getattr(network, "hf_device_map", {}).values()}:
        raise ModelError(f"{id} does not fit on the GPUs in {precision}; load it in 4 bit, or choose a smaller model.")
    if precision == "4bit":
        # A file stays mapped, whole, for as long as one weight is a part of it; the small ones first, so that most files go before the table is copied.
        for parameter in sorted(network.parameters(), key=torch.numel):
            if parameter.is_floating_point():
                parameter.data = parameter.data.clone()
    return LanguageModel(network, tokenizer, id, precision)


@dataclass(frozen=True)
class Offer:
    """What a model would need here, before it is loaded: its shape, the plan for it, and what would be downloaded (bytes, 0 where it is here)."""

    id: str
    shape: Shape
    plan: Plan
    download: float

    @property
    def sentence(self):
        fetched = f" {size(self.download)} are downloaded first." if self.download else ""
        return f"{self.shape.parameters / 1e6:,.0f} million parameters. {self.plan.reason}{fetched}"


def describe(id, precision="auto"):
    """The Offer for a model; its configuration is read, from the Hub where it is not among MODELS, but no weights. ModelError as `load_model`."""
    if not id.strip():
        raise ModelError("No model was named; type pocket, a Hub id or a folder.")
    shape = SHAPES.get(id)
    with _explained(id):
        shape = shape or _shape(_config(id, False), False)
        here = _is_here(_source(id))
    return Offer(id, shape, plan_precision(shape, precision), 0.0 if here else shape.parameters * 2.0)


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
    if Path(source).is_dir():
        return True
    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        return False
    index = Path(config).with_name("model.safetensors.index.json")
    files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ["model.safetensors"]
    return all(index.with_name(file).is_file() for file in files)


def _fetched(source, with_code, progress):
    """The folder with the model's files: the one given, or the Hub's copy of them here, downloaded or completed as needed."""
    if Path(source).is_dir():
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


def _shape(config, trust_remote_code):
    with torch.device("meta"):  # of this thread alone: other visitors' models must not land there
        if (
            type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
        ):  # by its class, as from_config changes the default dtype of every thread for a while
            return Shape.of(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config))
        return Shape.of(AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code))


def _devices():
    """Where the weights go: spread over several GPUs by accelerate, else all on the one device."""
    return "auto" if torch.cuda.device_count() > 1 else "cuda" if torch.cuda.is_available() else "cpu"


def load_control(concept_name, precision="fp32"):
    """The shipped pocket model that never learned the concept, or None where there is none."""
    return load_model(str(CONTROLS / slug(concept_name)), precision) if has_control(concept_name) else None


def has_control(concept_name):
    """Whether a pocket model that never learned the concept ships."""
    return (CONTROLS / slug(concept_name)).is_dir()


def cpu_has_bfloat16():
    """Whether this machine's CPU multiplies in bfloat16; one that does not takes several times as long in it as in float32."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _four_bit():
    """Held in bfloat16, where float16 overflows, as in Gemma-2; computed in it too where the machine does so itself."""
    quick = torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bfloat16()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if quick else torch.float32,
    )
    return {"quantization_config": quantization, "dtype": torch.bfloat16}


def _attention(config):
    # Gemma-2 caps its attention scores, which only the eager kernel does on a CPU.
    return "eager" if config.model_type == "gemma2" else None


@contextmanager
def _explained(id):
    """What goes wrong inside, as one sentence; a full memory is told by the caller."""
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
    if Path(id).is_dir():
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
