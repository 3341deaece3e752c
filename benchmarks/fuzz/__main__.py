"""The command; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "fuzz"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where an input did not pass."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="inputs, spread over the kinds")
    parser.add_argument("--seed", type=int, default=0, help="of the changes; -1: none, files are read as they are")
    parser.add_argument("--kind", nargs="+", help="kinds; default: all")
    parser.add_argument("--only", type=int, help="one input of a --kind by its number")
    parser.add_argument("--keep", type=Path, help="with --only: the folder in which its files stay")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of fuzz-SEED.jsonl and fuzz-SEED.md")
    wanted = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork
    from benchmarks.conftest import commit

    from .batches import is_fault, run_inputs
    from .kinds import KINDS

    strangers = [name for name in wanted.kind or () if name not in KINDS]
    if strangers or (wanted.only is not None and len(wanted.kind or ()) != 1):
        parser.error(f"--kind takes {', '.join(KINDS)}; with --only one of them")
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="iidm-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        if wanted.only is not None:
            return _one(KINDS[wanted.kind[0]], wanted.only, wanted.seed, base, wanted.keep)
        path = wanted.out / f"fuzz-{wanted.seed}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        done, others = known_lines(path, now := commit())
        known = {(line["kind"], line["number"]) for line in done}
        kinds = wanted.kind or list(KINDS)
        one = wanted.count / sum(KINDS[name].share for name in kinds)
        with path.open("a") as file:
            for name in kinds:
                start = time.perf_counter()
                numbers = [
                    number for number in range(math.ceil(one * KINDS[name].share)) if (name, number) not in known
                ]
                for found in run_inputs(KINDS[name], numbers, wanted.seed, base):
                    line = {"kind": name, "number": found.number, **found.outcome._asdict(), "commit": now}
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    done.append(line)
                    if is_fault(found.outcome):
                        print(f"{name} {found.number}: {found.outcome.end}: {found.outcome.said}", flush=True)
                print(f"{name}: {len(numbers)} inputs in {time.perf_counter() - start:.0f} s", flush=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    told = f"{others} lines of other commits do not count" if others else "no input of it was done at another"
    text = f"`python -m benchmarks.fuzz --seed {wanted.seed}`, commit {now}; {told}.\n\n{table(done)}"
    path.with_suffix(".md").write_text(text)
    print(text)
    return int(any(line["end"] not in ("read", "refused") for line in done))


def known_lines(path: Path, now: str) -> tuple[list[dict[str, object]], int]:
    """What was done at the commit `now`, and how many lines of a file are of others, whose code is another."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = [line for line in lines if line.get("commit") == now]
    return done, len(lines) - len(done)


def _one(kind: object, number: int, seed: int, base: Path, keep: Path | None) -> int:
    from .batches import is_fault, run_inputs, write_valid
    from .kinds import Kind
    from .watch import make

    assert isinstance(kind, Kind)
    ((found),) = run_inputs(kind, [number], seed, base)
    print(f"{kind.name} {number}: {found.outcome.end}: {found.outcome.said}")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        folder, path = make(kind, write_valid(kind, base), number, seed, keep)
        print(f"its files lie in {folder}; the changed one is {path}")
    return int(is_fault(found.outcome))


def table(lines: Sequence[dict[str, object]]) -> str:
    """How the inputs of each kind ended, as Markdown."""
    kinds = list(dict.fromkeys(str(line["kind"]) for line in lines))
    rows = ["| kind | inputs | read | refused in one line | faults |", "| --- | ---: | ---: | ---: | --- |"]
    for name in [*kinds, "all"]:
        ends = Counter(str(line["end"]) for line in lines if name in (line["kind"], "all"))
        faults = ", ".join(f"{count} {end}" for end, count in ends.most_common() if end not in ("read", "refused"))
        rows.append(f"| {name} | {ends.total()} | {ends['read']} | {ends['refused']} | {faults or 0} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
