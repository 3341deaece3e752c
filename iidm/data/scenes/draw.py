"""One picture of StreetScenes: world, texture, camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX, UserError
from .style import STYLES, photograph, texture
from .world import build_world

DOMAINS = ("rendered", "camera")
GENERATOR_VERSION = 3
"""Raised whenever pictures change, so that old caches are left alone."""


def draw_scene(
    domain: str, seed: int, index: int, size: tuple[int, int] = (256, 512)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        domain: `rendered` or `camera`.
        seed: of the whole data set.
        index: which scene.
        size: (H, W) in pixels, at least 64x128.

    Returns: image uint8 [H,W,3] RGB and label uint8 [H,W] of Cityscapes train ids; the camera's own bonnet, where
        it is in the picture, is 255.
    Raises: UserError for an unknown domain, a negative seed or index, or a size that is too small.
    """
    check_request(domain, seed, index, size)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, DOMAINS.index(domain), index])))
    style = STYLES[domain]
    canvas = build_world(style, size, rng)
    image = np.asarray(canvas.image).astype(np.int32)
    label = np.array(canvas.label)
    texture(image, label, style, rng)
    if style.real:
        _bonnet(image, label, rng)
        return photograph(image, np.asarray(canvas.distance), rng), label
    return np.clip(image, 0, 255).astype(np.uint8), label


def check_request(domain: str, seed: int, index: int, size: tuple[int, int]) -> None:
    """Raise UserError for what cannot be drawn."""
    if domain not in DOMAINS:
        raise UserError(f"StreetScenes has the domains {' and '.join(DOMAINS)}, not {domain!r}.")
    if seed < 0 or index < 0:
        raise UserError(f"The seed and the index of a scene are 0 or more, not {seed} and {index}.")
    if size[0] < 64 or size[1] < 128:
        raise UserError(f"StreetScenes are drawn at 64x128 pixels or more, not {size[0]}x{size[1]}.")


def _bonnet(image: NDArray[np.int32], label: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """The bonnet of the car that carries the camera, in two of three pictures."""
    if rng.integers(0, 3) == 0:
        return
    height, width = label.shape
    rows = int(rng.integers(height // 40, height // 14))
    columns = 2 * np.arange(width, dtype=np.int64) - width
    top = height - rows + rows * columns * columns // (width * width)
    inside = np.arange(height)[:, None] >= top[None, :]
    label[inside] = IGNORE_INDEX
    image[inside] = rng.integers(20, 70)
