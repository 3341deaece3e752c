"""`train --help`: the options that people need, one line each. The texts are the docstrings of the fields."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import shutil
import textwrap
from typing import Any

from ..config import Config

GROUPS: dict[str, tuple[str, ...]] = {
    "The images": (
        "data.source.spec",
        "data.target.spec",
        "source_root",
        "target_root",
        "data.labeled_count",
        "data.labeled_list",
        "data.val_count",
        "data.crop_size",
    ),
    "Training": (
        "max_steps",
        "model.backbone",
        "model.weights",
        "optim.lr",
        "amp",
        "device",
        "seed",
        "data.workers",
    ),
    "Results": ("run_dir", "log.eval_every", "log.checkpoint_every", "eval.mode", "quiet"),
}
"""Dotted names of the fields that the short help shows."""

_COLUMN = 26
"""Where the texts begin."""

_EXAMPLE = "example: iidm train --data.target.spec camera.toml --method target_intra --data.val-count 5 --amp"
"""Of a data set of one's own, as `iidm inspect` describes it."""


def short_help(called: str, starts: argparse.ArgumentParser, base: Config) -> str:
    """The short help of `train`.

    Args:
        called: how the command is called.
        starts: the options that choose where the other values start from.
        base: the values that they chose; the defaults of all others.
    """
    lines = [f"usage: {called} [OPTIONS]        defaults in brackets", _EXAMPLE, "", "Where the values start from:"]
    lines += [_option(action.option_strings[0], action.help or "") for action in starts._actions]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [_option("--" + name.replace("_", "-"), _doc(name), _value(base, name)) for name in names]
    return "\n".join([*lines, "", f"{called} --help-all tells all options, and more of these."])


def _option(name: str, text: str, default: Any = None) -> str:
    """The line of one option: of its text the first clause, as far as it fits, and its default in brackets."""
    shown = "" if default is None else f" [{_words(default)}]"
    width = min(shutil.get_terminal_size(fallback=(100, 24)).columns, 120) - _COLUMN - len(shown)
    clause = re.split(r"[.;] |\.$", " ".join(text.split()), maxsplit=1)[0]
    if len(clause) > width:
        clause = re.sub(r" \([^)]*\)", "", clause)
    return f"{'  ' + name:{_COLUMN}}{textwrap.shorten(clause, max(width, 20), placeholder=' ...')}{shown}"


def _words(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(group: Any, name: str) -> Any:
    for part in name.split("."):
        group = getattr(group, part)
    return group


def _doc(name: str) -> str:
    """The docstring of a field of the configuration."""
    *groups, field = name.split(".")
    group: Any = _value(Config(), ".".join(groups)) if groups else Config()
    return field_docs(type(group))[field]


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Field name -> the string below it, for a class whose fields have one each."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: str(text.value.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
