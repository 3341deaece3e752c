"""The choice of device and precision, seeds, and what is said of the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from iidm.engine.runtime import (
    keep_freed_memory,
    machine_info,
    pick_amp_dtype,
    pick_device,
    return_freed_memory,
    seed_everything,
)
from iidm.types import UserError

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_cuda_without_a_gpu_is_refused_with_the_choices(no_gpu: None) -> None:
    with pytest.raises(UserError, match="--device cuda needs a GPU.*--device cpu or auto"):
        pick_device("cuda")


def test_auto_falls_back_to_the_cpu_without_a_gpu(no_gpu: None) -> None:
    assert pick_device("auto") == pick_device("cpu") == CPU


def test_a_gpu_is_taken_unless_the_cpu_is_asked_for(gpu: None) -> None:
    assert pick_device("auto").type == pick_device("cuda").type == "cuda"
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("device", ("cpu", "cuda"))
def test_without_amp_everything_is_float32(device: str) -> None:
    assert pick_amp_dtype(torch.device(device), amp=False) is None


@pytest.mark.parametrize(("native", "dtype"), ((True, torch.bfloat16), (False, torch.float16)))
def test_a_gpu_computes_in_bfloat16_where_it_has_it_natively(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_amp_dtype(torch.device("cuda"), amp=True) is dtype


@pytest.mark.parametrize(("available", "native", "dtype"), ((1, 1, torch.bfloat16), (1, 0, None), (0, 1, None)))
def test_a_cpu_computes_in_bfloat16_only_where_it_has_instructions_for_it(
    available: int, native: int, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: bool(available))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bool(native), raising=False)
    assert pick_amp_dtype(CPU, amp=True) is dtype


def test_the_answer_of_this_cpu_is_one_that_autocast_takes() -> None:
    assert pick_amp_dtype(CPU, amp=True) in (torch.bfloat16, None)


def test_a_seed_repeats_the_draws_and_another_changes_them() -> None:
    draws = []
    for seed in (3, 3, 4):
        seed_everything(seed)
        draws.append(torch.rand(8))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_the_machine_is_described_in_plain_values() -> None:
    info = machine_info()
    assert json.loads(json.dumps(info)) == info
    assert {"cpu", "cores", "threads", "python", "torch"} <= info.keys()
    assert info["torch"] == torch.__version__ and info["threads"] == torch.get_num_threads() and info["cpu"]


def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Fewer page faults for the same tensors; in a process of its own, since it cannot be taken back."""
    code = (
        "import resource, torch\n"
        "from iidm.engine.runtime import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20):\n"
        "        torch.ones(48 << 18)\n"  # 48 MiB, above what malloc keeps by itself
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "usual = faults()\n"
        "keep_freed_memory(torch.device('cpu'))\n"
        "faults()\n"  # glibc's aligned blocks need a few places until one always fits
        "print(usual, faults())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual, kept = map(int, run.stdout.split())
    if platform.libc_ver()[0] != "glibc" or usual < 1000:
        pytest.skip("another C library, or pages so large that faults are few")
    assert kept < usual / 4


def test_kept_memory_is_returned_when_it_is_asked_for() -> None:
    code = (
        "import torch\n"
        "from iidm.engine.runtime import keep_freed_memory, return_freed_memory\n"
        "def held():\n"
        "    return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1]) >> 10\n"
        "keep_freed_memory(torch.device('cpu'))\n"
        "before = held()\n"
        "blocks = [torch.ones(1 << 18) for _ in range(200)]\n"  # 1 MiB each
        "last = torch.ones(1 << 18)\n"  # above them: what is below it is returned too
        "del blocks\n"
        "kept = held()\n"
        "return_freed_memory()\n"
        "print(kept - before, held() - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept_mb, left_mb = map(int, run.stdout.split())
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    assert kept_mb > 190 and left_mb < 20


@pytest.mark.parametrize(("device", "is_one"), [("cpu", True), ("cuda", False)])
def test_threads_share_one_heap_on_a_cpu(device: str, is_one: bool) -> None:
    code = (
        "import ctypes, sys, threading, torch\n"
        "from iidm.engine.runtime import keep_freed_memory\n"
        "keep_freed_memory(torch.device(sys.argv[1]))\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype = ctypes.c_void_p\n"
        "met, addresses = threading.Barrier(4), []\n"
        "def take():\n"
        "    addresses.append(libc.malloc(1 << 16))\n"
        "    met.wait()\n"  # all at the same time, or the heap of one that has ended is taken again
        "threads = [threading.Thread(target=take) for _ in range(4)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(len({address >> 26 for address in addresses}))\n"  # a heap beside the first begins each 64 MiB
    )
    usual = {name: value for name, value in os.environ.items() if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    words = [sys.executable, "-c", code, device]
    run = subprocess.run(words, env=usual, capture_output=True, text=True, check=True)
    if platform.libc_ver()[0] != "glibc" or platform.machine() != "x86_64":
        pytest.skip("another C library, or heaps of another size")
    heaps = int(run.stdout)
    assert heaps <= 2 if is_one else heaps > 2, "a heap that is one may lie across such a border"


def test_memory_is_left_alone_where_the_c_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_freed_memory(CPU)
    return_freed_memory()
