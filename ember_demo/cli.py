"""The command line: `python -m ember_demo ...`."""

import argparse
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ember_demo.errors import NO_ROOM, ArgumentError, EmberDemoError, out_of_memory

SEARCH = "search.log"  # in the folder of results: the trials of a search


def main(arguments=None):
    """Run a command; the exit status: 0 done, 2 bad arguments, 1 failed."""
    try:
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of the command at hand
        _check(options.parser, options)
        options.run(options)
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


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m ember_demo", description="Erase a concept from a language model, and attack the erasure."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    study = commands.add_parser("study", help="erase a concept, score, attack; write report.json and report.html")
    _add_model(study)
    _add_concept(study, "or --grid")
    study.add_argument("--erasers", default="ember,rmu", help="comma-separated; see `erasers`")
    study.add_argument("--attacks", help="comma-separated, all or none; default: relearning, in the form that the concept has material for")
    study.add_argument(
        "--tune", type=_count, default=0, metavar="N", help="first search each eraser's settings by N trials on the validation questions"
    )
    study.add_argument(
        "--no-questions",
        action="store_true",
        help="with --texts: the model writes no questions, so nothing is scored or attacked, and EMBER needs --set ember.delta=5 or the like",
    )
    study.add_argument("--preset", default="default", choices=("default", "paper"), help="paper: the published settings for the model")
    study.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.SETTING=VALUE",
        help="another value, as JSON, for a setting of an eraser or attack, such as rmu.steps=80; may be given several times",
    )
    study.add_argument(
        "--grid", type=Path, metavar="FILE", help="JSON: many models, concepts and seeds; what is done already is not done again"
    )
    study.add_argument("--jobs", type=int, default=1, help="of a grid: how many at once")
    study.add_argument("--backend", default="loky", choices=("loky", "dask", "ray"), help="of a grid: where they run (joblib)")
    study.add_argument("--scheduler", metavar="ADDRESS", help="of a grid on dask: its scheduler")
    study.set_defaults(run=_study, parser=study)

    erase = commands.add_parser("erase", help="erase a concept and save it: the edit, or the whole edited model")
    _add_model(erase)
    _add_concept(erase)
    erase.add_argument("--erasers", default="ember,rmu", help="comma-separated, applied one after the other")
    erase.add_argument("--delta", type=float, help="of EMBER; default: chosen on the validation questions")
    erase.add_argument("--whole", action="store_true", help="save the whole edited model, for plain transformers")
    erase.add_argument("--push", metavar="NAME", help="upload it to the Hub as yourname/NAME, with your own login; private")
    erase.add_argument("--public", action="store_true", help="with --push: for everybody to see")
    erase.set_defaults(run=_erase, parser=erase)

    tune = commands.add_parser(
        "tune", help="search an eraser's settings for the embedded model, on the validation questions of several packs"
    )
    tune.add_argument("eraser")
    tune.add_argument("--concepts", help="comma-separated; default: all packs")
    tune.add_argument("--trials", type=_count, default=20, metavar="N")
    tune.add_argument("--seed", type=_seed, default=0)
    tune.add_argument("--out", required=True, type=Path, metavar="DIR", help="keeps the trials, so that a cut search goes on")
    tune.set_defaults(run=_tune, parser=tune)

    for name, rows in (("models", _models), ("concepts", _concepts), ("erasers", _erasers), ("attacks", _attacks)):
        command = commands.add_parser(name, help=f"list the {name}")
        command.add_argument("--json", action="store_true")
        command.set_defaults(run=lambda options, rows=rows: _list(rows(), options.json), parser=command)

    table = commands.add_parser("tables", help="the tables of a grid that was run, from its runs.json")
    table.add_argument("file", type=Path, nargs="+")
    table.set_defaults(run=_tables, parser=table)

    bench = commands.add_parser("bench", help="time the steps, with their memory")
    bench.add_argument("--shape", help="gemma-2-2b or llama-3.1-8b: random weights of that model's shape; default: the embedded model")
    bench.add_argument("--precision", default="4bit", choices=("4bit", "bf16", "fp16", "fp32"), help="of a shape")
    bench.add_argument("--relearning-steps", type=int, default=0, metavar="N", help="of a shape: also so many steps of the attack")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=_bench, parser=bench)

    pocket = commands.add_parser("pocket", help="the embedded model").add_subparsers(dest="action", required=True)
    train = pocket.add_parser("train", help="make it again")
    train.add_argument("--without", metavar="CONCEPT", help="leave a concept out: the never-learned control")
    train.add_argument("--out", required=True, type=Path, metavar="DIR")
    train.add_argument("--seed", type=_seed, default=0)
    train.add_argument("--threads", type=int)
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value for an entry of the recipe")
    train.set_defaults(run=_train, parser=train)
    card = pocket.add_parser("card", help="measure a trained model again and write its card")
    card.add_argument("folder", type=Path)
    card.set_defaults(run=_card, parser=card)
    judges = pocket.add_parser("judges", help="compare the ways of choosing features, where the truth is known")
    judges.add_argument(
        "--judge", action="append", default=[], help="`self`, a chat model's Hub id or a base URL; may be given several times"
    )
    judges.set_defaults(run=_judges, parser=judges)
    sizes = pocket.add_parser("sizes", help="put trained models of several sizes into the table of the card")
    sizes.add_argument("folders", type=Path, nargs="+")
    sizes.set_defaults(run=_sizes, parser=sizes)
    return parser


# Heavy imports wait until a command needs them, so that --help and bad arguments answer at once.


def _check(parser, options):
    """End with status 2 where arguments are missing or would be ignored."""
    if options.command not in ("study", "erase"):
        return
    if getattr(options, "grid", None):
        given = ("concept", "texts", "data", "published", "judge", "attacks", "keep", "tune", "set", "trust_remote_code", "no_questions")
        ignored = [name.replace("_", "-") for name in given if getattr(options, name)]
        ignored += [
            name
            for name, default in (("model", "pocket"), ("precision", "auto"), ("preset", "default"), ("seed", 0), ("erasers", "ember,rmu"))
            if getattr(options, name) != default
        ]
        if ignored:
            parser.error(f"--grid names its own models, concepts, erasers, attacks and seeds; leave out --{', --'.join(ignored)}")
        if options.jobs == 0:
            parser.error("--jobs 0 runs nothing; give 1 or more, or -1 for all cores")
        if options.scheduler and options.backend != "dask":
            parser.error("--scheduler is of --backend dask; add that, or leave it out")
    else:
        if not options.concept:
            parser.error("a --concept is needed, or a --grid of several")
        if options.command == "study" and (options.jobs, options.backend, options.scheduler) != (1, "loky", None):
            parser.error("--jobs, --backend and --scheduler are of a --grid; leave them out")
    if getattr(options, "no_questions", False) and (not options.texts or options.attacks not in (None, "none") or options.tune):
        parser.error("--no-questions is for --texts, and without questions there is nothing to attack or tune; leave it or these out")
    if getattr(options, "public", False) and not options.push:
        parser.error("--public is of --push; add that, or leave it out")
    if options.texts and options.data:
        parser.error("--texts and --data are two sources of the same texts; give one")


def _add_model(parser):
    parser.add_argument("--model", default="pocket", help="pocket, a Hub id or a folder")
    parser.add_argument("--precision", default="auto", choices=("auto", "4bit", "bf16", "fp16", "fp32"))
    parser.add_argument("--trust-remote-code", action="store_true", help="let the model's own code run on this machine")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")


def _add_concept(parser, otherwise=""):
    parser.add_argument(
        "--keep", metavar="WORDS", help="comma-separated words that EMBER leaves alone, such as everyday words among those it found"
    )
    parser.add_argument("--concept", required=not otherwise, help=f"a name {otherwise}".strip())
    parser.add_argument(
        "--texts", metavar="SOURCE", help="texts on the concept: a txt, md or jsonl file, `wikipedia`, or `model`; default: its pack"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with the authors' files, instead of the packs")
    parser.add_argument(
        "--judge", help="who chooses EMBER's features: `self`, a chat model's Hub id, or a base URL; default: a numeric rule"
    )
    parser.add_argument("--published", metavar="SOURCE", help="a folder or Hub dataset with the authors' fitted features for EMBER")


def _study(options):
    if options.grid:
        return _study_grid(options)
    from ember_demo.attacks import ATTACKS, default_attack
    from ember_demo.erasers import ERASERS
    from ember_demo.progress import part, terminal
    from ember_demo.report import summary, write_report
    from ember_demo.settings import read_settings
    from ember_demo.study import choose_by_name, run_study

    erasers = choose_by_name(_names(options.erasers), ERASERS, "eraser")
    attacks = choose_by_name(_names(options.attacks or ""), ATTACKS, "attack")
    settings = read_settings(options.set)
    _refuse_without_ember(options, erasers)
    _refuse_unused(settings, erasers, ATTACKS.values() if options.attacks is None else attacks)
    if options.no_questions and _with_ember(erasers) and "delta" not in settings.get("ember", {}):
        raise ArgumentError("Without questions nothing chooses EMBER's strength; give it by --set ember.delta=5.")
    progress = terminal()
    model, concept = _model_and_concept(options, progress)
    if options.attacks is None and not options.no_questions:
        attacks = choose_by_name([default_attack(concept)], ATTACKS, "attack")
        _refuse_unused(settings, erasers, attacks)
    erasers, attacks = ([_configured(thing, model, options, settings) for thing in things] for things in (erasers, attacks))
    searches = {}
    if options.tune:
        erasers, searches = _searched(model, concept, erasers, options, part(progress, 0.1, 0.5))
    report = run_study(model, concept, erasers, attacks, options.seed, part(progress, 0.5 if options.tune else 0.1, 1), searches)
    write_report(report, options.out)
    print(summary(report))
    print(f"Written: {options.out / 'report.json'}, {options.out / 'report.html'}")


def _with_ember(erasers):
    return any(eraser.name == "ember" or hasattr(eraser, "ember") for eraser in erasers)


def _refuse_without_ember(options, erasers):
    given = [name for name in ("delta", "keep", "judge", "published") if getattr(options, name, None) is not None]
    if given and not _with_ember(erasers):
        raise ArgumentError(f"--{given[0]} is of EMBER, which is not among --erasers; add it there, or leave --{given[0]} out.")


def _refuse_unused(settings, erasers, attacks):
    names = [thing.name for thing in (*erasers, *attacks)] + ["ember" for thing in erasers if hasattr(thing, "ember")]
    unused = [name for name in settings if name not in names]
    if unused:
        raise ArgumentError(f"--set names {unused[0]}, which is not in this study; in it are {', '.join(dict.fromkeys(names)) or 'none'}.")


def _searched(model, concept, erasers, options, progress):
    """The erasers with the best settings found, and the trials by eraser."""
    from ember_demo.progress import part
    from ember_demo.tuning import search

    found, searches = [], {}
    for number, eraser in enumerate(erasers):
        if eraser.space:
            share = part(progress, number / len(erasers), (number + 1) / len(erasers))
            eraser, searches[eraser.name] = search(model, [concept], eraser, options.tune, options.seed, options.out / SEARCH, share)
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
    from ember_demo.settings import with_settings
    from ember_demo.share import check_login, check_whole, made_folder, push, save_edit, save_model
    from ember_demo.study import choose_by_name

    erasers = choose_by_name(_names(options.erasers), ERASERS, "eraser")
    if not erasers:
        raise ArgumentError(f"Name an eraser: {', '.join(ERASERS)}.")
    _refuse_without_ember(options, erasers)
    if options.delta is not None:
        with_settings(ERASERS["ember"](), {"delta": options.delta})
    progress = terminal()
    if options.push:
        check_login()
    made_folder(options.out)
    model, concept = _model_and_concept(options, progress)
    if options.whole:
        check_whole(model)
    eraser = reduce(add, [_configured(e, model, options) for e in erasers])
    edit = eraser.fit(model, concept, options.seed, part(progress, 0.1, 1))
    (save_model if options.whole else save_edit)(model, concept.name, edit, options.out)
    print(f"Written: {options.out}")
    if options.push:
        print(f"Uploaded: {push(options.out, options.push, private=not options.public)}")


def _model_and_concept(options, progress):
    """The model loaded and the concept read; what can be refused without the model is refused before it is loaded."""
    from ember_demo.loading import load_model
    from ember_demo.sources import gather, load_concept
    from ember_demo.texts import check_enough

    _make_folder(options.out)
    texts = options.texts
    if texts and texts != "model":
        texts = check_enough(options.concept, gather(options.concept, None, texts))
    concept = None if texts else load_concept(options.concept, data=options.data)
    model = load_model(options.model, options.precision, options.trust_remote_code)
    # By a strength that is given nothing is chosen, and erasing scores nothing.
    needs_questions = getattr(options, "delta", None) is None and not getattr(options, "no_questions", False)
    return model, concept or load_concept(options.concept, model, texts=texts, write=needs_questions, progress=progress)


def _configured(thing, model, options, settings=MappingProxyType({})):
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
        if getattr(options, "delta", None) is not None:
            changes["delta"] = options.delta
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

    return _names(options.concepts) if options.concepts else concept_names()


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

    name, _, value = text.partition("=")
    try:
        return name, type(RECIPE[name])(value)
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


def _erasers():
    from ember_demo.erasers import ERASERS

    return [{"name": e.name, "touches": e.touches, "description": e.description} for e in ERASERS.values()]


def _attacks():
    from ember_demo.attacks import ATTACKS

    return [{"name": a.name, "threat_model": a.threat_model, "description": a.description} for a in ATTACKS.values()]


def _list(rows, as_json):
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['description']}")


def _seed(text):
    """A seed that every generator takes; else ArgumentError."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise ArgumentError(f"--seed {text} is not a whole number from 0 to {2**32 - 1}; give one.")
    return int(text)


def _count(text):
    """A number of trials."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise ArgumentError(f"{text} is not a number of trials from 1; give one.")
    return int(text)


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]


def _make_folder(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmberDemoError(f"The folder {path} cannot be made ({error.strerror}); choose another --out.") from None
