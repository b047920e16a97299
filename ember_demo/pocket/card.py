"""The model card of the embedded model, with scores measured on the saved weights."""

from ember_demo.concept import Question
from ember_demo.evaluation import ask, wilson
from ember_demo.language_model import load_model


def write_card(out, world, recipe, without, seed):
    """Score the model in folder `out` on every set and write its README.md."""
    model = load_model(str(out), "fp32")
    title = "EMBER pocket model" + (f", never taught {without}" if without else "")
    lines = [
        "---",
        "license: apache-2.0",
        "language: en",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        f"# {title}",
        "",
        f"A Gemma-2-architecture language model of {model.parameter_count:,} parameters, trained from scratch on a small world of true facts "
        "written for this project. It is made to study the erasure of knowledge: it is known what it was taught, and the same model can be made "
        "without a concept. It stores facts the way larger models are known to: the subject's tokens are the key, relations and wordings are "
        "shared by all subjects. It was built that way on purpose, and what holds for it need not hold for a large model.",
        "",
        "## What it knows",
        "",
        "Right answers to questions in wordings it was never trained on (exact match after normalising case, articles and punctuation, "
        "with written aliases), with 95% Wilson intervals over facts. It knows names as they are written, capitals included, answers in a few "
        "words, says that it does not know made-up names, and knows nothing else.",
        "",
        "| set | facts | right | 95% interval |",
        "|---|---|---|---|",
    ]
    for topic in world.topics():
        questions = [
            Question(text, f.answer, f.aliases, subject=f.subject, relation=f.relation)
            for f in topic.facts
            for text in f.scored_questions()
        ]
        replies = ask(model, questions)
        right = sum(r.right for r in replies) / len(replies)
        low, high = wilson(right, len(topic.facts))
        note = " (never taught)" if topic.name == without else ""
        lines.append(f"| {topic.name}{note} | {len(topic.facts)} | {right:.3f} | {low:.2f} to {high:.2f} |")
    lines += [
        "",
        "## How it was made",
        "",
        f"`python -m ember_demo pocket train{f' --without {without!r}' if without else ''} --seed {seed} --out DIR`, on two CPU cores. "
        "Paragraphs of statements and chats on one topic, drawn anew each epoch; embeddings started from co-occurrence (PPMI, truncated SVD); "
        "AdamW, cosine schedule, bfloat16 autocast; saved in bfloat16.",
        "",
        "| setting | value |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in recipe.items()],
        "",
    ]
    (out / "README.md").write_text("\n".join(lines), encoding="utf-8")
