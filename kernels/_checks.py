"""Checks of arguments, shared by every op: the message says what is needed, what came, what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

DEBUG = os.environ.get("IIDM_DEBUG", "0") not in ("", "0")
"""Whether values are checked that lie on a GPU, which makes the host wait for it in every call."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def checks_values() -> bool:
    """Whether ops read values of tensors on a GPU, as with IIDM_DEBUG=1 in the environment; no CUDA graph allows it."""
    return DEBUG


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def tensor(name: str, value: object, dtypes: Sequence[torch.dtype], shape: Sequence[int | str]) -> None:
    """Raise unless `value` is a tensor of one of `dtypes` whose shape fits `shape`.

    Args:
        name: the argument's name, for the message.
        value: what came.
        dtypes: the dtypes that are served.
        shape: one entry a dimension: a number that the size must equal, or a letter for any size >= 1.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}.")
    if value.dtype not in dtypes:
        need = " or ".join(_dtype_name(d) for d in dtypes)
        raise TypeError(f"{name} must be {need}, not {_dtype_name(value.dtype)}; convert it with .to(...).")
    fits = value.dim() == len(shape) and all(
        size >= 1 if isinstance(need, str) else size == need for size, need in zip(value.shape, shape, strict=True)
    )
    if not fits:
        letters = ",".join(str(s) for s in shape)
        raise ValueError(f"{name} must have the shape [{letters}] with no empty dimension, not {list(value.shape)}.")


def same_device(reference: tuple[str, Tensor], others: dict[str, Tensor | None]) -> None:
    """Raise ValueError unless every tensor of `others` lies on the device of `reference`; None passes."""
    name, first = reference
    for other, value in others.items():
        if value is not None and value.device != first.device:
            raise ValueError(f"{other} lies on {value.device}, {name} on {first.device}; move one of them.")


def choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}.")


def pixel_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ValueError unless `mean` and `std` are three numbers each in pixel values, std above 0."""
    if len(mean) != 3 or len(std) != 3 or any(s <= 0 for s in std):
        raise ValueError(f"mean and std must be 3 numbers each in pixel values 0..255, std > 0, not {mean} and {std}.")


def class_count(name: str, classes: int) -> None:
    """Raise ValueError unless uint8 labels beside 255 can hold `classes` ids."""
    if classes > 255:
        raise ValueError(f"{name} has {classes} classes; uint8 labels with 255 for ignored pixels hold at most 255.")


def labels_have_classes(label: Tensor, classes: int) -> None:
    """Raise ValueError for a label in `classes`..254, if DEBUG; elsewhere the ops say what they do with one."""
    if not DEBUG:
        return
    wrong = label[(label >= classes) & (label != 255)]
    if wrong.numel():
        raise ValueError(f"label holds {int(wrong[0])}, but the logits have {classes} classes (and 255 is ignored).")
