"""A causal language model with its tokenizer: chat, answer in batches, score text, hold weights in full precision."""

import hashlib
import threading
from contextlib import contextmanager
from functools import cached_property

import torch
from transformers import StoppingCriteria, TextIteratorStreamer

from ember_demo.errors import ModelError
from ember_demo.memory import SCORED
from ember_demo.progress import silent

# Some models come with a penalty on repetition, under which what stands in the prompt is answered less.
GREEDY = {"do_sample": False, "repetition_penalty": 1.0}


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
        self.parameter_count = network.num_parameters()  # as loaded; an edit that unties the head, or adapters, add to it

    # What the model is made of

    @property
    def device(self):
        """Where text goes in."""
        return self.network.device

    @property
    def devices(self):
        """Names of all devices that hold weights of it."""
        return list(dict.fromkeys(str(parameter.device) for parameter in self.network.parameters()))

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
    def special_ids(self):
        """Ids of the special tokens that have a row in the embedding table; some tokenizers name more."""
        return [i for i in self.tokenizer.all_special_ids if i < len(self.embeddings)]

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
        return list(self._quantized)

    @property
    def _quantized(self):
        return {
            f"{name}.weight": m
            for name, m in self.network.named_modules()
            if isinstance(m, torch.nn.Linear) and not m.weight.is_floating_point()
        }

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
        modules = [self.network] if layers is None else [self.layers[i] for i in layers]
        inside = {id(m) for module in modules for m in module.modules()}
        return [name for name, m in self._quantized.items() if id(m) in inside and m.weight.device.type == "cpu"]

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
        """Whatever is done to these parameters (by default all, and buffers) inside the block, in full precision, is undone after it."""
        buffers = [(b, b.clone()) for b in self.network.buffers()] if names is None else []
        names = [name for name, _ in self.network.named_parameters()] if names is None else list(names)
        with self.dequantized(names):
            parameters = {name: self.parameter(name) for name in names}
            backup = {n: p.detach().clone() for n, p in parameters.items()}
            try:
                yield backup
            finally:
                for name, old in backup.items():
                    parameters[name].data = old
                with torch.no_grad():
                    for buffer, old in buffers:
                        buffer.copy_(old)
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

    def encode_texts(self, texts):
        """Token ids and attention mask of plain texts, padded on the right; a text that lacks the start token, where there is one, gets it."""
        start = self.tokenizer.bos_token or ""
        return self.encode([text if text.startswith(start) else start + text for text in texts], padding_side="right")

    def chat(self, text_or_messages, max_new_tokens=128):
        """The greedy answer to a question, or to a list of chat messages."""
        return "".join(self.stream(text_or_messages, max_new_tokens))

    def stream(self, text_or_messages, max_new_tokens=128):
        """Yield the greedy answer piece by piece; closing the generator stops the model."""
        inputs = self.encode([self.prompt(text_or_messages)])
        length, most = inputs["input_ids"].shape[1], getattr(self.network.config, "max_position_embeddings", None)
        if most and length > most:
            raise ModelError(
                f"That is {length:,} tokens long, and {self.id} reads {most:,}; shorten the question, or clear the conversation."
            )
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, failure = threading.Event(), []

        def generate():
            try:
                self.network.generate(
                    **inputs,
                    **GREEDY,
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
    def answer(self, questions, max_new_tokens=16, batch_size=64, progress=silent):
        """Greedy answers to single questions, in batches: list of (text, finished). progress: gets no message, and is called before each batch."""
        answers = []
        for start in range(0, len(questions), batch_size):
            progress(start / len(questions), "")
            inputs = self.encode([self.prompt(q) for q in questions[start : start + batch_size]])
            output = self.network.generate(**inputs, **GREEDY, max_new_tokens=max_new_tokens, eos_token_id=self.ends)
            output = output[:, inputs["input_ids"].shape[1] :]
            ended = torch.isin(output, torch.tensor(self.ends, device=output.device)).any(dim=1)
            texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
            answers += [(text.strip(), bool(done)) for text, done in zip(texts, ended)]
        return answers

    @torch.inference_mode()
    def log_likelihood(self, contexts, continuations, progress=silent):
        """Sum of log-probabilities and token count of each continuation after its context: two (n,) tensors.

        Contexts hold their special tokens already (`prompt`); a continuation follows without a gap of its own. progress: as for `answer`.
        """
        sums, counts = [], []
        batch_size = max(1, min(64, SCORED // (self.embeddings.shape[0] * 64)))
        for start in range(0, len(contexts), batch_size):
            progress(start / len(contexts), "")
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
