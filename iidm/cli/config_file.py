"""A run's configuration as the JSON file that it keeps, RUN/config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import cattrs
from cattrs.preconf.json import make_converter

from ..config import Config, unknown_name
from ..text import read_text, write_text
from ..types import UserError

_converter = make_converter(forbid_extra_keys=True)
_converter.register_structure_hook(Path, lambda value, _: Path(value).expanduser())


_WRITTEN = frozenset("data model optim loss mixing teacher augment step log".split())
"""Groups that every run has written; a file that lacks one is a person's, and what it does not say has its default."""
_MEANT = {("eval", "statistics"): "running", ("mixing", "two_classes"): "classmix"}
"""What runs did before a field existed, where its default is another: (group, field) -> value."""


def config_of_run(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a run has written, with those that came later as it ran. The others keep their default, which
    changes nothing; raises TypeError for a group that is none."""
    found = dict(data)
    if _WRITTEN <= found.keys():
        for (group, name), value in _MEANT.items():
            found[group] = {name: value, **found.get(group, {})}
    return found


def read_config(path: Path) -> Config:
    """Read a configuration that `write_config` wrote: RUN/config.json, or RUN.

    Raises: UserError naming the file for one that is missing, no JSON, or has unknown or ill-typed fields.
    """
    if path.is_dir():
        path = path / "config.json"
    try:
        data = json.loads(read_text(path, "Config file"))
    except FileNotFoundError:
        raise UserError(f"There is no config file {path}. A run writes its own to RUN/config.json.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON config: {error}") from None
    _refuse_unknown(data, Config(), path, "")
    try:
        return _with_kept_descriptions(_converter.structure(config_of_run(data), Config), path.parent)
    except Exception as error:
        own = _first_user_error(error)
        message = str(own) if own else "; ".join(cattrs.transform_error(error))
        raise UserError(f"{path}: {message}") from None


def _with_kept_descriptions(config: Config, run_dir: Path) -> Config:
    """The TOML files of the data sets as the run keeps them (`runs.keep_descriptions`): neither another working folder
    nor a later change of the originals changes a run."""
    data = config.data
    for domain in ("source", "target"):
        dataset = getattr(data, domain)
        kept = run_dir / domain / Path(dataset.spec).name
        if dataset.spec.endswith(".toml") and kept.is_file():
            data = replace(data, **{domain: replace(dataset, spec=str(kept))})
    return replace(config, data=data)


def write_config(config: Config, path: Path) -> None:
    """Write every resolved field as indented JSON; `--config FILE` runs it again."""
    write_text(path, json.dumps(_converter.unstructure(config), indent=2) + "\n")


def config_as_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON values, for checkpoints and logs."""
    data: dict[str, Any] = _converter.unstructure(config)
    return data


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
