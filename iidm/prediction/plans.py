"""How each image is labeled: the size that the network sees, and whether it sees the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from iidm.config import Config, SlidingWindow, sliding_window
from iidm.data import Input, read_image_size, training_size_for
from iidm.data.files.inputs import name_problem
from iidm.types import UserError

MOST_WHOLE_PX = 8 * 2**20
"""Most pixels at training resolution that the network sees at once, in one image or in several, unless --mode whole
insists; a 4K frame (3840x2160) is just below. The activations of a ResNet-101 at output stride 8 take about 7 GB of
float32 there. One number for all networks and machines, so that a command means the same everywhere."""
IMAGE_PX = 64 * 2**20
"""Pixels of all images at work, unless one is larger: about 1 GB with their pictures."""


class Plan(NamedTuple):
    """How an image will be labeled."""

    image: Input
    shape: tuple[int, int]
    """(H, W) of the file, pixels."""
    size: tuple[int, int]
    """(h, w) that the network sees."""
    windows: SlidingWindow | None

    @property
    def image_share(self) -> float:
        """Of the memory for images at work."""
        return self.shape[0] * self.shape[1] / IMAGE_PX

    @property
    def network_share(self) -> float:
        """Of the memory for what networks at work compute."""
        height, width = self.windows.size if self.windows else self.size
        return height * width * (self.windows.batch if self.windows else 1) / MOST_WHOLE_PX


class Unread(NamedTuple):
    """An image that cannot be labeled."""

    image: Input
    problem: str


class Planner:
    """How each image, or each frame of a video, will be labeled."""

    def __init__(self, config: Config, say: Callable[[str], object], *, bounds_memory: bool) -> None:
        """`bounds_memory`: large images are seen in windows, and `say` is told so."""
        self._config, self._say, self._bounds_memory = config, say, bounds_memory
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def of_image(self, image: Input) -> Plan | Unread:
        """By the image's header; what is wrong with it where that cannot be read, or its results have no name."""
        problem = name_problem(image)
        if problem:
            return Unread(image, problem)
        try:
            shape = read_image_size(image.path)
        except UserError as error:
            return Unread(image, str(error))
        plan = self.of_frames(image, shape)
        self.tell(plan)
        return plan

    def of_frames(self, video: Input, shape: tuple[int, int]) -> Plan:
        """Of frames (H, W) of a video; says nothing."""
        if shape not in self._sizes:
            self._sizes[shape] = training_size_for(self._config, shape)
        size = self._sizes[shape]
        windows = sliding_window(self._config)
        if self._bounds_memory and windows is None and size[0] * size[1] > MOST_WHOLE_PX:
            windows = self._config.eval.sliding_window(self._config.data.crop_size)
        return Plan(video, shape, size, windows)

    def tell(self, plan: Plan) -> None:
        """Say where an image is seen in windows because of its size."""
        if plan.windows is not None and sliding_window(self._config) is None:
            self._say(
                f"{plan.image.path}: the network would see {plan.size[0]}x{plan.size[1]} pixels (HxW) at once; to bound"
                f" memory it sees {plan.windows}. --mode whole insists on the whole image, --mode slide chooses windows"
                " for all."
            )
