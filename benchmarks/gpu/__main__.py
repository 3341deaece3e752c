"""Runs the stages; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch

from . import __doc__ as description
from .page import write_page
from .records import End, Record, Records
from .stages import STAGES, Stage

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 15
DRY_PATIENCE = 10
"""Times a stage's limit: what a dry run shows must not depend on how busy a CPU is."""
DONE = ("passed", "failed")
TOOLS = "/usr/local/cuda/bin"
"""Where nvcc and compute-sanitizer lie; not every machine that has them there has them on PATH."""
PACKED_BYTES = 4 << 20
"""Larger files are no results: a run's weights."""


class Stopped(Exception):
    """A signal has asked this process to end."""


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), TOOLS])


def _missing(stage: Stage, dry: bool) -> str:
    """What the stage needs and is not there; '' if nothing."""
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    try: importlib.import_module(name)\n"
        "    except ImportError as error: print(error, end='; ')"
    )
    found = subprocess.run([sys.executable, "-c", code, *stage.needs], cwd=ROOT, capture_output=True, text=True)
    lacking = [found.stdout.removesuffix("; ")] if found.stdout else []
    if found.returncode != 0:
        lacking.append(found.stderr.strip()[-200:])
    if stage.under and not dry and shutil.which(stage.under[0], path=_path()) is None:
        lacking.append(f"no program {stage.under[0]}")
    return "; ".join(lacking)


def _look(dry: bool) -> tuple[str, bool]:
    """The name of the GPU ('' without one), and whether the extension loads here; a process of its own looks, as this
    one would keep memory of the GPU."""
    if dry or not torch.cuda.is_available():
        return "", True
    code = "import torch; print(torch.cuda.get_device_name(), flush=True); import iidm.kernels as k"
    code += "; k.set_implementation('fused')"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip(), found.returncode == 0


def _due(stages: tuple[Stage, ...], named: list[str], records: Records, loads: bool) -> list[Stage]:
    """Those that are named, or all that have not ended; before them the build, where it is of another machine or is not
    there."""

    def is_due(stage: Stage) -> bool:
        record = records.get(stage.name)
        if stage.name == "build" and record is not None and record.end in DONE and record.gpu != records.gpu:
            return True
        if stage.name == "build" and not loads and (record is None or record.end != "failed"):
            return True
        return stage.name in named if named else record is None or record.end not in DONE

    return [stage for stage in stages if is_due(stage)]


def run(stage: Stage, folder: Path, seconds: float, dry: bool) -> tuple[End, str]:
    """Run one stage within `seconds`; what it prints goes to FOLDER/gpu-NAME.txt. Returns how it ended, and why.

    Raises:
        Stopped, KeyboardInterrupt: this process was told to end; the stage has ended before.
    """
    words = [word.replace("FOLDER", str(folder)) for word in (stage.dry if dry else stage.words)]
    words = [*(() if dry else stage.under), sys.executable, *words]
    environment = {**os.environ, "PATH": _path(), **stage.environment}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for kind in ("xml", "json"):
        (folder / f"gpu-{stage.name}.{kind}").unlink(missing_ok=True)  # of an earlier try
    with (folder / f"gpu-{stage.name}.txt").open("w") as log:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return "stopped", f"after {seconds:.0f} s"
        except BaseException:
            _end(process)
            raise
    return ("passed", "") if code == 0 else ("failed", f"exit status {code}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGINT to the stage and what it has started, then SIGKILL to what is left of them."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def copy_results(folder: Path, place: Path) -> None:
    """gpu.md, and gpu.tar.gz with what the stages have printed and measured, into `place`, each whole at any time."""
    place.mkdir(parents=True, exist_ok=True)
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.stat().st_size < PACKED_BYTES)
    half = place / ".gpu.tar.gz"
    with tarfile.open(half, "w:gz") as archive:
        for file in files:
            archive.add(file, f"gpu/{file.name}")
    half.replace(place / "gpu.tar.gz")
    half = place / ".gpu.md"
    shutil.copyfile(folder / "gpu.md", half)
    half.replace(place / "gpu.md")


def _on_signal(number: int, frame: object) -> None:
    raise Stopped(signal.Signals(number).name)


def main(words: list[str] | None = None, stages: tuple[Stage, ...] = STAGES) -> int:
    """Command line. Returns the exit status: 0 if every stage, or each that is named, passed or lacks what it needs."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(stage.name for stage in stages))
    parser.add_argument("--seconds", type=float, help="end within this time; the last stage gets what is left of it")
    parser.add_argument("--copy", type=Path, metavar="DIR", help="gets gpu.md and gpu.tar.gz after each stage")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, without tests that need a GPU")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.stages) - {stage.name for stage in stages}:
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(stage.name for stage in stages)}")
    signal.signal(signal.SIGTERM, _on_signal)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    end_at = float("inf") if arguments.seconds is None else time.monotonic() + arguments.seconds
    gpu, loads = _look(arguments.dry_run)
    records = Records(folder, arguments.dry_run, gpu)
    due = _due(stages, arguments.stages, records, loads)

    def tell() -> str:
        page = write_page(folder, records, stages)
        if arguments.copy is not None:
            copy_results(folder, arguments.copy)
        return page

    try:
        for stage in due:
            record = _record(stage, folder, records, end_at, arguments.dry_run)
            records.put(stage.name, record)
            print(f"{stage.name}: {record.end} {record.says}", flush=True)
            tell()
            if stage.name == "build" and not (arguments.dry_run or torch.cuda.is_available()):
                break  # without the extension half of the kernels and whole steps can still be looked at
    except (KeyboardInterrupt, Stopped) as error:
        print(f"stopped ({error or 'Ctrl-C'}); the same command goes on", flush=True)
    print("\n" + tell())
    asked = {*arguments.stages, *(stage.name for stage in (due if arguments.stages else stages))}
    return 0 if all(records.ended(name) in ("passed", "missing") for name in asked) else 1


def _record(stage: Stage, folder: Path, records: Records, end_at: float, dry: bool) -> Record:
    """Run a stage, if it can be and time is left for it."""
    end: End
    lacking = _missing(stage, dry)  # imports, which take seconds
    start = time.monotonic()
    rest = end_at - start - GRACE_SECONDS
    if lacking:
        end, why = "missing", lacking
    elif rest < stage.least:
        end, why = "left", f"needs {stage.least} s at least, {max(rest, 0):.0f} s were left"
    else:
        limit = min(stage.seconds * (DRY_PATIENCE if dry else 1), rest)
        print(f"{stage.name}: {stage.shows} (at most {limit:.0f} s) ...", flush=True)
        records.put(stage.name, Record("stopped", 0.0, "it was cut off"))  # if nothing can be said later
        end, why = run(stage, folder, limit, dry)
    return Record.of(folder, stage, end, time.monotonic() - start, why, dry=dry)


if __name__ == "__main__":
    sys.exit(main())
