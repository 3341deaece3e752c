"""What is written to a prepared folder beside its images, and how it is finished."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...types import UserError
from ..datasets.splits import list_text
from ..files.common import first_few
from ..prepared.columns import COLUMNS, columns_of, write_columns
from ..prepared.entries import INDEX, Entry, ImageFormat, entry_paths
from ..prepared.folder import MANIFEST, PART, Manifest, is_abandoned, write_text

JOURNAL = "index.part.jsonl"
SHARDS = "shards"
"""Folder of what several machines say of their parts (shards.py)."""


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write prepared.json."""
    write_text(out / MANIFEST, json.dumps(manifest.as_json(), indent=2) + "\n")


def require_prepared(count: int, problems: Sequence[str], skip_damaged: bool) -> None:
    """Raise UserError for images, of `count`, that could not be prepared."""
    if problems and not skip_damaged:
        raise UserError(
            f"{len(problems)} of {count} images could not be prepared:"
            f" {first_few([p.removesuffix('.') for p in problems], 5)}."
            " Mend them and run the same command again (what is done stays), or leave them out: --skip-damaged."
        )


def finish(out: Path, manifest: Manifest, entries: Sequence[Entry], problems: Sequence[str]) -> Manifest:
    """Write index and splits, remove what no entry names, and say that the folder is complete.

    Several processes may do so at once: each writes the same, and whole files.

    Args:
        entries: by split and name.
        problems: what is wrong with images that are left out.

    Raises:
        UserError: a split of which every image is left out.
    """
    left = Counter(entry.split for entry in entries)
    lost = [split for split in manifest.splits if not left[split]]
    if problems and lost:
        raise UserError(
            f"All {lost[0]} images are damaged, so --skip-damaged leaves none:"
            f" {first_few([p.removesuffix('.') for p in problems], 5)}. Copy or download them again."
        )
    write_text(out / INDEX, "".join(entry.line() for entry in entries))
    write_columns(out / COLUMNS, columns_of(entries, len(manifest.classes), (out / INDEX).stat().st_size))
    (out / "splits").mkdir(exist_ok=True)
    for split in manifest.splits:
        names = [entry.name for entry in entries if entry.split == split]
        write_text(out / "splits" / f"{split}.txt", list_text(names))
    for path in strangers(out, manifest.format, entries):
        path.unlink(missing_ok=True)
    manifest = replace(manifest, complete=True, images=len(entries), skipped=tuple(problems))
    write_manifest(out, manifest)
    clear_up(out)
    return manifest


def clear_up(out: Path) -> None:
    """Remove what a complete folder needs no more, also what a kill has left: journals, and halves of files. Those of
    processes that live, or of other machines, stay: they may still become whole."""
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    halves = [half for folder in (out, out / "splits") for half in folder.glob(f".*{PART}") if is_abandoned(half)]
    for path in (out / JOURNAL, *halves):
        with suppress(OSError):  # what cannot be removed, as from a disk that is read only, does no harm
            path.unlink()


def strangers(out: Path, image_format: ImageFormat, entries: Iterable[Entry]) -> list[Path]:
    """Files below images/ and labels/ that no entry names: halves of a killed run, images that were removed since."""
    known = {path for entry in entries for path in entry_paths(out, image_format, entry) if path is not None}
    found = []
    for folder in (out / "images", out / "labels"):
        for parent, _, files in os.walk(folder):
            found += [path for name in files if (path := Path(parent, name)) not in known]
    return sorted(found)


def is_there(out: Path, image_format: ImageFormat, entry: Entry) -> bool:
    """Whether an entry's files have the right length."""
    for path, facts in zip(entry_paths(out, image_format, entry), (entry.image, entry.label), strict=True):
        if path is not None and facts is not None:
            try:
                if path.stat().st_size != facts.bytes:
                    return False
            except OSError:
                return False
    return True


def are_there(out: Path, image_format: ImageFormat, entries: Sequence[Entry]) -> list[bool]:
    """`is_there` of many, several at a time: a network file system takes its time for each."""
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda entry: is_there(out, image_format, entry), entries))
