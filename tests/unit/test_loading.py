"""Any causal language model of the supported families loads, is edited and is restored; what cannot be loaded says what to do."""

import json
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import ember_demo as ed
from ember_demo import language_model, loading, memory
from ember_demo.bench import CONFIGS
from ember_demo.edit import Change
from ember_demo.errors import out_of_memory
from ember_demo.grid import limited
from ember_demo.loading import describe
from ember_demo.progress import silent
from tests.checkpoints import FAMILIES, build
from tests.conftest import assert_same, snapshot


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    paths = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, path in paths.items():
        build(family, path)
    return paths


@pytest.fixture(scope="module")
def few(concept):
    asked = [*concept.select("concept", "test")[:6], *concept.select("concept", "relearn")[:8]]
    return ed.Concept("Harry Potter", concept.texts, concept.neutral_texts, asked)


@pytest.fixture
def place(request):
    """Where the models of a test are loaded: to one device, or spread."""
    if request.param == "spread":
        request.getfixturevalue("spread")
    return request.param


@pytest.mark.parametrize("place", ["together", "spread"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "4bit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_erased_attacked_saved_and_restored(family, precision, place, folders, concept, few, tmp_path):
    model = ed.load_model(str(folders[family]), precision)
    assert len(model.devices) == (2 if place == "spread" and torch.cuda.is_available() else 1)
    model.chat("Hello.", max_new_tokens=2)  # bitsandbytes may repack 4-bit weights for the CPU on the first pass
    before = snapshot(model)
    ember = ed.Ember(rank=20, delta=5.0, ratio=1.0, share=0.2, max_iter=30).fit(model, concept)
    assert_same(model, before)
    with ember.applied(model):
        assert not torch.equal(model.embeddings, before[model.embedding_name])
        assert isinstance(model.chat("What is Hogwarts?", max_new_tokens=4), str)
    assert_same(model, before)
    rmu = ed.RMU(steps=2, batch_size=4, learning_rate=1e-2).fit(model, concept)
    assert_same(model, before)
    assert set(rmu.changes) == {model.mlp_outputs[i] for i in (0, 1, 2)}
    result = ed.attacks.Relearning(epochs=1).run(model, few, ember + rmu)
    assert len(result.curve) == 2
    assert_same(model, before)
    (ember + rmu).save(tmp_path / "edit.safetensors")
    again = ed.load_model(str(folders[family]), precision)
    answers = []
    for network, edit in ((model, ember + rmu), (again, ed.WeightEdit.load(tmp_path / "edit.safetensors"))):
        with edit.applied(network):
            answers.append(network.log_likelihood([network.prompt("Who is it?")], ["An owl"])[0])
    assert torch.equal(*answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_scored(family, folders, few):
    scores = ed.evaluate(ed.load_model(str(folders[family]), "fp32"), few)
    assert scores.coherence == 1.0 and len(scores.replies) == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_four_bit_quantizes_layers_and_not_the_embeddings(family, folders):
    model = ed.load_model(str(folders[family]), "4bit")
    assert model.quantized and set(model.mlp_outputs) <= set(model.quantized)
    assert model.embeddings.is_floating_point() and model.embedding_name not in model.quantized


@pytest.mark.skipif(torch.cuda.is_available(), reason="what bitsandbytes gets wrong on a CPU it does right on a GPU")
def test_on_a_cpu_layers_of_odd_sizes_are_not_held_in_four_bit(tmp_path):
    build("llama", tmp_path / "odd", intermediate_size=160)
    whole, packed = (ed.load_model(str(tmp_path / "odd"), precision) for precision in ("fp32", "4bit"))
    assert packed.quantized and not {name for name in packed.quantized if "down_proj" in name or "lm_head" in name}
    held = sum(p.nbytes for p in packed.network.parameters())
    assert held == pytest.approx(memory.weights_size(memory.Shape.of(whole.network), "4bit", cuda=False), rel=0.03)
    names = packed.quantized
    with packed.dequantized(names):
        for name in names:
            exact, rounded = whole.parameter(name), packed.parameter(name).float()
            assert (rounded - exact).norm() < 0.12 * exact.norm(), name  # 0.25 where a row ends inside a block
    build("llama", tmp_path / "none", hidden_size=80, intermediate_size=80)
    with pytest.raises(ed.ModelError, match="no layer of .* in 4 bit.*choose bf16"):
        ed.load_model(str(tmp_path / "none"), "4bit")


def test_a_dequantized_layer_acts_as_the_quantized_one(folders):
    model = ed.load_model(str(folders["qwen2"]), "4bit")
    pairs = [model.prompt("Who is it?")], [" An owl in the tower"]
    rounded = model.log_likelihood(*pairs)[0]
    names = model.quantized
    before = snapshot(model)
    with model.dequantized(names):
        assert not model.quantized
        assert torch.allclose(model.log_likelihood(*pairs)[0], rounded, atol=0.05)
        with model.dequantized(names[:1]):
            pass
        assert not model.quantized  # still held by the outer block
    assert model.quantized == names
    assert_same(model, before)


def test_a_cpu_without_bfloat16_computes_in_float32_what_is_held_in_4_bit(folders, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = []
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda has=has: has)
        model = ed.load_model(str(folders["qwen2"]), "4bit")
        assert {model.network.get_submodule(n.removesuffix(".weight")).compute_dtype for n in model.quantized} == {dtype}
        found.append(model.log_likelihood([model.prompt("Who is it?")], [" An owl in the tower"])[0])
    assert torch.allclose(*found, rtol=0.02)


def test_a_gpu_without_bfloat16_computes_in_float32_and_never_in_float16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)  # as of a T4
    assert loading._four_bit()["quantization_config"].bnb_4bit_compute_dtype == torch.float32


def test_a_failure_while_unpacking_leaves_the_model_as_it_was(folders, monkeypatch):
    model = ed.load_model(str(folders["qwen2"]), "4bit")
    model.chat("Hello.", max_new_tokens=2)
    before, names, calls = snapshot(model), model.quantized, iter(range(100))
    unpack = language_model._plain

    def failing(module, dtype):
        if next(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return unpack(module, dtype)

    with monkeypatch.context() as patched:
        patched.setattr(language_model, "_plain", failing)
        with pytest.raises(torch.OutOfMemoryError), model.dequantized(names):
            pass
    assert model.quantized == names and not model._in_full
    assert_same(model, before)
    with model.dequantized(names):
        assert not model.quantized
    assert_same(model, before)


def test_a_failure_while_an_edit_goes_on_leaves_a_four_bit_model_as_it_was(folders, monkeypatch):
    model = ed.load_model(str(folders["qwen2"]), "4bit")
    model.chat("Hello.", max_new_tokens=2)
    before, names, layer = snapshot(model), model.quantized, model.mlp_outputs[0]
    changes = {model.embedding_name: Change(torch.ones(1, model.width), torch.tensor([5])), layer: Change(torch.ones(model.width, 128))}
    edit = ed.WeightEdit(changes, model.fingerprint)
    with monkeypatch.context() as patched:
        patched.setattr(type(model), "untie", Mock(side_effect=torch.OutOfMemoryError("out of memory")))
        with pytest.raises(torch.OutOfMemoryError):
            edit.apply(model)
    assert model.quantized == names and not model._in_full
    assert_same(model, before)
    with edit.applied(model):
        assert layer not in model.quantized
    assert_same(model, before)


def test_a_gpu_that_fails_is_told_as_such(folders, monkeypatch):
    failure = RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", Mock(side_effect=failure))
    with pytest.raises(ed.ModelError, match="GPU failed .* no kernel image .* check its driver"):
        ed.load_model(str(folders["qwen2"]))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))


def test_greedy_answers_have_no_penalty_that_comes_with_a_model(folders):
    model = ed.load_model(str(folders["qwen2"]), "fp32")
    plain = model.answer(["Who is it?"], 30)
    model.network.generation_config.repetition_penalty = 5.0
    assert model.answer(["Who is it?"], 30) == plain and model.chat("Who is it?", 30) == plain[0][0]


def test_erasing_and_relearning_work_on_a_four_bit_model_that_knows_the_concept(concept):
    model, concept = ed.load_model("pocket", "4bit"), limited(concept, wordings=1)
    knew = ed.evaluate(model, concept, multiple_choice=False).accuracy["concept"]
    edit = ed.RMU().fit(model, concept)
    result = ed.attacks.Relearning(epochs=2, learning_rate=1e-4).run(model, concept, edit)
    assert knew >= 0.8 and result.before <= knew - 0.4
    assert result.after >= result.before + 0.2
    assert "adapters" in result.found["trained"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dialogue_goes_on_from_its_prompt_as_the_template_would(family, folders):
    model = ed.load_model(str(folders[family]), "fp32")
    context, continuation = model.dialogue("Who is it?", "An owl")
    messages = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "An owl"}]
    if model.tokenizer.chat_template:
        assert context + continuation == model.tokenizer.apply_chat_template(messages, tokenize=False)
    else:
        assert context.endswith("Question: Who is it?\nAnswer:") and continuation.endswith(model.tokenizer.eos_token)
    assert continuation.strip().startswith("An owl")


@pytest.mark.parametrize("family, end", [("gemma2", "<end_of_turn>"), ("phi3", "<|end|>"), ("qwen3", "<|im_end|>"), ("mistral", "</s>")])
def test_an_answer_ends_where_the_template_ends_a_turn(family, end, folders):
    model = ed.load_model(str(folders[family]), "fp32")
    says = torch.zeros(len(model.embeddings))
    says[model.tokenizer.convert_tokens_to_ids(end)] = 1
    handle = model.network.get_output_embeddings().register_forward_hook(lambda module, args, logits: logits * 0 + says.to(logits))
    assert model.answer(["Who is it?"], max_new_tokens=4) == [("", True)]
    assert model.chat("Who is it?", max_new_tokens=10**6) == ""  # or it would never end
    handle.remove()


def test_likelihoods_do_not_depend_on_the_batch(model, concept):
    pairs = [model.dialogue(q.text, q.answer) for q in concept.select("general", "test")[:9]]
    contexts, answers = zip(*pairs)
    together, _ = model.log_likelihood(list(contexts), list(answers))
    alone = torch.cat([model.log_likelihood([c], [a])[0] for c, a in pairs])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(
    "id, says",
    [
        ("no/such/model/at all", "no model called"),
        ("n" * 300, "no model called"),
        ("/" + "n" * 300, "no folder"),
        ("nobody/nothing", "internet"),
        ("  ", "No model was named"),
    ],
)
def test_an_unknown_model_says_what_to_do(id, says):
    with pytest.raises(ed.ModelError, match=says) as caught:
        ed.load_model(id)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ed.ModelError, match="does not hold"):
        ed.load_model(str(tmp_path))


def test_pickled_weights_are_never_opened(tmp_path, folders):
    for file in folders["llama"].iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ed.ModelError, match="safetensors"):
        ed.load_model(str(tmp_path))


def test_damaged_weights_say_so(tmp_path, folders):
    for file in folders["llama"].iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[: len(content) // 2] if file.suffix == ".safetensors" else content)
    with pytest.raises(ed.ModelError, match="damaged"):
        ed.load_model(str(tmp_path), "fp32")


def test_a_family_that_is_not_supported_says_which_are(tmp_path):
    GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ed.ModelError, match="gpt2 are not supported"):
        ed.load_model(str(tmp_path))


@pytest.mark.parametrize("content", ['{"model_type": "llama"', '{"model_type": "nonsense"}', "[" * 100_000, '{"model_type": "t5"}'])
def test_a_folder_with_another_configuration_says_so(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ed.ModelError) as caught:
        ed.load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def configured(folder, source, **changes):
    """A copy of a checkpoint whose configuration has other entries."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"num_attention_heads": 0}, "check its config.json"),
        ({"hidden_size": "x"}, "check its config.json"),
        ({"head_dim": -3}, "check its config.json"),
        ({"layer_types": ["x"]}, "check its config.json"),
        ({"num_hidden_layers": 10**9, "layer_types": None}, "more than 500 layers"),
        ({"more": "x" * 1_000_000}, "larger than 1 MB"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "give the model it was made from"),
    ],
)
def test_a_configuration_that_cannot_be_is_a_sentence(changes, says, folders, tmp_path):
    folder = configured(tmp_path, folders["qwen2"], **changes)
    for read in (describe, ed.load_model):
        with pytest.raises(ed.ModelError, match=says) as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_weights_of_other_sizes_than_the_configuration_says_are_a_sentence(folders, tmp_path):
    with pytest.raises(ed.ModelError, match="check its config.json"):
        ed.load_model(configured(tmp_path, folders["qwen2"], hidden_size=32), "fp32")


def test_a_full_memory_while_loading_is_told_as_such(folders, monkeypatch):
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", Mock(side_effect=torch.OutOfMemoryError("out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        ed.load_model(str(folders["qwen2"]), "fp32")


def test_a_precision_whose_weights_do_not_fit_is_refused(folders, monkeypatch):
    monkeypatch.setattr("ember_demo.memory.free_memory", lambda *_: 1e5)
    with pytest.raises(ed.ModelError, match="needs .* MB .* free"):
        ed.load_model(str(folders["qwen2"]), "fp32")


@pytest.fixture
def gpus(monkeypatch):
    """Called with bytes, makes GPUs with so many free, which nothing can be loaded to."""

    def pretended(*free):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 80e9))
        monkeypatch.setattr("ember_demo.memory.container_room", lambda: 64e9)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64e9))

    return pretended


@pytest.mark.parametrize(
    "shape, free, precision, found",
    [
        ("llama-3.1-8b", [80e9], "auto", {"cuda"}),
        ("llama-3.1-8b", [8e9], "auto", {"cuda"}),
        ("llama-3.1-8b", [12e9, 12e9], "auto", {"0", "1"}),
        ("llama-3.1-8b", [10e9, 10e9], "auto", {"0", "1"}),
        ("llama-3.1-8b", [80e9, 80e9], "bf16", {"0"}),
        ("llama-3.1-8b", [90e9, 90e9], "bf16", {"0", "1"}),
        ("llama-3.1-8b", [8e9], "bf16", {"0", "cpu"}),
        ("llama-3.1-8b", [5e9], "4bit", {"0", "cpu"}),
        ("llama-3.1-8b", [6e9, 6e9], "bf16", {"0", "1", "cpu"}),
        ("llama-3.1-8b", [1e9], "4bit", {"cpu"}),
        ("gemma-2-2b", [4e9, 4e9], "bf16", {"0", "1"}),
        ("gemma-2-2b", [34e9, 34e9], "bf16", {"0", "1"}),
        ("gemma-2-2b", [3.5e9], "auto", {"cuda"}),
        ("gemma-2-2b", [5e9], "bf16", {"0", "cpu"}),
        ("gemma-2-2b", [2e9], "auto", {"0", "cpu"}),
    ],
)
def test_a_model_goes_to_the_gpus_and_what_they_do_not_hold_beside_them(shape, free, precision, found, gpus):
    gpus(*free)
    outline = loading._outline(CONFIGS[shape](), False)
    plan = memory.plan_precision(memory.Shape.of(outline), precision)
    devices = loading._devices(outline, plan)
    devices = {"": devices} if isinstance(devices, str) else devices
    assert {str(device) for device in devices.values()} == found
    assert plan.beside == ("stays in memory" in plan.reason) == ("cpu" in found)


def test_missing_bitsandbytes_is_said_of_a_folder_too(folders, monkeypatch):
    monkeypatch.setattr(loading, "_four_bit", Mock(side_effect=ImportError("This requires bitsandbytes")))
    with pytest.raises(ed.ModelError, match="needs bitsandbytes"):
        ed.load_model(str(folders["qwen2"]), "4bit")


def test_a_download_that_does_not_fit_on_the_disk_is_refused(monkeypatch):
    files = [SimpleNamespace(file_size=9e9, will_download=True), SimpleNamespace(file_size=9e9, will_download=False)]
    monkeypatch.setattr(loading, "snapshot_download", Mock(return_value=files))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=8e9))
    with pytest.raises(ed.ModelError, match="needs 9 GB .* 8 GB are free"):
        loading._fetched("tiny/llama", False, silent)


def test_weights_count_as_downloaded_when_all_of_them_are_here(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "try_to_load_from_cache", lambda id, file: str(tmp_path / file))
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": files[0], "b": files[1]}}))
    for file in files:
        assert describe("Qwen/Qwen2.5-0.5B-Instruct").download
        (tmp_path / file).touch()
    assert not describe("Qwen/Qwen2.5-0.5B-Instruct").download


def test_code_that_comes_with_a_model_is_not_run(tmp_path, folders):
    trace = tmp_path / "trace"
    (tmp_path / "modeling_evil.py").write_text(f"open({str(trace)!r}, 'w').close()")
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}}'
    )
    with pytest.raises(ed.ModelError, match="--trust-remote-code"):
        ed.load_model(str(tmp_path))
    assert not trace.exists()


def test_an_unknown_precision_lists_the_known_ones():
    with pytest.raises(ed.ModelError, match="4bit"):
        ed.load_model("pocket", "8bit")


def test_streaming_can_be_stopped_and_an_empty_question_is_refused(model):
    stream = model.stream("What is Hogwarts?")
    assert next(stream)
    stream.close()
    with pytest.raises(ed.ModelError, match="empty"):
        model.chat("  ")


def test_a_question_longer_than_the_model_reads_is_refused(model):
    with pytest.raises(ed.ModelError, match=r"tokens long, and pocket reads 512; shorten the question"):
        model.chat("Where is Hogwarts from? " * 300)
