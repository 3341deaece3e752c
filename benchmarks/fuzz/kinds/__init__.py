"""What is read: for each kind of file small valid ones, and what a command calls for them."""

from __future__ import annotations

from .annotations import ANNOTATIONS
from .base import Kind
from .data import DATA
from .masks import MASKS
from .networks import NETWORKS
from .runs import RUNS

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*DATA, *ANNOTATIONS, *MASKS, *RUNS, *NETWORKS)}
