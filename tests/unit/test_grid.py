"""A grid of studies: what is done is not done again, and it runs the same on several workers."""

import itertools
import json
from dataclasses import replace

import pytest

import ember_demo as ed
from ember_demo.cli import main
from ember_demo.concept import KINDS
from ember_demo.erasers import ERASERS
from ember_demo.grid import Grid, _condensed, limited, overall_table, run_grid, tables
from ember_demo.wording import label

SMALL = Grid(concepts=("Golf", "Uranium"), seeds=(0,), erasers=("rmu",), attacks=())


def test_a_grid_file_names_what_it_studies(tmp_path):
    path = tmp_path / "grid.json"
    path.write_text('{"concepts": ["Golf"], "seeds": [3, 4]}')
    assert Grid.read(path).runs() == [("pocket", "Golf", 3), ("pocket", "Golf", 4)]
    assert len(Grid().runs()) == 12 * 3


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"colour": "blue"}', "[" * 100_000, '{"seeds": 3}', '{"concepts": "Golf"}', '{"wordings": -1}', '{"seeds": ["a"]}'],
)
def test_what_is_not_a_grid_says_so(content, tmp_path, capsys):
    (tmp_path / "grid.json").write_text(content)
    assert main(["study", "--grid", str(tmp_path / "grid.json"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert "is not a grid" in error and len(error.splitlines()) == 1


def test_a_grid_runs_on_a_dask_cluster_of_two_workers_and_goes_on_where_it_stopped(tmp_path):
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        table = run_grid(SMALL, tmp_path, jobs=2, backend="dask")
    assert "Baseline (RMU)" in table
    runs = json.loads((tmp_path / "runs.json").read_text(encoding="utf-8"))
    assert {r["concept"] for r in runs} == {"Golf", "Uranium"}
    kept = tmp_path / "pocket-golf-0.json"
    written = kept.stat().st_mtime_ns
    (tmp_path / "pocket-uranium-0.json").unlink()
    assert run_grid(SMALL, tmp_path) == table  # in this process, and only what was missing
    assert kept.stat().st_mtime_ns == written and (tmp_path / "pocket-uranium-0.json").exists()


def test_each_fact_can_be_asked_in_fewer_wordings(concept):
    fewer = limited(concept, 1)
    for kind, split in itertools.product(KINDS, ("relearn", "validation", "test")):
        asked, all_of_them = fewer.select(kind, split), concept.select(kind, split)
        assert {q.fact for q in asked} == {q.fact for q in all_of_them}
        assert len(asked) == (len({q.fact for q in asked}) if split == "test" else len(all_of_them))


def test_runs_made_in_other_ways_are_not_mixed_in(tmp_path):
    grid = Grid(concepts=("Golf",), seeds=(0,), erasers=("rmu",), attacks=())
    (tmp_path / "pocket-golf-0.json").write_text(json.dumps({"grid": grid.ways() | {"precision": "4bit"}, "model": {"id": "pocket"}}))
    with pytest.raises(ed.EmberDemoError, match="another --out"):
        run_grid(grid, tmp_path)
    (tmp_path / "pocket-golf-0.json").write_text(json.dumps({"grid": grid.ways(), "model": {"id": "Pocket"}}))
    with pytest.raises(ed.EmberDemoError, match="another --out"):
        run_grid(grid, tmp_path)
    for seed, fingerprint in ((0, "a"), (1, "b")):
        report = {"grid": grid.ways(), "model": {"id": "pocket", "fingerprint": fingerprint}, "concept": "Golf", "seed": seed}
        report |= {"settings": {}, "variants": {}, "attacks": {}}
        (tmp_path / f"pocket-golf-{seed}.json").write_text(json.dumps(report))
    with pytest.raises(ed.EmberDemoError, match="other weights of pocket"):
        run_grid(replace(grid, seeds=(0, 1)), tmp_path)
    (tmp_path / "pocket-golf-0.json").write_text("{")
    with pytest.raises(ed.EmberDemoError, match="damaged"):
        run_grid(grid, tmp_path)


def test_an_unknown_eraser_or_concept_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ed.EmberDemoError, match="magic"):
        run_grid(Grid(erasers=("magic",)), tmp_path)
    with pytest.raises(ed.ConceptError, match="Knitting"):
        run_grid(Grid(concepts=("Golf", "Knitting"), seeds=(0,)), tmp_path)
    assert not list(tmp_path.iterdir())


def _run(concept, gains):
    """A condensed run of every eraser in which an attack gets back what `gains` says, of every variant, and 0.1 of the control."""
    variants = [*ERASERS, *(f"ember+{n}" for n, eraser in ERASERS.items() if eraser.combines and n != "ember")]
    scores = dict.fromkeys(("concept_accuracy", "efficacy", "specificity", "coherence", "overall"), 0.5)
    attacks = {
        attack: {v: {"before": 0.1, "after": 0.1 + gain, "curve": [], "chance": 0.25 * (attack == "linear-probe")} for v in variants}
        | {"control": {"before": 0.0, "after": 0.1, "curve": [], "chance": 0.25 * (attack == "linear-probe")}}
        for attack, gain in gains.items()
    }
    return {"concept": concept, "seed": 0, "delta": 2.0, "variants": dict.fromkeys(variants, scores), "attacks": attacks, "facts": []}


def test_the_worst_case_of_who_holds_more_counts_what_asks_for_less():
    runs = [_run("Golf", {"relearning": 0.2, "respelling": 0.4}), _run("Uranium", {"relearning": 0.6, "respelling": 0.0})]
    worst = next(block for block in tables(runs).split("\n\n") if "best attacker" in block)
    row = next(line for line in worst.splitlines() if line.startswith("| EMBER |"))
    asks, weights, base = (float(cell.split()[0]) for cell in row.strip("| ").split(" | ")[1:])
    assert (asks, weights, base) == (0.2, 0.5, 0.5)  # mean over concepts of the best attack of each
    lacking = _run("Golf", {"respelling": 0.9})  # in which nobody with the weights has tried
    assert worst in tables([*runs, lacking])


def test_choices_among_options_are_marked_and_are_not_the_answers_that_an_attacker_gets():
    found = tables([_run("Golf", {"relearning": 0.2, "linear-probe": 0.7})])
    worst = next(block for block in found.split("\n\n") if "best attacker" in block)
    assert "0.20" in worst and "0.70" not in worst
    assert "| linear-probe (choices among four) | 0.70" in found and "| relearning | 0.20" in found


def test_choices_and_unreadable_answers_are_shown_over_the_runs_that_have_them():
    old, new = _run("Golf", {"relearning": 0.2}), _run("Uranium", {"relearning": 0.2})
    new["variants"] = {v: s | {"choice_efficacy": 0.7, "concept_invalid_rate": 0.1} for v, s in new["variants"].items()}
    head, _, row, *_ = overall_table([new]).splitlines()
    assert "| efficacy on four options | unreadable answers |" in head and "| 0.70 | 0.10 |" in row
    assert "| 0.70 | 0.10 |" in overall_table([old, new])
    report = {"model": {"id": "pocket"}, "concept": "Golf", "seed": 0, "settings": {}} | {k: old[k] for k in ("variants", "attacks")}
    assert _condensed(report)["variants"]["rmu"]["choice_efficacy"] is None
    assert "four options" not in overall_table([_condensed(report)])


def test_many_variants_are_laid_out_in_tables_that_can_be_read():
    found = tables([_run("Golf", {"relearning": 0.2, "respelling": 0.1})]).split("\n\n")
    assert all(block.splitlines()[0].count("|") <= 9 for block in found)
    for name in ERASERS:
        assert any(label(name) in block.splitlines()[0] for block in found[2:]), name
