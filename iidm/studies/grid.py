"""A study as its TOML file has it: rows of a table, and label budgets as its columns.

Such a file, `my-grid.toml`; the paper's tables beside this file have the same form:

    title = "What a labeled image is worth"
    note = "A sentence or two that stand above the table."              # optional, as all that follows
    preset = "gta5-cityscapes-100"   # the preset where the command line names none; default: scenes
    budgets = [100, 200]             # labeled target images, the columns; default: the preset's own
    paper_setting = "GTA5 -> Cityscapes"                               # what the numbers under `paper` are of

    [[row]]
    name = "L_s + L_t"               # as it is shown
    method = "source_target"         # a name of --list-methods
    type = "Sup."                    # a heading, shown beside the name
    options = ["--loss.target-weight", "2"]    # any options of iidm.train
    labeled = 0                      # the row has this budget alone
    skip_budgets = [2975]            # budgets at which the row cannot be
    paper = { "100" = 48.5, "200" = 53.5 }     # published mIoU in per cent by budget
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from iidm.config import TEXT, TEXTS, ValueKind, check_keys, list_of, list_of_tables, parse_mistake, unknown_name
from iidm.text import read_text
from iidm.types import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_by_budget(value: object) -> bool:
    return isinstance(value, dict) and all(
        count.isdecimal() and type(miou) in (int, float) for count, miou in value.items()
    )


_NUMBERS = list_of("a list of whole numbers >= 0", _is_count)
_KEYS = {
    "title": TEXT,
    "note": TEXT,
    "preset": TEXT,
    "budgets": _NUMBERS,
    "paper_setting": TEXT,
    "row": list_of_tables("row"),
}
_ROW_KEYS = {
    "name": TEXT,
    "type": TEXT,
    "method": TEXT,
    "options": TEXTS,
    "labeled": ValueKind("a whole number >= 0", _is_count),
    "skip_budgets": _NUMBERS,
    "paper": ValueKind('a table of numbers by budget, such as { "100" = 69.5 }', _is_by_budget),
}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    method: str
    type: str = ""
    options: tuple[str, ...] = ()
    labeled: int | None = None
    """The one budget of a row that has no other, such as 0; None: all budgets of the study."""
    skip_budgets: tuple[int, ...] = ()
    """Budgets at which the row has no cell, such as that of all images for a method that needs unlabeled ones."""
    paper: Mapping[int, float] = field(default_factory=dict)
    """Published mIoU in per cent by budget."""

    def budgets(self, of_study: Sequence[int]) -> list[int]:
        """Those at which this row has a cell."""
        if self.labeled is not None:
            return [self.labeled]
        return [count for count in of_study if count not in self.skip_budgets]


@dataclass(frozen=True)
class Study:
    """A table to be made."""

    name: str
    """The file's name without its ending; what is written has this name."""
    title: str
    rows: tuple[Row, ...]
    note: str = ""
    preset: str | None = None
    budgets: tuple[int, ...] = ()
    paper_setting: str = ""
    split_per_seed: bool = False
    """Whether each seed labels other images, so that the spread holds which ones they are."""

    @property
    def paper_budgets(self) -> list[int]:
        """Every budget that a published number is of."""
        return sorted({count for row in self.rows for count in row.paper})


BUDGET = "budget"
"""The study that comes without a file (budget.py)."""


def known_studies() -> list[str]:
    """Names of the tables that come with iidm."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def describe_studies() -> str:
    """One line a study."""
    studies = [find_study(name) for name in known_studies()]
    return "\n".join(f"{study.name:10s}{len(study.rows):3d} rows  {study.title}" for study in studies)


def find_study(name: str) -> Study:
    """The study of that name, or that of a TOML file.

    Raises: UserError for a name that does not exist (with the nearest), and what `parse_study` raises.
    """
    if not name.endswith(".toml"):
        known = known_studies()
        if name not in known:
            raise UserError(f"{unknown_name('study', name, [*known, BUDGET])} A grid of your own is a .toml file.")
        return parse_study((_folder() / f"{name}.toml").read_text(encoding="utf-8"), name, f"{name}.toml")
    path = Path(name).expanduser()
    try:
        text = read_text(path, "Study file")
    except FileNotFoundError:
        raise UserError(f"There is no study file {path}.") from None
    except OSError as error:
        raise UserError(f"Study file {path} cannot be read: {error}.") from None
    return parse_study(text, path.stem, str(path))


def parse_study(text: str, name: str, file: str) -> Study:
    """The study that a TOML text describes; `file` is what errors call it.

    Raises: UserError for text that is no TOML, an unknown key (with the nearest), a missing one, a value of another
        kind, or two rows of one name.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one; so is a number of too many digits
        raise UserError(f"Study file {file} cannot be read: {parse_mistake(error, text, 'row')}") from None
    check_keys(f"Study file {file}", table, _KEYS)
    if not table.get("row"):
        raise UserError(f"Study file {file} has no rows: write at least one [[row]] with a name and a method.")
    rows = tuple(_row(file, number, entry) for number, entry in enumerate(table["row"], start=1))
    names = [row.name for row in rows]
    for row_name in names:
        if names.count(row_name) > 1:
            raise UserError(f"Study file {file}: two rows are called {row_name!r}. Give each a name of its own.")
    return Study(
        name,
        table.get("title", name),
        rows,
        note=" ".join(table.get("note", "").split()),
        preset=table.get("preset"),
        budgets=tuple(dict.fromkeys(table.get("budgets", ()))),
        paper_setting=table.get("paper_setting", ""),
    )


def _row(file: str, number: int, entry: dict[str, Any]) -> Row:
    where = f"row {number} ({entry['name']})" if isinstance(entry.get("name"), str) else f"row {number}"
    check_keys(f"Study file {file}: {where}", entry, _ROW_KEYS)
    for key in ("name", "method"):
        if not entry.get(key):
            raise UserError(f"Study file {file}: {where} lacks {key!r}.")
    return Row(
        entry["name"],
        entry["method"],
        type=entry.get("type", ""),
        options=tuple(entry.get("options", ())),
        labeled=entry.get("labeled"),
        skip_budgets=tuple(entry.get("skip_budgets", ())),
        paper={int(count): float(miou) for count, miou in entry.get("paper", {}).items()},
    )


def _folder() -> Any:
    return resources.files(__package__)
