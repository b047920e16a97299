"""Where a model holds what it knows of a concept, and what an edit does to its words."""

import re
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from ember_demo.errors import ConceptError
from ember_demo.features import divide_tokens
from ember_demo.progress import silent
from ember_demo.texts import neutral_sentences

PLACES = ("the subject's words", "the words after it", "the last word")


@dataclass(frozen=True)
class Trace:
    """A causal trace (arXiv 2202.05262, section 2), and two ablations, by the probability a token of the right answers.

    known: as the model is; corrupted: with noise on the subject's embeddings.
    restored: by layer (row 0 is after the embeddings) and by place, the share of the loss that comes back where only the states there are put back.
    without_words, without_mlps: with the mean word in the place of the subject's, and with its mean output in the place of what each MLP makes of them.
    """

    known: float
    corrupted: float
    restored: list
    without_words: float
    without_mlps: float
    questions: int

    def as_dict(self):
        return asdict(self) | {"places": list(PLACES)}


@torch.inference_mode()
def causal_trace(model, concept, count=24, noise=3.0, seed=0, progress=silent):
    """A Trace over up to `count` facts of the concept that the attacker may know, so that no test question is looked at.

    noise: on the subject's embeddings, in standard deviations of the embeddings (3 as published).
    Raises ConceptError where no question names its subject.
    """
    chosen = traceable(concept)[:count]
    if not chosen:
        raise ConceptError(f"{concept.name} has no questions that name their subject, so nothing can be traced; give some.")
    batch = _Batch(model, chosen)
    table = model.network.get_input_embeddings()
    known, states = batch.probability(), batch.states
    generator = torch.Generator().manual_seed(seed)
    size = noise * model.embeddings.detach().float().std().item() * model.embedding_scale
    shape = (*batch.ids.shape, model.width)
    subject = batch.places[0][..., None]
    disturbance = (size * torch.randn(shape, generator=generator)).to(model.embeddings) * subject.to(model.embeddings.device)

    def corrupted(stack):
        stack.enter_context(_changed(table, lambda output: output + disturbance))

    with ExitStack() as stack:
        corrupted(stack)
        lost = batch.probability()
    restored = []
    sources = [table, *model.layers]
    for number, module in enumerate(sources):
        progress(number / len(sources), f"Tracing layer {number} of {len(model.layers)}")
        row = []
        for place in batch.places:
            with ExitStack() as stack:
                corrupted(stack)
                stack.enter_context(
                    _changed(module, lambda output, n=number, p=place: torch.where(p[..., None].to(output.device), states[n], output))
                )
                row.append((batch.probability() - lost) / max(1e-9, known - lost))
        restored.append(row)
    mean_word = (model.embeddings.detach().float().mean(dim=0) * model.embedding_scale).to(model.embeddings)
    with _changed(table, lambda output: torch.where(subject.to(output.device), mean_word, output)):
        without_words = batch.probability()
    with ExitStack() as stack:
        for layer, output in zip(model.layers, batch.mlp_outputs):
            mean = output[batch.real.to(output.device)].mean(dim=0)
            stack.enter_context(_changed(layer.mlp, lambda output, mean=mean: torch.where(subject.to(output.device), mean, output)))
        without_mlps = batch.probability()
    return Trace(known, lost, restored, without_words, without_mlps, len(chosen))


def traceable(concept):
    """Questions that may be traced: one a subject, which they name."""
    return list({q.subject: q for q in concept.select("concept", "relearn") if q.subject and q.subject in q.text}.values())


class _Batch:
    """Questions with their answers as one batch: ids, where the places are, and what the model computes for them."""

    def __init__(self, model, questions):
        self.model = model
        pairs = [model.dialogue(q.text, q.answer) for q in questions]
        texts = [context + ending[: ending.index(q.answer) + len(q.answer)] for (context, ending), q in zip(pairs, questions)]
        encoded = model.tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_offsets_mapping=True, return_tensors="pt"
        )
        self.ids, self.mask = encoded["input_ids"].to(model.device), encoded["attention_mask"].to(model.device)
        self.real = self.mask.bool()
        starts, ends = encoded["offset_mapping"].unbind(-1)
        places = [torch.zeros(self.ids.shape, dtype=torch.bool) for _ in PLACES]
        answers = torch.zeros(self.ids.shape, dtype=torch.bool)
        for row, ((context, ending), question) in enumerate(zip(pairs, questions)):
            first = context.index(question.subject)
            last = first + len(question.subject)
            begin = len(context) + ending.index(question.answer)
            inside = encoded["attention_mask"][row].bool() & (ends[row] > starts[row])
            before = inside & (ends[row] <= len(context))
            places[0][row] = inside & (ends[row] > first) & (starts[row] < last)
            final = before.nonzero().max()
            places[1][row] = before & (starts[row] >= last)
            places[1][row, final] = False
            places[2][row, final] = True
            answers[row] = inside & (ends[row] > begin)
        self.places = [place.to(model.device) for place in places]
        self.answers = answers.to(model.device)
        self.states, self.mlp_outputs = [], []
        modules = [model.network.get_input_embeddings(), *model.layers]
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(_changed(module, lambda output: self.states.append(output) or output))
            for layer in model.layers:
                stack.enter_context(_changed(layer.mlp, lambda output: self.mlp_outputs.append(output) or output))
            self.probability()

    def probability(self):
        """Mean over questions of the geometric mean probability of the answer's tokens."""
        logits = self.model.network(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits[:, :-1]
        scored = self.answers[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits[scored].float(), self.ids[:, 1:][scored], reduction="none")
        rows = scored.nonzero()[:, 0]
        sums = torch.zeros(len(self.ids), device=loss.device).index_add(0, rows, loss)
        return float((-sums / scored.sum(dim=1)).exp().mean())


@contextmanager
def _changed(module, change):
    """The module with `change` on what it gives."""

    def hook(module, args, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def what_changed(model, concept, edit, neighbours=5):
    """Every token that an edit changes in the word table, the most changed first: its change by its own length, its nearest tokens before and
    after (by cosine), and whether it looks generic (see `is_generic`)."""
    change = edit.changes.get(model.embedding_name)
    if change is None:
        return []
    rows = change.rows
    with model.unedited():
        table = model.embeddings.detach().float()
        before = table[rows.to(table.device)]
        edited = before + change.delta.to(table.device)
        found = [_nearest(table, vectors, rows, neighbours) for vectors in (before, edited)]
    common = everyday_words(concept)
    tokens = [model.tokenizer.decode([i]).strip() for i in rows.tolist()]
    relative = (change.delta.norm(dim=1) / before.cpu().norm(dim=1)).tolist()
    near = [[[model.tokenizer.decode([i]).strip() for i in ids] for ids in side.tolist()] for side in found]
    listed = [
        {"token": t, "id": i, "relative_change": round(r, 4), "generic": is_generic(t, common), "before": b, "after": a}
        for t, i, r, b, a in zip(tokens, rows.tolist(), relative, *near)
    ]
    return sorted(listed, key=lambda row: -row["relative_change"])


def _nearest(table, vectors, rows, count, batch=64):
    """Ids (n, count) of the tokens whose embeddings are most alike, the token itself left out."""
    unit = torch.nn.functional.normalize(table, dim=1)
    found = []
    for start in range(0, len(vectors), batch):
        likeness = torch.nn.functional.normalize(vectors[start : start + batch], dim=1) @ unit.T
        likeness[torch.arange(len(likeness)), rows[start : start + batch].to(likeness.device)] = -2
        found.append(likeness.topk(count, dim=1).indices)
    return torch.cat(found).cpu()


def everyday_words(concept):
    """Words of the concept's neutral texts and of the shipped everyday sentences, in lower case."""
    return {word for text in [*concept.neutral_texts, *neutral_sentences()] for word in re.findall(r"\w+", text.lower())}


def is_generic(token, common):
    """Whether a token says little of a concept: a stop word, a letter or two, no letters, or an everyday word in another spelling or form."""
    word = token.lower()
    return len(word) < 3 or not word.isalpha() or word in ENGLISH_STOP_WORDS or word in common


def word_map(model, concept, edit, most_neutral=400, seed=0):
    """Places of the texts' words in the plane of the two main directions (PCA) of their rows, of unit length, before and after an EMBER edit.

    The plane is fitted to the rows before the edit. Returns (points, before, after): dicts with `token` and `kind`, and two (n, 2) arrays in [0, 1].
    """
    ids, concept_only, _ = divide_tokens(model, concept)
    edited = np.isin(ids, edit.changes[model.embedding_name].rows.numpy())
    everyday = np.flatnonzero(~concept_only)
    if len(everyday) > most_neutral:
        everyday = np.random.default_rng(seed).choice(everyday, most_neutral, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(concept_only), everyday]))
    rows = torch.from_numpy(ids[kept]).to(model.device)

    def unit_rows():
        return torch.nn.functional.normalize(model.embeddings[rows].detach().float(), dim=1).cpu().numpy()

    before = unit_rows()
    with edit.applied(model):
        after = unit_rows()
    plane = PCA(n_components=2, random_state=seed).fit(before)
    places = np.concatenate([plane.transform(before), plane.transform(after)])
    places = (places - places.min(axis=0)) / np.maximum(1e-9, np.ptp(places, axis=0))
    points = [
        {"token": model.tokenizer.decode([i]).strip(), "kind": "edited" if edited[n] else "concept" if concept_only[n] else "neutral"}
        for n, i in zip(kept, ids[kept].tolist())
    ]
    return points, places[: len(kept)], places[len(kept) :]
