"""The command line: `python -m ember_demo ...`."""

import json
import os
import shlex
import sys
import tempfile
from dataclasses import asdict, replace

from ember_demo.arguments import read
from ember_demo.errors import NO_ROOM, ArgumentError, EmberDemoError, out_of_memory

SEARCH = "search.log"  # in the folder of results: the trials of a search
TEXTS = "texts.txt"  # and the texts that were fetched or written for it


def main(arguments=None):
    """Run a command; the exit status: 0 done, 2 bad arguments, 1 failed."""
    try:
        options = read(arguments)
        COMMANDS[" ".join(filter(None, (options.command, getattr(options, "action", None))))](options)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EmberDemoError as error:
        print(f"ember_demo: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(f"ember_demo: {NO_ROOM}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ember_demo: stopped.", file=sys.stderr)
        return 1


# What only some commands need is imported there.


def _study(options):
    if options.grid:
        return _study_grid(options)
    from ember_demo.attacks import ATTACKS, default_attack
    from ember_demo.erasers import ERASERS
    from ember_demo.progress import part, terminal
    from ember_demo.repeat import command_line
    from ember_demo.report import summary, write_report
    from ember_demo.settings import read_settings
    from ember_demo.study import choose_by_name, run_study

    erasers = choose_by_name(_named(options.erasers), ERASERS, "eraser")
    attacks = choose_by_name(_named(options.attacks), ATTACKS, "attack")
    settings = read_settings(options.set)
    _refuse_without_ember(options, erasers)
    _refuse_unused(settings, erasers, ATTACKS.values() if options.attacks is None else attacks)
    if options.no_questions and _with_ember(erasers) and "delta" not in settings.get("ember", {}):
        raise ArgumentError("Without questions nothing chooses EMBER's strength; give it by --set ember.delta=5.")
    progress = terminal()

    def check(model):
        sole = attacks if options.attacks or options.no_questions else [ATTACKS["relearning"]()]
        if len(sole) == 1:
            _configured(sole[0], model, options, settings).check(model)

    model, concept = _model_and_concept(options, progress, check, not options.no_questions)
    if options.attacks is None and not options.no_questions:
        attacks = choose_by_name([default_attack(concept)], ATTACKS, "attack")
        _refuse_unused(settings, erasers, attacks)
    erasers, attacks = ([_configured(thing, model, options, settings) for thing in things] for things in (erasers, attacks))
    searches = {}
    if options.tune:
        erasers, searches = _searched(model, concept, erasers, options, part(progress, 0.1, 0.5))
    texts = options.texts
    if texts in ("wikipedia", "model"):  # another time they give others
        texts = str(options.out / TEXTS)
        (options.out / TEXTS).write_text("\n".join(concept.texts), encoding="utf-8")
    given = (options.model, options.precision, options.concept, options.seed, erasers, attacks, texts, not options.no_questions)
    command = command_line(*given, out=str(options.out)) + (f" --data {shlex.quote(str(options.data))}" if options.data else "")
    command += " --trust-remote-code" * options.trust_remote_code
    report = run_study(model, concept, erasers, attacks, options.seed, part(progress, 0.5 if options.tune else 0.1, 1), searches, command)
    write_report(report, options.out)
    print(summary(report))
    print(f"Written: {options.out / 'report.json'}, {options.out / 'report.html'}")


def _with_ember(erasers):
    return any(eraser.name == "ember" or hasattr(eraser, "ember") for eraser in erasers)


def _refuse_without_ember(options, erasers):
    given = [name for name in ("delta", "keep", "judge", "published") if getattr(options, name, None) is not None]
    if given and not _with_ember(erasers):
        raise ArgumentError(f"--{given[0]} is of EMBER, which is not among --erasers; add it there, or leave --{given[0]} out.")


def _refuse_unused(settings, erasers, attacks, among="--erasers or --attacks"):
    names = [thing.name for thing in (*erasers, *attacks)] + ["ember" for thing in erasers if hasattr(thing, "ember")]
    unused = [name for name in settings if name not in names]
    if unused:
        raise ArgumentError(f"--set names {unused[0]}, which is not among {among}; add it there, or leave it out.")


def _searched(model, concept, erasers, options, progress):
    """The erasers with the best settings found, and the trials by eraser."""
    from ember_demo.presets import PAPER, paper_grids
    from ember_demo.progress import part
    from ember_demo.tuning import search

    found, searches = [], {}
    grids = paper_grids(model) if options.preset == PAPER else {}
    for number, eraser in enumerate(erasers):
        if eraser.space:
            share = part(progress, number / len(erasers), (number + 1) / len(erasers))
            grid = grids.get(eraser.name)
            eraser, searches[eraser.name] = search(model, [concept], eraser, options.tune, options.seed, options.out / SEARCH, share, grid)
        found.append(eraser)
    best = {eraser.name: eraser for eraser in found}.get("ember")
    return [replace(e, ember=best) if best and hasattr(e, "ember") else e for e in found], searches


def _study_grid(options):
    from ember_demo.grid import Grid, run_grid

    grid = Grid.read(options.grid)
    _make_folder(options.out)
    folder = options.out.resolve()
    try:
        if options.backend == "dask":
            from distributed import Client

            with Client(options.scheduler):
                print(run_grid(grid, folder, options.jobs, "dask"))
            return
        if options.backend == "ray":
            from ray.util.joblib import register_ray

            register_ray()
        print(run_grid(grid, folder, options.jobs, options.backend))
    except ImportError:
        package = {"dask": "distributed", "ray": "ray"}[options.backend]
        raise EmberDemoError(
            f"The backend {options.backend} needs the package {package}; `pip install {package}`, or leave --backend out."
        ) from None


def _tables(options):
    from ember_demo.grid import tables

    runs = []
    for file in options.file:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            tables(found)
            runs += found
        except (OSError, ValueError, TypeError, KeyError):
            raise EmberDemoError(f"{file} holds no grid's runs; leave it out, or give a runs.json that `study --grid` wrote.") from None
    print(tables(runs))


def _erase(options):
    from functools import reduce
    from operator import add

    from ember_demo.erasers import ERASERS
    from ember_demo.progress import part, terminal
    from ember_demo.settings import read_settings
    from ember_demo.share import check_login, check_whole, made_folder, push, save_edit, save_model
    from ember_demo.study import choose_by_name

    erasers = choose_by_name(_named(options.erasers), ERASERS, "eraser")
    if not erasers:
        raise ArgumentError(f"Name an eraser: {', '.join(ERASERS)}.")
    _refuse_without_ember(options, erasers)
    delta = [] if options.delta is None else [f"ember.delta={options.delta}"]
    settings = read_settings(delta + options.set)
    _refuse_unused(settings, erasers, (), "--erasers")
    progress = terminal()
    if options.push:
        check_login()
    made_folder(options.out)
    # By a strength that is given nothing is chosen, and erasing scores nothing.
    model, concept = _model_and_concept(options, progress, write=settings.get("ember", {}).get("delta", "auto") == "auto")
    if options.whole:
        check_whole(model)
    eraser = reduce(add, [_configured(e, model, options, settings) for e in erasers])
    edit = eraser.fit(model, concept, options.seed, part(progress, 0.1, 1))
    (save_model if options.whole else save_edit)(model, concept.name, edit, options.out)
    words = edit.details.get("edited_tokens", [])
    if words:
        print(f"EMBER changed {len(words)} words, at strength {edit.details['settings']['ember']['delta']:g}.")
    print(f"Written: {options.out}")
    if options.push:
        print(f"Uploaded: {push(options.out, options.push, private=not options.public)}")


def _model_and_concept(options, progress, check=lambda model: None, write=True):
    """The model loaded and the concept read; what can be refused without the model is refused before it is loaded, and what `check` refuses before the
    model writes questions, which takes minutes."""
    from ember_demo.loading import load_model
    from ember_demo.sources import gather, load_concept
    from ember_demo.texts import check_enough

    _make_folder(options.out)
    texts = options.texts
    if texts and texts != "model":
        texts = check_enough(options.concept, gather(options.concept, None, texts))
    if not texts:
        load_concept(options.concept, data=options.data)
    model = load_model(options.model, options.precision, options.trust_remote_code)
    check(model)
    return model, load_concept(options.concept, model, options.data, texts, write, progress)


def _configured(thing, model, options, settings):
    """An eraser or attack with what the options say of it, and last what --set says; what follows from EMBER, with what they say of EMBER."""
    from ember_demo.presets import PAPER, paper_settings
    from ember_demo.settings import with_settings

    if getattr(options, "preset", None) == PAPER:
        thing = paper_settings(model).get(thing.name, thing)
    if hasattr(thing, "ember"):
        thing = replace(thing, ember=_configured(thing.ember, model, options, settings))
    if thing.name == "ember":
        changes = {name: getattr(options, name) for name in ("published", "judge") if getattr(options, name)}
        if options.keep:
            changes["keep"] = tuple(_names(options.keep))
        thing = replace(thing, **changes)
    return with_settings(thing, settings.get(thing.name, {}))


def _tune(options):
    from ember_demo.erasers import ERASERS
    from ember_demo.loading import load_model
    from ember_demo.progress import terminal
    from ember_demo.report import trials_table
    from ember_demo.sources import load_concept
    from ember_demo.study import choose_by_name
    from ember_demo.tuning import search

    (eraser,) = choose_by_name([options.eraser], ERASERS, "eraser")
    concepts = [load_concept(name) for name in _chosen_concepts(options)]
    _make_folder(options.out)
    _, trials = search(load_model(), concepts, eraser, options.trials, options.seed, options.out / SEARCH, terminal())
    print(trials_table(trials))


def _chosen_concepts(options):
    from ember_demo.sources import concept_names

    return _names(options.concepts or "") or concept_names()


def _train(options):
    from ember_demo.pocket.train import train

    _make_folder(options.out)
    train(options.out, options.without, options.seed, options.threads, **dict(_setting(text) for text in options.set))


def _card(options):
    from ember_demo.pocket.card import write_card

    write_card(options.folder)


def _judges(options):
    from ember_demo.loading import load_model
    from ember_demo.pocket.measure import judge_table
    from ember_demo.pocket.world import load_world

    print(judge_table(load_model(), load_world(), (None, *options.judge)))


def _sizes(options):
    from ember_demo.pocket.card import write_sizes

    write_sizes(options.folders)


def _setting(text):
    from ember_demo.pocket.train import RECIPE

    name, _, given = text.partition("=")
    try:
        kind = type(RECIPE[name])
        value = kind(given)
        least = 1 if kind is int and name != "epochs_asked_freely" else 0
        if not least <= value < float("inf"):
            raise ValueError
        return name, value
    except (KeyError, ValueError):
        raise ArgumentError(f"--set {text} is not NAME=NUMBER with a name of the recipe: {', '.join(RECIPE)}.") from None


def _bench(options):
    from ember_demo.bench import run_bench, run_shape_bench

    rows = run_shape_bench(options.shape, options.precision, options.relearning_steps) if options.shape else run_bench()
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        plan = f"{row['plan_gb']:9.2f} GB planned" if isinstance(row, dict) and "plan_gb" in row else ""
        print(f"{name:32}" + (f"{row['seconds']:9.2f} s{row['peak_gb']:9.2f} GB{plan}" if isinstance(row, dict) else f"{row:9,}"))


def _models():
    from ember_demo.loading import MODELS, describe

    rows = []
    for id, text in MODELS.items():
        offer = describe(id)
        figures = {
            "parameters": offer.shape.parameters,
            "precision": offer.plan.precision,
            "fits": offer.plan.fits,
            "download": offer.download,
        }
        rows.append({"name": id, "description": f"{text}; {offer.sentence}"} | figures)
    return rows


def _concepts():
    from ember_demo.pocket.world import load_world

    return [
        {
            "name": pack.name,
            "neighbour": pack.similar.name,
            "facts": len(pack.concept.facts),
            "description": f"{len(pack.concept.facts)} facts, beside {len(pack.similar.facts)} on {pack.similar.name}",
        }
        for pack in load_world().packs.values()
    ]


def _erasers():  # a setting of None: what suits the model
    from ember_demo.erasers import ERASERS

    return [{"name": e.name, "touches": e.touches, "description": e.description, "settings": asdict(e())} for e in ERASERS.values()]


def _attacks():
    from ember_demo.attacks import ATTACKS

    return [
        {"name": a.name, "threat_model": a.threat_model, "description": a.description, "settings": asdict(a())} for a in ATTACKS.values()
    ]


def _list(rows, as_json):
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['description']}" + (f" Settings: {', '.join(row['settings'])}." if row.get("settings") else ""))


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def _named(text):
    """Names of erasers or attacks; "none" names none."""
    return [] if text in (None, "none") else _names(text)


def _make_folder(path):
    """Make a folder and see that it can be written to, before the work whose results go there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise EmberDemoError(f"The folder {path} cannot be made, or written to ({error.strerror}); choose another --out.") from None


COMMANDS = {
    "study": _study,
    "erase": _erase,
    "tune": _tune,
    "models": lambda options: _list(_models(), options.json),
    "concepts": lambda options: _list(_concepts(), options.json),
    "erasers": lambda options: _list(_erasers(), options.json),
    "attacks": lambda options: _list(_attacks(), options.json),
    "tables": _tables,
    "bench": _bench,
    "pocket train": _train,
    "pocket card": _card,
    "pocket judges": _judges,
    "pocket sizes": _sizes,
}
