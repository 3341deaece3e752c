"""Running a command: every end that is no success is one line and a status."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from PIL import Image

from ..engine.interrupt import STOPS, stops_raise
from ..types import AgreedError, UserError


def run_main(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run an entry point on the words of the command line, or on `argv`.

    A UserError becomes one line on stderr and exit status 2; so do a file that cannot be written (a full disk, no
    permission) and memory that ran out. Ctrl-C, SIGTERM and SIGHUP outside the training loop, which saves, end with the
    status that shells know them by (130, 143, 129). A reader that leaves, as in `| head`, ends it without a word.
    """
    # Pillow takes images of more than 89 million pixels for an attack; these are the user's own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names may hold what it cannot encode; stderr escapes that too
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stops_raise():
            main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here a reader that has left is noticed; later Python would say so
    except SystemExit:
        _flush()
        raise
    except UserError as error:
        if isinstance(error, AgreedError) and _rank() > 0:
            sys.exit(2)
        _end(str(error), 2)
    except BrokenPipeError:
        _leave_the_pipe()
    except KeyboardInterrupt as stop:
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)  # one more, while Python takes its things down, shall not say a word
        _end("stopped.", 128 + getattr(stop, "number", signal.SIGINT))
    except Exception as error:
        line = _disk_line(error) if isinstance(error, OSError) else memory_line(error)
        if line is None:
            raise
        _end(line, 2)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_the_pipe()


def _leave_the_pipe() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    sys.exit(128 + signal.SIGPIPE)


def _end(line: str, status: int) -> NoReturn:
    name = "iidm"
    if _rank() > 0:
        # What all processes of a run stumble over the first one says alone: torchrun ends the others when it ends.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(SECONDS_FOR_THE_FIRST)
        name = f"iidm, process {_rank()}"
    print(f"{name}: {_visible(line)}", file=sys.stderr)
    sys.exit(status)


def _visible(line: str) -> str:
    """The line with escapes for what a terminal would act on (new lines, its own escapes): it may quote a file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _rank() -> int:
    """Of this process among those that torchrun has started; 0 without it."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


SECONDS_FOR_THE_FIRST = 3.0
"""Within which torchrun has ended the processes beside one that ended with an error."""


def _disk_line(error: OSError) -> str | None:
    """What to say of a file that cannot be read or written; None where the error is not about a file."""
    if error.errno == errno.ENOMEM:
        return memory_line(MemoryError(str(error)))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # the last: a limit of the disk, or of ulimit
        return f"{error}. Free some space or choose another folder."
    if error.errno is None or error.filename is None:
        return None
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{error.filename} is or lies below a file, and a folder is needed there. Give the name of a folder."
    return f"{error}. Choose a file or folder that can be read and written."


def memory_line(error: BaseException) -> str | None:
    """What to say where memory ran out, with the size that was asked for; None for any other error."""
    text = str(error)
    if not (isinstance(error, MemoryError) or isinstance(error, RuntimeError) and _NO_MEMORY.search(text)):
        return None
    size = re.search(r"allocate:? ([\d.]+) ?([kKMGT]i?B|bytes)", text)
    asked = "" if size is None else f" when {_readable(size[1], size[2])} more were asked for"
    return (
        f"memory ran out{asked}. Let less be in it at once: for large images --mode slide with a smaller --window"
        " (predict, evaluate; --eval.mode slide in train) or --data.source.resize and --data.target.resize; for"
        " training a smaller --data.crop-size, smaller batches, --step.recompute; for prepare fewer --jobs."
    )


_NO_MEMORY = re.compile(
    r"out of memory|bad_alloc|can't allocate memory|cannot allocate memory|failed to allocate", re.I
)
"""As torch (CUDA and CPU), C++ and DALI say it."""


def _readable(number: str, unit: str) -> str:
    return f"{float(number) / 1e9:.1f} GB" if unit == "bytes" else f"{number} {unit}"
