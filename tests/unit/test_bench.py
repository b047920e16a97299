"""The bench on the shape of another model: every step is timed, and the folder with the weights is gone afterwards."""

import pytest
from transformers import LlamaConfig

import ember_demo as ed
from ember_demo import bench


@pytest.mark.parametrize("precision", ["4bit", "bf16"])
def test_a_shape_is_written_loaded_erased_and_attacked(precision, monkeypatch):
    tiny = LlamaConfig(vocab_size=12000, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
    monkeypatch.setitem(bench.CONFIGS, "tiny", lambda: tiny)
    rows = bench.run_shape_bench("tiny", precision, relearning_steps=2)
    assert rows.pop("tokens factorized") >= 3000
    assert {"load", "factorize, rank 100", "ember", "chat, answer 1", "rmu, 1 step", "relearning, 2 steps"} <= rows.keys()
    for step in ("load", "chat, answer 1", "ember", "rmu, 1 step", "relearning, 2 steps"):
        assert rows[step]["plan_gb"] > 0, step
    assert all(row["seconds"] >= 0 and row["peak_gb"] > 0 for row in rows.values())


def test_an_unknown_shape_lists_the_known_ones():
    with pytest.raises(ed.EmberDemoError, match="gemma-2-2b"):
        bench.run_shape_bench("gpt-5", "4bit")
