"""EMBER: erase a concept from the token embeddings (arXiv 2606.03695)."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch

from ember_demo.edit import Change, WeightEdit
from ember_demo.erasers.base import Eraser
from ember_demo.errors import ConceptError
from ember_demo.features import find_features, judged, published_features
from ember_demo.judge import public_name
from ember_demo.progress import part, silent
from ember_demo.tuning import choose

DELTAS = (0.5, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 200.0)


@dataclass(frozen=True)
class Ember(Eraser):
    """Subtract from each of the concept's own tokens what the concept's features put into it.

    rank: features of the factorization. delta: how many times the fitted part is subtracted; 1 removes it, more
    overshoots; "auto" takes the best of the paper's grid on the validation questions.
    ratio, share: the rule of `find_features`. sparsity: None means the rule there.
    keep: words that stay as they are, in capitals or not, whatever the features say.
    skip_features: indices of features that are left alone although the rule chooses them.
    published: a folder or Hub dataset with the authors' fitted features, taken instead of a factorization of our own.
    judge: who chooses among the features with that ratio, instead of the share: "self" (the model itself), a chat model's Hub id, or an
    OpenAI-like server's base URL or MODEL@URL; None means the numeric rule.
    """

    name: ClassVar[str] = "ember"
    touches: ClassVar[str] = "token embeddings of the concept's own words"
    description: ClassVar[str] = (
        "Finds the directions in the word table that stand for the concept and takes them out of the concept's own words."
    )

    space: ClassVar[dict] = {"share": (1.0, 1.6)}

    rank: int = 100
    delta: float | str = "auto"
    ratio: float = 2.0
    share: float = 0.5
    sparsity: float | None = None
    max_iter: int = 20000
    keep: tuple[str, ...] = ()
    skip_features: tuple[int, ...] = ()
    published: str | None = None
    judge: str | None = None

    def fit(self, model, concept, seed=0, progress=silent):
        features = self.find_features(model, concept, seed, part(progress, 0, 0.5))
        return self.edit(model, concept, features, part(progress, 0.5, 1))

    def find_features(self, model, concept, seed=0, progress=silent):
        """The FeatureSet the edit rests on; ConceptError where no feature is the concept's own."""
        with model.unedited():
            if self.published:
                found = published_features(model, concept, self.published, self.rank, self.ratio)
            else:
                found = find_features(model, concept, self.rank, self.ratio, self.share, self.sparsity, self.max_iter, seed, progress)
            if self.judge:
                found = judged(model, concept, found, self.judge, self.ratio, progress)
        if not found.chosen:
            raise ConceptError(f"No feature of the embeddings is about {concept.name}; give more texts, or lower the ratio or share.")
        return found

    def edit(self, model, concept, features, progress=silent):
        """The WeightEdit for these features, with delta chosen on the validation questions where it is "auto"."""
        features = features.without(self.skip_features)
        if self.delta != "auto":
            return self._edit(model, features)
        candidates = [replace(self, delta=delta)._edit(model, features) for delta in DELTAS]
        best, trials = choose(model, concept, candidates, progress)
        trials = [{"delta": delta} | trial for delta, trial in zip(DELTAS, trials)]
        return replace(best, details=best.details | {"delta_trials": trials})

    def _edit(self, model, features):
        """e_i <- e_i - delta F_S G[i, S]^T, for the edited tokens i and chosen features S (the paper's edit)."""
        kept = {word.strip().lower() for word in self.keep}
        words = [model.tokenizer.decode([i]).strip().lower() for i in features.token_ids]
        edited = features.edited & ~np.isin(words, list(kept))
        if not edited.any():
            raise ConceptError("Every word that EMBER would change is struck out, so nothing is left to edit; keep fewer.")
        part_of_concept = torch.from_numpy(features.activations[edited][:, features.chosen] @ features.directions[features.chosen])
        delta = -float(self.delta) * part_of_concept / model.embedding_scale
        rows = torch.from_numpy(features.token_ids[edited])
        with model.unedited():
            before = model.embeddings[rows.to(model.device)].detach().float().cpu()
        relative = delta.norm(dim=1) / before.norm(dim=1)
        tokens = [model.tokenizer.decode([i]).strip() for i in rows.tolist()]
        details = {
            "settings": {"ember": self.settings() | ({"judge": public_name(self.judge)} if self.judge else {})},
            "edited_tokens": [{"token": t, "relative_change": round(r, 4)} for t, r in zip(tokens, relative.tolist())],
            "features": [
                {
                    "index": f.index,
                    "ratio": f.ratio if math.isfinite(f.ratio) else None,
                    "share": f.share,
                    "strength": f.strength,
                    "tokens": list(f.tokens),
                }
                | ({} if f.confidence is None else {"description": f.description, "confidence": f.confidence})
                for f in features.features
                if f.chosen
            ],
            "concept_only_tokens": int(features.concept_only.sum()),
        }
        return WeightEdit({model.embedding_name: Change(delta, rows)}, model.fingerprint, details)


@dataclass(frozen=True)
class FromEmber(Eraser):
    """An eraser whose changes follow from EMBER's."""

    combines: ClassVar[bool] = False

    ember: Ember = field(default_factory=Ember)

    @abstractmethod
    def changes(self, model, edit, seed):
        """The changes by parameter name, from EMBER's edit."""

    def fit(self, model, concept, seed=0, progress=silent):
        return self.following(model, concept, self.ember.fit(model, concept, seed, part(progress, 0, 0.9)), seed, part(progress, 0.9, 1))

    def following(self, model, concept, edit, seed=0, progress=silent):
        """The WeightEdit that follows from EMBER's, which need not be fitted again."""
        return WeightEdit(self.changes(model, edit, seed), model.fingerprint, {"settings": {self.name: edit.details["settings"]["ember"]}})
