"""A CUDA device for fake tensors, where torch is built without CUDA: `fake_device.cpp`, compiled once and loaded.

It has to be loaded before torch is imported, as torch looks for the device once. So nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_device.cpp")
BUILT = Path(__file__).parents[2] / "build" / "rehearsal"


def why_not() -> str | None:
    """Why there can be no such device here; None where there can."""
    if not sys.platform.startswith("linux"):
        return "the fake device is built for Linux"
    cuda = _torch_version()["cuda"]
    if cuda is not None:
        return f"torch is built for CUDA {cuda}, which brings a device of its own: the tests marked gpu are for it"
    if _compiler() is None:
        return "there is no g++, which builds the fake device"
    return None


def load() -> None:
    """Build the device unless that was done, and make it known to torch.

    Raises:
        RuntimeError: what `why_not` says, torch was imported before, or the compiler's messages.
    """
    reason = why_not()
    if reason is not None:  # torch built for CUDA would end the process: both name their device the same
        raise RuntimeError(f"There can be no fake CUDA device: {reason}.")
    if "torch" in sys.modules:
        raise RuntimeError("torch has been imported already, and has found no CUDA device; load the fake one first.")
    library = ctypes.CDLL(str(_built()), mode=ctypes.RTLD_GLOBAL)
    library.register_fake_device()


def _built() -> Path:
    """The library for this source, compiler and torch."""
    compiler, version, torch = _compiler(), _torch_version()["__version__"], _torch_folder()
    assert compiler is not None
    facts = f"{SOURCE.read_text()} {version} {torch} {compiler}"
    library = BUILT / f"fake_device-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        half = library.with_suffix(f".{os.getpid()}")
        lib = torch / "lib"
        command = [compiler, "-std=c++20", "-shared", "-fPIC", str(SOURCE), "-o", str(half), "-isystem"]
        command += [str(torch / "include"), f"-L{lib}", f"-Wl,-rpath,{lib}", "-lc10", "-ltorch_cpu"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"The fake device does not compile against torch {version}:\n{run.stderr}")
        half.replace(library)
    return library


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _torch_version() -> dict[str, str | None]:
    """What torch/version.py says, read without torch, which takes seconds and is to come later."""
    found: dict[str, str | None] = runpy.run_path(str(_torch_folder() / "version.py"))
    return found
