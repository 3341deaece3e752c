"""The check before the first step, so that no run dies hours later on a file that is cut off."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...config import DataConfig
from ...config.data import LEAST_CROP
from ...types import Sample, UserError
from ..files.common import Progress, counted, evenly, first_few, hw
from ..files.headers import Header
from ..files.whole import check_picture
from .copies import copies_note
from .dataset import Dataset, Domains, size_clash, training_size
from .palettes_differ import palettes_note
from .problems import Problem, told_once
from .summary import TITLES, count_images, summarize

SAMPLED_LABELS = 32
"""Labels of each set that are decoded whole, evenly spaced."""
SHOWN_PROBLEMS = 5
"""Kinds of fault that the error tells."""

PREPARED_IMAGES = 25_000
"""Up to so many prepared images of each set have their files' lengths compared with the index."""
SPACED_IMAGES = 5_000
"""Of larger sets so many have, evenly spaced: on a network file system the files of a million take minutes a start.
`iidm.prepare --check` reads all, and a run that meets a damaged one saves a checkpoint and names it."""

READ_WHOLE_BYTES = 2**30
"""Images of a training set that are read whole for damage in their middle, evenly spaced ones where all are more.
Validation images are all read: training never meets them, and would end before their damage showed."""

_AT_ONCE = 50
"""Samples that a thread checks one after the other: handing over each costs more than looking for a file."""


@dataclass
class SampleReport:
    """What the files of one sample are like."""

    file: Path
    """The one that was looked at last: the damaged one, if there are problems."""
    files: tuple[Path, ...] = ()
    """Image and label."""
    problems: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    """(H, W) of the image on disk, upright."""
    header: Header | None = None
    """Of an image that is not prepared."""


class Checked(NamedTuple):
    """What a check found."""

    notes: list[str]
    """What is allowed but worth knowing, a line each."""
    damaged: frozenset[Path] = frozenset()
    """Training images and labels that are to be left out."""


def check_data(domains: Domains, data: DataConfig, progress: Progress | None = None) -> Checked:
    """What is to be known of a run's images before its first step, as `data.check` wishes.

    Args:
        progress: called with (labels read, all) of each set whose labels were not counted before.

    Raises:
        UserError: what `check_domains` and `summarize` raise.
    """
    if not data.check:
        return Checked(count_images(domains))
    checked = check_domains(domains, data.crop_size, skip_damaged=data.skip_damaged)
    copies = copies_note(domains)
    told = [*summarize(domains, data, progress), *checked.notes, *([copies] if copies else [])]
    return checked._replace(notes=told)


def check_domains(
    domains: Domains,
    crop_size: tuple[int, int],
    *,
    full: bool = False,
    skip_damaged: bool = False,
    jobs: int | None = None,
) -> Checked:
    """Open every image and label, compare their sizes, find cut-off files, and decode some labels.

    Cut-off files are found by their last bytes: one that does not end as its format does is decoded. Damage in the
    middle of a JPEG or PNG is found by reading all of it, which is done for validation images and for up to
    `READ_WHOLE_BYTES` of each other set; a run names the others when it meets them. Of up to `PREPARED_IMAGES` prepared
    images of each set, and `SPACED_IMAGES` of a larger one, the lengths of the files are compared with the index
    (`iidm.prepare --check` reads all whole).

    Args:
        crop_size: (H, W) in pixels, for a note on images that are smaller.
        full: decode every image and every label, not only up to `SAMPLED_LABELS` labels of each set.
        skip_damaged: bad training files become notes, and their images are to be left out; a set of which none is left
            is an error.
        jobs: threads; default: four per core, as most of the time is spent waiting for the disk.

    Raises:
        UserError: one for all bad files; it tells up to `SHOWN_PROBLEMS` kinds of fault and how many files have each.
    """
    sets = {
        "source": domains.source,
        "labeled": domains.labeled,
        "unlabeled": domains.unlabeled,
        "val": domains.val,
    }
    with ThreadPoolExecutor(jobs or 4 * (os.cpu_count() or 1)) as pool:
        reports = {
            stream: _look_at(dataset, pool, full, reads_all=stream == "val")
            for stream, dataset in sets.items()
            if dataset is not None
        }
    bad = [(stream, report) for stream, found in reports.items() for report in found if report.problems]
    skipped = [(stream, report) for stream, report in bad if skip_damaged and stream != "val"]
    _require_whole([(stream, report) for stream, report in bad if not skip_damaged or stream == "val"])
    _require_some(reports)
    notes = [f"left out: {stream}: {'; '.join(report.problems)}" for stream, report in skipped[:SHOWN_PROBLEMS]]
    if skipped:
        notes.append(f"{len(skipped)} damaged images are left out (--data.skip-damaged)")
    found_notes = [_unseen_note(stream, len(found), sets[stream]) for stream, found in reports.items()]
    found_notes += [_small_images_note(s, sets[s], found, crop_size) for s, found in reports.items() if s != "val"]
    found_notes += [turned_note(stream, found) for stream, found in reports.items()]
    found_notes += [palettes_note(dataset) for dataset in (domains.source, domains.labeled, domains.val) if dataset]
    notes += [note for note in found_notes if note is not None]
    return Checked(notes, frozenset(report.file for _, report in skipped))


def _look_at(dataset: Dataset, pool: ThreadPoolExecutor, full: bool, reads_all: bool) -> list[SampleReport]:
    """The reports of a set, in the order of its samples; of a large prepared one those of evenly spaced samples."""
    check = _checker(dataset, full, reads_all)
    looked_at: Sequence[int] = range(len(dataset.samples))
    if dataset.prepared is not None and not full and len(looked_at) > PREPARED_IMAGES:
        looked_at = evenly(looked_at, SPACED_IMAGES)
    parts = [looked_at[i : i + _AT_ONCE] for i in range(0, len(looked_at), _AT_ONCE)]
    return [report for found in pool.map(lambda part: [check(i) for i in part], parts) for report in found]


def _require_whole(bad: Sequence[tuple[str, SampleReport]]) -> None:
    problems = [
        Problem(stream, report.file, report.files, problem) for stream, report in bad for problem in report.problems
    ]
    if problems:
        advice = (
            "Copy or download them again, or leave" if any(p.is_damage for p in problems) else "Mend them, or leave"
        )
        raise UserError(
            f"The data check found {counted(len(problems), 'bad file')}."
            f" {told_once(problems, SHOWN_PROBLEMS)}. {advice} them out with a list of names"
            " (--data.source-list, --data.labeled-list, --data.unlabeled-list, --data.val-list), or with"
            " --data.skip-damaged."
        )


def _require_some(reports: Mapping[str, list[SampleReport]]) -> None:
    """Something is left of each set where what is damaged is left out."""
    for stream, found in reports.items():
        if found and all(report.problems for report in found):
            lost = [Problem(stream, report.file, report.files, report.problems[0]) for report in found]
            raise UserError(
                f"All {TITLES[stream]} images are damaged, so --data.skip-damaged leaves none."
                f" {told_once(lost, SHOWN_PROBLEMS)}. Copy or download them again, or give others."
            )


def slow_reading_notes(domains: Domains) -> list[str]:
    """A line where training images are read as they were downloaded; the built-in scenes are small enough for that."""
    read = (domains.source, domains.unlabeled or domains.labeled)
    names = dict.fromkeys(d.name for d in read if d is not None and d.prepared is None)
    slow = [name for name in names if not name.startswith("streetscenes")]
    if not slow:
        return []
    return [f"{' and '.join(slow)}: whole images are decoded for every crop; iidm prepare does that once"]


def _checker(dataset: Dataset, full: bool, reads_all: bool) -> Callable[[int], SampleReport]:
    """The check of the sample at an index; some of them decode the label, and some read the image whole."""
    if dataset.prepared is not None:
        return lambda index: check_sample(dataset.samples[index], dataset)
    count = len(dataset.samples)
    decoded = set(evenly(range(count), count if full else SAMPLED_LABELS))
    read = set(evenly(range(count), count if full or reads_all else _affordable(dataset)))
    return lambda index: check_sample(
        dataset.samples[index], dataset, decode=full, read_all=index in read, decode_label=index in decoded
    )


def _affordable(dataset: Dataset) -> int:
    """How many images may be read whole, judged by the size of a few."""
    sizes = [_bytes(sample.image) for sample in evenly(dataset.samples, SAMPLED_LABELS)]
    return int(READ_WHOLE_BYTES * len(sizes) / max(1, sum(sizes)))


def _bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # named by the check of that file
        return 0


def check_sample(
    sample: Sample,
    dataset: Dataset | None = None,
    *,
    decode: bool = False,
    read_all: bool = False,
    decode_label: bool = False,
) -> SampleReport:
    """Look at an image and its label; what is wrong with them is in the report.

    Args:
        dataset: theirs; None: they are pictures that no data set describes yet.
        decode: decode the image.
        read_all: read all of an image, and look for damage in its middle.
        decode_label: decode the label, by the data set's encoding.
    """
    prepared = None if dataset is None else dataset.prepared
    report = SampleReport(sample.image, (sample.image,) if sample.label is None else (sample.image, sample.label))
    try:
        if prepared is None:
            report.header = check_picture(sample.image, "image", decode=decode, read_all=read_all)
            report.size = report.header.size
        else:
            for file, length in prepared.lengths(sample):
                report.file = file
                check_length(file, length)
        if sample.label is not None and prepared is None:
            report.file = sample.label
            size = check_picture(sample.label, "label").stored
            if size != report.size:
                raise UserError(size_clash(sample, size))
            if decode_label and dataset is not None:
                dataset.load_label(sample)
    except UserError as error:
        report.problems.append(str(error).removesuffix(".").removesuffix(". Copy or download it again"))
    return report


def check_length(path: Path, expected: int) -> None:
    """Raise UserError for a prepared file that is missing or has another length than its index says."""
    try:
        length = os.stat(path).st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if length != expected:
        raise UserError(f"{path} is damaged: it has {length} bytes, its index says {expected}")


def _unseen_note(stream: str, seen: int, dataset: Dataset | None) -> str | None:
    """A note on prepared images whose files were not looked at."""
    count = 0 if dataset is None else len(dataset.samples)
    if seen >= count:
        return None
    return (
        f"{TITLES[stream]}: the files of {seen:,} of {count:,} images were looked at, evenly spaced; iidm prepare"
        " --check looks at all"
    )


def turned_note(stream: str, reports: Sequence[SampleReport]) -> str | None:
    """A note on images that are not as they are stored: whoever drew labels on the stored pixels must know."""
    turned = Counter(r.header.orientation for r in reports if r.header is not None and r.header.orientation > 1)
    if not turned:
        return None
    kinds = ", ".join(str(orientation) for orientation in sorted(turned))
    return (
        f"{sum(turned.values())} of {len(reports)} {TITLES.get(stream, stream)} images are turned as their EXIF"
        f" orientation says ({kinds}); labels are taken as stored"
    )


def _small_images_note(
    stream: str, dataset: Dataset | None, reports: list[SampleReport], crop_size: tuple[int, int]
) -> str | None:
    """A note on images that do not fill the crop at training resolution."""
    if dataset is None:
        return None
    if dataset.prepared is None:
        on_disk = Counter(report.size for report in reports if report.size is not None)
    else:
        on_disk = dataset.prepared.image_sizes(dataset.samples)
    sizes: Counter[tuple[int, int]] = Counter()
    for size, count in on_disk.items():
        sizes[training_size(dataset, size)] += count
    small = [size for size in sizes if size[0] < crop_size[0] or size[1] < crop_size[1]]
    if not small:
        return None
    fits = [min(size[axis] for size in sizes) for axis in (0, 1)]
    least = [max(LEAST_CROP, min(pair)) for pair in zip(fits, crop_size, strict=True)]
    return (
        f"{sum(sizes[s] for s in small)} of {len(dataset.samples)} {stream} images are smaller than the crop"
        f" {hw(crop_size)} at training resolution ({first_few([hw(s) for s in small], 2)}): the rest of the"
        f" crop is padded with ignored pixels, which cost time. --data.crop-size {least[0]} {least[1]} has none."
    )
