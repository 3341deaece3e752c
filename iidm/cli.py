"""From the words of a command line (or a config file) to one resolved `Config`."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import cattrs
import tyro
from cattrs.preconf.json import make_converter
from PIL import Image

from .catalog import describe_methods, with_method
from .config import Config, unknown_name
from .presets import describe_presets, preset_config
from .recipes import RECIPES, with_recipe
from .types import UserError

_converter = make_converter(forbid_extra_keys=True)

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
    "eval.window_batch",
)
"""What a resumed run may be given anew: nothing that changes the mathematics (beyond rounding) or the data order."""


def parse_config(argv: Sequence[str]) -> tuple[Config, Path | None]:
    """Resolve a command line of `iidm.train`.

    The order is: preset (or the file of --config, or the configuration of --resume), --recipe, --method (if none is
    given the preset's own), then every field that is given by its own option.

    Returns: the configuration, and the folder to resume or None.
    Raises: UserError for names that do not exist; SystemExit (tyro) for options that do not exist, and for --help.
    """
    known, rest = _base_parser().parse_known_args(list(argv))
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
        base = preset_config(known.preset or "scenes", known.recipe, known.method)
    return _from_options(base, rest), None


def read_config(path: Path) -> Config:
    """Read a configuration that `write_config` wrote (RUN/config.json).

    Raises: UserError naming the file for one that is missing, no JSON, or has unknown or ill-typed fields.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"There is no config file {path}. A run writes its own to RUN/config.json.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON config: {error}") from None
    _refuse_unknown(data, Config(), path, "")
    try:
        return _converter.structure(data, Config)
    except Exception as error:
        own = _first_user_error(error)
        message = str(own) if own else "; ".join(cattrs.transform_error(error))
        raise UserError(f"{path}: {message}") from None


def write_config(config: Config, path: Path) -> None:
    """Write every resolved field as indented JSON; `--config FILE` runs it again."""
    path.write_text(json.dumps(_converter.unstructure(config), indent=2) + "\n")


def config_as_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, for checkpoints and logs."""
    data: dict[str, Any] = _converter.unstructure(config)
    return data


def run_main(main: Callable[[Sequence[str]], None]) -> None:
    """Run an entry point. A UserError becomes one line on stderr and exit status 2, as does a file that cannot be
    written (a full disk, no permission). Ctrl-C outside the training loop, which saves, ends with status 130."""
    # Pillow takes images of more than 89 million pixels for an attack; these are the user's own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"iidm: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None or error.filename is None and error.errno != errno.ENOSPC:
            raise
        print(f"iidm: {error}. Free some space or choose a folder that can be written.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("iidm: stopped.", file=sys.stderr)
        sys.exit(130)


def _base_parser() -> argparse.ArgumentParser:
    """The options that choose where the other values start from; tyro parses all the others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--recipe")
    parser.add_argument("--method")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--list-presets", action="store_true")
    parser.add_argument("--list-methods", action="store_true")
    return parser


_DESCRIPTION = """Train a segmentation network for a target domain of which few images are labeled.

Starting points, before all other options: --preset NAME (--list-presets), --config FILE (a run's config.json),
--resume RUN (continue exactly where its newest checkpoint stands), --recipe paper|daformer|adapt, --method NAME
(--list-methods)."""


def _from_options(base: Config, rest: Sequence[str]) -> Config:
    return tyro.cli(Config, prog="python -m iidm.train", description=_DESCRIPTION, default=base, args=list(rest))


def _resumed(known: argparse.Namespace, rest: Sequence[str]) -> tuple[Config, Path]:
    clash = [name for name in ("preset", "config", "method", "recipe") if getattr(known, name)]
    if clash:
        raise UserError(f"--resume continues a run as it was; leave out --{', --'.join(clash)}.")
    run_dir: Path = known.resume
    if not run_dir.is_dir():
        raise UserError(f"--resume needs the folder of a run; {run_dir} is no folder.")
    base = replace(read_config(run_dir / "config.json"), run_dir=run_dir)
    config = _from_options(base, rest)
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


def _first_user_error(error: BaseException) -> UserError | None:
    """The UserError of a field's own check inside the groups that cattrs raises."""
    if isinstance(error, UserError):
        return error
    found = (_first_user_error(inner) for inner in getattr(error, "exceptions", ()))
    return next((inner for inner in found if inner), None)


def _refuse_unknown(data: Any, like: Any, path: Path, where: str) -> None:
    """Unknown fields of a config file, with the nearest that exists."""
    if not isinstance(data, dict):
        raise UserError(f"{path}: {where or 'the file'} must be a group of fields, not {type(data).__name__}.")
    names = {field.name: field for field in fields(like)}
    for key, value in data.items():
        if key not in names:
            raise UserError(f"{path}: {unknown_name('field', f'{where}{key}', [where + name for name in names])}")
        inner = getattr(like, key)
        if is_dataclass(inner):
            _refuse_unknown(value, inner, path, f"{where}{key}.")
