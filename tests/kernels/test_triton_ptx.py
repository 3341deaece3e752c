"""What Triton's compiler makes of the kernels computes what they say; and what `ptx_block` finds wrong in a text."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from ptx_block import Block, Program  # noqa: E402
from ptx_launches import OPS, PLANTED, Planted  # noqa: E402
from ptx_memory import Buffer, Fault  # noqa: E402
from ptx_operations import OPERATIONS, UnknownPtx  # noqa: E402
from triton_launches import KERNELS  # noqa: E402

CASES = [(op, i, dtype) for op, (_, cases) in OPS.items() for i, case in enumerate(cases) for dtype in case.dtypes]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ptx_launches.py prints, in a process in which Triton compiles."""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    folder = tmp_path_factory.mktemp("triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("TRITON_INTERPRET", None)
    words = [sys.executable, str(Path(__file__).with_name("ptx_launches.py"))]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize(("op", "case", "dtype"), CASES)
def test_the_ptx_of_every_kernel_gives_what_pytorch_gives(
    op: str, case: int, dtype: str, lines: list[dict[str, Any]]
) -> None:
    (line,) = [line for line in lines if (line.get("op"), line.get("case"), line.get("dtype")) == (op, case, dtype)]
    assert line["found"] == "" and set(line["blocks"]) == KERNELS[op]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Planted, lines: list[dict[str, Any]]) -> None:
    (line,) = [line for line in lines if line.get("fault") == fault.name]
    assert re.search(fault.found, line["found"]), line


REGISTERS = """
.reg .pred %p<9>;
.reg .b16 %rs<9>;
.reg .b32 %r<99>;
.reg .b64 %rd<9>;
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
add.s32 %r3, %r2, global_smem;
xor.b32 %r5, %r2, 128;
add.s32 %r5, %r5, global_smem;
shr.u32 %r4, %r1, 5;
setp.eq.s32 %p1, %r4, 0;
setp.eq.s32 %p2, %r1, 0;
ld.param.b64 %rd1, [k_param_0];
cvt.u64.u32 %rd2, %r2;
add.s64 %rd3, %rd1, %rd2;
"""


def run(body: str) -> list[int]:
    """What 64 threads leave in the 64 words of a tensor.

    %r1: thread; %r3: its word of shared memory; %r5: that of the same lane in the other warp; %r4: warp; %p1: whether
    in the first warp; %p2: whether the first thread; %rd3: its word of the tensor.
    """
    numbers = np.zeros(64, np.uint32)
    lines = body.replace(";", ";\n")
    text = f".visible .entry k(\n.param .u64 k_param_0\n)\n.reqntid 64\n{{\n{REGISTERS}{lines}\nret;\n}}\n"
    buffer = Buffer(numbers.ctypes.data, numbers.view(np.uint8))
    Block(Program(text), [buffer.begin], [buffer], (0, 0, 0), (1, 1, 1), 256).run()
    return [int(each) for each in numbers]


STORE, LOAD, BARRIER = "st.shared.b32 [%r3], %r1; ", "ld.shared.b32 %r9, [%r5]; ", "bar.sync 0; "
COPY = "cp.async.ca.shared.global [%r3], [%rd3], 4; "
COMMIT, WAIT = "cp.async.commit_group; ", "cp.async.wait_group 0; "
COPIED, OWN, WARP = COPY + COMMIT + WAIT, "ld.shared.b32 %r9, [%r3]; ", "bar.warp.sync -1; "
NEIGHBOUR = "xor.b32 %r6, %r2, 4; add.s32 %r6, %r6, global_smem; ld.shared.b32 %r9, [%r6]; "
NUMBERED = "st.global.b32 [%rd3], %r1; "


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("st.global.b32 [%rd3], %r9;", "%r9 was never written"),
        ("@%p1 mov.u32 %r9, 1; st.global.b32 [%rd3], %r9;", "a register that it never wrote"),
        ("@%p1 mov.u32 %r9, 1; add.s32 %r10, %r9, 1; setp.eq.s32 %p3, %r10, 1; @%p3 bra $L;\n$L:", "never wrote"),
        ("@%p1 mov.b64 %rd4, %rd3; add.s64 %rd5, %rd4, 4; ld.global.b32 %r9, [%rd5];", "never wrote"),
        ("@%p2 mov.u32 %r9, 1; shfl.sync.idx.b32 %r9, %r9, 1, 31, -1; @%p2 st.global.b32 [%rd3], %r9;", "never wrote"),
        ("ld.global.b32 %r9, [%rd3+4];", "1 threads load outside of the call's tensors"),
        ("@%p2 st.global.b32 [%rd3+-4], %r1;", "1 threads store outside of the call's tensors"),
        ("st.global.b32 [0], %r1;", "64 threads store outside"),
        ("ld.global.b32 %r9, [%rd3+2];", "not aligned to 4 bytes"),
        ("ld.global.v2.b32 {%r9, %r10}, [%rd3];", "not aligned to 8 bytes"),
        ("ld.shared.b32 %r9, [%r3+4];", "outside of the block's shared memory"),
        (LOAD, "shared memory is read that nobody wrote"),
        (STORE + LOAD, "another warp touched"),
        (STORE + BARRIER + LOAD + "st.shared.b32 [%r3], %r5;", "another warp touched"),
        (STORE + "mov.u32 %r9, 7; st.shared.b32 [%r5], %r9;", "another warp touched"),
        ("st.shared.b32 [global_smem], %r1;", "different values"),
        ("st.shared.b32 [global_smem], 5; ld.shared.b32 %r9, [global_smem];", "another warp touched"),
        (COPY + OWN, "a copy is on its way"),
        (COPY + COMMIT + BARRIER + OWN, "a copy is on its way"),
        (COPY + WAIT + OWN, "a copy is on its way"),  # no group has it
        (COPY + COMMIT + "cp.async.wait_group 1; " + OWN, "a copy is on its way"),
        (COPY + "@%p1 " + COMMIT + WAIT + OWN, "a copy is on its way"),
        (COPY + COMMIT + "@%p1 " + WAIT + OWN, "a copy is on its way"),
        (COPY + COMMIT + STORE, "a copy is on its way"),
        (COPY + COMMIT + COPY, "a copy is on its way"),
        (COPIED + LOAD, "another thread copied since the last barrier"),
        (COPIED + NEIGHBOUR, "another thread copied since the last barrier"),
        (COPIED + WARP + LOAD, "another warp touched"),
        ("st.shared.b32 [%r5], 7; " + COPY, "another warp touched"),
        (STORE + BARRIER + LOAD + COPY, "another warp touched"),
        ("cp.async.ca.shared.global [global_smem], [%rd3], 4;", "threads copy to one place"),
        ("cp.async.ca.shared.global [%r3], [%rd3], 4, 5;", "more than 4 bytes are read"),
        ("cp.async.ca.shared.global [%r3], [%rd3+2], 4;", "not aligned to 4 bytes"),
        ("cp.async.ca.shared.global [%r3+2], [%rd3], 4;", "not aligned to 4 bytes"),
        ("cp.async.ca.shared.global [%r3], [%rd3+4], 4, 1;", "1 threads load outside of the call's tensors"),
        ("cp.async.ca.shared.global [%r3+4], [%rd3], 4;", "1 threads store outside of the block's shared memory"),
        ("@%p1 mov.u32 %r9, 4; cp.async.ca.shared.global [%r3], [%rd3], 4, %r9;", "a register that it never wrote"),
        (COPY + COMMIT + NUMBERED + WAIT, "global memory that changed while it was copied"),
        (COPY + COMMIT, "returns while copies are on their way"),
        ("@%p1 bar.sync 0;", "32 of 64 threads"),
        ("@!%p2 bar.warp.sync -1;", "63 of 64 threads"),
        ("@%p2 shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1;", "1 of 64 threads"),
        ("@%p1 bra $L; bar.sync 0;\n$L:", "32 of 64 threads"),
        ("@%p1 ret;", "32 of 64 threads"),
    ],
)  # fmt: skip
def test_what_it_finds(body: str, found: str) -> None:
    with pytest.raises(Fault, match=re.escape(found)):
        run(body)


def test_a_loop_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptx_block.MAX_STEPS", 100)
    with pytest.raises(Fault, match="no end after 100 instructions"):
        run("$L:\nbra.uni $L;")


@pytest.mark.parametrize(
    "unknown",
    [
        "add.sat.s32 %r9, %r1, 1;",
        "cvt.rz.f32.f64 %r9, %rd1;",
        "fma.rz.f32 %r9, %r1, %r1, %r1;",
        "max.NaN.f32 %r9, %r1, %r1;",
        "sin.approx.f32 %r9, %r1;",
        "ld.volatile.global.b32 %r9, [%rd3];",
        "ld.global.nc.b32 %r9, [%rd3];",
        "ld.global.v2.b32 %r9, [%rd3];",
        "atom.global.add.u32 %r9, [%rd3], 1;",
        "cp.async.cg.shared.global [%r3], [%rd3], 4;",
        "cp.async.ca.shared.global [%r3], [%rd3], 2;",
        "cp.async.ca.shared.global [%r3], [%rd3], 4, %p1;",
        "cp.async.ca.shared.global.L2::128B [%r3], [%rd3], 4;",
        "cp.async.ca.shared::cta.global [%r3], [%rd3], 4;",
        "cp.async.wait_all;",
        "shfl.sync.down.b32 %r9, %r1, 1, 31, -1;",
        "shfl.sync.bfly.b32 %r9, %r1, 1, 15, -1;",
        "shfl.sync.bfly.b32 %r9, %r1, 1, 31, 3;",
        "bar.sync 1;",
        "bar.sync 0, 32;",
        "bar.warp.sync 3;",
        "bar.red.popc.u32 %r9, 0, %p1;",
        "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r9}, [%r3];",
    ],
)
def test_what_it_does_not_know_is_named_even_where_no_thread_comes(unknown: str) -> None:
    with pytest.raises(UnknownPtx, match=re.escape(unknown.rstrip(";").split()[0] + " is unknown")):
        run("ret; " + unknown)


ALL_SUMS = "".join(
    f"shfl.sync.bfly.b32 %r10, %r9, {lane}, 31, -1; add.s32 %r9, %r9, %r10; " for lane in (16, 8, 4, 2, 1)
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("mov.u32 %r9, %r1;", lambda i: i),
        (STORE + BARRIER + LOAD, lambda i: i ^ 32),
        ("st.shared.b32 [global_smem], 5; bar.sync 0; ld.shared.b32 %r9, [global_smem];", lambda i: 5),
        (STORE + "ld.shared.b32 %r9, [%r3];", lambda i: i),
        (NUMBERED + COPIED + OWN, lambda i: i),
        (NUMBERED + COPIED + WARP + NEIGHBOUR, lambda i: i ^ 1),
        (NUMBERED + COPIED + BARRIER + LOAD, lambda i: i ^ 32),
        (NUMBERED + COPIED + BARRIER + STORE + COPIED + OWN, lambda i: i),
        (NUMBERED + "@%p1 " + COPY + COMMIT + "@!%p1 " + COPY + COMMIT + "@%p1 cp.async.wait_group 1; @!%p1 " + WAIT
         + OWN + WAIT, lambda i: i),
        ("st.global.b32 [%rd3], 0x81828384; and.b32 %r6, %r1, 3; cp.async.ca.shared.global [%r3], [%rd3], 4, %r6; "
         + COMMIT + WAIT + OWN, lambda i: (0, 0x84, 0x8384, 0x828384)[i % 4]),
        (STORE + "cp.async.ca.shared.global [%r3], [0], 4, 0; " + COMMIT + WAIT + OWN, lambda i: 0),
        ("and.b32 %r6, %r2, 240; and.b32 %r7, %r1, 3; setp.eq.s32 %p3, %r7, 0; add.s32 %r8, %r6, global_smem; "
         + NUMBERED + "@%p3 cp.async.cg.shared.global [%r8], [%rd3], 16; " + COMMIT + WAIT + WARP + OWN, lambda i: i),
        ("mov.u32 %r9, %r1; " + ALL_SUMS, lambda i: 496 + i // 32 * 1024),
        ("redux.sync.add.s32 %r9, %r1, -1;", lambda i: 496 + i // 32 * 1024),
        ("shfl.sync.idx.b32 %r9, %r1, 3, 31, -1;", lambda i: i // 32 * 32 + 3),
        ("mov.u32 %r9, 1;\n$L:\nadd.s32 %r9, %r9, %r9; setp.lt.s32 %p3, %r9, 100; @%p3 bra $L;", lambda i: 128),
        ("@%p1 mov.u32 %r9, 1; @!%p1 mov.u32 %r9, 2;", lambda i: 1 + i // 32),
        ("sub.s32 %r9, %r1, 40; div.s32 %r9, %r9, 7;", lambda i: int((i - 40) / 7)),
        ("sub.s32 %r9, %r1, 40; shr.s32 %r9, %r9, 3;", lambda i: (i - 40) >> 3),
        ("shl.b32 %r9, 3, %r1;", lambda i: 3 << i),
        ("bfe.u32 %r9, %r1, 1, 3;", lambda i: i >> 1 & 7),
        ("bfe.s32 %r9, %r1, 0, 3;", lambda i: (i & 7) - 8 * (i >> 2 & 1)),
        ("prmt.b32 %r9, 0x04030281, 0x08070685, 0x4C82;", lambda i: 0x85FFFF03),
        ("popc.b32 %r9, %r1;", lambda i: bin(i).count("1")),
        ("sub.s32 %r9, %r1, 40; mad.wide.s32 %rd4, %r9, 3, 5; cvt.u32.u64 %r9, %rd4;", lambda i: 3 * (i - 40) + 5),
        ("cvt.rn.f32.s32 %r8, %r1; fma.rn.f32 %r8, %r8, 0f40000000, 0f3F800000; mov.b32 %r9, %r8;",
         lambda i: int(np.float32(2 * i + 1).view(np.uint32))),
        ("mov.b32 %r8, 0f3F808000; cvt.rn.bf16.f32 %rs1, %r8; cvt.u32.u16 %r9, %rs1;", lambda i: 0x3F80),
        ("mov.b32 %r8, 0f3F818000; cvt.rn.bf16.f32 %rs1, %r8; cvt.u32.u16 %r9, %rs1;", lambda i: 0x3F82),
        ("cvt.u16.u32 %rs1, %r1; mov.b32 %r8, {0, %rs1}; mov.b32 {_, %rs2}, %r8; cvt.u32.u16 %r9, %rs2;", lambda i: i),
        ("setp.lt.f16x2 %p3|%p4, 0x3C00C000, 0; selp.b32 %r9, 1, 0, %p3; @%p4 mov.u32 %r9, 2;", lambda i: 1),
        ("mov.b32 %r8, 0fFFC00000; setp.ne.f32 %p3, %r8, %r8; selp.b32 %r9, 1, 0, %p3;", lambda i: 0),
        ("mov.b32 %r8, 0fFFC00000; setp.neu.f32 %p3, %r8, %r8; selp.b32 %r9, 1, 0, %p3;", lambda i: 1),
    ],
)  # fmt: skip
def test_what_instructions_compute(body: str, expected: Any) -> None:
    assert run(body + " st.global.b32 [%rd3], %r9;") == [expected(i) % 2**32 for i in range(64)]


def test_a_matrix_comes_back_as_its_lanes_gave_it() -> None:
    """Lane 4 i + k has the k-th word of line i, which lies where lane i says: read from the last line to the first."""
    body = "and.b32 %r6, %r1, 7; shl.b32 %r6, %r6, 4; shl.b32 %r7, %r4, 7; add.s32 %r6, %r6, %r7; "
    body += "xor.b32 %r7, %r6, 112; "
    body += "add.s32 %r6, %r6, global_smem; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r6], {%r1}; bar.sync 0; "
    body += "add.s32 %r7, %r7, global_smem; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r9}, [%r7]; "
    assert run(body + "st.global.b32 [%rd3], %r9;") == [i ^ 28 for i in range(64)]


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("ex2", lambda x: np.exp2(x / 8)),
        ("rcp", lambda x: 8 / x),
        ("sqrt", lambda x: np.sqrt(x / 8)),
        ("div", lambda x: x / 24),
    ],
)
def test_approximate_instructions_are_off_by_no_more_than_they_may(name: str, exact: Any) -> None:
    word, more = ("div.full.f32", ", 0f40400000") if name == "div" else (f"{name}.approx.f32", "")
    body = f"cvt.rn.f32.s32 %r8, %r1; mul.f32 %r8, %r8, 0f3E000000; {word} %r9, %r8{more}; st.global.b32 [%rd3], %r9;"
    got = np.array(run(body), np.uint32).view(np.float32)[1:].astype(np.float64)
    off = np.abs(got / exact(np.arange(1.0, 64)) - 1)
    limit = OPERATIONS[word].error
    assert limit / 4 < off.max() <= limit + 2.0**-24
