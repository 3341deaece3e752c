"""The commands that README.md, CONTRIBUTING.md and docs/*.md show in blocks, and the code that they name in a line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

PROGRAMS = ("iidm", "python", "python3", "pip", "make", "pytest", "bash", "torchrun", "ray", "git", "cd")
"""What a block of commands begins with, under .venv/bin/ or not; one of options begins with an option."""


class Block(NamedTuple):
    """An indented or fenced block of a page."""

    place: str
    """`own-data.md:10`."""
    lines: tuple[str, ...]


class Command(NamedTuple):
    """A command as a shell reads it."""

    place: str
    text: str
    words: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page: lines that are indented by four spaces or more, or stand between fences."""
    kept: list[str] = []
    start, fenced = 0, False
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), "end"], 1):
        fence = line.lstrip().startswith("```")
        inside = not fence and (fenced or line.startswith("    ") or (bool(kept) and not line.strip()))
        if inside:
            start = start if kept else number
            kept.append(line)
        elif kept:
            yield Block(f"{page.name}:{start}", tuple(kept))
            kept = []
        fenced ^= fence


def shows_commands(block: Block) -> bool:
    """Whether a block shows commands, or options of one."""
    first = without_environment(block.lines[0].split())[0]
    return first.startswith("--") or Path(first).name in PROGRAMS


def without_environment(words: list[str]) -> list[str]:
    """The words without variables that are set for this command alone."""
    first = next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return words[first:]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block. What follows two spaces or a ` #` tells about one; options may stand so far apart."""
    text = "\n".join(line.strip() for line in block.lines if line.strip())
    for line in text.replace("\\\n", " ").splitlines():
        told = re.split(r" {2,}(?!-)| +# ", line)[0]
        for part in told.split(" && "):
            yield Command(block.place, part, tuple(without_environment(shlex.split(part))))


def inline_code(page: Path) -> Iterator[str]:
    """What stands between backquotes in the sentences and tables of a page."""
    text = re.sub(r"^(```.*?^```|    .*?)$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))
