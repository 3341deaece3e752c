"""The command line of `train`: from words to one resolved `Config`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from ..catalog import describe_methods, refuse_unused, with_method
from ..config import Config, unknown_name
from ..presets import describe_presets, preset_config
from ..recipes import RECIPES, with_recipe
from ..types import UserError
from .config_file import read_config
from .short_help import short_help
from .words import expanded, files_told, option_defaults, program, toml_elsewhere

CHANGEABLE_ON_RESUME = (
    "run_dir",
    "source_root",
    "target_root",
    "device",
    "kernels",
    "profile",
    "quiet",
    "log",
    "step.branches",
    "step.graph",
    "step.compile",
    "step.recompute",
    "data.workers",
    "data.skip_damaged",
    "data.accept",
    "eval.window_batch",
    "max_steps",
)
"""What a resumed run may be given anew: nothing that changes the mathematics (beyond rounding) or the data order, but
for `max_steps`, which gives the run the schedule of another length from here on (runs.change_length)."""


def parse_config(argv: Sequence[str]) -> tuple[Config, Path | None]:
    """Resolve a command line of `iidm.train`.

    The order is: preset (or the file of --config, or the configuration of --resume), --recipe, --method (if none is
    given the preset's own), then every field that is given by its own option.

    Returns: the configuration, and the folder to resume or None.
    Raises: UserError for names that do not exist; SystemExit (tyro) for options that do not exist, and for --help.
    """
    words = expanded(argv, "train")
    _refuse_toml_elsewhere(words)
    known, rest = _base_parser().parse_known_args(words)
    if known.list_presets:
        sys.exit(print(describe_presets()))
    if known.list_methods:
        sys.exit(print(describe_methods()))
    if known.resume is not None:
        return _resumed(known, rest)
    if known.preset and known.config:
        raise UserError("--preset and --config both name a starting point; give one of them.")
    if known.recipe and known.recipe not in RECIPES:
        raise unknown_name("recipe", known.recipe, RECIPES)
    if known.config:
        base = read_config(known.config)
        base = with_recipe(base, known.recipe) if known.recipe else base
        base = with_method(base, known.method) if known.method else base
    else:
        base = preset_config(known.preset or _preset_for(rest), known.recipe, known.method)
    config = _from_options(base, rest)
    refuse_unused(config)
    return config, None


def _refuse_toml_elsewhere(words: Sequence[str]) -> None:
    """Other programs read a whole run from a TOML file; here one describes a data set."""
    takes_a_value = {name for name, value in option_defaults(Config()).items() if not isinstance(value, bool)}
    found = toml_elsewhere(words, takes_a_value - {"--preset", "--recipe", "--method"})
    if found:
        option, file = found
        raise UserError(
            f"{program('train')} takes a TOML file that describes images as --data.target.spec {file} (of a labeled"
            f" source: --data.source.spec), and {file} {f'follows {option}' if option else 'stands without an option'}."
            f" A TOML file of a study is for {program('study')} {file}."
        )


def _preset_for(words: Sequence[str]) -> str:
    """The preset where none is named: `folder` where the words describe a data set of the user's own."""
    for number, word in enumerate(words):
        option, has_value, value = word.replace("_", "-").partition("=")
        domain, _, field = option.rpartition(".")
        if domain in ("--data.source", "--data.target"):
            value = value if has_value else "".join(words[number + 1 : number + 2])
            if field in _OWN_FIELDS or (field == "spec" and (value == "folder" or value.endswith(".toml"))):
                return "folder"
    return "scenes"


_OWN_FIELDS = ("images", "labels", "class-names")
"""Fields that only a data set of the user's own has."""


def _base_parser() -> argparse.ArgumentParser:
    """The options that choose where the other values start from; tyro parses all the others."""
    called = program("train")
    usage = f"{called} [OPTION VALUE]...; {called} --help lists them"
    parser = argparse.ArgumentParser(called, usage, add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("--preset", help="A name of --list-presets [scenes, or folder with data of your own]")
    add("--config", type=Path, help="Start from the values of a file, RUN/config.json")
    add("--resume", type=Path, metavar="RUN", help="Go on exactly where the newest checkpoint stands")
    add("--recipe", help="paper, daformer or adapt [the preset's]")
    add("--method", help="What is learned: a name of --list-methods [the preset's]")
    add("--list-presets", action="store_true", help="One line a preset")
    add("--list-methods", action="store_true", help="One line a method, and its source")
    return parser


_DESCRIPTION = """Train a segmentation network for a target domain of which few images are labeled.

Starting points, before all other options: --preset NAME (--list-presets), --config FILE (a run's config.json),
--resume RUN (continue exactly where its newest checkpoint stands), --recipe paper|daformer|adapt, --method NAME
(--list-methods)."""


def _from_options(base: Config, rest: Sequence[str]) -> Config:
    called = program("train")
    if {"--help", "-h"} & set(rest):
        sys.exit(print(short_help(called, _base_parser(), base)))
    words = ["--help" if word == "--help-all" else word for word in rest]
    with files_told(words):
        return tyro.cli(Config, prog=called, description=_DESCRIPTION, default=base, args=words)


def _resumed(known: argparse.Namespace, rest: Sequence[str]) -> tuple[Config, Path]:
    clash = [name for name in ("preset", "config", "method", "recipe") if getattr(known, name)]
    if clash:
        raise UserError(f"--resume continues a run as it was; leave out --{', --'.join(clash)}.")
    run_dir: Path = known.resume
    if not run_dir.is_dir():
        raise UserError(f"--resume needs the folder of a run; {run_dir} is no folder.")
    base = replace(read_config(run_dir / "config.json"), run_dir=run_dir, profile=0)  # it was recorded at the start
    config = _from_options(base, rest)
    if config.run_dir is None or config.run_dir.resolve() != run_dir.resolve():
        raise UserError(
            f"--resume goes on in {run_dir}, so leave out --run-dir. To keep the run as it is, copy its folder and give"
            " the copy to --resume."
        )
    config = replace(config, run_dir=run_dir)
    changed = [
        path
        for path in _differences(base, config)
        if not any(path == name or path.startswith(name + ".") for name in CHANGEABLE_ON_RESUME)
    ]
    if changed:
        raise UserError(
            f"A resumed run keeps its configuration, or it would be another run: leave out"
            f" {', '.join('--' + p.replace('_', '-') for p in changed)}. Start a new one with"
            f" --config {run_dir / 'config.json'} and that change."
        )
    return config, run_dir


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Dotted paths of the fields in which two configurations differ."""
    if is_dataclass(a) and not isinstance(a, type):
        found = []
        for field in fields(a):
            inner = f"{path}.{field.name}" if path else field.name
            found += _differences(getattr(a, field.name), getattr(b, field.name), inner)
        return found
    return [] if a == b else [path]
