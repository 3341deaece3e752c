"""What a case is: drawn from its kind and number alone, so that it can be repeated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from .life import Life, Moment

Trouble = Literal["", "full disk", "read-only folder", "damaged checkpoint", "damaged file", "power cut"]


@dataclass(frozen=True)
class Case:
    """What is run and what goes wrong."""

    kind: str
    number: int
    variant: tuple[str, ...]
    """What is run: words of the command that change what it computes, or how."""
    fresh: bool
    """Whether each process starts anew; otherwise it is a fork of one that has imported torch and iidm."""
    kills: tuple[Moment, ...]
    trouble: Trouble
    seed: int
    """Of what else is drawn."""


@dataclass
class Outcome:
    """What came of a case."""

    lives: list[Life] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    left_out: str = ""
    """Why its trouble could not be made here."""
    told: list[str] = field(default_factory=list)
    """What there was to see, for who repeats the case."""

    def loss(self, text: str) -> None:
        """Something is not as it would be without the kill."""
        self.losses.append(text)


def draw_trouble(rng: Random, weights: dict[Trouble, float]) -> Trouble:
    """One of them, each as often as it weighs of 1; else none."""
    names = list(weights)
    return rng.choices([*names, ""], [*weights.values(), 1 - sum(weights.values())])[0]


def draw_kills(rng: Random, phases: dict[str, float], fresh: bool, most: int = 3) -> tuple[Moment, ...]:
    """When the process is killed, and when the one that goes on with it.

    Args:
        phases: those that a kill may aim at, with the seconds within which it hits after the phase has begun.
        fresh: a fresh process tells no phase: its kills follow the clock of the processor.
    """
    count = min(most, rng.choices([1, 2, 3], [0.72, 0.2, 0.08])[0])
    kills = []
    for _ in range(count):
        kind = "cpu" if fresh else rng.choices(["cpu", "event", "phase"], [0.4, 0.3, 0.3])[0]
        phase = rng.choice(list(phases)) if kind == "phase" else ""
        times = rng.choice([1, 1, 2, 3]) if phase == "checkpoint" else 1
        delay_s = rng.uniform(0, phases.get(phase, 0.02))
        kills.append(Moment(kind, rng.random(), phase, times, delay_s))
    return tuple(kills)


def as_json(case: Case, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """A line of the file of results."""
    return {
        "number": case.number,
        "variant": list(case.variant),
        "start": "fresh" if case.fresh else "fork",
        "trouble": case.trouble,
        "left_out": outcome.left_out,
        "kills": [life.hit for life in outcome.lives if life.killed],
        "lives": len(outcome.lives),
        "losses": outcome.losses,
        "seconds": round(seconds, 1),
        "cpu_s": round(sum(life.cpu_s for life in outcome.lives), 1),
    }


def latest(records: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Number of a case -> its last record: one that lost something is done again."""
    return {record["number"]: record for record in records}
