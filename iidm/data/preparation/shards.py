"""Preparing one folder on several machines: each does a part of the images, the last one puts the folder together.

    OUT/shards/2-of-4.jsonl     the lines of what shard 2 of 4 has done
    OUT/shards/2-of-4.json      shard 2 of 4 is finished: what it was planned for, what it left out

Each image belongs to a shard by its name. The machines share the folder and nothing else: they need no lock, no clock,
no order. Whatever is written appears whole, by a rename. A shard that is finished looks whether all others are; if so
it merges them. Two may find that at once: both write the same. What one process would have written, byte for byte, is
the result, and `shards` is gone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from ..datasets.dataset import Dataset
from ..datasets.places import Split
from ..files.common import first_few
from ..prepared.entries import INDEX, Entry, read_index
from ..prepared.folder import Manifest, is_prepared, read_manifest, write_text
from .writing import JOURNAL, SHARDS, are_there, finish, write_manifest


class Shard(NamedTuple):
    """A part of the images."""

    number: int
    """From 1 on."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def file_name(self) -> str:
        """Of its files, without ending."""
        return f"{self.number}-of-{self.of}"

    def takes(self, split: str, name: str) -> bool:
        """Whether an image is one of its own, by its name: images that come or go move no other to another shard."""
        return zlib.crc32(f"{split}/{name}".encode("utf-8", "surrogatepass")) % self.of == self.number - 1

    @staticmethod
    def parse(text: str) -> Shard:
        """`2/4`. Raises UserError for what is none."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise UserError(
                f"--shard {text} is none: give i/n with i from 1 to n, such as --shard 2/4 on the second of four"
                " machines."
            )
        return shard


class Finished(NamedTuple):
    """What shards/2-of-4.json says."""

    plan: str
    """`plan_key` of what it saw."""
    images: int
    """That it saw, all shards together."""
    skipped: list[str]
    """What is wrong with images of its own that it left out."""


def plan_key(manifest: Manifest, datasets: Mapping[Split, Dataset]) -> str:
    """The same on two machines that prepare the same images in the same way."""
    digest = hashlib.sha256(json.dumps(manifest.as_json()).encode())
    for split, dataset in datasets.items():
        for name, has_label in zip(dataset.names, dataset.has_label, strict=True):
            digest.update(f"{split}\0{name}\0{int(has_label)}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:24]


def journal(out: Path, shard: Shard) -> Path:
    """The file of the lines of a shard."""
    return out / SHARDS / f"{shard.file_name}.jsonl"


def require_division(out: Path, shard: Shard | None) -> None:
    """Raise UserError where a folder is being prepared in other shards, or in shards while none is given, or without
    while one is."""
    begun = set() if _is_complete(out) else _begun(out)
    if shard is None:
        left = unfinished(out, max(begun)) if begun else []
        if left:
            raise UserError(
                f"{out} is being prepared in {max(begun)} shards, and {_these(left)} not finished. Run them"
                f" (--shard {left[0]}); one machine may run several, one after the other."
            )
        return
    if (out / JOURNAL).exists():
        raise UserError(
            f"{out} was begun without --shard and is not finished. Finish it so, or give --out a new folder."
        )
    others = begun - {shard.of}
    if others:
        raise UserError(
            f"{out} is being prepared in {max(others)} shards, and --shard {shard} is one of {shard.of}. Go on with"
            f" --shard i/{max(others)}; one machine may run several, one after the other."
        )


def earlier_entries(out: Path) -> Iterable[Entry]:
    """What all shards have done."""
    for path in sorted((out / SHARDS).glob("*.jsonl")):
        yield from read_index(path)


def begin(out: Path, shard: Shard, manifest: Manifest) -> None:
    """A shard is at work, perhaps again."""
    if not is_prepared(out):
        write_manifest(out, manifest)
    elif read_manifest(out).complete:  # what a process left that was killed when all was done
        shutil.rmtree(out / SHARDS, ignore_errors=True)
    (out / SHARDS).mkdir(exist_ok=True)
    _marker(out, shard).unlink(missing_ok=True)


def is_held(out: Path, images: int, entries: Iterable[Entry], problems: Iterable[str]) -> bool:
    """Whether a folder is complete, of so many images, and what a shard has done is in it already: then nothing of the
    shard is left."""
    if not _is_complete(out):
        return False
    index, skipped = set(read_index(out / INDEX)), set(read_manifest(out).skipped)
    is_all = len(index) + len(skipped) == images and index.issuperset(entries) and skipped.issuperset(problems)
    if is_all:
        shutil.rmtree(out / SHARDS, ignore_errors=True)
    return is_all


def write_finished(out: Path, shard: Shard, entries: Iterable[Entry], finished: Finished) -> None:
    """Say that a shard is finished, and the folder not complete."""
    if _is_complete(out):
        write_manifest(out, replace(read_manifest(out), complete=False))
    (out / SHARDS).mkdir(exist_ok=True)
    write_text(journal(out, shard), "".join(entry.line() for entry in entries))
    write_text(_marker(out, shard), json.dumps(finished._asdict(), indent=2) + "\n")


def merge(out: Path, shard: Shard, manifest: Manifest, wanted: Sequence[tuple[str, str]]) -> Manifest:
    """Put the folder together if every shard is finished.

    Args:
        manifest: of the whole folder, not complete yet.
        wanted: split and name of every image.

    Returns: prepared.json, complete if every shard is finished.

    Raises:
        UserError: shards were planned for other images or with other settings, files or lines of some are missing, or a
            split is all damaged.
    """
    if unfinished(out, shard.of) and not _is_complete(out):
        return manifest
    require_division(out, shard)
    every = [Shard(number, shard.of) for number in range(1, shard.of + 1)]
    try:
        finished = {one: _read(_marker(out, one)) for one in every}
        entries = [entry for one in every for entry in read_index(journal(out, one))]
    except FileNotFoundError:  # another process has merged them, or began one of them again
        if _is_complete(out):
            shutil.rmtree(out / SHARDS, ignore_errors=True)
        return read_manifest(out)
    own = finished[shard]
    other = [one for one in every if finished[one].plan != own.plan]
    if other:
        raise UserError(
            f"{out}: {_these(other)} of other images or settings than shard {shard} ({finished[other[0]].images} and"
            f" {own.images} images): the data set changed in between, or the machines see different ones. Run"
            f" {' and '.join(f'--shard {one}' for one in other)} again; what is done stays."
        )
    problems = sorted(line for one in every for line in finished[one].skipped)
    entries.sort(key=lambda entry: (entry.split, entry.name))
    missing = _missing(out, manifest, entries, wanted, len(problems), shard.of)
    if missing:
        raise UserError(f"{out}: files of {_these(missing, verb='')} are missing. Run --shard {missing[0]} again.")
    return finish(out, manifest, entries, problems)


def unfinished(out: Path, of: int) -> list[Shard]:
    """Which of so many shards are not finished."""
    every = [Shard(number, of) for number in range(1, of + 1)]
    return [shard for shard in every if not _marker(out, shard).exists()]


def _missing(
    out: Path, manifest: Manifest, entries: Sequence[Entry], wanted: Sequence[tuple[str, str]], skipped: int, count: int
) -> list[Shard]:
    """The shards of images that are neither there nor left out."""
    found = are_there(out, manifest.format, entries)
    there = {(entry.split, entry.name) for entry, is_there in zip(entries, found, strict=True) if is_there}
    lost = [key for key in wanted if key not in there]
    gone = len(entries) - sum(found)
    if not gone and len(lost) <= skipped:
        return []
    every = (Shard(number, count) for number in range(1, count + 1))
    return [shard for shard in every if any(shard.takes(*key) for key in lost)]


def _begun(out: Path) -> set[int]:
    """Into how many shards a folder is being divided."""
    names = [path.name for path in (out / SHARDS).glob("*-of-*.json*")]
    return {int(found[1]) for name in names if (found := re.fullmatch(r"\d+-of-(\d+)\.jsonl?", name))}


def _is_complete(out: Path) -> bool:
    return is_prepared(out) and read_manifest(out).complete


def _marker(out: Path, shard: Shard) -> Path:
    return out / SHARDS / f"{shard.file_name}.json"


def _read(path: Path) -> Finished:
    try:
        return Finished(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged. Remove it and run its shard again.") from None


def _these(shards: Sequence[Shard], verb: str = " are") -> str:
    """`shard 3/4 is`, `shards 3/4, 4/4 are`."""
    if len(shards) == 1:
        return f"shard {shards[0]}{verb and ' is'}"
    return f"shards {first_few(shards)}{verb}"
