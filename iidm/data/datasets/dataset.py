"""A data set on disk: which images and labels there are, and what the labels mean."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import DatasetConfig
from ...types import ClassSet, Sample, UserError
from ..files.common import Progress, first_few, hw
from ..files.encoded import decodable_bytes
from ..files.headers import image_header
from ..files.listing import Beside, Listing, list_images
from ..files.reading import Encoded, read_bytes
from ..labels.discovery import find_labels, mask_names
from ..labels.encodings import LabelEncoding
from ..prepared.folder import is_prepared
from ..prepared.opened import Prepared, open_prepared
from ..prepared.samples import Places, PreparedSamples
from ..specs.described import find_spec
from ..specs.spec import DatasetSpec, SplitSpec
from .pairing import may_lack, read_labels, refuse_other_case, require_labels
from .places import Need, Split, data_folder, label_place, split_folders


@dataclass(frozen=True)
class Dataset:
    """Some images of one domain, their labels and what the labels mean."""

    name: str
    """The spec's name, for messages."""
    classes: ClassSet
    samples: Sequence[Sample]
    """Sorted by name. Those of prepared folders are made as they are asked for: ask `names` and `has_label` where the
    files do not matter."""
    encoding: LabelEncoding
    resize: tuple[int, int] | None = None
    """Box (H, W) in pixels that a training image must fit into, aspect ratio kept; None: size on disk."""
    prepared: Prepared | None = None
    """The prepared folder that the samples lie in; None: they are as they were downloaded."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Lines on what was left aside in its folders, and on names that a user should look at."""

    def with_samples(self, samples: Iterable[Sample]) -> Dataset:
        """The same data set with other samples."""
        return replace(self, samples=tuple(samples))

    def take(self, places: Sequence[int] | NDArray[np.integer[Any]]) -> Dataset:
        """The same data set with its samples at some places, increasing."""
        if isinstance(self.samples, PreparedSamples):
            return replace(self, samples=self.samples.take(np.asarray(places, np.int64)))
        return self.with_samples(self.samples[place] for place in places)

    def without_labels(self) -> Dataset:
        """The same images without their labels."""
        if isinstance(self.samples, PreparedSamples):
            return replace(self, samples=self.samples.without_labels())
        return self.with_samples(sample._replace(label=None) for sample in self.samples)

    def without(self, other: Dataset | None) -> Dataset:
        """The same data set without the images that another one holds too."""
        if other is None or (self.prepared is None) != (other.prepared is None):
            return self
        if self.prepared is None or other.prepared is None:
            held = {other.origin(sample) for sample in other.samples}
            return self.with_samples(sample for sample in self.samples if self.origin(sample) not in held)
        if (self.prepared.root, self.prepared.images) != (other.prepared.root, other.prepared.images):
            return self  # two splits of a folder share no image: `preparation.plan.make_plan` sees to that
        names = set(other.names)
        return self.take([place for place, name in enumerate(self.names) if name not in names])

    @property
    def names(self) -> list[str]:
        """The names of the samples."""
        samples = self.samples
        return samples.names() if isinstance(samples, PreparedSamples) else [sample.name for sample in samples]

    @property
    def has_label(self) -> NDArray[np.bool_]:
        """bool [N]: which samples have a label."""
        if isinstance(self.samples, PreparedSamples):
            return self.samples.has_label
        return np.array([sample.label is not None for sample in self.samples], np.bool_)

    @property
    def places(self) -> Mapping[str, int]:
        """Name -> place among the samples."""
        if isinstance(self.samples, PreparedSamples):
            return Places(self.samples)
        return {sample.name: place for place, sample in enumerate(self.samples)}

    def load_label(self, sample: Sample) -> NDArray[np.uint8]:
        """Read a sample's label: uint8 [H,W] train ids at the size on disk, 255 ignored.

        Raises:
            UserError: the label is missing, cannot be read, or holds an id that the data set does not name.
        """
        if sample.label is None:
            raise UserError(f"Image {sample.image} of {self.name} has no label.")
        if self.prepared is not None:
            return self.prepared.load_label(sample)
        return self.encoding.read(sample.label)

    def read_image_file(self, sample: Sample) -> Encoded:
        """The bytes of an encoded image, as the decoder takes them. Raises UserError where it is missing or seen to be
        damaged."""
        if self.prepared is None:
            return decodable_bytes(sample.image)
        encoded = read_bytes(sample.image)
        self.prepared.require_whole(sample, encoded)
        return encoded

    def origin(self, sample: Sample) -> Hashable:
        """The same for two samples of one image, whatever split they are in."""
        if self.prepared is None:
            return os.path.realpath(sample.image)
        return self.prepared.root, self.prepared.images, sample.name

    def image_size(self, sample: Sample) -> tuple[int, int]:
        """(H, W) of an image on disk, upright: from the index, or from the file's header.

        Raises:
            UserError: the header cannot be read, or the image is of a kind that is not read.
        """
        if self.prepared is not None:
            return self.prepared.image_size(sample)
        return image_header(sample.image).size

    def load_fitting_label(self, sample: Sample, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """`load_label` of a sample whose image is (H, W). Raises UserError where it has another size; only labels of
        prepared validation images may."""
        label = self.load_label(sample)
        size = (label.shape[0], label.shape[1])
        if self.prepared is None and size != image_size:
            raise UserError(f"The {size_clash(sample, size)}.")
        return label

    @property
    def is_raw(self) -> bool:
        """Whether the images are uncompressed, so that a crop is read without the rest."""
        return self.prepared is not None and self.prepared.format == "raw"


def size_clash(sample: Sample, label_size: tuple[int, int]) -> str:
    """What is said of a label of (H, W) whose image has another size."""
    header = image_header(sample.image)
    clash = f"label {sample.label} is {hw(label_size)}, but its image {sample.image} is"
    if label_size == header.stored != header.size:
        return (
            f"{clash} {header.words}: labels lie on the image as viewers show it. Draw them there, or remove the"
            " orientation from the image (exiftool -Orientation= FILE)"
        )
    return f"{clash} {header.words}"


def training_size(dataset: Dataset, image_size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) in pixels that an image of (H, W) on disk gets before the crop."""
    return fit_into(dataset.resize, image_size)


def fit_into(box: tuple[int, int] | None, image_size: tuple[int, int]) -> tuple[int, int]:
    """The largest size (H, W) of the image's aspect ratio that fits into `box`; without a box its own.

    The rule of mmcv's `imrescale`, which DACS and DAFormer resize by: long sides against long sides, short
    against short, rounded to the nearest pixel. GTA5's 1052x1914 in the box (720, 1280) becomes 704x1280.
    """
    if box is None:
        return image_size
    longest, shortest = max(image_size), min(image_size)

    def fitted(side: int) -> int:  # in whole numbers, as an exported file must: floats may miss a half by a hair
        by_long = (2 * side * max(box) + longest) // (2 * longest)
        return max(1, min(by_long, (2 * side * min(box) + shortest) // (2 * shortest)))

    return fitted(image_size[0]), fitted(image_size[1])


def open_dataset(
    config: DatasetConfig,
    root: Path | None,
    split: Split,
    *,
    labels: Need = "all",
    classes: ClassSet | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """List the images and labels of one split; no image of theirs is decoded.

    Annotation files become label pictures in the cache folder when they are first met (labels/annotations.py).

    Labels without an image are left aside; the data set's notes tell of them. Samples are sorted by name.

    Args:
        config: the spec and what the user changed of it.
        root: the data set's folder as it was downloaded, or as `iidm.prepare` wrote it; not needed when the
            configured folders are absolute.
        split: `train` or `val`.
        labels: which images must have a label.
        classes: those of the run, where the data set's own are to be matched to them by name.
        progress: called with (labels drawn from annotations, all).

    Raises:
        UserError: unknown spec, no class in common with `classes`, missing folder, no image, two labels of one name,
            images without a label.
    """
    spec = find_spec(config)
    if classes is not None:
        spec = spec.matched_to(classes)
    where, name, resize = split_folders(spec, config, split), f"{spec.name} ({split})", config.resize or spec.resize
    if root is not None and is_prepared(root):
        return _open_prepared(spec, where, root, name, labels, resize, split)
    return open_split(spec, where, root, name, labels, resize, progress)


def open_split(
    spec: DatasetSpec,
    where: SplitSpec,
    root: Path | None,
    name: str,
    labels: Need = "all",
    resize: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """`open_dataset` for a spec at hand, folders without `{split}` that are as they were downloaded; `name` is what
    errors call it."""
    root = root or spec.root
    place = label_place(spec, where, root, name, labels)
    beside = Beside(place, spec.label_suffix, mask_names(spec.encoding)) if place is not None else None
    every = list_images(data_folder(name, "image", where.images, root), spec.image_suffix, what=name, labels=beside)
    images, notes = _select(every, where, name), every.notes
    label_paths, encoding, found = dict[str, Path](), spec.encoding, None
    if place is not None:
        try:
            found = find_labels(place, encoding, every, spec.image_suffix, spec.label_suffix, name)
        except UserError as error:
            if labels != "optional":
                raise
            notes += (f"{error} All of its images count as unlabeled.",)
    if found is not None:
        if labels != "optional" and isinstance(found.files, Listing) and found.annotations != "masks":
            refuse_other_case(every, found.files.paths, found.place, name)
        label_paths, encoding, label_notes = read_labels(found, spec, every, images, progress)
        notes += label_notes
        require_labels(spec, found.place, name, images, label_paths, labels, label_notes)
    samples = tuple(Sample(n, path, label_paths.get(n)) for n, path in images.paths.items())
    return Dataset(spec.name, spec.classes, samples, encoding, resize or spec.resize, notes=notes)


def _open_prepared(
    spec: DatasetSpec,
    where: SplitSpec,
    root: Path,
    name: str,
    labels: Need,
    resize: tuple[int, int] | None,
    split: Split,
) -> Dataset:
    prepared, samples = open_prepared(root, spec, where, resize, name, split)
    missing = np.flatnonzero(~samples.has_label)
    if len(missing) and not may_lack(spec, labels, len(missing), len(samples)):
        raise UserError(
            f"{len(missing)} of {len(samples)} images of {name} have no label in {root}:"
            f" {first_few(samples.take(missing).names())}. They had none when it was prepared."
        )
    return Dataset(spec.name, spec.classes, samples, spec.encoding, resize, prepared)


def _select(listing: Listing, where: SplitSpec, name: str) -> Listing:
    """The images of some sequences and frames only, where a split is so defined."""
    if not where.is_filtered:
        return listing
    chosen = where.select(list(listing.paths))
    if not chosen:
        raise UserError(f"{name} has no images of sequences {', '.join(where.sequences)} in {listing.folder}.")
    return listing.only(chosen)


@dataclass(frozen=True)
class Domains:
    """The four sets of images of a run. A stream that no active loss reads is None."""

    classes: ClassSet
    source: Dataset | None
    labeled: Dataset | None
    unlabeled: Dataset | None
    val: Dataset | None
    """None: nothing is scored."""
    plain_target: Dataset | None = None
    """The labeled and the unlabeled target images together, without labels, whichever of them a loss reads: what the
    statistics of a saved network are estimated on. None where they are not wanted or there are no such images."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Lines for the start of a run on how they were chosen."""
