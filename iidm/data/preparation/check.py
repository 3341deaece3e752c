"""Reading all of a prepared folder, to find every file that is damaged or does not fit its index."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ...types import IGNORE_INDEX, UserError
from ..datasets.splits import read_list
from ..files.common import Progress, hw
from ..labels.encodings import read_ids
from ..prepared.arrays import HEADER_BYTES, array_bytes
from ..prepared.columns import COLUMNS, columns_of, is_wrong
from ..prepared.entries import INDEX, Entry, FileFacts, entry_paths, read_index
from ..prepared.folder import Manifest, is_prepared, read_manifest
from .writing import strangers


def check_prepared(root: Path, *, jobs: int | None = None, progress: Progress | None = None) -> tuple[int, list[str]]:
    """Read every file of a prepared folder and compare it with the index.

    Args:
        root: the folder.
        jobs: threads; None: one a core (checksums and decoders let each other run).
        progress: called with (images read, all).

    Returns: how many images there are, and one line for each file that is missing, damaged or unknown.

    Raises:
        UserError: it is no prepared folder, or an unfinished one.
    """
    root = root.expanduser()
    if not is_prepared(root):
        raise UserError(f"{root} is no prepared folder: it has no prepared.json. iidm.prepare writes such a folder.")
    manifest = read_manifest(root)
    if not manifest.complete:
        raise UserError(f"{root} is not finished: run its iidm.prepare command again, it goes on where it stopped.")
    entries = read_index(root / INDEX)
    problems = _check_lists(root, manifest, entries)
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        found = pool.map(lambda entry: _check_entry(root, manifest, entry), entries)
        for done, lines in enumerate(found, start=1):
            problems += lines
            if progress is not None:
                progress(done, len(entries))
    problems += [f"{path} belongs to no image of the index" for path in strangers(root, manifest.format, entries)]
    return len(entries), problems


def _check_lists(root: Path, manifest: Manifest, entries: list[Entry]) -> list[str]:
    """The index against its own lines and the lists of names."""
    problems = []
    if manifest.images != len(entries):
        problems.append(f"{root / INDEX} is damaged: {len(entries)} of its {manifest.images} lines can be read")
    else:
        size = (root / INDEX).stat().st_size
        if is_wrong(root, columns_of(entries, len(manifest.classes), size, root / INDEX)):
            problems.append(f"{root / COLUMNS} is damaged: it is not that of {INDEX}. Remove it, a run makes it anew")
    for split in manifest.splits:
        path = root / "splits" / f"{split}.txt"
        names = [entry.name for entry in entries if entry.split == split]
        try:
            if sorted(read_list(path, names)) != sorted(names):
                problems.append(f"{path} does not name every image of the index")
        except UserError as error:
            problems.append(str(error).removesuffix("."))
    return problems


def _check_entry(root: Path, manifest: Manifest, entry: Entry) -> list[str]:
    problems = []
    image, label = entry_paths(root, manifest.format, entry)
    for path, shape, facts in ((image, (*entry.size, 3), entry.image), (label, entry.label_size, entry.label)):
        if path is not None and shape is not None and facts is not None:
            try:
                _check_file(path, shape, facts, len(manifest.classes))
            except UserError as error:
                problems.append(str(error).removesuffix("."))
    return problems


def _check_file(path: Path, shape: tuple[int, ...], facts: FileFacts, num_classes: int) -> None:
    """Raise UserError for what is wrong with a file."""
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if len(body) != facts.bytes:
        raise UserError(f"{path} is damaged: it has {len(body)} bytes, the index says {facts.bytes}")
    if zlib.crc32(body) != facts.crc32:
        raise UserError(f"{path} is damaged: its checksum is not that of the index")
    if path.suffix == ".npy":
        fits = len(body) == array_bytes(shape)
    else:
        with Image.open(path) as picture:
            fits = (picture.height, picture.width) == shape[:2]
    if not fits:
        raise UserError(f"{path} is no image of {hw(shape)}, as the index says")
    if len(shape) == 2:
        ids = np.frombuffer(body, np.uint8, offset=HEADER_BYTES) if path.suffix == ".npy" else read_ids(path, "gray8")
        wrong = ids[(ids >= num_classes) & (ids != IGNORE_INDEX)]
        if wrong.size:
            raise UserError(f"{path} holds train id {wrong[0]}; there are {num_classes} classes")
