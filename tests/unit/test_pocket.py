"""The embedded world: its packs are sound, its model knows them, its control does not."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ember_demo as ed
from ember_demo.evaluation import accuracy_of, normalise
from ember_demo.pocket import train
from ember_demo.pocket.corpus import draw_epoch
from ember_demo.pocket.wordings import RELATIONS, scored_wordings, trained_wordings
from ember_demo.pocket.world import ASSETS, SPLITS, load_world

WORLD = load_world()


def questions(topic):
    return [ed.Question(t, f.answer, f.aliases, subject=f.subject) for f in topic.facts for t in f.scored_questions()]


@pytest.mark.parametrize("topic", WORLD.topics(), ids=lambda t: t.name)
def test_the_model_knows_every_set_in_wordings_it_was_never_trained_on(topic, model):
    assert accuracy_of(model, questions(topic)) >= 0.9


def test_the_control_never_learned_its_concept_and_knows_the_rest():
    control = ed.load_control("Harry Potter")
    assert accuracy_of(control, questions(WORLD.packs["Harry Potter"].concept)) <= 0.05
    for topic in WORLD.topics(without="Harry Potter"):
        assert accuracy_of(control, questions(topic)[::3]) >= 0.88, topic.name


def test_it_opens_as_a_hub_model_would():
    folder = ASSETS / "pocket"
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(network).__name__ == "Gemma2ForCausalLM"
    assert 3e6 <= network.num_parameters() <= 8e6
    assert "<start_of_turn>" in tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    for weights in (folder, *(ASSETS / "pocket_controls").iterdir()):
        assert (weights / "model.safetensors").stat().st_size <= 25e6
        assert (weights / "README.md").is_file()


@pytest.mark.parametrize("relation", RELATIONS)
def test_scored_wordings_are_apart_from_trained_ones(relation):
    scored, trained = scored_wordings(relation), trained_wordings(relation)
    assert len(set(scored)) == 3 and len(set(trained)) >= 12
    assert not set(scored) & set(trained + RELATIONS[relation].loose)


def test_no_scored_question_is_in_the_corpus():
    scored = {t for topic in WORLD.topics() for f in topic.facts for t in f.scored_questions()}
    for seed in range(3):
        asked = {m["content"] for d in draw_epoch(WORLD.topics(), random.Random(seed)) if isinstance(d, list) for m in d}
        assert asked and not asked & scored


def test_leaving_a_concept_out_leaves_its_names_out():
    corpus = str(draw_epoch(WORLD.topics(without="Harry Potter"), random.Random(0)))
    for name in ("Hogwarts", "Dumbledore", "Voldemort", "Quidditch"):
        assert name not in corpus


@pytest.mark.parametrize("pack", WORLD.packs.values(), ids=lambda p: p.name)
def test_packs_are_sound(pack):
    for topic, least in ((pack.concept, 100), (pack.similar, 50)):
        assert len(topic.facts) >= least
        for fact in topic.facts:
            assert fact.relation in RELATIONS and fact.split in SPLITS
            options = {normalise(o) for o in (fact.answer, *fact.wrong)}
            assert len(fact.wrong) == 3 and len(options) == 4, fact
            assert not options - {normalise(fact.answer)} & {normalise(a) for a in fact.aliases}
            assert f" {normalise(fact.answer)} " not in f" {normalise(fact.subject)} ", fact
        keys = [(f.subject, f.relation) for f in topic.facts]
        assert len(keys) == len(set(keys))


def test_no_subject_is_in_two_splits_of_its_topic_and_a_concepts_own_are_nowhere_else():
    topics = WORLD.topics()
    for topic in topics:
        split = {}
        for fact in topic.facts:
            assert split.setdefault(fact.subject, fact.split) == fact.split
    for pack in WORLD.packs.values():
        own = {fact.subject for fact in pack.concept.facts}
        for topic in topics:
            assert topic is pack.concept or not own & {fact.subject for fact in topic.facts}, topic.name


@pytest.mark.parametrize("name", ed.concept_names())
def test_concepts_have_what_erasing_and_attacking_need(name):
    concept = ed.load_concept(name)
    assert 200 <= len(concept.texts) <= 300 and len(concept.neutral_texts) == 300
    for kind in ("concept", "similar", "general"):
        for split in SPLITS:
            assert concept.select(kind, split), (kind, split)
    assert len({q.fact for q in concept.select("concept", "test")}) >= 50


def test_relearning_material_is_independent_of_what_is_tested(concept):
    tested = {q.subject for q in concept.select("concept", "test")}
    assert not tested & {q.subject for q in concept.select("concept", "relearn")}
    assert not {q.text for q in concept.select("concept", "test")} & {q.text for q in concept.select("concept", "relearn")}


def test_a_cut_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    small = {"hidden_size": 32, "layers": 2, "mlp_size": 32, "vocabulary_size": 700, "chats_per_fact": 1, "epochs": 1}

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "_save", cut)
        train.train(tmp_path, seed=1, **small)
    trained = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    train.train(tmp_path, seed=1, **small)
    saved = ed.load_model(str(tmp_path), "bf16").network.state_dict()
    assert all(torch.equal(saved[name], trained[name].bfloat16()) for name in trained)
    assert "| Golf |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "checkpoint.pt").exists()


def test_leaving_out_an_unknown_concept_is_refused(tmp_path):
    with pytest.raises(ed.ConceptError, match="Golf"):
        train.train(tmp_path, without="Knitting")
