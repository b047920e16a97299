"""How long each step takes on this machine: on the embedded model, or on a real model's exact shape with random weights."""

import json
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, LlamaConfig

from ember_demo.attacks import Relearning
from ember_demo.concept import Concept
from ember_demo.erasers import RMU, Ember
from ember_demo.errors import EmberDemoError
from ember_demo.evaluation import evaluate
from ember_demo.features import divide_tokens
from ember_demo.loading import describe, load_model
from ember_demo.pocket.world import ASSETS, load_world
from ember_demo.sources import load_concept

# The exact shapes of the paper's two models.
CONFIGS = {
    "gemma-2-2b": lambda: Gemma2Config(),
    "llama-3.1-8b": lambda: LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
}


class _Watch:
    """Times steps, with the most memory that each held: on the GPU, or of the process, files that it maps included."""

    def __init__(self):
        self.rows = {}
        self.start = _held()

    def __call__(self, name, work, plan=None):
        """The result of `work()`; plan: bytes that it should need beyond what was held at the start."""
        done, peak = threading.Event(), [0]

        def watch():
            while True:
                peak[0] = max(peak[0], _held())
                if done.wait(0.01):
                    return

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        start = time.perf_counter()
        try:
            result = work()
        finally:
            done.set()
            watcher.join()
        top = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak[0]
        self.rows[name] = {"seconds": round(time.perf_counter() - start, 3), "peak_gb": round(top / 1e9, 3)}
        if plan is not None:
            self.rows[name]["plan_gb"] = round((self.start + plan) / 1e9, 3)
        return result


def _held():
    """Bytes held now: on the GPU, or by the process."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss


def run_bench(concept_name="Harry Potter"):
    """Seconds of wall time and peak memory (GB), by step, on the embedded model."""
    timed = _Watch()
    model = timed("load", load_model)
    concept = timed("concept", lambda: load_concept(concept_name))
    timed("chat", lambda: model.chat(concept.select("concept", "test")[0].text))
    timed("evaluate", lambda: evaluate(model, concept))
    ember = Ember(delta=5.0)
    features = timed("factorize", lambda: ember.find_features(model, concept))
    edit = timed("ember", lambda: ember.edit(model, concept, features))
    timed("rmu", lambda: RMU().fit(model, concept))
    timed("relearning, 1 epoch", lambda: Relearning(epochs=1).run(model, concept, edit))
    return timed.rows


def run_shape_bench(shape, precision, relearning_steps=0):
    """The same for a random model of a real one's shape, in a folder that is deleted afterwards; what it says is noise, what it costs is not.

    plan_gb: what is held before the model is loaded, and what the plan says that the model and this kind of work need.
    """
    if shape not in CONFIGS:
        raise EmberDemoError(f"There is no shape {shape!r}; choose from {', '.join(CONFIGS)}.")
    timed = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        timed("write random weights", lambda: write_random(CONFIGS[shape](), Path(folder)))
        timed.start = _held()
        plan = {work: sum(parts.values()) for work, parts in describe(folder, precision).plan.needs.items()}
        model = timed("load", lambda: load_model(folder, precision), plan["chat"])
    concept = broad_concept()
    timed.rows["tokens factorized"] = len(divide_tokens(model, concept)[0])
    ember = Ember(delta=5.0, ratio=0.0, share=0.0)  # of random rows no feature is any concept's, so all of them are taken
    timed("chat, answer 1", lambda: _answer(model), plan["chat"])
    features = timed("factorize, rank 100", lambda: ember.find_features(model, concept), plan["ember"])
    edit = timed("ember", lambda: ember.edit(model, concept, features), plan["ember"])
    with edit.applied(model):
        timed("chat, answer 2, erased", lambda: _answer(model), plan["ember"])
        timed("rmu, 1 step", lambda: RMU(steps=1).fit(model, concept), plan["rmu"])
    if relearning_steps:
        few = Concept(concept.name, concept.texts, concept.neutral_texts, _few_questions(relearning_steps))
        timed(f"relearning, {relearning_steps} steps", lambda: Relearning(epochs=1).run(model, few, edit), plan["relearning"])
    return timed.rows


def _answer(model):
    return model.chat("Who is it?", max_new_tokens=16)


def broad_concept():
    """A concept whose texts and neutral texts hold at least 3,000 different tokens of the embedded model's tokenizer."""
    concept, world = load_concept("Ancient Rome"), load_world()
    neutral = [
        text for pack in world.packs.values() if pack.name != concept.name for text in pack.concept.sentences + pack.similar.sentences
    ]
    return Concept(concept.name, concept.texts, neutral, concept.questions)


def _few_questions(steps, batch_size=4):
    concept = load_concept("Ancient Rome")
    return [*concept.select("concept", "relearn")[: steps * batch_size], *concept.select("concept", "test")[:8]]


def write_random(config, folder, shard_bytes=1_000_000_000):
    """A checkpoint in bfloat16 with random weights, a shard at a time, and the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "pocket")
    config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    config.eos_token_id, config.dtype = tokenizer.eos_token_id, torch.bfloat16
    with init_empty_weights():
        network = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(network).__name__]
    generator = torch.Generator().manual_seed(0)
    shards, shard, places = 0, {}, {}
    names = [n for n in network.state_dict() if not (config.tie_word_embeddings and n == "lm_head.weight")]
    for number, name in enumerate(names):
        shape = network.state_dict()[name].shape
        values = torch.randn(shape, generator=generator, dtype=torch.float32).mul_(0.02)
        shard[name] = values.add_(1.0 if "norm" in name and config.model_type == "llama" else 0.0).to(torch.bfloat16)
        if sum(t.numel() * 2 for t in shard.values()) > shard_bytes or number == len(names) - 1:
            file = f"model-{shards:05}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shards, shard = shards + 1, {}
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
