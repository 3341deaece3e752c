"""Tiny folder data sets, and the entry points as a user calls them: in this process, or as one that can be killed."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import iidm.evaluate
import iidm.predict
import iidm.prepare
import iidm.train
from iidm.cli import run_main

CLASSES = ("ground", "wall", "sky")
COLORS = ((90, 80, 70), (180, 120, 60), (110, 160, 220))
SIZE = (64, 96)
"""(H, W) of every image."""
TRAIN_IMAGES, VAL_IMAGES = 6, 3
STEPS = 6
"""Steps of the shared finished run."""
BACKBONE = "mobilenet_v2"
"""Of its weights there are a fifth of ResNet-18's, so a run and its checkpoints take half the time."""


def draw(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Sky over a wall over ground with noise: image uint8 [H,W,3] and its label [H,W], one corner of which is 255."""
    rng = np.random.default_rng(seed)
    height, width = size
    label = np.zeros(size, np.uint8)
    label[: height * 2 // 3] = 1
    label[: height // 3, : width // 2 + rng.integers(0, width // 2)] = 2
    image = np.asarray(COLORS, np.int64)[label] + rng.integers(-30, 31, (*size, 3))
    label[-8:, -8:] = 255
    return image.clip(0, 255).astype(np.uint8), label


def write_pair(root: Path, split: str, name: str, seed: int, ending: str = ".png") -> None:
    """root/images/<split>/<name>.png (or another ending) and root/labels/<split>/<name>.png."""
    image, label = draw(seed)
    for kind, array, end in (("images", image, ending), ("labels", label, ".png")):
        path = root / kind / split / f"{name}{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def write_data(root: Path) -> Path:
    """root/{source,target}/{images,labels}/{train,val}; the source's images are JPEG, the target's PNG."""
    for i in range(TRAIN_IMAGES):
        write_pair(root / "source", "train", f"s{i}", i, ".jpg")
        write_pair(root / "target", "train", f"t{i}", 100 + i)
    for i in range(VAL_IMAGES):
        write_pair(root / "target", "val", f"v{i}", 200 + i)
    return root


def half_done(finished: Path, to: Path) -> Path:
    """A copy of a finished run without its last checkpoint: half of it is to be trained again."""
    shutil.copytree(finished, to)
    shutil.rmtree(to / "checkpoints" / f"step-{STEPS:08d}")
    return to


def options(data: Path, run_dir: Path, *more: str, roots: Sequence[str] = ("source", "target")) -> list[str]:
    """Words for iidm.train: a run of STEPS steps on `data`, whose options may be given anew in `more`."""
    words = ["--preset", "folder", "--run-dir", str(run_dir)]
    for domain in roots:
        words += [f"--{domain}-root", str(data / domain)]
    for domain in ("source", "target"):
        words += [f"--data.{domain}.images", "images/{split}", f"--data.{domain}.labels", "labels/{split}"]
        words += [f"--data.{domain}.class-names", *CLASSES]
    words += "--data.labeled-count 2 --data.crop-size 48 64 --data.rare-class-min-px 60".split()
    words += "--data.rare-class-min-crop-px 30 --model.output-stride 16".split()
    words += f"--model.backbone {BACKBONE} --model.weights none --optim.warmup-steps 2 --max-steps {STEPS}".split()
    words += "--eval.statistics-crops 8".split()
    words += "--log.every 1 --log.preview-every 0 --log.checkpoint-every 3 --log.no-tensorboard".split()
    return [*words, *more]


class Said(NamedTuple):
    """What a program printed."""

    out: str
    err: str


class Finished(NamedTuple):
    """A run that is over. Tests that change its folder change a copy."""

    run_dir: Path
    said: Said


def call(main: Callable[[Sequence[str]], Any], words: Sequence[str | Path]) -> Said:
    """Run an entry point in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main([str(word) for word in words])
    return Said(out.getvalue(), err.getvalue())


def train(words: Sequence[str | Path], *, painted: bool = False) -> Said:
    """iidm.train in this process. Its curves.png is empty unless it is to be `painted`, which takes as long as three
    steps."""
    with contextlib.nullcontext() if painted else mock.patch("matplotlib.figure.Figure.savefig", _unpainted):
        return call(iidm.train.main, words)


def _unpainted(figure: Any, path: Path, **_: Any) -> None:
    path.write_bytes(b"")


def evaluate(words: Sequence[str | Path]) -> Said:
    """iidm.evaluate in this process."""
    return call(iidm.evaluate.main, words)


def predict(words: Sequence[str | Path]) -> Said:
    """iidm.predict in this process."""
    return call(iidm.predict.main, words)


def refusal(program: str, words: Sequence[str | Path]) -> str:
    """The message of a call that must be refused: one line on stderr, `iidm:` at its start, and exit status 2.

    Anything else that reaches the user (a traceback, a progress line, a second line) fails here.
    """
    main = {
        "train": iidm.train.main,
        "evaluate": iidm.evaluate.main,
        "predict": iidm.predict.main,
        "prepare": iidm.prepare.main,
    }[program]
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with (
        mock.patch.object(sys, "argv", [program, *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            run_main(main)
        except SystemExit as end:
            status = end.code
    assert status == 2, (status, err.getvalue())
    assert out.getvalue() == ""
    return one_line(err.getvalue())


def cut(path: Path, share: float = 0.5) -> Path:
    """Cut a file off, as a full disk or a broken download does."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def one_line(err: str) -> str:
    """The only line of `err`, without its `iidm: `."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("iidm: "), err
    return lines[0].removeprefix("iidm: ")


def start(program: str, words: Sequence[str | Path]) -> subprocess.Popen[str]:
    """An entry point as a process of its own, in a process group of its own as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"iidm.{program}", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def metrics(run_dir: Path) -> str:
    """RUN/metrics.jsonl as it is, so that equal means bit for bit."""
    path = run_dir / "metrics.jsonl"
    return path.read_text() if path.exists() else ""


def wait_for_steps(process: subprocess.Popen[str], run_dir: Path, steps: int, timeout_s: float = 600) -> None:
    """Wait until a run has logged `steps` steps; fails if it ends before that."""
    end = time.monotonic() + timeout_s
    while metrics(run_dir).count("\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{steps} steps took more than {timeout_s} s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process lives (one that is dead but not yet collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_group(process: subprocess.Popen[str]) -> None:
    """End whatever is left of a process that `start` started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def weights(run_dir: Path, steps: int) -> dict[str, bytes]:
    """The weight files of a run's checkpoint after `steps` steps, as bytes."""
    folder = run_dir / "checkpoints" / f"step-{steps:08d}"
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("student", "teacher")}
