"""What PTX instructions compute, by their whole name with all modifiers: those that Triton makes of the kernels.

Meanings are those of NVIDIA's "PTX ISA", chapter "Instruction Set". Approximate instructions are off by up to two units
in the last place (ex2, div.full) or one (rcp, sqrt), before float32 rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
NUMPY: dict[str, type[np.generic]] = {
    **{f"b{bits}": getattr(np, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": getattr(np, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": getattr(np, f"float{bits}") for bits in (16, 32, 64)},
    "pred": np.bool_,
}


class UnknownPtx(Exception):
    """A text that these tables do not hold."""


def decoded(bits: Array, kind: str) -> Array:
    """The numbers of a PTX type in registers, which may be wider than it; bfloat16 as float32."""
    if kind == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    dtype = np.dtype(NUMPY[kind])
    return bits if kind == "pred" else bits.astype(f"u{dtype.itemsize}", copy=False).view(dtype)


def encoded(numbers: Array, kind: str) -> Array:
    """The bits of numbers, integers with their sign; bfloat16 is rounded to nearest, ties to even."""
    if kind == "bf16":
        bits = numbers.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(numbers), 0x7FFF, rounded).astype(np.uint16)
    numbers = numbers.astype(NUMPY[kind], copy=False)
    return numbers.view(f"u{numbers.itemsize}") if kind[0] == "f" else numbers


def same(a: Array) -> Array:
    return a


def packed(low: Array, high: Array) -> Array:
    """Two numbers of 16 bits in 32."""
    return low.astype(np.uint32) | (high.astype(np.uint32) << 16)


class Operation(NamedTuple):
    """What an instruction computes in each thread."""

    compute: Callable[..., Array]
    result: str
    sources: tuple[str, ...]
    error: float = 0.0
    """The largest relative error of an approximate instruction; its `compute` gets float64."""


def scattered(numbers: list[Array]) -> Array:
    """In [-1,1), decided by the bits of each thread's float32 inputs: all lanes make the same of the same."""
    mixed = np.zeros(len(numbers[0]), np.uint64)
    for each in numbers:
        mixed = (mixed ^ each.view(np.uint32)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return np.asarray(mixed * 2.0**-63 - 1)


def quotient(a: Array, b: Array) -> Array:
    """Towards zero; something by zero, as masked lanes divide."""
    size = np.abs(a) // np.where(b == 0, 1, np.abs(b))
    return np.where((a < 0) != (b < 0), -size, size)


def fma(a: Array, b: Array, c: Array) -> Array:
    """The product is exact in 64 bits of mantissa; the sum is rounded there first, which rarely shows in float32."""
    return (a.astype(np.longdouble) * b + c).astype(np.float32)


def flushed(compute: Callable[..., Array]) -> Callable[..., Array]:
    """`.ftz`: subnormal inputs and results of float32 are zero."""

    def flush(x: Array) -> Array:
        return np.where(np.abs(x) < 2.0**-126, np.copysign(0, x), x).astype(x.dtype)

    return lambda *numbers: flush(compute(*map(flush, numbers)))


def shifted_left(a: Array, by: Array) -> Array:
    """By the width or more: zero."""
    bits = 8 * a.itemsize
    return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), 0)


def shifted_right(a: Array, by: Array) -> Array:
    """By the width or more: zero, or the sign."""
    bits = 8 * a.itemsize
    near = a >> np.minimum(by, bits - 1).astype(a.dtype)
    return near if a.dtype.kind == "i" else np.where(by < bits, near, 0)


def field(a: Array, begin: Array, length: Array) -> Array:
    """bfe: `length` bits from `begin` on, with their sign in a signed type."""
    begin, length = begin & 0xFF, length & 0xFF
    if bool(((begin + length > 32) | (length == 0)).any()):
        raise UnknownPtx("bfe of no bits, or of bits beyond the number's")
    high = np.left_shift(a, (32 - begin - length).astype(a.dtype))
    return np.right_shift(high, (32 - length).astype(a.dtype))


def chosen_bytes(low: Array, high: Array, choice: Array) -> Array:
    """prmt: each nibble of `choice` names one of eight bytes, or with its highest bit that byte's sign."""
    both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    out = np.zeros(len(low), np.uint32)
    for place in range(4):
        nibble = ((choice >> (4 * place)) & 15).astype(np.uint64)
        byte = ((both >> ((nibble & np.uint64(7)) * np.uint64(8))) & np.uint64(255)).astype(np.uint32)
        out |= np.where(nibble >= 8, (byte >> 7) * 255, byte).astype(np.uint32) << (8 * place)
    return out


def selected(a: Array, b: Array, first: Array) -> Array:
    return np.where(first, a, b)


def differ(a: Array, b: Array) -> Array:
    """setp.ne: neither of them is NaN."""
    return (a < b) | (a > b)


def popcount(a: Array) -> Array:
    return np.asarray(np.unpackbits(a.view(np.uint8).reshape(-1, 4), axis=1).sum(1))


def added_halves(a: Array, b: Array) -> Array:
    return np.asarray(a.view(np.int16) + b.view(np.int16)).view(np.uint32)


def _operations() -> dict[str, Operation]:
    table: dict[str, Operation] = {}

    def add(name: str, compute: Callable[..., Array], result: str, *sources: str, error: float = 0.0) -> None:
        table[name] = Operation(compute, result, sources, error)

    compared: dict[str, Callable[..., Array]] = {"eq": np.equal, "ne": np.not_equal, "lt": np.less}
    compared |= {"le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    whole = [f"{sign}{bits}" for sign in "su" for bits in (16, 32, 64)]
    logic: dict[str, Callable[..., Array]] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    sums: dict[str, Callable[..., Array]] = {"add": np.add, "sub": np.subtract}
    whole_numbers: dict[str, Callable[..., Array]] = {
        **sums,
        "mul.lo": np.multiply,
        "min": np.minimum,
        "max": np.maximum,
    }
    floats: dict[str, Callable[..., Array]] = {**sums, "mul": np.multiply, "min": np.fmin, "max": np.fmax}
    for kind in whole:
        for word, function in whole_numbers.items():
            add(f"{word}.{kind}", function, kind, kind, kind)
        add(f"div.{kind}", quotient, kind, kind, kind)
        add(f"mad.lo.{kind}", lambda a, b, c: a * b + c, kind, kind, kind, kind)
        add(f"shr.{kind}", shifted_right, kind, kind, "u32")
        for word, function in compared.items():
            add(f"setp.{word}.{kind}", function, "pred", kind, kind)
        for to in (*whole, "rn.f32", "rn.f64"):
            add(f"cvt.{to}.{kind}", same, to.removeprefix("rn."), kind)
    for kind in ("s32", "u32"):
        wide = f"{kind[0]}64"
        add(f"mul.wide.{kind}", lambda a, b, to=NUMPY[wide]: a.astype(to) * b, wide, kind, kind)
        add(f"mad.wide.{kind}", lambda a, b, c: a.astype(c.dtype) * b + c, wide, kind, kind, wide)
        add(f"bfe.{kind}", field, kind, kind, "u32", "u32")
    for kind in ("b16", "b32", "b64", "pred"):
        for word, function in logic.items():
            add(f"{word}.{kind}", function, kind, kind, kind)
        add(f"not.{kind}", np.invert, kind, kind)
    for kind in ("b16", "b32", "b64"):
        add(f"shl.{kind}", shifted_left, kind, kind, "u32")
        add(f"setp.eq.{kind}", np.equal, "pred", kind, kind)
        add(f"setp.ne.{kind}", np.not_equal, "pred", kind, kind)
    for kind in (*NUMPY, "bf16"):
        add(f"mov.{kind}", same, kind, kind)
        add(f"selp.{kind}", selected, kind, kind, kind, "pred")
    for kind in ("f16", "bf16", "f32", "f64"):  # a comparison with NaN is false, with u true
        for word, function in {**compared, "ne": differ}.items():
            add(f"setp.{word}.{kind}", function, "pred", kind, kind)
            add(f"setp.{word}u.{kind}", lambda a, b, f=function: f(a, b) | (a != a) | (b != b), "pred", kind, kind)
    for kind in ("f32", "f64"):
        for word, function in floats.items():
            add(f"{word}.{kind}", function, kind, kind, kind)
    for kind in ("s16", "s32", "s64", "f32", "f64"):
        add(f"neg.{kind}", np.negative, kind, kind)
    add("div.rn.f64", np.divide, "f64", "f64", "f64")
    add("fma.rn.f32", fma, "f32", "f32", "f32", "f32")
    add("fma.rn.ftz.f32", flushed(fma), "f32", "f32", "f32", "f32")
    conversions = ("f32.f16", "f32.bf16", "f64.f32", "rn.f16.f32", "rn.bf16.f32", "rn.f32.f64")
    for to, kind in (name.rsplit(".", 1) for name in conversions):
        add(f"cvt.{to}.{kind}", same, to.removeprefix("rn."), kind)
    for kind in ("f16", "bf16"):
        add(f"cvt.rn.{kind}x2.f32", lambda a, b, k=kind: packed(encoded(b, k), encoded(a, k)), "b32", "f32", "f32")
    add("add.s16x2", added_halves, "b32", "b32", "b32")
    add("prmt.b32", chosen_bytes, "b32", "b32", "b32", "b32")
    add("popc.b32", popcount, "u32", "b32")
    approximate: list[tuple[str, Callable[..., Array], float, int]] = [
        ("ex2.approx", np.exp2, 2.0**-22, 1),
        ("rcp.approx", np.reciprocal, 2.0**-23, 1),
        ("sqrt.approx", np.sqrt, 2.0**-23, 1),
        ("div.full", np.divide, 2.0**-22, 2),
    ]
    for word, function, error, count in approximate:
        add(f"{word}.f32", function, "f32", *["f32"] * count, error=error)
        add(f"{word}.ftz.f32", flushed(function), "f32", *["f32"] * count, error=error)
    return table


OPERATIONS = _operations()
