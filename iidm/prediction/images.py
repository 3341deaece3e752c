"""Labeling images: each one is read, seen by the network and written, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iidm.data import WRITERS, AnnotatedImage, AnnotationFormat, Input, Regions, Writer, find_regions, read_image
from iidm.data.files.common import counted
from iidm.types import ClassSet, UserError

from .flow import Budget, in_order
from .looking import Look, Prediction
from .pictures import Pictures
from .plans import Plan, Unread

GPU_BATCH = 8
"""Images of one size that a GPU sees at once. A CPU is slower with several: MobileNetV2 on 480x360 pixels in
bfloat16 took 44 ms of an AMD EPYC for an image alone, 42 for each of two, 53 of four, 71 of eight."""


class Done(NamedTuple):
    """An image that was labeled, or not."""

    image: Input
    problem: str = ""
    """What is wrong with it; empty where it was labeled."""
    regions: Regions | None = None


@dataclass(frozen=True)
class Annotations:
    """What annotation files are written of the images."""

    forms: Sequence[AnnotationFormat] = ()
    tolerance_px: float = 1.0
    least_px: int = 32
    unlabeled: int | None = None
    """Train id of the class that needs no polygon; None: all have one."""

    def writers(self, out: Path, classes: ClassSet) -> list[Writer]:
        """For the folder `out`/annotations.

        Raises UserError where a file of such a form lies there: a tool keeps in it what was corrected by hand.
        """
        writers = [WRITERS[form](out / "annotations", classes, self.unlabeled) for form in self.forms]
        for writer in writers:
            writer.taken = {one.path for one in writers if one.file_name}
        for there in filter(None, (writer.there() for writer in writers)):
            raise UserError(
                f"{there} is there already, and may hold what you corrected. Give another --out, or remove it."
            )
        return writers

    def regions(self, label: NDArray[np.uint8]) -> Regions | None:
        """The label's regions, where there is a file to write."""
        return find_regions(label, self.tolerance_px, self.least_px) if self.forms else None


@dataclass(frozen=True)
class ImageWork:
    """All that labeling an image needs."""

    look: Look
    pictures: Pictures
    annotations: Annotations
    out: Path
    images: Budget = field(default_factory=Budget)
    networks: Budget = field(default_factory=Budget)

    def __call__(self, plans: Sequence[Plan | Unread]) -> list[Done]:
        """Label some images, those of one size together; each in place of its plan."""
        found = {place: Done(*plan) for place, plan in enumerate(plans) if isinstance(plan, Unread)}
        with self.images.taken(sum(plan.image_share for plan in plans if isinstance(plan, Plan))):
            self.look.stop.check()
            read: dict[int, tuple[Plan, NDArray[np.uint8]]] = {}
            for place, plan in enumerate(plans):
                if isinstance(plan, Unread):
                    continue
                try:
                    read[place] = plan, read_image(plan.image.path)
                except UserError as error:
                    found[place] = Done(plan.image, str(error))
            for places in _alike(read):
                images = [read[place][1] for place in places]
                said = self.see(images, read[places[0]][0])
                for place, image, one in zip(places, images, said, strict=True):
                    found[place] = self._write(read[place][0].image, image, one)
        return [found[place] for place in range(len(plans))]

    def see(self, images: Sequence[NDArray[np.uint8]], plan: Plan) -> list[Prediction]:
        """What the network says of images, once there is memory for it; a GPU does one after the other."""
        share = 1.0 if self.look.device.type == "cuda" else plan.network_share * len(images)
        with self.networks.taken(share):
            return self.look(images, plan.size, plan.windows)

    def _write(self, image: Input, pixels: NDArray[np.uint8], said: Prediction) -> Done:
        self.look.stop.check()
        self.pictures.save(self.out / image.name, pixels, said)
        return Done(image, regions=self.annotations.regions(said.label))


def _alike(read: dict[int, tuple[Plan, NDArray[np.uint8]]]) -> list[list[int]]:
    """The places of images that the network can see together."""
    groups: dict[object, list[int]] = {}
    for place, (plan, image) in read.items():
        groups.setdefault((image.shape, plan.size) if plan.windows is None else place, []).append(place)
    return list(groups.values())


class Counts(NamedTuple):
    """What labeling images came to."""

    done: int
    problems: list[str]
    lines: list[str]
    """On annotation files."""


def label_images(
    images: Sequence[Input],
    plan: Callable[[Input], Plan | Unread],
    work: ImageWork,
    jobs: int,
    progress: Callable[[], object],
) -> Counts:
    """Label images, `jobs` of them at once.

    Args:
        plan: of each image, asked for in their order, in this thread.
        progress: called after each image.

    Raises:
        UserError: shapely is needed and missing, or there are annotations already.
        OSError: a result cannot be written.
    """
    problems: list[str] = []
    dropped = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(writer) for writer in work.annotations.writers(work.out, work.pictures.classes)]
        batch = GPU_BATCH if work.look.device.type == "cuda" else 1
        chunks = stack.enter_context(closing(in_order(_chunks(map(plan, images), batch), work, jobs, work.look.stop)))
        for done in (done for chunk in chunks for done in chunk):
            progress()
            if done.problem:
                problems.append(done.problem)
            elif done.regions is not None:
                dropped += done.regions.dropped
                for writer in writers:
                    writer.add(AnnotatedImage(done.image.file_name, done.image.path, done.regions))
    lines = [_told(writer, dropped, work.annotations) for writer in writers]
    return Counts(len(images) - len(problems), problems, lines)


def _chunks(plans: Iterable[Plan | Unread], most: int) -> Iterator[list[Plan | Unread]]:
    """Plans in lists of up to `most`, of which together the network sees no more than it may."""
    chunk: list[Plan | Unread] = []
    share = 0.0
    for plan in plans:
        own = plan.network_share if isinstance(plan, Plan) else 0.0
        if chunk and (len(chunk) == most or share + own > 1):
            yield chunk
            chunk, share = [], 0.0
        chunk.append(plan)
        share += own
    if chunk:
        yield chunk


def _told(writer: Writer, dropped: int, annotations: Annotations) -> str:
    small = ""
    if dropped:
        count, whose = counted(dropped, "region"), "its neighbour" if dropped == 1 else "their neighbours"
        small = f"; {count} of fewer than {annotations.least_px} pixels went to {whose}"
    return f"{writer.path}: {counted(writer.regions, 'polygon')} of {counted(writer.images, 'image')}{small}"
