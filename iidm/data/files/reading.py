"""The bytes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import UserError

Encoded = NDArray[np.uint8]
"""uint8 [bytes]: a file as it lies on disk."""


TAIL_BYTES = 4096
"""The end of a picture is looked for in so many last bytes, as others may follow it."""


def read_bytes(path: Path) -> Encoded:
    """A file's bytes. Raises UserError where it cannot be read."""
    try:
        encoded = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise UserError(f"Image {path} does not exist.") from None
    except OSError as error:
        raise UserError(f"Image {path} cannot be read ({error.strerror}).") from None
    if not encoded.size:
        raise UserError(f"Image {path} is empty. Copy or download it again.")
    return encoded


def too_large(what: str, path: Path, most_px: int | None = None) -> UserError:
    """The error for a picture of more pixels than Pillow opens (DecompressionBombError), or than `most_px`, the most
    that can be decoded: it is not damaged."""
    if most_px is not None:
        return UserError(
            f"{what} {path} has more than {most_px:,} pixels, the most that can be decoded. Cut it into several."
        )
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return UserError(
        f"{what} {path} has more than {most:,} pixels, the most that training and evaluation read. Cut images and"
        " labels into smaller ones, or scale them down; iidm.predict labels images of that size."
    )
