"""The fuzzer (benchmarks/fuzz): a short form of it, and that it sees what it is made to see."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz.__main__ import known_lines, main, table
from benchmarks.fuzz.batches import Found, is_fault, run_inputs, write_valid
from benchmarks.fuzz.kinds import KINDS, Kind
from benchmarks.fuzz.kinds.networks import Hostile
from benchmarks.fuzz.watch import Outcome, make
from iidm.types import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and fork")

ROOT = Path(__file__).resolve().parents[1]
WHOLE_AND_REFUSED = ("i16.png", "i16.tif", "moving.gif", "pages.tif", "two.png", "small", "hostile")
"""16 bits, pages, an animation, an id that is no class's, weights of no network; what would do harm."""


def fuzz(tmp_path: Path, *words: str) -> list[dict[str, str]]:
    """Run the command: a process of its own, as threads that other tests have started do not survive its forks."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--out", str(tmp_path), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    (file,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["kind"] for line in lines} == set(KINDS), done.stderr
    return lines


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    lines = fuzz(tmp_path, "--count", "300")
    faults = [line for line in lines if line["end"] not in ("read", "refused")]
    assert len(lines) >= 300 and not faults, faults


def test_what_is_damaged_is_read_where_it_is_whole(tmp_path: Path) -> None:
    """Else the fuzzer would try refusals alone."""
    lines = fuzz(tmp_path, "--seed", "-1", "--count", "150")
    refused = [line for line in lines if line["end"] != "read"]
    assert all(any(name in line["said"] for name in WHOLE_AND_REFUSED) or line["kind"] == "onnx" for line in refused)
    # of weights the hostile ones come first
    assert {line["kind"] for line in lines if line["end"] == "read"} == set(KINDS) - {"weights"}


def plain(use: Callable[[Path, Path], None]) -> Kind:
    def write(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"x")

    return Kind("plain", write, ("a.bin",), use)


def end_of(use: Callable[[Path, Path], None], tmp_path: Path) -> str:
    (found,) = run_inputs(plain(use), [0], 0, tmp_path)
    return found.outcome.end


def refuse(text: str) -> Callable[[Path, Path], None]:
    def use(folder: Path, path: Path) -> None:
        raise UserError(text.format(path))

    return use


def spin(folder: Path, path: Path) -> None:
    while True:
        pass


def swallow_memory(folder: Path, path: Path) -> None:
    taken = mmap.mmap(-1, 2**27)  # of the system: an allocator may have kept as much of earlier tests
    np.frombuffer(taken, np.uint8)[:] = 1


def crash(folder: Path, path: Path) -> None:
    os.kill(os.getpid(), 11)


def write_above(folder: Path, path: Path) -> None:
    (folder.parent.parent / "escaped").write_text("")


def call_system(folder: Path, path: Path) -> None:
    os.system("true")


def load_pickle(folder: Path, path: Path) -> None:
    import pickle

    pickle.loads(pickle.dumps(Hostile(print)))


def connect(folder: Path, path: Path) -> None:
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))


def raise_key_error(folder: Path, path: Path) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("use", "end"),
    [
        (lambda folder, path: None, "read"),
        (refuse("{} is damaged"), "refused"),
        (refuse("it is damaged"), "names no file"),
        (raise_key_error, "traceback"),
        (swallow_memory, "memory"),
        (crash, "signal SIGSEGV"),
        (write_above, "writes outside"),
        (call_system, "runs code"),
        (load_pickle, "runs code"),
        (connect, "reaches out"),
    ],
)
def test_the_fuzzer_sees_faults(
    use: Callable[[Path, Path], None], end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.fuzz.watch.MOST_BYTES", 2**26)
    assert end_of(use, tmp_path) == end


def test_the_fuzzer_sees_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fuzz.watch.MOST_CPU_S", 0.2)
    start = time.process_time()
    assert end_of(spin, tmp_path) == "hang"
    assert time.process_time() - start < 5


def test_an_input_is_the_same_each_time(tmp_path: Path) -> None:
    first, again = (list(run_inputs(KINDS["description"], range(6), 5, tmp_path / name)) for name in "ab")
    assert [one.outcome.end for one in first] == [one.outcome.end for one in again]


def test_the_table_counts_every_input() -> None:
    lines: list[dict[str, object]] = [
        {"kind": "a", "end": "read"},
        {"kind": "a", "end": "hang"},
        {"kind": "b", "end": "refused"},
    ]
    assert "| a | 2 | 1 | 0 | 1 hang |" in table(lines) and "| all | 3 | 1 | 1 | 1 hang |" in table(lines)


def test_what_fails_after_others_alone_is_a_fault(tmp_path: Path) -> None:
    seen: list[Path] = []

    def use(folder: Path, path: Path) -> None:
        seen.append(path)
        if len(seen) > 1:
            raise KeyError("x")

    ends = [found.outcome for found in run_inputs(plain(use), range(3), 0, tmp_path)]
    assert [end.end for end in ends] == ["read", "only after others", "read"]
    assert ends[1].said.startswith("traceback: KeyError") and is_fault(ends[1])
    assert "| a | 1 | 0 | 0 | 1 only after others |" in table([{"kind": "a", "end": ends[1].end}])


def test_what_was_done_at_another_commit_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--kind", "list", "--count", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("benchmarks.fuzz.batches.run_inputs", inputs_that_are_read)
    for commit, asked in (("one", [0, 1]), ("one", []), ("two", [0, 1])):
        monkeypatch.setenv("IIDM_COMMIT", commit)
        ASKED.clear()
        assert main(words) == 0 and ASKED == asked
    page = (tmp_path / "fuzz-0.md").read_text()
    assert "commit two; 2 lines of other commits do not count." in page and "| all | 2 | 2 | 0 | 0 |" in page
    (tmp_path / "old.jsonl").write_text('{"kind": "list", "number": 0, "end": "read"}\n')
    assert known_lines(tmp_path / "old.jsonl", "two") == ([], 1)


ASKED: list[int] = []


def inputs_that_are_read(kind: Kind, numbers: Sequence[int], seed: int, base: Path) -> Iterator[Found]:
    ASKED.extend(numbers)
    return (Found(kind.name, number, Outcome("read")) for number in numbers)


def test_an_input_can_be_kept_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, to: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("benchmarks.fuzz.watch.os.link", link)
    # It sets both, elsewhere in a process of its own.
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path))
    kind = plain(lambda folder, path: None)
    valid = write_valid(kind, tmp_path)
    (valid / "large").write_bytes(bytes(2**20 + 1))
    kept = tmp_path / "kept"
    kept.mkdir()
    folder, _ = make(kind, valid, 0, 0, kept)
    assert (folder / "large").stat().st_size == 2**20 + 1
