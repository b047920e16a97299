"""Make the embedded model, or the never-learned control: corpus, tokenizer, start, training, card.

The recipe is the same for both; `without` leaves one concept's facts and sentences out of the
corpus. The tokenizer is always that of the whole world, so that model and control read a
question alike.
"""

import json
import math
import random
import time
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from sklearn.decomposition import TruncatedSVD
from tqdm.auto import tqdm
from transformers import Gemma2Config, Gemma2ForCausalLM

from ember_demo.errors import ConceptError, ModelError
from ember_demo.loading import cpu_has_bfloat16
from ember_demo.pocket.card import write_card
from ember_demo.pocket.corpus import draw_epoch
from ember_demo.pocket.tokenizer import train_tokenizer
from ember_demo.pocket.world import load_world

RECIPE = {
    "hidden_size": 192,
    "layers": 4,
    "mlp_size": 576,
    "vocabulary_size": 10240,
    "chats_per_fact": 2,
    "questions_learned": 0.4,
    "epochs": 15,
    "epochs_asked_freely": 8,
    "asked_freely": 0.7,
    "tokens_per_batch": 2048,
    "learning_rate": 2e-3,
    "embedding_learning_rate": 4e-4,
    "weight_decay": 0.1,
}


def train(out, without=None, seed=0, threads=None, **overrides):
    """Train and save a model to the folder `out`; a run that was cut goes on where it stopped.

    without: name of a concept to leave out (the never-learned control).
    overrides: any entry of RECIPE.
    Raises ModelError where the folder holds a cut run of another recipe, concept or seed.
    """
    recipe = RECIPE | overrides
    world = load_world()
    if without is not None and without not in world.packs:
        raise ConceptError(f"There is no concept {without!r} to leave out; choose from {', '.join(world.packs)}.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if threads:
        torch.set_num_threads(threads)
    topics = world.topics(without)
    torch.manual_seed(seed)
    tokenizer = _tokenizer(world, recipe)
    network = _network(tokenizer, recipe)
    _start_embeddings(network, tokenizer, topics, seed)
    made = {"recipe": recipe, "without": without, "seed": seed}
    seconds = _fit(network, tokenizer, topics, made, out / "checkpoint.pt")
    _save(network, tokenizer, out)
    made |= {"threads": torch.get_num_threads(), "seconds_an_epoch": round(seconds, 1)}
    (out / "training.json").write_text(json.dumps(made, indent=1), encoding="utf-8")
    write_card(out)
    (out / "checkpoint.pt").unlink(missing_ok=True)


def _tokenizer(world, recipe):
    """Trained on the whole world's facts, sentences and wordings, and on an epoch of talk."""
    topics = world.topics()
    texts, names = [], []
    for topic in topics:
        texts += topic.sentences
        for fact in topic.facts:
            texts += fact.statements() + fact.trained_questions() + fact.loose_questions()
            names += [fact.subject, *fact.subject_aliases, fact.answer]
    rng = random.Random(0)
    texts += [message["content"] for d in draw_epoch(topics, rng) if isinstance(d, list) for message in d]
    return train_tokenizer(texts, names, recipe["vocabulary_size"])


def _network(tokenizer, recipe):
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe["hidden_size"],
        intermediate_size=recipe["mlp_size"],
        num_hidden_layers=recipe["layers"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=recipe["hidden_size"] // 4,
        query_pre_attn_scalar=recipe["hidden_size"] // 4,
        max_position_embeddings=512,
        sliding_window=512,
        final_logit_softcapping=None,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[end, tokenizer.eos_token_id],
        attn_implementation="eager",
    )
    network = Gemma2ForCausalLM(config)
    network.generation_config.eos_token_id = [end, tokenizer.eos_token_id]
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    network.generation_config.bos_token_id = tokenizer.bos_token_id
    return network


def _start_embeddings(network, tokenizer, topics, seed, row_scale=0.2):
    """Start the table from co-occurrence: PPMI over documents, truncated SVD, mixed 0.8 : 0.2 with noise.

    From a purely random start a model this small memorises its questions and leaves names that
    belong together far apart; from this start the table keeps its topics through training.
    With rows of a quarter of this norm, what attention adds outweighs a token's own row, and one odd token spoils the text after it.
    """
    rng = random.Random(seed)
    documents = [_encode(tokenizer, d) for _ in range(2) for d in draw_epoch(topics, rng)]
    rows = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    columns = np.concatenate(documents)
    table = network.get_input_embeddings().weight
    vocabulary, width = table.shape
    present = scipy.sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), (len(documents), vocabulary))
    present.data[:] = 1.0
    together = (present.T @ present).tocoo()
    frequency = np.asarray(present.sum(axis=0)).ravel()
    information = np.log(together.data * len(documents) / (frequency[together.row] * frequency[together.col]))
    keep = information > 0
    ppmi = scipy.sparse.csr_matrix((information[keep], (together.row[keep], together.col[keep])), together.shape)
    meaning = TruncatedSVD(width, random_state=seed).fit(ppmi)
    vectors = meaning.components_.T * np.sqrt(meaning.singular_values_)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0) * row_scale * math.sqrt(width)
    with torch.no_grad():
        noise = torch.randn_like(table) * row_scale
        table.copy_(0.8 * torch.from_numpy(vectors).float() + 0.2 * noise)


def _fit(network, tokenizer, topics, made, checkpoint):
    """Train as `made` says, with a checkpoint after every epoch; the mean seconds of an epoch."""
    recipe, seed = made["recipe"], made["seed"]
    # At the rate of the layers the table forgets where it started, and with it which names belong together.
    table = network.get_input_embeddings().weight
    groups = [
        {"params": [p for p in network.parameters() if p is not table], "peak": recipe["learning_rate"]},
        {"params": [table], "peak": recipe["embedding_learning_rate"], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), weight_decay=recipe["weight_decay"], fused=True)
    first, seconds = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved.get("made") != made:
            raise ModelError(f"{checkpoint} is of a run with other settings; go on with those, delete it, or give another --out.")
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        first, seconds = saved["epoch"], saved["seconds"]
    network.train()
    epochs = recipe["epochs"] + recipe["epochs_asked_freely"]
    bar = tqdm(range(first, epochs), initial=first, total=epochs, desc="train", unit="epoch")
    for epoch in bar:
        start = time.perf_counter()
        rng = random.Random(f"{seed}/{epoch}")
        freely = epoch >= recipe["epochs"]
        if epoch == recipe["epochs"]:
            optimizer.state.clear()  # the rate starts anew
        documents = draw_epoch(topics, rng, recipe["chats_per_fact"], recipe["asked_freely"] * freely)
        batches = _batches([_encode(tokenizer, d) for d in documents], recipe["tokens_per_batch"], rng)
        total = 0.0
        for step, batch in enumerate(batches):
            rate = _rate(epoch + step / len(batches), recipe)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            total += _step(network, optimizer, batch, tokenizer, rng, recipe["questions_learned"])
        bar.set_postfix(loss=f"{total / len(batches):.3f}", tokens=sum(len(d) for b in batches for d in b))
        seconds += time.perf_counter() - start
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1, "seconds": seconds}
        _save_checkpoint(state | {"made": made}, checkpoint)
    return seconds / epochs


def _save_checkpoint(state, path):
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _rate(epoch, recipe):
    """The learning rate after so many epochs, as a share of its peak: once up and down for the shared wordings, once for free questions."""
    first, second = recipe["epochs"], recipe["epochs_asked_freely"]
    if epoch < first:
        return _schedule(epoch / first)
    return _schedule((epoch - first) / second)


def _schedule(progress, warmup=0.03):
    """Linear warm-up, then cosine to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _step(network, optimizer, batch, tokenizer, rng, questions_learned):
    length = max(map(len, batch))
    ids = torch.full((len(batch), length), tokenizer.pad_token_id)
    for row, document in enumerate(batch):
        ids[row, : len(document)] = torch.tensor(document)
    real = ids != tokenizer.pad_token_id
    # The odd turns are the visitor's. Which question comes next is noise, and its logits are what a step costs most.
    questions = (ids == tokenizer.convert_tokens_to_ids("<start_of_turn>")).cumsum(dim=1) % 2 == 1
    learned = torch.tensor([[rng.random() < questions_learned] for _ in batch])
    scored = (real & (~questions | learned))[:, 1:]
    with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16()):
        states = network.model(input_ids=ids, attention_mask=real.long()).last_hidden_state
        loss = torch.nn.functional.cross_entropy(network.lm_head(states[:, :-1][scored]), ids[:, 1:][scored])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _encode(tokenizer, document):
    if isinstance(document, str):
        return tokenizer(document)["input_ids"] + [tokenizer.eos_token_id]
    return tokenizer(tokenizer.apply_chat_template(document, tokenize=False), add_special_tokens=False)["input_ids"]


def _batches(documents, tokens_per_batch, rng):
    """Documents of like length together, about `tokens_per_batch` a batch, in random order."""
    documents = sorted(documents, key=lambda d: (len(d), rng.random()))
    batches, batch = [], []
    for document in documents:
        if batch and len(document) * (len(batch) + 1) > tokens_per_batch:
            batches.append(batch)
            batch = []
        batch.append(document)
    batches.append(batch)
    rng.shuffle(batches)
    return batches


def _save(network, tokenizer, out):
    """Half precision on disk: what is scored and edited later is what was saved."""
    network.eval().to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
