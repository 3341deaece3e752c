"""Runs the stages; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import __doc__ as description
from .page import write_page
from .records import End, Record, Records
from .stages import STAGES, Stage

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 15
DONE = ("passed", "failed")


class Stopped(Exception):
    """A signal has asked this process to end."""


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
    if stage.under and not dry and shutil.which(stage.under[0]) is None:
        lacking.append(f"no program {stage.under[0]}")
    return "; ".join(lacking)


def run(stage: Stage, folder: Path, seconds: float, dry: bool) -> tuple[End, str]:
    """Run one stage within `seconds`; what it prints goes to FOLDER/gpu-NAME.txt. Returns how it ended, and why.

    Raises:
        Stopped, KeyboardInterrupt: this process was told to end; the stage has ended before.
    """
    words = [word.replace("FOLDER", str(folder)) for word in (stage.dry if dry else stage.words)]
    words = [*(() if dry else stage.under), sys.executable, *words]
    environment = {**os.environ, **stage.environment}
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


def _on_signal(number: int, frame: object) -> None:
    raise Stopped(signal.Signals(number).name)


def main(words: list[str] | None = None, stages: tuple[Stage, ...] = STAGES) -> int:
    """Command line. Returns the exit status: 0 if every stage passed or lacks what it needs."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(stage.name for stage in stages))
    parser.add_argument("--seconds", type=float, help="begin no stage whose limit is beyond this time")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, without tests that need a GPU")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.stages) - {stage.name for stage in stages}:
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(stage.name for stage in stages)}")
    signal.signal(signal.SIGTERM, _on_signal)
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder, dry=arguments.dry_run)
    begin = time.monotonic()
    try:
        for stage in stages:
            if stage.name not in arguments.stages and (arguments.stages or records.ended(stage.name) in DONE):
                continue
            rest = float("inf") if arguments.seconds is None else arguments.seconds - (time.monotonic() - begin)
            start = time.monotonic()
            if lacking := _missing(stage, arguments.dry_run):
                end, why = "missing", lacking
            elif rest < stage.seconds:
                end, why = "left", f"needs up to {stage.seconds} s, {max(rest, 0):.0f} s were left"
            else:
                print(f"{stage.name}: {stage.shows} (at most {stage.seconds} s) ...", flush=True)
                records.put(stage.name, Record("stopped", 0.0, "it was cut off"))  # if nothing can be said later
                end, why = run(stage, folder, stage.seconds, arguments.dry_run)
            record = Record.of(folder, stage, end, time.monotonic() - start, why, dry=arguments.dry_run)
            records.put(stage.name, record)
            print(f"{stage.name}: {record.end} {record.says}", flush=True)
            if stage.name == "build" and record.end != "passed":
                break  # nothing else would be of this code
    except (KeyboardInterrupt, Stopped) as error:
        print(f"stopped ({error or 'Ctrl-C'}); the same command goes on", flush=True)
    print("\n" + write_page(folder, records, stages))
    return 0 if all(records.ended(stage.name) in ("passed", "missing") for stage in stages) else 1


if __name__ == "__main__":
    sys.exit(main())
