"""What a run says while it trains: progress bar, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..text import write_text
from ..types import UserError
from .trackers import Trackers

METRICS = "metrics.jsonl"
NOTES = "notes.txt"


class NoLog:
    """Says and writes nothing: another process of the run does."""

    def log(self, step: int, values: dict[str, float], *, wait_ms: float | None = None) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def picture(self, tag: str, picture: Path | NDArray[np.uint8], step: int) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def results(self, scores: Mapping[str, Any]) -> None:
        """Nothing."""

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing."""


class RunLog(NoLog):
    """Writes RUN/metrics.jsonl (one JSON object a log point), RUN/notes.txt (all that was said), RUN/tensorboard, what
    trackers get, and a progress bar on stderr.

    On resume the lines from `start_step` on are dropped, so that the file becomes that of an uninterrupted run.

    Args:
        run_dir: the run's folder.
        total_steps: of the whole run.
        start_step: the next step to run.
        quiet: no bar, no notes.
        tensorboard: write TensorBoard files.
        trackers: names of trackers (engine/trackers.py) that get the scalars too.
        config: plain values, which the trackers keep.

    Raises: UserError for a tracker that does not start.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_steps: int,
        start_step: int,
        quiet: bool,
        tensorboard: bool,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.quiet = quiet
        path = run_dir / METRICS
        kept = [line for line in read_metrics(run_dir) if line["step"] < start_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")
        self._notes = (run_dir / NOTES).open("a", encoding="utf-8", errors="backslashreplace")
        self._lines = not quiet and not sys.stderr.isatty()
        """Whether plain lines stand for the bar, as in a log file."""
        self._total = total_steps
        self._bar = tqdm(
            total=total_steps,
            initial=start_step,
            disable=quiet or self._lines,
            unit="step",
            dynamic_ncols=True,
        )
        self._board = self._open_board(run_dir, start_step) if tensorboard else None
        self._last = (start_step, time.perf_counter())
        try:
            self._trackers = Trackers(trackers, run_dir, config or {}, self.note)
        except UserError:
            self._close_files()
            raise

    def _open_board(self, run_dir: Path, start_step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            self.note(f"no TensorBoard files ({error}): pip install tensorboard, or --log.no-tensorboard")
            return None
        # Events carry the number of steps done, so the last one that stays is `start_step`'s own.
        return SummaryWriter(str(run_dir / "tensorboard"), purge_step=start_step + 1 if start_step else None)

    def log(self, step: int, values: dict[str, float], *, wait_ms: float | None = None) -> None:
        """Write values after the (0-based) step `step`; losses, quality and steps/s show in the bar.

        How long a step waited for its batch shows in the bar and in TensorBoard: metrics.jsonl holds nothing that
        differs between two runs of the same numbers.
        """
        now = time.perf_counter()
        done = step + 1
        speed = (done - self._last[0]) / max(now - self._last[1], 1e-9)
        if done > self._last[0]:
            self._last = (done, now)
        line = {"step": step, **{k: v if math.isfinite(v) else None for k, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        scalars = {name.replace("loss_", "loss/"): value for name, value in values.items()}
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, done)
        self._trackers.scalars(scalars, done)
        # A term that is 0 is one that the method does not have, as nearly all methods lack some.
        terms = {k: v for k, v in values.items() if v != 0 or k == "loss_total" or not k.startswith("loss_")}
        shown = {k.removeprefix("loss_"): f"{v:.3f}" for k, v in terms.items() if k != "lr"}
        if wait_ms is not None:
            shown["wait_ms"] = f"{wait_ms:.1f}"
            if self._board is not None:
                self._board.add_scalar("time/wait_ms", wait_ms, done)
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._lines and speed > 0:
            words = " ".join(f"{k} {v}" for k, v in shown.items())
            left = (self._total - done) / speed
            print(f"step {done}/{self._total}  {words}  {speed:.2f} steps/s  {left:.0f} s left", file=sys.stderr)

    def note(self, line: str) -> None:
        """Say one line, above the bar, and write it down."""
        self._notes.write(f"{line}\n")
        self._notes.flush()
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def picture(self, tag: str, picture: Path | NDArray[np.uint8], step: int) -> None:
        """Show a picture file, or uint8 [H,W,3] RGB, in TensorBoard."""
        if self._board is None:
            return
        if isinstance(picture, Path):
            with Image.open(picture) as image:
                picture = np.asarray(image.convert("RGB"))
        self._board.add_image(tag, picture, step, dataformats="HWC")

    def sync(self) -> None:
        """Have metrics.jsonl on the disk: a checkpoint goes on behind its lines, also after a power cut."""
        os.fsync(self._file.fileno())

    def results(self, scores: Mapping[str, Any]) -> None:
        """Final scores in groups of plain values, for the trackers; the run's folder has them in results.json."""
        self._trackers.final(scores)

    def close(self, failed: bool = False) -> None:
        """Flush and close everything; the trackers are told whether the run has failed."""
        self._trackers.finish(failed)
        self._close_files()

    def _close_files(self) -> None:
        self._bar.close()
        self._file.close()
        self._notes.close()
        if self._board is not None:
            self._board.close()

    def __exit__(self, *exc: object) -> None:
        self.close(failed=exc[0] is not None)


LINE_EVERY_S = 60.0
"""Seconds from one line of `Progress` to the next."""


class Progress:
    """A bar for work that comes before training; it shows from its first call with (done, total) on. Where there is no
    terminal a plain line stands for it from time to time: a log file would keep every state of a bar.

    Fewer done than before is the start of the next piece of work, with a total of its own.
    """

    def __init__(self, title: str, quiet: bool) -> None:
        self._title, self._quiet = title, quiet
        self._bar: Any = None
        self._lines = not quiet and not sys.stderr.isatty()
        self._said_s = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._lines:
            self._say(done, total)
            return
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._title, disable=self._quiet, unit="image", mininterval=1.0)
        if done < self._bar.n:  # the next piece of work
            self._bar.reset(total=total)
        self._bar.update(done - self._bar.n)

    def _say(self, done: int, total: int) -> None:
        if time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            print(f"{self._title}: {done} of {total}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; what is none is left out: a last line that a kill cut off, a damaged one."""
    path = run_dir / METRICS
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if _is_metrics(line):
            lines.append(line)
    return lines


def _is_metrics(line: object) -> bool:
    """Whether a line of JSON is one that `RunLog.log` writes."""
    if not isinstance(line, dict) or type(line.get("step")) is not int or not 0 <= line["step"] < 2**53:
        return False
    return all(value is None or type(value) in (int, float) for value in line.values())


def check_finite(values: dict[str, float], step: int, run_dir: Path) -> None:
    """Raise UserError if a loss is NaN or infinite: which, when, what is safe and what to do."""
    bad = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise UserError(
            f"Training broke at step {step}: {', '.join(bad)}. Earlier checkpoints in {run_dir / 'checkpoints'} are"
            " whole (if the newest breaks again at once, remove it to use the one before). Lower --optim.lr, lengthen"
            " --optim.warmup-steps, or train without --amp."
        )
