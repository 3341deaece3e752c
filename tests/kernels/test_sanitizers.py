"""The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer (benchmarks/sanitize)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import sanitize
from benchmarks.sanitize.__main__ import build, on_cpu, run

ROOT = Path(sanitize.__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(bool(on_cpu.why_not()), reason=on_cpu.why_not()),
    pytest.mark.slow,
]


def plain_loops(to: Path, *changes: tuple[str, str, str]) -> Path:
    """csrc with loops compiled once and not for each width of registers, which takes a quarter of the time, and with
    changes: file, text, other text."""
    shutil.copytree(ROOT / "csrc", to)
    for name, old, new in (("portable.h", "#if defined(__x86_64__)", "#if 0 && defined(__x86_64__)"), *changes):
        text = (to / name).read_text()
        assert text.count(old) == 1, (name, old)
        (to / name).write_text(text.replace(old, new))
    return to


def test_drawn_calls_stay_within_their_tensors(tmp_path: Path) -> None:
    told, finding = run(build(plain_loops(tmp_path / "csrc")), 0, 400)
    assert finding is None, finding
    assert " of 400 calls ran (batch_norm " in told


@pytest.mark.long
def test_thousands_of_drawn_calls_stay_within_their_tensors_at_every_width() -> None:
    told, finding = run(build(), 0, 8000)
    assert finding is None, finding


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "old", "new", "op"),
    [
        ("blur_cpu.cpp", "to_floats(picture + y * bytes", "to_floats(picture + (y + 1) * bytes", "blur"),
        ("confusion_matrix_cpu.cpp", "x < t.columns", "x <= t.columns", "confusion_matrix"),
    ],
)
def test_a_planted_fault_is_found(name: str, old: str, new: str, op: str, tmp_path: Path) -> None:
    _, finding = run(build(plain_loops(tmp_path / "csrc", (name, old, new))), 0, 400)
    assert finding is not None and finding.case.endswith(f" {op}"), finding
