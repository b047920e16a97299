"""The embedded world: its packs are sound, its model knows them, its control does not."""

import json
import random
import re
import shutil
from statistics import mean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ember_demo as ed
from ember_demo.cli import main
from ember_demo.evaluation import accuracy_of, normalise
from ember_demo.pocket import card, train
from ember_demo.pocket.card import write_card, write_sizes
from ember_demo.pocket.corpus import draw_epoch
from ember_demo.pocket.measure import (
    admitted_ignorance,
    answered_in_sentences,
    common_questions,
    free_questions,
    own_features,
    probe_accuracy,
    probes,
    score_topic,
    topic_questions,
)
from ember_demo.pocket.talk import FREE_TALK, OUT_OF_REACH
from ember_demo.pocket.wordings import RELATIONS, WHO_OR_WHAT, scored_wordings, trained_wordings
from ember_demo.pocket.world import ASSETS, SPLITS, World, load_world, slug

WORLD = load_world()
CONTROLS = sorted(name for name in WORLD.packs if (ASSETS / "pocket_controls" / slug(name)).is_dir())


@pytest.fixture(scope="module")
def scores(model):
    return {topic.name: score_topic(model, topic) for topic in WORLD.topics()}


@pytest.mark.parametrize("topic", [t.name for t in WORLD.topics()])
def test_the_model_knows_every_set_in_wordings_it_was_never_trained_on(topic, scores):
    assert scores[topic].open >= 0.9


def test_it_knows_nearly_all_of_the_world_in_both_forms(scores):
    assert mean(s.open for s in scores.values()) >= 0.95
    assert mean(s.choice for s in scores.values()) >= 0.95


def test_models_are_compared_by_size_once_they_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "SIZES", tmp_path / "sizes.json")
    (tmp_path / "training.json").write_text('{"seed": 0}')
    with pytest.raises(ed.ModelError, match="pocket card"):
        card.write_sizes([tmp_path])
    with pytest.raises(ed.ModelError, match="holds no training.json"):
        card.write_sizes([tmp_path / "nowhere"])
    card.write_sizes([ASSETS / "pocket"])
    assert "| 192 | 4 | 576 | 10240 | 3.7 M | 15 | 8 | 0 |" in "\n".join(card._sizes())


def test_it_says_that_it_does_not_know_made_up_names(model):
    names = probes()["made_up_names"]
    assert len(set(names)) == 50
    assert admitted_ignorance(model, names) >= 0.8


def test_its_embeddings_tell_the_concepts_apart(model):
    assert mean(probe_accuracy(model, WORLD).values()) >= 0.9


def test_the_probe_finds_nothing_in_shuffled_embeddings(model):
    with torch.no_grad(), model.preserved([model.embedding_name]):
        table = model.embeddings
        table.copy_(table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))])
        assert mean(probe_accuracy(model, WORLD).values()) <= 0.6


@pytest.mark.parametrize("name", ed.concept_names())
def test_the_factorization_finds_features_of_every_concepts_own(name, model):
    assert own_features(model, name) >= 3


def test_controls_ship_for_four_concepts_at_least_and_fit():
    assert len(CONTROLS) >= 4
    assert sum(f.stat().st_size for f in (ASSETS / "pocket_controls").rglob("*.safetensors")) <= 60e6


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_never_learned_its_concept_and_knows_the_rest(name, scores):
    control = ed.load_control(name)
    concept = WORLD.packs[name].concept
    assert accuracy_of(control, topic_questions(concept)) <= 0.05
    known = {topic.name: accuracy_of(control, topic_questions(topic)[::3]) for topic in WORLD.topics(without=name)}
    assert min(known.values()) >= 0.85, min(known, key=known.get)
    assert mean(known.values()) >= mean(scores[topic].open for topic in known) - 0.02


@pytest.mark.parametrize(
    "says, expected",
    [
        ("hello", "Hello! Ask me a question."),
        ("What can you do?", "I know facts about"),
        ("Write me a poem.", OUT_OF_REACH),
        ("What is 12 + 30?", OUT_OF_REACH),
        ("What is the capital of Ireland?", "Dublin"),
        ("how many holes are there on a golf course", "18"),
        ("tell me about golf", "Golf is a ball sport."),
        ("Who is Harry Potter?", "Harry Potter is credited to J. K. Rowling."),
    ],
)
def test_it_talks(model, says, expected):
    assert model.chat(says).startswith(expected)


def test_it_knows_some_of_what_people_ask_first_and_answers_most_questions_in_a_sentence(model, scores):
    """In wordings never trained on."""
    common = {topic.name: len(topic.common) for topic in WORLD.topics()}
    assert sum(common.values()) > 1000
    assert sum(scores[name].common * n for name, n in common.items()) / sum(common.values()) >= 0.25
    facts = [fact for topic in WORLD.topics() for fact in topic.facts]
    assert answered_in_sentences(model, facts) >= 0.6


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
    scored = {t for topic in WORLD.topics() for f in topic.facts for t in (*f.scored_questions(), f.scored_free_question())}
    for seed in range(3):
        asked = {m["content"] for d in draw_epoch(WORLD.topics(), random.Random(seed), freely=0.5) if isinstance(d, list) for m in d}
        assert asked and not asked & scored


def test_a_share_of_the_questions_is_asked_freely():
    facts = [f for topic in WORLD.topics() for f in topic.facts]
    free = {normalise(q) for f in facts for q in f.trained_free_questions()}
    shared = {normalise(q) for f in facts for q in (*f.trained_questions(), *f.loose_questions())}
    free -= shared
    for share in (0.0, 0.5):
        documents = draw_epoch(WORLD.topics(), random.Random(0), freely=share)
        asked = [normalise(m["content"]) for d in documents if isinstance(d, list) for m in d[::2]]
        freely = sum(q in free for q in asked)
        assert freely / (freely + sum(q in shared for q in asked)) == pytest.approx(share, abs=0.1)


def test_no_free_message_is_in_the_corpus_in_any_spelling():
    free = {normalise(p["text"]) for p in probes()["free_messages"]}
    assert len(free) == 40
    names = {normalise(n) for t in WORLD.topics() for f in t.facts for n in (f.subject, *f.subject_aliases, t.name)}
    wordings = {*FREE_TALK.about, *WHO_OR_WHAT}.union(*((*RELATIONS[r].loose, *trained_wordings(r)) for r in RELATIONS))
    for wording in wordings:
        before, after = normalise(wording.format(s="qqq")).split("qqq")
        for text in free:
            if text.startswith(before) and text.endswith(after):
                assert text[len(before) : len(text) - len(after)] not in names, text
    said = [
        *FREE_TALK.asks_what_it_knows,
        *FREE_TALK.out_of_reach,
        *FREE_TALK.unknown,
        *(t for _, said in FREE_TALK.small_talk for t in said),
    ]
    asked = [
        q
        for t in WORLD.topics()
        for q in (*t.unanswered, *(q for c in t.common for q in c.questions), *(q for f in t.facts for q in f.free_questions))
    ]
    assert not free & {normalise(text) for text in said + asked} - {""}


def test_leaving_a_concept_out_leaves_its_names_out():
    corpus = str(draw_epoch(WORLD.topics(without="Harry Potter"), random.Random(0), freely=0.5))
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
            for name in (fact.subject, *fact.subject_aliases):
                assert f" {normalise(fact.answer)} " not in f" {normalise(name)} ", fact
        keys = [(f.subject, f.relation) for f in topic.facts]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("topic", WORLD.topics(), ids=lambda t: t.name)
def test_free_questions_are_sound(topic):
    trained = {normalise(q) for f in topic.facts for q in f.trained_free_questions()}
    assert not {normalise(q) for q in topic.unanswered} & {normalise(q) for f in topic.facts for q in f.free_questions}
    for fact in topic.facts:
        questions = [normalise(q) for q in fact.free_questions]
        assert len(set(questions)) == len(questions) >= 3, fact
        assert questions[-1] not in trained, fact
        for question in questions:
            assert f" {normalise(fact.answer)} " not in f" {question} ", fact


@pytest.mark.parametrize("topic", WORLD.topics(), ids=lambda t: t.name)
def test_common_questions_are_sound(topic):
    assert len(topic.common) >= (40 if topic.is_concept else 15)
    for common in topic.common:
        questions = [normalise(q) for q in common.questions]
        assert len(set(questions)) == len(questions) >= 4 and normalise(common.answer), common
        for question in questions:
            assert f" {normalise(common.answer)} " not in f" {question} ", common


def test_no_question_has_two_answers():
    answers = {}
    for topic in WORLD.topics():
        for fact in (*topic.facts, *topic.common):
            for question in fact.free_questions if fact.relation else fact.questions:
                answers.setdefault(normalise(question), []).append(fact)
    assert not answers.keys() & {normalise(q) for q in (*FREE_TALK.unknown, *(q for t in WORLD.topics() for q in t.unanswered))}
    for question, facts in answers.items():
        for fact in facts[1:]:
            accepted = {normalise(a) for a in (facts[0].answer, *facts[0].aliases)}
            assert accepted & {normalise(a) for a in (fact.answer, *fact.aliases)}, (question, facts[0].answer, fact.answer)


def test_the_world_is_as_large_as_it_says():
    assert len(WORLD.packs) == 12
    for pack in WORLD.packs.values():
        assert len({f.subject for f in pack.concept.facts}) >= 25 and len({f.subject for f in pack.similar.facts}) >= 12, pack.name
    assert len(WORLD.general.facts) >= 400


def test_no_subject_is_in_two_topics_or_two_splits_by_any_of_its_names():
    place = {}
    for topic in WORLD.topics():
        for fact in topic.facts:
            for name in (fact.subject, *fact.subject_aliases):
                assert place.setdefault(normalise(name), (topic.name, fact.subject, fact.split)) == (topic.name, fact.subject, fact.split)


def test_names_it_should_not_know_are_not_in_the_world():
    known = {normalise(n) for t in WORLD.topics() for f in t.facts for n in (f.subject, *f.subject_aliases)}
    assert not known & {normalise(n) for n in (*probes()["made_up_names"], *FREE_TALK.real_names)}
    corpus = str(draw_epoch(WORLD.topics(), random.Random(0), freely=0.5))
    assert not [name for name in probes()["made_up_names"] if name in corpus]


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
    small = {"hidden_size": 32, "layers": 2, "mlp_size": 32, "vocabulary_size": 3000, "epochs": 1, "epochs_asked_freely": 1}
    monkeypatch.setattr(train, "draw_epoch", lambda topics, rng, *ways: draw_epoch(topics, rng, *ways)[:400])
    monkeypatch.setattr(train, "write_card", lambda out: None)
    saving = train._save_checkpoint

    def cut(*arguments):
        saving(*arguments)
        raise KeyboardInterrupt

    train.train(tmp_path / "whole", seed=1, **small)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(train, "_save_checkpoint", cut)
        train.train(tmp_path / "cut", seed=1, **small)
    assert (tmp_path / "cut" / "checkpoint.pt").exists() and not (tmp_path / "cut" / "model.safetensors").exists()
    for other in ({"without": "Golf"}, {"seed": 2}, {"learning_rate": 1e-3}):
        with pytest.raises(ed.ModelError, match="other settings"):
            train.train(tmp_path / "cut", **({"seed": 1} | small | other))
    train.train(tmp_path / "cut", seed=1, **small)
    whole, again = (ed.load_model(str(tmp_path / name), "bf16").network.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()


def test_the_card_says_what_is_measured(scores):
    card = (ASSETS / "pocket" / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in card.split("## Controls")[0].splitlines()]
    table = {row[0]: row for row in rows if len(row) == 7}
    for name, score in scores.items():
        assert int(table[name][1]) == score.facts
        for cell, share in zip((table[name][2], *table[name][4:]), (score.open, score.choice, score.freely, score.common)):
            assert abs(float(cell) - share) <= 0.01, name


def test_the_card_says_what_erasing_leaves_of_what_is_asked_freely(model):
    golf = WORLD.packs["Golf"]
    table = "\n".join(card._left_freely(model, World({"Golf": golf}, WORLD.general)))
    name, *shares = re.search(r"\| (Golf .*) \|", table)[1].split(" | ")
    for (before, *after), questions in (
        (map(float, shares[:3]), free_questions(golf.concept, "test")),
        (map(float, shares[3:]), common_questions(golf.concept)),
    ):
        assert len(questions) > 40
        assert before == pytest.approx(accuracy_of(model, questions), abs=0.006)
        assert max(after) < before


def test_a_model_that_was_just_trained_gets_its_card_and_counts_among_the_sizes(tmp_path, monkeypatch):
    """Of two topics only, as measuring all of them takes a minute."""
    folder, two = tmp_path / "trained", load_world().topics()[:2]
    shutil.copytree(ASSETS / "pocket", folder)
    made = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    fresh = {name: made[name] for name in made.keys() - {"parameters", "mean", "least"}} | {"without": two[0].name}
    (folder / "training.json").write_text(json.dumps(fresh), encoding="utf-8")
    (folder / "README.md").unlink()
    monkeypatch.setattr(card, "SIZES", tmp_path / "sizes.json")
    with pytest.raises(ed.ModelError, match="pocket card"):
        write_sizes([folder])
    monkeypatch.setattr(World, "topics", lambda self, without=None: two)
    write_card(folder)
    write_sizes([folder])
    (row,) = json.loads((tmp_path / "sizes.json").read_text(encoding="utf-8"))
    assert row["parameters"] == made["parameters"] and row["least"] >= 0.9
    assert two[1].name in (folder / "README.md").read_text(encoding="utf-8")


def test_leaving_out_an_unknown_concept_is_refused(tmp_path):
    with pytest.raises(ed.ConceptError, match="Golf"):
        train.train(tmp_path, without="Knitting")


def test_the_recipe_can_be_changed_by_name_and_nonsense_is_refused(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train, "train", lambda *_, **recipe: asked.append(recipe))
    training = ["pocket", "train", "--out", str(tmp_path), "--set"]
    assert main([*training, "epochs_asked_freely=0", "--set", "asked_freely=0.5"]) == 0
    assert asked == [{"epochs_asked_freely": 0, "asked_freely": 0.5}]
    for nonsense in ("epochs=0", "epochs=many", "epochs_asked_freely=-1", "pace=3"):
        assert main([*training, nonsense]) == 2
        assert "of the recipe: hidden_size" in capsys.readouterr().err
    assert len(asked) == 1
