"""What stands behind an instruction's name in a PTX text: registers, constants, addresses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from ptx_memory import SHARED_BEGIN
from ptx_operations import NUMPY, UnknownPtx

OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]\s]+")
ADDRESS = re.compile(r"\[\s*(%?\w+)\s*(?:\+\s*(-?\d+))?\s*\]")


def unsigned(kind: str) -> np.dtype[Any]:
    """Of the type's width; a predicate has a byte."""
    return np.dtype(f"u{np.dtype(NUMPY[kind]).itemsize}")


def constant(operand: str, kind: str) -> int:
    """The bits of a number in the text, or of the address of shared memory."""
    if operand == "global_smem":
        return SHARED_BEGIN
    if operand[:2] in ("0f", "0d"):
        return int(operand[2:], 16)
    try:
        number = int(operand.removesuffix("U"), 0)
    except ValueError:
        raise UnknownPtx(f"the operand {operand}") from None
    return number != 0 if kind == "pred" else number & int(np.iinfo(unsigned(kind)).max)


def names(operand: str) -> list[str]:
    """The registers of `{%r1,%r2}`, or of `%r1`."""
    return operand.strip("{}").split(",")
