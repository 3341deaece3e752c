from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable

import emulated
import pytest
import torch

from iidm import kernels
from iidm.kernels.blur import blur
from iidm.kernels.confusion_matrix import confusion_matrix
from iidm.kernels.jitter import normalize

needs_extension = pytest.mark.skipif(not kernels.build_info()["extension"], reason="the extension is not built")


@needs_extension
def test_auto_says_what_each_op_runs_as(implementation: Callable[..., str]) -> None:
    assert implementation("auto", "cpu") == "kernels: all fused (C++)"


def test_reference_runs_nothing_fused(implementation: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert implementation("reference", "cpu") == "kernels: all reference (PyTorch)"
    monkeypatch.setattr("iidm.kernels.confusion_matrix.extension", None)
    matrix = confusion_matrix(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 2, dtype=torch.uint8))
    assert matrix.tolist() == [[0, 0], [4, 0]]


@needs_extension
def test_auto_calls_the_fused_kernel(implementation: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Extension:
        @staticmethod
        def confusion_matrix(*_: object) -> None:
            raise RuntimeError("the fused kernel was called")

    implementation("auto", "cpu")
    monkeypatch.setattr("iidm.kernels.confusion_matrix.extension", Extension)
    with pytest.raises(RuntimeError, match="the fused kernel was called"):
        confusion_matrix(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 2, dtype=torch.uint8))


def test_fused_never_falls_back(implementation: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iidm.kernels._dispatch.extension", None)
    with pytest.raises(RuntimeError, match="there is none for classmix, jitter.*confusion_matrix"):
        implementation("fused", "cpu")
    monkeypatch.setattr("iidm.kernels._dispatch._choice", "fused")
    with pytest.raises(RuntimeError, match="on cpu there is none for confusion_matrix"):
        confusion_matrix(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 2, dtype=torch.uint8))


def test_a_refused_choice_leaves_the_one_before(implementation: Callable[..., str]) -> None:
    implementation("reference", "cpu")
    with pytest.raises(RuntimeError, match="there is none for"):
        implementation("fused", "meta")
    from iidm.kernels._dispatch import use_fused

    assert not use_fused("confusion_matrix", torch.device("cpu"))


def test_an_unknown_choice_is_refused(implementation: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="auto, fused, reference, not 'fast'"):
        implementation("fast", "cpu")


def test_auto_without_the_extension_says_why(
    implementation: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iidm.kernels._dispatch.extension", None)
    monkeypatch.setattr("iidm.kernels._dispatch.why_missing", "the extension is not built")
    assert implementation("auto", "cpu") == "kernels: all reference (PyTorch); the extension is not built"
    assert kernels.build_info()["extension"] is False


@pytest.mark.parametrize(
    ("capability", "arches", "words"),
    [
        ((9, 0), "80;90", "Triton.*CUDA.$"),
        ((8, 9), "80", "Triton.*CUDA.$"),
        ((8, 6), "90a", "Triton.*reference.* 8.6; the extension is built for 9.0 or newer$"),
        ((7, 5), "75;90", "CUDA.*reference.* 7.5; Triton needs 8.0 or newer$"),
        ((7, 5), "80;90", "all reference.* 7.5; Triton needs 8.0 or newer, the extension is built for 8.0 or newer$"),
    ],
)
def test_a_gpu_that_is_too_old_for_a_kernel_gets_the_reference(
    implementation: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    arches: str,
    words: str,
) -> None:
    """Else the first step ends with "no kernel image is available for execution on the device"."""

    class Extension:
        @staticmethod
        def build_info() -> dict[str, object]:
            return {"cuda": True, "cuda_arches": arches}

    monkeypatch.setattr("iidm.kernels._dispatch.extension", Extension)
    monkeypatch.setattr("iidm.kernels._dispatch.why_missing", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert re.search(words, implementation("auto", "cuda"))
    if "reference" in words:
        with pytest.raises(RuntimeError, match=re.escape(f"compute capability {capability[0]}.{capability[1]}; ")):
            implementation("fused", "cuda")


def test_kernels_import_nothing_of_iidm() -> None:
    code = (
        "import sys, iidm.kernels.classmix, iidm.kernels.blur, iidm.kernels.pseudo_label;"
        "import iidm.kernels.cross_entropy, iidm.kernels.confusion_matrix;"
        "print([m for m in sys.modules if m.startswith('iidm.') and not m.startswith('iidm.kernels')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@needs_extension
@pytest.mark.parametrize("op", ["blur", "jitter"])
def test_the_body_emulated_launches_the_cuda_kernels(
    op: str, emulated_extension: emulated.Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch for which there is no grid: no other body knows such a limit."""
    for name in emulated.OPS:
        monkeypatch.setattr(f"iidm.kernels.{name}.extension", emulated_extension)
    batch = 65536
    byte = torch.zeros(batch, 1, 1, dtype=torch.uint8)
    calls: dict[str, Callable[[], object]] = {
        "blur": lambda: blur(torch.zeros(batch, 3, 1, 1), torch.ones(batch), torch.ones(batch, dtype=torch.bool)),
        "jitter": lambda: normalize(byte[..., None].expand(-1, -1, -1, 3), mean=(0.0,) * 3, std=(1.0,) * 3),
    }
    with pytest.raises(RuntimeError, match=f"The CUDA kernel of {op} did not start: no GPU has such a grid"):
        calls[op]()
