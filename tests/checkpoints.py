"""Small random checkpoints of every supported architecture, with their own tokenizers and chat templates."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from ember_demo.pocket.world import load_world

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last }}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MISTRAL = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# family: chat template, start, end, other special tokens, what its configuration has of its own
FAMILIES = {
    "gemma2": (GEMMA, "<bos>", "<eos>", ["<pad>", "<start_of_turn>", "<end_of_turn>"], {"head_dim": 16, "query_pre_attn_scalar": 16}),
    "gemma3_text": (GEMMA, "<bos>", "<eos>", ["<pad>", "<start_of_turn>", "<end_of_turn>"], {"head_dim": 16, "query_pre_attn_scalar": 16}),
    "llama": (LLAMA, "<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"], {"tie_word_embeddings": False}),
    "smollm": (CHATML, "<|im_start|>", "<|im_end|>", [], {"tie_word_embeddings": True}),
    "qwen2": (CHATML, None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"], {"tie_word_embeddings": True}),
    "qwen3": (QWEN3, None, "<|im_end|>", ["<|im_start|>", "<|endoftext|>"], {"tie_word_embeddings": True, "head_dim": 16}),
    "mistral": (MISTRAL, "<s>", "</s>", [], {"head_dim": 16}),
    "phi3": (PHI, "<s>", "<|endoftext|>", ["<|user|>", "<|assistant|>", "<|end|>"], {}),
    "gpt_neox": (None, "<|endoftext|>", "<|endoftext|>", [], {}),
    "olmo2": (PHI, None, "<|endoftext|>", ["<|user|>", "<|assistant|>", "<|end|>"], {}),
}
CONFIGS = {"smollm": "llama"}


def build(family, folder, dtype=None, **sizes):
    """Write a random checkpoint of that family to the folder."""
    template, start, end, others, extra = FAMILIES[family]
    tokenizer = _tokenizer(template, start, end, others)
    config = CONFIG_MAPPING[CONFIGS.get(family, family)](
        vocab_size=len(tokenizer),
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **({} if family == "gpt_neox" else {"num_key_value_heads": 2}),
        **({"hidden_size": 64, "intermediate_size": 128} | sizes),
        **extra,
    )
    network = AutoModelForCausalLM.from_config(config)
    if dtype:
        network = network.to(dtype)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(template, start, end, others):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(t for t in (start, end, *others) if t))
    texts = [s for pack in load_world().packs.values() for s in pack.concept.sentences]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    pad = "<pad>" if "<pad>" in others else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=start, eos_token=end, pad_token=pad, additional_special_tokens=others
    )
    tokenizer.chat_template = template
    return tokenizer
