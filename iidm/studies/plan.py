"""From a study and the command line to the runs that it is made of, each resolved to a whole configuration."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cattrs.preconf.json import make_converter

from iidm.cli import CHANGEABLE_ON_RESUME, config_as_dict, config_of_run, parse_config
from iidm.config import Config, MixingConfig
from iidm.data.specs.described import find_spec
from iidm.text import read_text
from iidm.types import UserError

from .grid import Row, Study

LABELS = ("preset", "recipe")
"""Fields that only say where values came from: gta5-cityscapes-100 with 200 labels is gta5-cityscapes-200. The method
is none of them, as it has code of its own."""
QUIET = ("--quiet", "--log.no-tensorboard", "--log.preview-every", "0")
"""What a run of a study does without, unless a row or the user asks for it."""
OWN_OPTIONS = {
    "--preset": "--preset before the --",
    "--method": "the method of a [[row]]",
    "--seed": "--seeds before the --",
    "--max-steps": "--steps before the --",
    "--data.labeled-count": "--budgets before the --",
    "--run-dir": "--out before the --",
    "--config": "--preset before the --",
    "--resume": "the same command again, which goes on by itself",
}
"""Options of iidm.train that a study sets itself, and what to give in their place."""
LABELED_LIST = "--data.labeled-list"

_converter = make_converter(forbid_extra_keys=True)


@dataclass(frozen=True)
class Wishes:
    """What the command line asks of a study."""

    preset: str | None = None
    budgets: tuple[int, ...] = ()
    seeds: int = 3
    steps: int | None = None
    options: tuple[str, ...] = ()
    """Further options of iidm.train, for every run."""


@dataclass(frozen=True)
class Run:
    """One training to be done, whichever rows of whichever tables it stands in."""

    key: str
    config: Config
    labeled: int
    words: tuple[str, ...]
    """What iidm.train resolves to `config`."""

    @property
    def name(self) -> str:
        """Of its folder and its log."""
        return f"{self.config.method}-{self.labeled}-s{self.config.seed}-{self.key}"

    @property
    def command(self) -> str:
        """The run on its own, as a shell reads it."""
        return shlex.join(["python", "-m", "iidm.train", *self.words])

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.config.method} · {self.labeled} label{'s' * (self.labeled != 1)} · seed {self.config.seed}"


@dataclass(frozen=True)
class Cell:
    """A row of the table at one budget: a run a seed."""

    row: Row
    labeled: int
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """A study with everything resolved."""

    study: Study
    preset: str
    steps: int
    seeds: int
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def budgets(self) -> list[int]:
        """The columns that have a cell."""
        return sorted({cell.labeled for cell in self.cells})

    @property
    def runs(self) -> list[Run]:
        """Each once, a seed after the other: what is killed early is a whole table with fewer seeds."""
        runs: dict[str, Run] = {}
        for seed in range(self.seeds):
            for cell in self.cells:
                runs.setdefault(cell.runs[seed].key, cell.runs[seed])
        return list(runs.values())


def make_plan(study: Study, wishes: Wishes) -> Plan:
    """Resolve every run of a study; nothing is run and no data is looked at.

    The order is that of iidm.train: preset, recipe, method, the row's options, then the user's; the study's own words
    (budget, seed, steps) are in neither of those.

    Raises: UserError for names, numbers and options that cannot be; SystemExit where tyro refuses options.
    """
    if wishes.seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {wishes.seeds}.")
    if wishes.steps is not None and wishes.steps < 1:
        raise UserError(f"--steps must be at least 1, not {wishes.steps}.")
    if any(count < 0 for count in wishes.budgets):
        raise UserError(f"--budgets must be numbers of labeled images, not {min(wishes.budgets)}.")
    drawn = {"--data.split-seed": "--seeds before the --: each draws labels of its own"} if study.split_per_seed else {}
    _refuse_own(wishes.options, "After the --", drawn)
    preset = wishes.preset or study.preset or "scenes"
    start = ["--preset", preset, *QUIET]
    steps = [] if wishes.steps is None else ["--max-steps", str(wishes.steps)]
    # Once without any row: a mistake of the user's own options is then not blamed on a row.
    base = parse_config([*start, *wishes.options, *steps])[0]
    budgets = _budgets(study, wishes, base)
    cells = []
    for row in study.rows:
        _refuse_own(row.options, f"Study {study.name}: {row.name}: its options", {LABELED_LIST: "it after the --"})
        words = [*start, "--method", row.method, *row.options, *wishes.options, *steps]
        config = _resolved(study, row, words)
        for labeled in row.budgets(budgets):
            runs = tuple(_run(study, config, words, labeled, seed) for seed in range(wishes.seeds))
            cells.append(Cell(row, labeled, runs))
    if not cells:
        raise UserError(f"Study {study.name} has no cell at the budgets {', '.join(map(str, budgets))}.")
    return Plan(study, preset, base.max_steps, wishes.seeds, tuple(cells))


def run_key(config: Config) -> str:
    """The same for two configurations that compute the same: a hash of all fields but those that change nothing."""
    data = config_as_dict(config)
    data["model"]["head"] = config.model.head_by_name
    if not _pastes_of_two_classes(config):
        data["mixing"]["two_classes"] = MixingConfig().two_classes
    for path in {*CHANGEABLE_ON_RESUME, *LABELS} - {"max_steps"}:  # a resumed run may get longer, and is another then
        *groups, name = path.split(".")
        inner = data
        for group in groups:
            inner = inner[group]
        inner.pop(name)
    text = json.dumps(_plain(data), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pastes_of_two_classes(config: Config) -> bool:
    """Whether `mixing.two_classes` has an effect; True where the classes cannot be read."""
    if config.loss.inter_weight == config.loss.intra_weight == 0:
        return False
    try:
        return len(find_spec(config.data.target).classes) == 2
    except UserError:
        return True


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of `config_as_dict`. Fields that are not there get what runs did before they existed, so that such a
    run is still known, and not taken for what it is not. Raises cattrs' errors for fields that no longer exist."""
    return _converter.structure(config_of_run(data), Config)


def _resolved(study: Study, row: Row, words: Sequence[str]) -> Config:
    try:
        return parse_config(words)[0]
    except UserError as error:
        raise UserError(f"Study {study.name}: {row.name}: {error}") from None
    except SystemExit:
        print(f"iidm: that is about the options of {row.name!r} in study {study.name}.", file=sys.stderr)
        raise


def _run(study: Study, config: Config, words: Sequence[str], labeled: int, seed: int) -> Run:
    own = ["--data.labeled-count", str(labeled), "--seed", str(seed)]
    data = replace(config.data, labeled_count=labeled)
    if labeled == 0 and config.data.labeled_list is not None:  # a row without labels, beside rows with a list of them
        data = replace(data, labeled_list=None)
        own += [LABELED_LIST, "None"]
    if study.split_per_seed:
        data = replace(data, split_seed=seed)
        own += ["--data.split-seed", str(seed)]
    config = replace(config, data=data, seed=seed)
    return Run(run_key(config), config, labeled, (*words, *own))


def _budgets(study: Study, wishes: Wishes, base: Config) -> list[int]:
    """The columns: those of the command line, of the list of labeled images, of the study, or of the preset."""
    if base.data.labeled_list is not None:
        count = _lines(base.data.labeled_list)
        if wishes.budgets and set(wishes.budgets) != {count}:
            raise UserError(
                f"{LABELED_LIST} names the {count} labeled images; leave --budgets out, or the list, to have other"
                " numbers drawn."
            )
        return [count]
    if wishes.budgets:
        return sorted(set(wishes.budgets))
    if study.budgets and (wishes.preset is None or study.preset in (None, wishes.preset)):
        return sorted(study.budgets)
    if base.data.labeled_count is None:
        raise UserError(f"Preset {base.preset} labels all target images: say how many with --budgets.")
    return [base.data.labeled_count]


def _lines(path: Path) -> int:
    try:
        lines = read_text(path, "The list").splitlines()
    except OSError as error:
        raise UserError(f"The list {path} cannot be read: {error}.") from None
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))


def _refuse_own(options: Sequence[str], whose: str, more: Mapping[str, str] | None = None) -> None:
    instead = {**OWN_OPTIONS, **(more or {})}
    for word in options:
        name = word.split("=")[0].replace("_", "-")
        if name in instead:
            raise UserError(f"{whose} cannot set {name}, which a study sets for all rows. Give {instead[name]}.")


def _plain(value: Any) -> Any:
    """The value with 1.0 as 1, which a preset may hold where the command line gives the other."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
