"""The help of the commands tells every option as it is given, with its default."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from iidm.cli import PARSERS, parse_config
from iidm.cli.short_help import GROUPS
from iidm.config import Config


def test_the_short_help_shows_the_options_that_people_need_with_the_presets_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for preset, steps in (("scenes", "[400]"), ("camvid-dusk", "[600]")):
        with pytest.raises(SystemExit):
            parse_config(["--preset", preset, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 45 and max(map(len, lines)) <= 100
        (line,) = [line for line in lines if line.startswith("  --max-steps ")]
        assert line.endswith(f"Training steps {steps}")
        for name in (name for names in GROUPS.values() for name in names):
            option = "--" + name.replace("_", "-")
            assert sum(line.split()[:1] == [option] for line in lines) == 1, option


def test_all_options_are_in_the_long_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help-all"])
    told = re.findall(r"^  (--\S+?),?(?: |$)", capsys.readouterr().out, re.M)
    starts = ["--config", "--resume", "--list-presets", "--list-methods"]
    assert sorted(told) == sorted([*starts, *("--" + name.replace("_", "-") for name in names_of_fields(Config()))])


def names_of_fields(group: Any) -> list[str]:
    """Dotted, of a dataclass and of those in it."""
    found = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        inner = [f".{name}" for name in names_of_fields(value)] if dataclasses.is_dataclass(value) else [""]
        found += [field.name + name for name in inner]
    return found


ALIKE = [name for name in PARSERS if name != "train"]


@pytest.mark.parametrize("command", ALIKE)
def test_the_help_of_a_command_tells_each_of_its_options_as_it_is_given(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit):
        PARSERS[command](["--help"])
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert max(map(len, lines[1:])) <= 90 and "None" not in said
    words = re.findall(r"^  (\[?[A-Z][\w./]*)", said, re.M)
    options = re.findall(r"^  (--[\w.-]+)(?:, --[\w.-]+)?((?: (?:\{\S+|[A-Z][\w./]*(?:\.\.\.)?))*)(?:  |$)", said, re.M)
    given = [word for name, value in options for word in (name, *map(as_given, value.split()))]
    parsed = PARSERS[command]([*("x" for _ in words), *given])
    parsed = parsed[0] if isinstance(parsed, tuple) else parsed
    assert len(words) + len(options) == len(names_of_fields(parsed))
    assert not [name for name, _ in options if "_" in name]


def as_given(shown: str) -> str:
    """A value as its option's help shows it, as one that a user may give."""
    return {"INT": "3", "FLOAT": "0.5"}.get(shown.rstrip("."), re.split(r"[{,}]", shown)[1] if "{" in shown else "x")
