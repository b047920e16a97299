"""The command line: `python -m ember_demo ...`."""

import argparse
import json
import sys
from pathlib import Path

from ember_demo.errors import EmberDemoError


def main(arguments=None):
    """Run a command; the exit status: 0 done, 2 bad arguments, 1 failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        return 0
    except EmberDemoError as error:
        print(f"ember_demo: {error}", file=sys.stderr)
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
    study.add_argument("--model", default="pocket", help="pocket, a Hub id or a folder")
    study.add_argument("--concept", required=True)
    study.add_argument("--erasers", default="ember,rmu", help="comma-separated; see `erasers`")
    study.add_argument("--attacks", default="relearning", help="comma-separated, or none; see `attacks`")
    study.add_argument("--seed", type=int, default=0)
    study.add_argument("--out", required=True, type=Path, metavar="DIR")
    study.add_argument("--precision", default="auto", choices=("auto", "4bit", "bf16", "fp16", "fp32"))
    study.add_argument("--data", type=Path, metavar="DIR", help="a folder with the authors' files, instead of the packs")
    study.set_defaults(run=_study)

    grid = commands.add_parser("grid", help="the study over several concepts and seeds; write grid.json and print the table")
    grid.add_argument("--concepts", help="comma-separated; default: all packs")
    grid.add_argument("--seeds", default="0,1,2")
    grid.add_argument("--out", required=True, type=Path, metavar="DIR")
    grid.set_defaults(run=_grid)

    tune = commands.add_parser("tune", help="choose an eraser's settings on the validation questions of all packs")
    tune.add_argument("eraser", choices=("ember", "rmu"))
    tune.add_argument("--concepts", help="comma-separated; default: all packs")
    tune.set_defaults(run=_tune)

    for name, rows in (("models", _models), ("concepts", _concepts), ("erasers", _erasers), ("attacks", _attacks)):
        command = commands.add_parser(name, help=f"list the {name}")
        command.add_argument("--json", action="store_true")
        command.set_defaults(run=lambda options, rows=rows: _list(rows(), options.json))

    bench = commands.add_parser("bench", help="time the steps on the embedded model")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(run=_bench)

    pocket = commands.add_parser("pocket", help="the embedded model").add_subparsers(dest="action", required=True)
    train = pocket.add_parser("train", help="make it again")
    train.add_argument("--without", metavar="CONCEPT", help="leave a concept out: the never-learned control")
    train.add_argument("--out", required=True, type=Path, metavar="DIR")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--threads", type=int)
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value for an entry of the recipe")
    train.set_defaults(run=_train)
    card = pocket.add_parser("card", help="measure a trained model again and write its card")
    card.add_argument("folder", type=Path)
    card.set_defaults(run=_card)
    sizes = pocket.add_parser("sizes", help="put trained models of several sizes into the table of the card")
    sizes.add_argument("folders", type=Path, nargs="+")
    sizes.set_defaults(run=_sizes)
    return parser


# Heavy imports wait until a command needs them, so that --help and bad arguments answer at once.


def _study(options):
    from ember_demo.attacks import ATTACKS
    from ember_demo.concept import load_concept
    from ember_demo.erasers import ERASERS
    from ember_demo.language_model import load_model
    from ember_demo.progress import terminal
    from ember_demo.report import summary, write_report
    from ember_demo.study import choose_by_name, run_study

    erasers = choose_by_name(_names(options.erasers), ERASERS, "eraser")
    attacks = choose_by_name(_names(options.attacks), ATTACKS, "attack")
    concept = load_concept(options.concept, data=options.data)
    _make_folder(options.out)
    model = load_model(options.model, options.precision)
    report = run_study(model, concept, erasers, attacks, options.seed, terminal())
    write_report(report, options.out)
    print(summary(report))
    print(f"Written: {options.out / 'report.json'}, {options.out / 'report.html'}")


def _grid(options):
    from ember_demo.grid import run_grid

    _make_folder(options.out)
    print(run_grid(_chosen_concepts(options), [int(s) for s in _names(options.seeds)], options.out))


def _tune(options):
    from ember_demo.grid import tune

    print(tune(options.eraser, _chosen_concepts(options)))


def _chosen_concepts(options):
    from ember_demo.concept import concept_names

    return _names(options.concepts) if options.concepts else concept_names()


def _train(options):
    from ember_demo.pocket.train import train

    _make_folder(options.out)
    train(options.out, options.without, options.seed, options.threads, **dict(_setting(text) for text in options.set))


def _card(options):
    from ember_demo.pocket.card import write_card

    write_card(options.folder)


def _sizes(options):
    from ember_demo.pocket.card import write_sizes

    write_sizes(options.folders)


def _setting(text):
    from ember_demo.pocket.train import RECIPE

    name, _, value = text.partition("=")
    try:
        return name, type(RECIPE[name])(value)
    except (KeyError, ValueError):
        raise EmberDemoError(f"--set {text} is not NAME=NUMBER with a name of the recipe: {', '.join(RECIPE)}.") from None


def _bench(options):
    from ember_demo.bench import run_bench

    seconds = run_bench()
    if options.json:
        print(json.dumps(seconds))
    else:
        for name, value in seconds.items():
            print(f"{name:32}{value:8.2f} s")


def _models():
    from ember_demo.language_model import MODELS

    return [{"name": id, "description": text} for id, text in MODELS.items()]


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


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]


def _make_folder(path):
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmberDemoError(f"The folder {path} cannot be made ({error.strerror}); choose another --out.") from None
