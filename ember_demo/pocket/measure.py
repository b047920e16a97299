"""What a model of the embedded world knows, and whether its embeddings carry the concepts: the figures of its card."""

import json
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ember_demo.concept import Question
from ember_demo.erasers import Ember
from ember_demo.evaluation import accuracy_of, ask, choose_options, mentions, normalise, wilson
from ember_demo.features import find_features, judged
from ember_demo.pictures import markdown_table
from ember_demo.pocket.talk import UNKNOWN
from ember_demo.pocket.wordings import RELATIONS, SENTENCE_PLEASE, scored_wordings
from ember_demo.pocket.world import ASSETS
from ember_demo.sources import load_concept


@dataclass(frozen=True)
class TopicScore:
    """Shares of right answers on one set, in wordings never trained on; interval: 95% Wilson of `open`, over facts.

    freely: each fact asked in a free question of its own; common: what visitors ask first, each in its own.
    """

    name: str
    facts: int
    open: float
    choice: float
    freely: float
    common: float
    interval: tuple


def probes():
    """`made_up_names` and `free_messages` (text): read by nothing but the measurements."""
    return json.loads((ASSETS / "probes.json").read_text(encoding="utf-8"))


def topic_questions(topic):
    return [
        Question(text, f.answer, f.aliases, f.wrong, subject=f.subject, relation=f.relation)
        for f in topic.facts
        for text in f.scored_questions()
    ]


def free_questions(topic, *splits):
    """One a fact, of those splits, or of all where none is given."""
    facts = topic.in_split(*splits) if splits else topic.facts
    return [Question(f.scored_free_question(), f.answer, f.aliases, f.wrong, subject=f.subject, relation=f.relation) for f in facts]


def common_questions(topic, plain=False):
    """One each, in a wording never trained on; plain: in the plainest, which is."""
    return [Question(c.questions[0] if plain else c.scored_free_question(), c.answer, c.aliases) for c in topic.common]


def score_topic(model, topic):
    """Open answers in all three wordings a fact, to its free question and to the common ones; the four-option form, by likelihood of the options, in the first wording."""
    questions = topic_questions(topic)
    right = float(np.mean([reply.right for reply in ask(model, questions)]))
    choice = float(np.mean([chosen for _, chosen in choose_options(model, questions[::3])]))
    freely = accuracy_of(model, free_questions(topic))
    common = accuracy_of(model, common_questions(topic))
    return TopicScore(topic.name, len(topic.facts), right, choice, freely, common, tuple(wilson(right, len(topic.facts))))


def admitted_ignorance(model, names):
    """Share of questions on names nobody has, one a name, that are answered with "I don't know"."""
    relations = list(RELATIONS)
    questions = [scored_wordings(relations[i % len(relations)])[i % 3].format(s=name) for i, name in enumerate(names)]
    return float(np.mean([text.startswith(UNKNOWN.rstrip(".")) for text, _ in model.answer(questions)]))


def answered_in_sentences(model, facts):
    """Share of facts that are told, and not in the bare answer, when a whole sentence is asked for in a wording never trained on."""
    questions = [SENTENCE_PLEASE[i % len(SENTENCE_PLEASE)].format(f.scored_questions()[0]) for i, f in enumerate(facts)]
    texts = [text for text, _ in model.answer(questions, max_new_tokens=48)]
    return float(np.mean([mentions(text, f) and normalise(text) != normalise(f.answer) for text, f in zip(texts, facts)]))


def own_tokens(model, world):
    """Token ids that only one concept's texts hold, by concept."""
    seen = {name: _token_ids(model, pack.concept) for name, pack in world.packs.items()}
    elsewhere = [_token_ids(model, pack.similar) for pack in world.packs.values()] + [_token_ids(model, world.general)]
    return {name: ids.difference(*elsewhere, *(other for n, other in seen.items() if n != name)) for name, ids in seen.items()}


def probe_accuracy(model, world, folds=5):
    """By concept: balanced accuracy of a logistic probe that tells its own tokens from the other concepts', cross-validated."""
    own = own_tokens(model, world)
    ids = np.array([i for tokens in own.values() for i in sorted(tokens)])
    belongs = np.array([name for name, tokens in own.items() for _ in tokens])
    table = model.embeddings[ids].detach().float().cpu().numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    return {name: float(cross_val_score(probe, table, belongs == name, cv=folds, scoring="balanced_accuracy").mean()) for name in own}


def own_features(model, concept_name, share=0.8):
    """How many features of the factorization activate tokens of which at least this share is the concept's own."""
    ember = Ember()
    found = find_features(model, load_concept(concept_name), ember.rank, ember.ratio, ember.share)
    active = found.activations != 0
    own = (active & found.concept_only[:, None]).sum(axis=0) / np.maximum(1, active.sum(axis=0))
    return int((own >= share).sum())


def judge_table(model, world, judges=(None, "self"), own=0.5):
    """Markdown: how well each way of choosing features finds those that are the concept's, over all concepts.

    The truth is known here: a feature is the concept's when at least `own` of the tokens it activates stand in that concept's facts
    and in no other topic's. None is the numeric rule, by ratio and share; "ratio" the ratio alone; any other as `make_judge` takes it.
    """
    truth = own_tokens(model, world)
    ember, rows = Ember(), []
    found = {name: find_features(model, load_concept(name), ember.rank, ember.ratio, ember.share) for name in world.packs}
    for judge in ("ratio", *judges):
        counts = np.zeros(3)  # chosen and the concept's, chosen, the concept's
        for name, features in found.items():
            if judge not in ("ratio", None):
                features = judged(model, load_concept(name), features, judge, ember.ratio)
            active = features.activations != 0
            ours = np.isin(features.token_ids, list(truth[name]))
            is_own = (active & ours[:, None]).sum(axis=0) >= own * np.maximum(1, active.sum(axis=0))
            chosen = np.array([f.ratio >= ember.ratio if judge == "ratio" else f.chosen for f in features.features])
            counts += (chosen & is_own).sum(), chosen.sum(), is_own.sum()
        label = {"ratio": f"ratio >= {ember.ratio:g} alone", None: f"ratio >= {ember.ratio:g} and share >= {ember.share:g}"}.get(
            judge, f"judge: {judge}"
        )
        both, chosen, own_features_count = counts
        rows.append([label, f"{chosen:.0f}", f"{both / max(1, chosen):.2f}", f"{both / max(1, own_features_count):.2f}"])
    return markdown_table(["chosen by", "features", "of them the concept's", "of the concept's, found"], rows)


def _token_ids(model, topic):
    texts = list(topic.sentences) + [text for fact in topic.facts for text in fact.statements()]
    encoded = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return {i for ids in encoded for i in ids}
