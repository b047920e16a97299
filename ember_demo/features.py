"""Which directions of the embedding table are about the concept (EMBER, arXiv 2606.03695, section 3)."""

import math
from dataclasses import dataclass, replace

import numpy as np

from ember_demo.errors import ConceptError
from ember_demo.factorization import SparseMatrixFactorization
from ember_demo.judge import judge_feature, make_judge
from ember_demo.progress import silent
from ember_demo.published import read_published

TOKENS_PER_FEATURE = 40  # as 1% of the 4,000 to 5,000 tokens that a large model's texts hold
MIN_CONCEPT_TOKENS = 30


@dataclass(frozen=True)
class Feature:
    """One column of the factorization.

    ratio: mean |activation| over concept-only tokens by that over neutral-only ones (`ratio_abs` of the paper).
    share: part of its activating tokens, those seen on one side only, that are concept-only.
    tokens: its most strongly activating tokens, strongest first, as text.
    """

    index: int
    ratio: float
    share: float
    strength: float
    tokens: tuple
    chosen: bool
    description: str = ""  # a judge's
    confidence: float | None = None


@dataclass(frozen=True)
class FeatureSet:
    """The factorized tokens V' and what was found among them.

    token_ids: (n,) vocabulary ids; concept_only: (n,) mask of the tokens seen in concept texts only;
    directions: (K, d) and activations: (n, K), of embeddings as the model sees them (scaled).
    """

    token_ids: np.ndarray
    concept_only: np.ndarray
    directions: np.ndarray
    activations: np.ndarray
    features: tuple

    @property
    def chosen(self):
        return [f.index for f in self.features if f.chosen]

    @property
    def edited(self):
        """Mask (n,) of the tokens that an edit changes: concept-only and active on a chosen feature."""
        return self.concept_only & (self.activations[:, self.chosen] != 0).any(axis=1)

    def without(self, indices):
        """The same with these features not chosen; ConceptError where none is left."""
        kept = replace(self, features=tuple(replace(f, chosen=f.chosen and f.index not in indices) for f in self.features))
        if not kept.chosen:
            raise ConceptError("Every feature is switched off, so nothing is left to edit; switch one on.")
        return kept


def find_features(model, concept, rank, ratio, share, sparsity=None, max_iter=20000, seed=0, progress=silent):
    """Factorize the embeddings of the concept's and the neutral texts' tokens; score and choose features.

    A feature is chosen at ratio >= `ratio` (the paper's rule for candidates) and share >= `share`. The share stands
    in for the paper's language-model judge: a judge asks whether the feature's tokens are distinctive of the concept,
    the share measures it on the two sets of texts.

    sparsity: share of tokens a feature may activate; None means 1%, or more where 1% would be under
    40 tokens, as on a small model's vocabulary. seed 0 starts where the paper does (42).
    Raises ConceptError where the texts hold too few tokens of their own.
    """
    token_ids, concept_only, neutral_only = divide_tokens(model, concept)
    table = model.embeddings[token_ids].detach().float().cpu() * model.embedding_scale
    smf = SparseMatrixFactorization(
        n_components=rank,
        sparsity=sparsity or max(0.01, min(1.0, TOKENS_PER_FEATURE / len(token_ids))),
        max_iter=max_iter,
        random_state=42 + seed,
        device=str(model.device),
    )
    smf.fit(table, progress=_reporter(progress, smf.patience))
    texts = _texts(model, token_ids)
    features = tuple(_score(k, smf.activations_, concept_only, neutral_only, texts, ratio, share) for k in range(rank))
    return FeatureSet(token_ids, concept_only, smf.components_, smf.activations_, features)


def judged(model, concept, features, judge, ratio, progress=silent):
    """The FeatureSet with the features that a judge keeps, of those with ratio >= `ratio`, as in the paper; `judge` as `make_judge` takes it."""
    ask, found = make_judge(judge, model), []
    for number, feature in enumerate(features.features):
        progress(number / len(features.features), f"The judge reads feature {number + 1} of {len(features.features)}")
        if feature.ratio >= ratio:
            verdict = judge_feature(ask, concept.name, feature.tokens)
            feature = replace(feature, chosen=verdict.keeps, description=verdict.description, confidence=verdict.confidence)
        else:
            feature = replace(feature, chosen=False)
        found.append(feature)
    return replace(features, features=tuple(found))


def published_features(model, concept, source, rank, ratio):
    """The FeatureSet that the paper's authors published for a concept and model: their factors, and of their features those with ratio >= `ratio`.

    source: a folder laid out like their dataset, or its id on the Hub. Which tokens are concept-only is read off the concept's texts.
    Raises ConceptError where the files are missing, unsafe, or for another model.
    """
    token_ids, directions, activations, rows = read_published(source, model.id, concept.name, rank)
    vocabulary, width = model.embeddings.shape
    if directions.shape[1] != width or token_ids.max() >= vocabulary:
        raise ConceptError(f"The published features are for a model of width {directions.shape[1]}; {model.id} has {width}.")
    known = dict(zip(token_ids.tolist(), range(len(token_ids))))
    concept_only, neutral_only = np.zeros(len(token_ids), dtype=bool), np.zeros(len(token_ids), dtype=bool)
    for ids, ours, theirs in zip(*divide_tokens(model, concept)):
        if int(ids) in known:
            concept_only[known[int(ids)]], neutral_only[known[int(ids)]] = ours, theirs
    try:
        chosen = {int(float(row["feature"])) for row in rows if float(row.get("ratio_abs") or row.get("metric_score") or "inf") >= ratio}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConceptError(
            f"The table of features of {concept.name} in {source} has no numbers in its columns feature and ratio_abs ({error})."
        ) from None
    texts = _texts(model, token_ids)
    scored = [_score(k, activations, concept_only, neutral_only, texts, ratio, 0.0) for k in range(len(directions))]
    features = tuple(replace(feature, chosen=feature.index in chosen) for feature in scored)
    return FeatureSet(token_ids, concept_only, directions, activations, features)


def divide_tokens(model, concept):
    """(token ids seen in any text, mask of those in concept texts only, mask of those in neutral texts only).

    Raises ConceptError where fewer than 30 are the concept's alone, or none the neutral texts'.
    """
    concept_ids, neutral_ids = _tokens(model, concept.texts), _tokens(model, concept.retain_texts)
    token_ids = np.array(sorted(concept_ids | neutral_ids))
    in_concept = np.isin(token_ids, list(concept_ids))
    in_neutral = np.isin(token_ids, list(neutral_ids))
    concept_only, neutral_only = in_concept & ~in_neutral, in_neutral & ~in_concept
    if concept_only.sum() < MIN_CONCEPT_TOKENS or not neutral_only.any():
        raise ConceptError(
            f"The texts hold only {concept_only.sum()} tokens that belong to {concept.name} alone; "
            f"at least {MIN_CONCEPT_TOKENS} are needed. Add texts on the concept, or neutral ones."
        )
    return token_ids, concept_only, neutral_only


def _texts(model, token_ids):
    return [model.tokenizer.decode([i]).strip() or model.tokenizer.convert_ids_to_tokens(int(i)) for i in token_ids]


def _tokens(model, texts):
    special = set(model.tokenizer.all_special_ids)
    encoded = model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return {i for ids in encoded for i in ids} - special


def _score(k, activations, concept_only, neutral_only, texts, ratio, share):
    strength = np.abs(activations[:, k])
    ours, theirs = strength[concept_only].mean(), strength[neutral_only].mean()
    active = strength > 0
    own, other = (active & concept_only).sum(), (active & neutral_only).sum()
    found_ratio = float(ours / theirs) if theirs > 0 else math.inf if ours > 0 else 0.0
    found_share = float(own / (own + other)) if own + other else 0.0
    order = np.argsort(-strength)[: int(min(20, active.sum()))]
    return Feature(
        index=k,
        ratio=found_ratio,
        share=found_share,
        strength=float(strength[concept_only].sum()),
        tokens=tuple(texts[i] for i in order),
        chosen=found_ratio >= ratio and found_share >= share,
    )


def _reporter(progress, patience):
    """Iterations as a fraction that nears 1: how many there will be is not known."""

    def report(iteration, _):
        if iteration % 20 == 0:
            progress(iteration / (iteration + patience), f"Factorizing the word table: round {iteration + 1}")

    return report
