"""The files that a run's configuration names and that say what it learns: a study must not mix runs of two versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from iidm.cli import read_config
from iidm.config import Config
from iidm.types import UserError

from .folder import Record, StudyFolder
from .plan import Plan, Run

LISTS = ("labeled_list", "unlabeled_list", "source_list", "val_list")


def with_kept_descriptions(config: Config, run_dir: Path) -> Config:
    """A run's configuration with the TOML files that it keeps, so that it ends with those that it began with."""
    if not (run_dir / "config.json").is_file():
        return config
    own = read_config(run_dir / "config.json")
    # A description's relative folders lie below the file's own folder, which the copy's is not.
    roots = {name: getattr(config, name) or getattr(own, name) for name in ("source_root", "target_root")}
    return replace(config, data=replace(config.data, source=own.data.source, target=own.data.target), **roots)


def sums(config: Config) -> dict[str, str]:
    """Option -> SHA-256 of the file that it names: TOML files of data sets, and lists of images."""
    data = config.data
    named = {f"data.{domain}.spec": getattr(data, domain).spec for domain in ("source", "target")}
    named = {option: spec for option, spec in named.items() if spec.endswith(".toml")}
    named |= {f"data.{name}": path for name in LISTS if (path := getattr(data, name)) is not None}
    found = {}
    for option, path in named.items():
        try:
            found[option] = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
        except OSError:  # whoever reads it says so
            continue
    return found


def changed(plan: Plan, folder: StudyFolder, records: Mapping[str, Record]) -> list[str]:
    """A line for each file that is no longer what runs of the plan, done or begun, were made with."""
    lines: dict[str, None] = {}
    for run in plan.runs:
        now = sums(run.config)
        before = records[run.key].get("files", {}) if run.key in records else _begun_with(run, folder)
        for option in now.keys() & before.keys():
            if now[option] != before[option]:
                path = _path(run.config, option)
                lines.setdefault(f"{path} (--{option.replace('_', '-')}) was changed since runs of {folder.root} began")
    return list(lines)


def refuse_changed(plan: Plan, folder: StudyFolder, records: Mapping[str, Record]) -> None:
    """Raise UserError where `changed` has a line."""
    found = changed(plan, folder, records)
    if found:
        raise UserError(
            f"{found[0]}, and their scores would stand beside others of other classes or images. Give another --out, or"
            " put the file back."
        )


def _begun_with(run: Run, folder: StudyFolder) -> dict[str, str]:
    """Sums of the descriptions that a run keeps which is not done."""
    kept = with_kept_descriptions(run.config, folder.runs / run.name)
    return {} if kept is run.config else sums(kept)


def _path(config: Config, option: str) -> str:
    _, name, *spec = option.split(".")
    return str(getattr(config.data, name).spec if spec else getattr(config.data, name))
