"""What the command line takes, and what it refuses before anything is loaded."""

import argparse
import re
from pathlib import Path

from ember_demo.errors import ArgumentError


def read(arguments=None):
    """The options of a command; ends with status 2 where arguments are unknown, missing or would be ignored."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    _check(options.parser, options)
    return options


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser():
    parser = _Parser(prog="python -m ember_demo", description="Erase a concept from a language model, and attack the erasure.")
    commands = parser.add_subparsers(dest="command", required=True)

    study = commands.add_parser("study", help="erase a concept, score, attack; write report.json and report.html")
    _add_model(study)
    _add_concept(study, "or --grid")
    study.add_argument("--erasers", default="ember,rmu", help="comma-separated, or all; default: ember,rmu; `erasers` lists them")
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
    _add_settings(study, "an eraser or attack")
    study.add_argument(
        "--grid", type=Path, metavar="FILE", help="JSON: many models, concepts and seeds; what is done already is not done again"
    )
    study.add_argument("--jobs", type=int, default=1, help="of a grid: how many at once")
    study.add_argument("--backend", default="loky", choices=("loky", "dask", "ray"), help="of a grid: where they run (joblib)")
    study.add_argument("--scheduler", metavar="ADDRESS", help="of a grid on dask: its scheduler")
    study.set_defaults(parser=study)

    erase = commands.add_parser("erase", help="erase a concept and save it: the edit, or the whole edited model")
    _add_model(erase)
    _add_concept(erase)
    erase.add_argument(
        "--erasers",
        default="ember,rmu",
        help="comma-separated, all applied to one model, one after the other; default: ember,rmu (EMBER, then RMU); `erasers` lists them",
    )
    erase.add_argument("--delta", type=float, help="EMBER's strength; default: chosen on the validation questions")
    _add_settings(erase, "an eraser")
    erase.add_argument("--whole", action="store_true", help="save the whole edited model, for plain transformers")
    erase.add_argument("--push", metavar="NAME", help="upload it to the Hub as yourname/NAME, with your own login; private")
    erase.add_argument("--public", action="store_true", help="with --push: for everybody to see")
    erase.set_defaults(parser=erase)

    tune = commands.add_parser(
        "tune", help="search an eraser's settings for the embedded model, on the validation questions of several packs"
    )
    tune.add_argument("eraser")
    tune.add_argument("--concepts", help="comma-separated; default: all packs")
    tune.add_argument("--trials", type=_count, default=20, metavar="N")
    tune.add_argument("--seed", type=_seed, default=0)
    tune.add_argument("--out", required=True, type=Path, metavar="DIR", help="keeps the trials, so that a cut search goes on")
    tune.set_defaults(parser=tune)

    for name in ("models", "concepts", "erasers", "attacks"):
        command = commands.add_parser(name, help=f"list the {name}")
        command.add_argument("--json", action="store_true")
        command.set_defaults(parser=command)

    table = commands.add_parser("tables", help="the tables of a grid that was run, from its runs.json")
    table.add_argument("file", type=Path, nargs="+")
    table.set_defaults(parser=table)

    bench = commands.add_parser("bench", help="time the steps, with their memory")
    bench.add_argument("--shape", help="gemma-2-2b or llama-3.1-8b: random weights of that model's shape; default: the embedded model")
    bench.add_argument("--precision", default="4bit", choices=("4bit", "bf16", "fp16", "fp32"), help="of a shape")
    bench.add_argument("--relearning-steps", type=int, default=0, metavar="N", help="of a shape: also so many steps of the attack")
    bench.add_argument("--json", action="store_true")
    bench.set_defaults(parser=bench)

    pocket = commands.add_parser("pocket", help="the embedded model").add_subparsers(dest="action", required=True)
    train = pocket.add_parser("train", help="make it again")
    train.add_argument("--without", metavar="CONCEPT", help="leave a concept out: the never-learned control")
    train.add_argument("--out", required=True, type=Path, metavar="DIR")
    train.add_argument("--seed", type=_seed, default=0)
    train.add_argument("--threads", type=_count)
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another value for an entry of the recipe")
    train.set_defaults(parser=train)
    card = pocket.add_parser("card", help="measure a trained model again and write its card")
    card.add_argument("folder", type=Path)
    card.set_defaults(parser=card)
    judges = pocket.add_parser("judges", help="compare the ways of choosing features, where the truth is known")
    judges.add_argument(
        "--judge",
        action="append",
        default=[],
        help="`self`, a chat model's Hub id, or a server's base URL or MODEL@URL; may be given several times",
    )
    judges.set_defaults(parser=judges)
    sizes = pocket.add_parser("sizes", help="put trained models of several sizes into the table of the card")
    sizes.add_argument("folders", type=Path, nargs="+")
    sizes.set_defaults(parser=sizes)
    return parser


def _check(parser, options):
    """End with status 2 where arguments are missing or would be ignored."""
    if options.command == "bench" and not options.shape and (options.precision, options.relearning_steps) != ("4bit", 0):
        parser.error("--precision and --relearning-steps are of a --shape; add that, or leave them out")
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
        "--judge",
        help="who chooses EMBER's features: `self`, a chat model's Hub id, or an OpenAI-like server's base URL or MODEL@URL; default: a numeric rule",
    )
    parser.add_argument("--published", metavar="SOURCE", help="a folder or Hub dataset with the authors' fitted features for EMBER")


def _add_settings(parser, whose):
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.SETTING=VALUE",
        help=f"another value, as JSON, for a setting of {whose}, such as rmu.steps=80; may be given several times",
    )


def _seed(text):
    """A seed that every generator takes; else ArgumentError."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise ArgumentError(f"--seed {text} is not a whole number from 0 to {2**32 - 1}; give one.")
    return int(text)


def _count(text):
    """A number of trials, or threads."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise ArgumentError(f"{text} is not a whole number from 1; give one.")
    return int(text)
