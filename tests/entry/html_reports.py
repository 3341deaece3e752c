"""Reports as a test reads them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image
from small_runs import Said, call

import iidm.report

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Parsed(HTMLParser):
    """What a page holds; a tag that closes another than the last one opened fails."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(" ".join(data for tag, data in self.texts if tag not in ("script", "style")).split())

    @property
    def pictures(self) -> list[np.ndarray]:
        """All images, decoded."""
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, body = (attributes["src"] or "").partition(";base64,")
                assert kind in ("data:image/png", "data:image/jpeg")
                found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")))
        return found

    def table(self, *first: str) -> list[list[str]]:
        """The first table whose head begins with these words."""
        return next(table for table in self.tables if tuple(cell.strip() for cell in table[0][: len(first)]) == first)


def report(*words: str | Path) -> Said:
    return call(iidm.report.main, words)


def copied(run_dir: Path, place: Path) -> Path:
    """A run of its own below `place`, but for the checkpoints, which are hundreds of megabytes."""
    shutil.copytree(run_dir, place / "run", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    (place / "run" / "checkpoints").symlink_to((run_dir / "checkpoints").resolve())
    return place / "run"


def change_config(run_dir: Path, **changes: object) -> None:
    """Dotted names with two underscores for a dot."""
    path = run_dir / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        *groups, field = name.split("__")
        inner = config
        for group in groups:
            inner = inner[group]
        inner[field] = value
    path.write_text(json.dumps(config))
