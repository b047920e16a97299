"""The search for settings: on validation questions alone, within the limits, and going on where it was cut."""

import pytest
import torch

import ember_demo as ed
from ember_demo.edit import Change
from ember_demo.erasers import ERASERS
from ember_demo.evaluation import harmonic_mean
from ember_demo.report import trials_picture, trials_table
from ember_demo.tuning import FIGURES, choose, search, worth


@pytest.fixture(scope="module")
def small(concept):
    """The concept with few questions, and without those that score."""
    asked = [q for k in ("concept", "similar", "general") for q in concept.select(k, "validation")[:60]]
    return ed.Concept("Harry Potter", concept.texts, concept.neutral_texts, asked + concept.select("concept", "relearn")[:60])


def test_a_search_goes_on_where_it_was_cut_and_finds_the_best_of_its_trials(model, small, tmp_path, untouched):
    eraser, journal = ed.RMU(steps=10), tmp_path / "search.log"
    calls = []

    def stop(fraction, message, **data):
        calls.append(message)
        if cut in message:
            raise ed.Stopped("Stopped.")

    for cut in ("trial 1", "trial 3"):
        with pytest.raises(ed.Stopped):
            search(model, [small], eraser, 4, journal=journal, progress=stop)
    best, trials = search(model, [small], eraser, 4, journal=journal)
    assert len(trials) == 4 and trials[0]["settings"] == {n: getattr(eraser.resolved(model), n) for n in eraser.space}
    chosen = max(trials, key=worth)
    assert all(getattr(best, name) == value for name, value in chosen["settings"].items())
    assert all(
        low <= t["settings"][n] / getattr(eraser.resolved(model), n) <= high * 1.05
        for t in trials
        for n, (low, high) in [("alpha", eraser.space["alpha"])]
    )
    again, repeated = search(model, [small], eraser, 4, journal=journal, progress=lambda *a, **k: pytest.fail("ran again"))
    assert repeated == trials and again == best
    assert trials_table(trials).count("\n") == 5 and trials_picture(trials).count("<circle") == 4
    assert {*FIGURES, "settings", "within_limits", "kept_of"} == trials[0].keys()


def test_a_grid_is_searched_by_its_own_values(model, small, untouched):
    grid = {"alpha": (10.0, 30.0), "steering": (30.0, 100.0)}
    best, trials = search(model, [small], ed.RMU(steps=1, alpha=30.0, steering=30.0), 3, grid=grid | {"layer": (6, 7)})
    assert trials[0]["settings"] == {"alpha": 30.0, "steering": 30.0}
    assert all(t["settings"].keys() == grid.keys() and all(t["settings"][name] in grid[name] for name in grid) for t in trials)
    assert best.alpha in grid["alpha"] and best.steps == 1


def test_a_trial_that_hurts_the_model_is_worth_less_than_any_that_does_not():
    good = {"overall": 0.01, "within_limits": True, "ability": 0.95, "coherence": 0.95}
    bad = {"overall": 0.99, "within_limits": False, "ability": 0.89, "coherence": 0.99}
    worse = bad | {"ability": 0.2}
    assert worth(good) > worth(bad) > worth(worse)


def test_a_search_with_other_settings_or_texts_begins_anew(model, small, tmp_path):
    journal = tmp_path / "search.log"
    other_texts = ed.Concept(small.name, small.texts[:100], small.neutral_texts, small.questions)
    for concept, eraser in ((small, ed.RMU(steps=2)), (small, ed.RMU(steps=2, batch_size=2)), (other_texts, ed.RMU(steps=2))):
        ran = []
        search(model, [concept], eraser, 1, journal=journal, progress=lambda *a, **k: ran.append(a))
        assert ran


def test_settings_that_find_nothing_to_erase_are_a_trial_that_failed(model, small):
    eraser = ERASERS["snmf"](rank=10, max_iter=5, max_tokens=500, ratio=1e9)
    _, trials = search(model, [small], eraser, 2)
    assert len(trials) == 2 and not any(trial["within_limits"] for trial in trials)
    with pytest.raises(ed.EmberDemoError, match="at least 1"):
        search(model, [small], eraser, 0)


def test_a_model_that_does_not_answer_word_for_word_is_judged_by_its_answers_probability(model, small, ember_edit, monkeypatch):
    weak = ed.WeightEdit(
        {n: Change(c.delta * 0.001, c.rows) for n, c in ember_edit.changes.items()}, ember_edit.fingerprint, ember_edit.details
    )
    assert {t["kept_of"] for t in choose(model, small, [ember_edit])[1]} == {"answers"}
    monkeypatch.setattr(model, "answer", lambda texts, *_, **__: [("That is a long story.", True)] * len(texts))
    best, trials = choose(model, small, [weak, ember_edit])
    assert best is ember_edit and trials[0]["efficacy"] < 0.1 < 0.5 < trials[1]["efficacy"]
    assert {t["kept_of"] for t in trials} == {"probability"}
    others = [q.subject for kind in ("similar", "general") for q in small.select(kind, "validation")]
    rows = torch.tensor(
        sorted({i for ids in model.tokenizer([f" {s}" for s in others], add_special_tokens=False)["input_ids"] for i in ids})
    )
    harm = ed.WeightEdit({model.embedding_name: Change(-model.embeddings[rows].float().cpu(), rows)}, ember_edit.fingerprint)
    best, (harmful, harmless) = choose(model, small, [ember_edit + harm, ember_edit])
    assert best is ember_edit and harmful["specificity"] < 0.5 < 0.8 < harmless["specificity"] and not harmful["within_limits"]
    values = [trials[1][name] for name in ("efficacy", "specificity", "coherence")]
    assert trials[1]["overall"] == pytest.approx(harmonic_mean(values))


def test_what_has_nothing_to_search_says_so(model, small):
    with pytest.raises(ed.EmberDemoError, match="no settings to search"):
        search(model, [small], ERASERS["zero-rows"](), 2)


def test_every_setting_of_a_search_exists(model):
    for eraser in ERASERS.values():
        usual = eraser().resolved(model)
        assert all(getattr(usual, name) and low <= 1 <= high for name, (low, high) in eraser.space.items()), eraser.name
