"""What the decoder of JPEGs says of damaged pixel data.

libjpeg writes a line to the process's standard error, without the name of the file, and makes up the rest of the
picture.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_DAMAGE = (
    "Corrupt JPEG data",
    "Premature end of JPEG",
    "Invalid JPEG file structure",
    "Invalid SOS parameters",
    "Invalid progressive parameters",
    "Inconsistent progression",
    "Unsupported marker type",
    "Bogus ",
)
_HARMLESS = "extraneous bytes before marker"
"""Some cameras pad their files with a few bytes."""


@contextmanager
def damage_warnings() -> Iterator[list[str]]:
    """A list that holds, once the block is over, what the decoder said of damage meanwhile.

    Everything that the process writes to its standard error meanwhile is caught, so it is for a process, or a moment,
    in which nothing else writes there; what is not of the decoder is passed on afterwards.
    """
    said: list[str] = []
    try:
        sys.stderr.flush()
        before = os.dup(2)
    except OSError:  # the process has no standard error
        yield said
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            lines = caught.read().decode(errors="replace").splitlines()
            said += [line for line in lines if line.startswith(_DAMAGE) and _HARMLESS not in line]
            for line in lines:
                if not line.startswith(_DAMAGE):
                    print(line, file=sys.stderr)
