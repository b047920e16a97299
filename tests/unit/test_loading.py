"""Any causal language model of the supported families loads, is edited and is restored; what cannot be loaded says what to do."""

import pytest
import torch

import ember_demo as ed
from ember_demo.memory import plan_precision
from tests.checkpoints import FAMILIES, build
from tests.conftest import assert_same, snapshot


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    paths = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, path in paths.items():
        build(family, path)
    return paths


@pytest.mark.parametrize("precision", ["fp32", "bf16", "4bit"])
@pytest.mark.parametrize("family", FAMILIES)
def test_ember_works_on_every_family_and_precision(family, precision, folders, concept):
    model = ed.load_model(str(folders[family]), precision)
    model.chat("Hello.", max_new_tokens=2)  # bitsandbytes repacks 4-bit weights for the CPU on the first pass
    before = snapshot(model)
    edit = ed.Ember(rank=20, delta=5.0, ratio=1.0, share=0.2, max_iter=30).fit(model, concept)
    assert_same(model, before)
    with edit.applied(model):
        assert not torch.equal(model.embeddings, before[model.embedding_name])
        assert isinstance(model.chat("What is Hogwarts?", max_new_tokens=4), str)
    assert_same(model, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_rmu_and_relearning_work_on_every_family(family, folders, concept):
    model = ed.load_model(str(folders[family]), "bf16")
    before = snapshot(model)
    edit = ed.RMU(steps=2, batch_size=4).fit(model, concept)
    few = ed.Concept(
        "Harry Potter",
        concept.texts,
        concept.neutral_texts,
        [*concept.select("concept", "test")[:6], *concept.select("concept", "relearn")[:8]],
    )
    result = ed.attacks.Relearning(epochs=1).run(model, few, edit)
    assert len(result.curve) == 2
    assert_same(model, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_four_bit_quantizes_layers_and_not_the_embeddings(family, folders, concept):
    model = ed.load_model(str(folders[family]), "4bit")
    assert model.layers[0].mlp.down_proj.weight.dtype == torch.uint8
    assert model.embeddings.is_floating_point()
    with pytest.raises(ed.ModelError, match="bf16"):
        ed.RMU(steps=1).fit(model, concept)
    with pytest.raises(ed.ModelError, match="bf16"):
        ed.attacks.Relearning(epochs=1).run(model, concept)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dialogue_goes_on_from_its_prompt_as_the_template_would(family, folders):
    model = ed.load_model(str(folders[family]), "fp32")
    context, continuation = model.dialogue("Who is it?", "An owl")
    messages = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "An owl"}]
    assert context + continuation == model.tokenizer.apply_chat_template(messages, tokenize=False)
    assert continuation.startswith("An owl")


def test_likelihoods_do_not_depend_on_the_batch(model, concept):
    pairs = [model.dialogue(q.text, q.answer) for q in concept.select("general", "test")[:9]]
    contexts, answers = zip(*pairs)
    together, _ = model.log_likelihood(list(contexts), list(answers))
    alone = torch.cat([model.log_likelihood([c], [a])[0] for c, a in pairs])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(
    "id, says",
    [("no/such/model/at all", "no model called"), ("nobody/nothing", "internet"), ("  ", "No model was named")],
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


def test_an_unknown_precision_lists_the_known_ones():
    with pytest.raises(ed.ModelError, match="4bit"):
        ed.load_model("pocket", "8bit")


def test_the_plan_takes_four_bit_only_when_memory_is_tight():
    billion = 1e9
    choose = lambda free, cuda: plan_precision(2.6 * billion, 2.0 * billion, free, cuda).precision  # noqa: E731
    assert choose(24e9, cuda=True) == "bf16"
    assert choose(4e9, cuda=True) == "4bit"
    assert choose(24e9, cuda=False) == "fp32"
    assert choose(8e9, cuda=False) == "bf16"
    assert choose(4e9, cuda=False) == "4bit"
    assert "even 4 bit does not fit" in plan_precision(8 * billion, 7 * billion, 1e9, True).reason


def test_streaming_can_be_stopped_and_an_empty_question_is_refused(model):
    stream = model.stream("What is Hogwarts?")
    assert next(stream)
    stream.close()
    with pytest.raises(ed.ModelError, match="empty"):
        model.chat("  ")
