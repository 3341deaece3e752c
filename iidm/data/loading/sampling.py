"""Which image, which crop: every random choice of the data, as a pure function of (seed, stream, sample number).

Sample number i of a stream = step * images a step + place in the batch. A run that is resumed at step n draws what the
uninterrupted one drew there, in whatever process, and nothing but the step number needs saving.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import Sample, UserError
from ..datasets.dataset import Dataset, training_size
from .crops import CropRules, cut_label, random_anchor, resize_label, search_anchor

FALLBACK_IMAGES = 10
"""How many images stand for a class of which no image holds enough pixels: those that hold most of it."""

RARE_ATTEMPTS = 10
"""Draws by rare class that may meet damaged images; then any image stands in."""
MOST_ATTEMPTS = 1000
"""Draws that may meet damaged images before the run ends."""

_log = logging.getLogger("iidm.data")


class Draw(NamedTuple):
    """One crop of one image."""

    sample: Sample
    disk_size: tuple[int, int]
    """(H, W) of the whole image on disk, pixels."""
    size: tuple[int, int]
    """(H, W) of the whole image when the crop is cut, pixels: at training resolution, or scaled from there."""
    anchor: tuple[int, int]
    """(y, x) of the crop's first pixel in it."""
    flip: bool
    """Whether the crop is mirrored left-right."""
    label: NDArray[np.uint8]
    """uint8 [h,w] of the crop size, mirrored already, 255 beyond the image's end; all 0 before it in a stream without
    labels."""


class RareClasses:
    """Rare class sampling: which class, and which image that holds it (DAFormer section 3.2).

    p(c) = softmax((1 - f_c) / temperature) over the classes that occur, f_c being the share of all labeled pixels; then
    an image uniformly among those with more than `min_px` pixels of c. Where no image has so many, the
    `FALLBACK_IMAGES` that hold most of the class stand in; that is logged once.

    Args:
        counts: int64 or int32 [N,K] pixels of each class in each image, at training resolution.
        temperature: larger is more uniform.
        min_px: pixels.
        class_names: for messages.
    """

    def __init__(
        self, counts: NDArray[np.signedinteger[Any]], *, temperature: float, min_px: int, class_names: tuple[str, ...]
    ) -> None:
        totals = counts.sum(axis=0)
        if not totals.any():
            raise UserError(
                "Rare class sampling needs labeled pixels, and every label is all ignored."
                " Check the id map, or give --data.no-rare-class-sampling."
            )
        self.classes = np.flatnonzero(totals)
        rarity = (1 - totals[self.classes] / totals.sum()) / temperature
        weights = np.exp(rarity - rarity.max())
        self.probabilities: NDArray[np.float64] = weights / weights.sum()
        self.images = [np.flatnonzero(counts[:, c] > min_px).astype(np.int32) for c in self.classes]
        scarce = [place for place, images in enumerate(self.images) if not len(images)]
        for place in scarce:
            held = counts[:, self.classes[place]]
            most = np.argsort(-held, kind="stable")[:FALLBACK_IMAGES]
            self.images[place] = np.sort(most[held[most] > 0])
        if scarce:
            names = ", ".join(class_names[self.classes[place]] for place in scarce)
            _log.warning(
                "No image holds more than %d pixels of %s (--data.rare-class-min-px): the images that hold most of a"
                " class, %d at most, stand for it.",
                min_px,
                names,
                FALLBACK_IMAGES,
            )

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A class id and the index of an image that holds it."""
        place = rng.choice(len(self.classes), p=self.probabilities)
        return int(self.classes[place]), int(rng.choice(self.images[place]))


class Shuffle:
    """Every image once an epoch, in an order that is a function of (seed, stream, epoch)."""

    def __init__(self, count: int, seed: int, stream: int) -> None:
        self.count = count
        self._seed = (seed % 2**64, stream)
        self._orders: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    def index(self, number: int) -> int:
        """The image of sample `number`."""
        epoch, place = divmod(number, self.count)
        if epoch not in self._orders:
            # The last word keeps this apart from the generator of a single sample: trailing zeros would not.
            self._orders[epoch] = np.random.default_rng([*self._seed, epoch, 1]).permutation(self.count)
            while len(self._orders) > 2:
                self._orders.popitem(last=False)
        return int(self._orders[epoch][place])


class LabelCache:
    """Labels at training resolution, the last used of them, up to a number of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._labels: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def get(self, index: int, load: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The label of image `index`; `load` reads it where it is not here."""
        if index in self._labels:
            self._labels.move_to_end(index)
            return self._labels[index]
        label = load()
        self._labels[index] = label
        self.used_bytes += label.nbytes
        while self.used_bytes > self.budget_bytes:
            self.used_bytes -= self._labels.popitem(last=False)[1].nbytes
        return label


class Sampler:
    """Draws the crops of one stream.

    Args:
        dataset: the stream's images.
        rules: crop size, and what the crops of a labeled stream should hold.
        seed: the run's seed.
        stream: number of the stream, so that streams of one data set differ.
        flip_probability: chance of a left-right flip.
        labeled: whether the stream gives labels.
        rare_classes: draws the images by rare class; None: every image once an epoch, shuffled.
        cache_bytes: for decoded labels.
        skip_damaged: whether another image stands in for one that cannot be read.
        damaged: files that are known to be so; those that are met are added. Samplers may share it.
    """

    def __init__(
        self,
        dataset: Dataset,
        rules: CropRules,
        *,
        seed: int,
        stream: int,
        flip_probability: float = 0.5,
        labeled: bool = True,
        rare_classes: RareClasses | None = None,
        cache_bytes: int = 0,
        skip_damaged: bool = False,
        damaged: set[Path] | None = None,
    ) -> None:
        if not dataset.samples:
            raise UserError(f"Data set {dataset.name} has no images to draw from.")
        self.dataset = dataset
        self.rules = rules
        self.flip_probability = flip_probability
        self.labeled = labeled
        self._seed = (seed % 2**64, stream)
        self._rare_classes = rare_classes
        self._shuffle = Shuffle(len(dataset.samples), seed, stream)
        self._cache = LabelCache(cache_bytes)
        self._disk_sizes: dict[int, tuple[int, int]] = {}
        self._skip_damaged = skip_damaged
        self._damaged = set() if damaged is None else damaged

    def draw(self, number: int) -> Draw:
        """The crop of sample `number`.

        Where damaged images are skipped, the one that stands in is a function of the number too, and so the same in
        every process and after a resume.

        Raises:
            UserError: its image or label cannot be read; it names the file.
        """
        for attempt in range(MOST_ATTEMPTS):
            draw = self._attempt(number, attempt)
            if draw is not None:
                return draw
        samples = self.dataset.samples
        known = sum(not self._damaged.isdisjoint((sample.image, sample.label)) for sample in samples)
        raise UserError(
            f"{MOST_ATTEMPTS} draws in a row from {self.dataset.name} met damaged images; {known} of {len(samples)} are"
            f" known to be, {samples[0].image} perhaps among them. Copy or download the data set again."
        )

    def give_up(self, file: Path, error: UserError) -> None:
        """Leave out what needs a file from now on, or raise `error` where damaged images are not skipped."""
        if not self._skip_damaged:
            raise error
        if file not in self._damaged:
            self._damaged.add(file)
            _log.warning("%s Another image stands in for it (--data.skip-damaged).", str(error))

    def _attempt(self, number: int, attempt: int) -> Draw | None:
        """One draw; None where it met a damaged image."""
        # The 2 keeps further attempts apart from the epochs' orders (see Shuffle).
        rng = np.random.default_rng([*self._seed, number] if attempt == 0 else [*self._seed, number, 2, attempt])
        flip = bool(rng.random() < self.flip_probability)
        wanted: int | None = None
        if self._rare_classes is not None and attempt < RARE_ATTEMPTS:
            wanted, index = self._rare_classes.draw(rng)
        elif attempt == 0:
            index = self._shuffle.index(number)
        else:
            index = int(rng.integers(len(self.dataset.samples)))
        sample = self.dataset.samples[index]
        needed = (sample.image, sample.label) if self.labeled else (sample.image,)
        if any(file in self._damaged for file in needed):
            return None
        file = sample.image
        try:
            disk_size = self._disk_size(index)
            plain_size = training_size(self.dataset, disk_size)
            size = self.rules.draw_size(plain_size, rng)
            if not self.labeled:
                anchor = random_anchor(size, self.rules.size, rng)
                nothing = cut_label(np.broadcast_to(np.uint8(0), size), size, anchor, self.rules.size, flip)
                return Draw(sample, disk_size, size, anchor, flip, nothing)
            file = sample.label or sample.image
            label = self._cache.get(index, lambda: self._label(sample, disk_size, plain_size))
        except UserError as error:
            self.give_up(file, error)
            return None
        if size == plain_size:
            anchor = search_anchor(label, self.rules, rng, wanted)
        else:  # looked for in the label as it is: the whole of it need not be resized
            scale = size[0] / plain_size[0]
            y, x = search_anchor(label, self.rules.before_scaling(scale), rng, wanted)
            height, width = self.rules.size
            anchor = min(int(y * scale), max(size[0] - height, 0)), min(int(x * scale), max(size[1] - width, 0))
        return Draw(sample, disk_size, size, anchor, flip, cut_label(label, size, anchor, self.rules.size, flip))

    def _label(self, sample: Sample, disk_size: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        return resize_label(self.dataset.load_fitting_label(sample, disk_size), size)

    def _disk_size(self, index: int) -> tuple[int, int]:
        if self.dataset.prepared is not None:  # its index knows them all
            return self.dataset.image_size(self.dataset.samples[index])
        if index not in self._disk_sizes:
            self._disk_sizes[index] = self.dataset.image_size(self.dataset.samples[index])
        return self._disk_sizes[index]
