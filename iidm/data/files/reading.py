"""The bytes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...types import UserError

Encoded = NDArray[np.uint8]
"""uint8 [bytes]: a file as it lies on disk."""


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


def too_large(what: str, path: Path) -> UserError:
    """The error for a picture that Pillow refuses to open for its size (DecompressionBombError): it is not damaged."""
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return UserError(
        f"{what} {path} has more than {most:,} pixels, the most that training and evaluation read. Cut images and"
        " labels into smaller ones, or scale them down; iidm.predict labels images of that size."
    )
