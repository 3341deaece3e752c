"""The drawn calls of benchmarks/sanitize count what was refused apart: no kernel has seen it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from iidm.kernels._extension import extension

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(extension is None, reason="the extension is not built")
def test_what_is_refused_is_counted_apart() -> None:
    words = [sys.executable, "-m", "benchmarks.sanitize.cases", str(extension.__file__), "0", "90"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    found = re.fullmatch(r"(\d+) of 90 calls ran \((.*)\), (\d+) were refused", said)
    assert found is not None, said
    ran, refused = int(found[1]), int(found[3])
    assert ran + refused == 90 and refused > 0
    assert sum(int(count) for count in re.findall(r"\d+", found[2])) == ran
