"""The first stage: builds the extension in place for the GPU at hand, and says what runs as what.

python -m benchmarks.gpu.build [--dry-run]: with it nothing is built, and no GPU is asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Command line."""
    dry = "--dry-run" in sys.argv[1:]
    link = ROOT / "iidm" / "kernels"
    if not dry:
        if not torch.cuda.is_available():
            sys.exit(f"torch {torch.__version__} sees no GPU; without one: --dry-run")
        major, minor = torch.cuda.get_device_capability()
        arches = os.environ.get("IIDM_CUDA_ARCHS") or f"{major}{minor}"
        if not link.exists():
            link.symlink_to("../kernels")  # in place: `iidm.kernels` is the folder kernels/
        for suffix in EXTENSION_SUFFIXES:  # where this build fails nothing of another one may run
            (ROOT / "kernels" / f"_C{suffix}").unlink(missing_ok=True)
        words = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(words, cwd=ROOT, check=True, env={**os.environ, "IIDM_CUDA": "1", "IIDM_CUDA_ARCHS": arches})
    from iidm.kernels import build_info, set_implementation

    print(build_info())
    print(set_implementation("auto" if dry else "fused"))


if __name__ == "__main__":
    main()
