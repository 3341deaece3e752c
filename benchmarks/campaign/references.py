"""Uninterrupted commands, which all others are compared with: each is run once, when it is first asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from iidm.locks import locked

from .life import Start, Usual, live

USUAL = "usual.json"


def once(place: Path, start: Start, words: Sequence[str]) -> Path:
    """Run a command whose folder lies in `place`, unless that was done; usual.json there has what it took.

    Processes that ask for the same one wait for the first. Raises RuntimeError where it fails.
    """
    with locked(place.with_name(f"{place.name}.lock")):
        if not (place / USUAL).exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            life = live(start, words)
            if life.status != 0:
                raise RuntimeError(f"the uninterrupted one in {place.name} failed: {life.said}")
            (place / USUAL).write_text(json.dumps(Usual(life.cpu_s, life.events)._asdict()))
    return place


def usual_of(place: Path) -> Usual:
    """What the uninterrupted one took."""
    return Usual(**json.loads((place / USUAL).read_text()))
