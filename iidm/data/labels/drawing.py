"""Drawing what is annotated into label pictures: a folder of them is written beside its place and renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...config import unknown_name
from ...types import IGNORE_INDEX, UserError
from ..files.common import Progress, counted, first_few, hw
from .encodings import LabelEncoding
from .shapes import Annotated, Form

CARD = "labels.json"
"""The file that says what a folder of drawn labels holds."""

Size = tuple[int, int]
MOST_CLASHING = 1 / 3
"""Of the pixels in masks: masks of different classes meet at their edges."""


@dataclass(frozen=True)
class Job:
    """One image whose label is to be drawn."""

    name: str
    image: Path
    read: Callable[[], Annotated]
    where: str
    """The annotation file and the image, for messages."""
    time_ns: int
    """When the annotation file was changed."""
    is_listed: bool
    """Whether the file is one of all images."""


class _Result(NamedTuple):
    is_labeled: bool
    left_out: Counter[str]
    unknown: Counter[str]
    clashing: float = 0.0
    """Share of its pixels that shapes of two classes claim, of which none lies over the other."""
    rest: float = 0.0
    """Share of its pixels in no shape, of those of which none lies over another."""


def read_card(root: Path) -> dict[str, Any] | None:
    """What a finished folder holds: `labels`, the sample names, and `notes`; None for one that is not whole."""
    try:
        card = json.loads((root / CARD).read_text(encoding="utf-8"))
        return card if all((root / f"{name}.png").is_file() for name in card["labels"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def draw_whole(
    root: Path,
    jobs: Sequence[Job],
    notes: list[str],
    encoding: LabelEncoding,
    image_size: Callable[[Path], Size],
    progress: Progress | None,
) -> dict[str, Any]:
    """Draw all labels; returns what `read_card` does.

    Raises: as `draw_labels`.
    """
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _remove_halves(root.parent)
        half = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise _cannot_write(root, error) from None
    try:
        half.chmod(0o755)  # mkdtemp's folders are private; a shared cache is read by others
        results: dict[str, _Result] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                found = pool.map(lambda job: _draw(job, half, encoding, image_size), jobs)
                for done, (job, result) in enumerate(zip(jobs, found, strict=True), start=1):
                    results[job.name] = result
                    if progress is not None:
                        progress(done, len(jobs))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        _require_known(jobs, results, encoding)
        labels = [name for name, result in results.items() if result.is_labeled]
        card = {"labels": labels, "notes": [*notes, *_notes(results, encoding)]}
        (half / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        if root.exists() and read_card(root) is None:
            shutil.rmtree(root, ignore_errors=True)  # pictures of it were deleted
        if not root.exists():
            half.rename(root)
        return card
    except OSError as error:
        if read_card(root) is not None:  # another process was faster; what it wrote is the same
            return read_card(root) or {}
        raise _cannot_write(root, error) from None
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _remove_halves(cache: Path) -> None:
    """Remove what killed processes left: folders that nothing was written to for a day."""
    for left in cache.glob(".labels-*"):
        try:
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            pass


def _draw(job: Job, folder: Path, encoding: LabelEncoding, image_size: Callable[[Path], Size]) -> _Result:
    """Draw one label, unless a name is unknown."""
    annotated = job.read()
    try:
        size = image_size(job.image)
    except UserError:
        if annotated.size is None:
            raise
        size = annotated.size  # the check of all images names a damaged one, or leaves it out where that is allowed
    if annotated.size is not None and annotated.size != size:
        raise UserError(
            f"{job.where} is {hw(annotated.size)} there, but {job.image} is {hw(size)}. Annotations belong to the"
            " image as it was labeled: scale neither alone."
        )
    left_out = Counter(annotated.left_out)
    is_label = encoding.unlabeled != IGNORE_INDEX and (encoding.empty_is_labeled or not job.is_listed)
    if not annotated.shapes and not is_label:
        return _Result(False, left_out, Counter())
    table, unknown = dict(encoding.names), Counter[str]()
    canvas = Image.new("L", (size[1], size[0]), encoding.unlabeled)
    clashes = _Clashes(size) if annotated.is_exclusive else None
    for shape in annotated.shapes:
        value = table.get(shape.name, table.get(shape.otherwise or ""))
        if value is None:
            unknown[shape.name] += shape.otherwise != ""
            continue
        if clashes is not None:
            clashes.add(shape.form, value)
        try:
            shape.form.paint(canvas, value)
        except (ValueError, OverflowError, MemoryError, TypeError) as error:
            raise UserError(f"{job.where}, {shape.where} cannot be drawn ({error}).") from None
    unknown = +unknown
    if clashes is not None:
        canvas.paste(IGNORE_INDEX, mask=Image.fromarray(clashes.found))
    if not unknown:
        path = folder / f"{job.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, compress_level=1)
        # a label drawn again from the same file is no other one to what goes by size and time of change
        os.utime(path, ns=(job.time_ns, job.time_ns))
    if clashes is None:
        return _Result(True, left_out, unknown)
    return _Result(True, left_out, unknown, float(clashes.found.mean()), float(clashes.rest.mean()))


class _Clashes:
    """Pixels that shapes of two classes claim."""

    def __init__(self, size: Size) -> None:
        self.found = np.zeros(size, np.bool_)
        self._values = np.full(size, -1, np.int16)

    @property
    def rest(self) -> NDArray[np.bool_]:
        """Pixels that no shape claims."""
        return self._values < 0

    def add(self, form: Form, value: int) -> None:
        canvas = Image.new("L", self.found.shape[::-1])
        form.paint(canvas, 1)
        inside = np.asarray(canvas) > 0
        self.found |= inside & (self._values >= 0) & (self._values != value)
        self._values[inside] = value


def _require_known(jobs: Sequence[Job], results: Mapping[str, _Result], encoding: LabelEncoding) -> None:
    """Raise UserError for names that no class has, all of them at once."""
    unknown = sum((result.unknown for result in results.values()), Counter[str]())
    if not unknown:
        return
    first = next(job for job in jobs if results[job.name].unknown)
    name = next(iter(results[first.name].unknown))
    more = [f"{n!r} ({count} times)" for n, count in unknown.most_common() if n != name]
    known = [n for n, _ in encoding.names]
    raise UserError(
        f"{first.where}: {str(unknown_name('class', name, known))[:-1]}. It occurs {unknown[name]} times"
        + (f"; as unknown are {first_few(more, 12)}" if more else "")
        + '. Give each to a class (`names = ["..."]` in [[classes]]) or to `ignore_names` in the TOML file.'
    )


def _notes(results: Mapping[str, _Result], encoding: LabelEncoding) -> list[str]:
    notes = []
    empty = [name for name, result in results.items() if not result.is_labeled]
    if empty:
        keys = '`empty_images = "labeled"`'
        if encoding.unlabeled == IGNORE_INDEX:
            keys += " and `unlabeled = CLASS`"
        notes.append(
            f"{counted(len(empty), 'image')} without any annotation: unlabeled ({first_few(empty, 3)}). If somebody has"
            f" looked and there is nothing, write {keys} into the TOML file."
        )
    clashing = {name: result.clashing for name, result in results.items() if result.clashing}
    if clashing:
        worst = max(clashing, key=lambda name: clashing[name])
        notes.append(
            f"{counted(len(clashing), 'image')} with pixels in masks of two classes, up to {clashing[worst]:.1%}"
            f" ({worst}): those pixels are ignored. Mend the masks where one of them holds."
        )
        claimed = sum(1 - result.rest for result in results.values())
        if (share := sum(clashing.values()) / claimed) > MOST_CLASHING:
            notes[-1] += (
                f" They are {share:.0%} of all pixels in masks: are these masks of several annotators of one class?"
                " Give one class all of their names, or move all masks but one annotator's away."
            )
    rests = {name: result.rest for name, result in results.items() if result.rest}
    if rests and encoding.unlabeled == IGNORE_INDEX:
        worst = max(rests, key=lambda name: rests[name])
        notes.append(
            f"{counted(len(rests), 'image')} with pixels in no mask, up to {rests[worst]:.1%} ({worst}): those pixels"
            " are ignored. If they are a class, name it as `unlabeled` in the TOML file."
        )
    left_out = sum((result.left_out for result in results.values()), Counter[str]())
    if left_out:
        told = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
        notes.append(f"Annotations without an area are left out: {told}.")
    return notes


def _cannot_write(root: Path, error: OSError) -> UserError:
    return UserError(
        f"Labels drawn from annotations could not be written to {root.parent} ({error}). Free space there or set"
        " IIDM_CACHE to another folder."
    )
