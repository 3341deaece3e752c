"""ClassMix: half of the classes of a labeled image, pasted onto an unlabeled one (paper eqs. 1 to 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks as check
from .._dispatch import use_fused
from .._extension import FORMATS, extension, place
from ..jitter import (
    JitterParams,
    addresses,
    check_image_output,
    check_out,
    check_params,
    empty_images,
    scale_and_shift,
)
from . import reference

__all__ = ["JitterParams", "Mix", "classmix", "draw_classes"]


@torch.library.custom_op("iidm::draw_classes", mutates_args=(), device_types=("cpu", "cuda"))
def _draw_classes(label: Tensor, keys: Tensor, from_batch: bool, rounding: str, include_ignored: bool) -> Tensor:
    if not use_fused("classmix", label.device):
        return reference.draw_classes(label, keys, from_batch, rounding, include_ignored)
    assert extension is not None
    batch = label.shape[0]
    label, keys = label.contiguous(), keys.contiguous()
    selected = torch.empty((batch, reference.VALUES), dtype=torch.bool, device=label.device)
    on_gpu = label.device.type == "cuda"
    present = torch.zeros((batch, reference.VALUES // 32), dtype=torch.int32, device=label.device) if on_gpu else None
    extension.draw_classes(
        label.data_ptr(),
        keys.data_ptr(),
        batch,
        label[0].numel(),
        from_batch,
        rounding == "ceil",
        include_ignored,
        selected.data_ptr(),
        0 if present is None else present.data_ptr(),
        *place(label),
    )
    return selected


@_draw_classes.register_fake
def _(label: Tensor, keys: Tensor, from_batch: bool, rounding: str, include_ignored: bool) -> Tensor:
    return label.new_empty((label.shape[0], reference.VALUES), dtype=torch.bool)


def draw_classes(
    label: Tensor,
    keys: Tensor,
    *,
    from_batch: bool = False,
    rounding: str = "ceil",
    include_ignored: bool = False,
) -> Tensor:
    """Choose half of the classes that are present: those with the smallest random keys.

    Ranking keys among the present classes draws without replacement and without asking the host which classes
    there are (the inherited code calls `unique` and synchronises). The same keys always give the same
    classes.

    Args:
        label: uint8 [B,H,W].
        keys: float32 [B,256], independent and uniform (`torch.rand`); must be finite.
        from_batch: each image draws from the classes of the whole batch (DAFormer); otherwise from its own (paper,
            DACS).
        rounding: of half of an odd count: `ceil` (DACS, DAFormer), or `floor`, which takes at least one.
        include_ignored: whether 255 is a class that can be drawn (DACS, DAFormer: yes).

    Returns:
        bool [B,256]: which label values are pasted. An image without a class selects none.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device, an unknown rounding.
    """
    check.tensor("label", label, (torch.uint8,), ("B", "H", "W"))
    check.tensor("keys", keys, (torch.float32,), (label.shape[0], reference.VALUES))
    check.same_device(("label", label), {"keys": keys})
    check.choice("rounding", rounding, ("ceil", "floor"))
    return _draw_classes(label, keys, from_batch, rounding, include_ignored)


@torch.library.custom_op(
    "iidm::classmix", mutates_args=("out_image", "out_label", "out_weight"), device_types=("cpu", "cuda")
)
def _classmix(
    image: Tensor,
    label: Tensor,
    base_image: Tensor,
    base_label: Tensor,
    base_weight: Tensor,
    selected: Tensor,
    params: Sequence[Tensor],
    pasted_weight: float | None,
    mean: Sequence[float],
    std: Sequence[float],
    margins: Sequence[int],
    out_image: Tensor,
    out_label: Tensor,
    out_weight: Tensor,
) -> None:
    if not use_fused("classmix", label.device):
        reference.classmix(
            image,
            label,
            base_image,
            base_label,
            base_weight,
            selected,
            JitterParams(*params) if params else None,
            pasted_weight,
            mean,
            std,
            margins,
            out_image,
            out_label,
            out_weight,
        )
        return
    assert extension is not None
    # Held until the call is over: a dense copy that only its address kept alive would be freed.
    dense = [t.contiguous() for t in (image, label, base_image, base_label, base_weight)]
    selected, params = selected.contiguous(), [p.contiguous() for p in params]
    extension.classmix(
        *(t.data_ptr() for t in dense),
        base_weight.dim() == 3,
        selected.data_ptr(),
        addresses(params),
        pasted_weight is not None,
        pasted_weight or 0.0,
        *scale_and_shift(mean, std),
        *margins,
        tuple(label.shape),
        out_image.data_ptr(),
        out_label.data_ptr(),
        out_weight.data_ptr(),
        FORMATS[out_image.dtype],
        *place(label),
    )


class Mix(NamedTuple):
    """What the student learns from, of one stream."""

    image: Tensor
    """float32, bfloat16 or float16 [B,3,H,W], normalized, in channels-last memory."""
    label: Tensor
    """uint8 [B,H,W]."""
    weight: Tensor
    """float32 [B,H,W]."""


def classmix(
    image: Tensor,
    label: Tensor,
    base_image: Tensor,
    base_label: Tensor,
    base_weight: Tensor,
    selected: Tensor,
    jitter: JitterParams | None,
    *,
    pasted_weight: float | None,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    margins: tuple[int, int] = (0, 0),
    out: Mix | None = None,
) -> Mix:
    """Paste the selected classes of labeled images onto others; jitter and normalize the result.

    One pass reads two uint8 images and two labels and writes what the student eats; the mask never exists.
    Paper eqs. 1 to 4 with M = selected[label]; the strong augmentation's colour part rides along, it is
    pixelwise.

    Args:
        image: uint8 [B,H,W,3] RGB, labeled images.
        label: uint8 [B,H,W], their labels.
        base_image: uint8 [B,H,W,3] RGB, onto which is pasted.
        base_label: uint8 [B,H,W], its (pseudo-)label.
        base_weight: float32 [B] (the quality) or [B,H,W], the loss weight of the base's pixels.
        selected: bool [B,256], which values of `label` are pasted.
        jitter: colour jitter of the mixed image; None: none.
        pasted_weight: loss weight of pasted pixels. None: the base weight at their place, as if there were no
            margins, since the margins distrust pseudo-labels and a pasted pixel has a true label.
        mean: 3 numbers in pixel values 0..255.
        std: 3 numbers in pixel values 0..255.
        dtype: of the mixed image: float32, bfloat16 or float16.
        margins: rows at the top and at the bottom in which base pixels get weight 0.
        out: where the result is written, for example slices of the student's batch along its first dimension; its
            image's dtype counts then. None: new tensors.

    Returns:
        Mix.

    Raises:
        TypeError, ValueError: an argument of another dtype, shape or device, a negative margin.
    """
    _check_inputs(image, label, base_image, base_label, base_weight, selected)
    check_image_output(mean, std, dtype)
    if min(margins) < 0:
        raise ValueError(f"Margins must be >= 0 rows, not {margins[0]} and {margins[1]}.")
    if jitter is not None:
        check_params(jitter, ("label", label))
    if out is None:
        out = _empty_mix(label, dtype)
    _check_mix(out, label)
    params = [] if jitter is None else list(jitter)
    settings = (pasted_weight, list(mean), list(std), list(margins))
    _classmix(image, label, base_image, base_label, base_weight, selected, params, *settings, *out)
    return out


def _check_inputs(
    image: Tensor, label: Tensor, base_image: Tensor, base_label: Tensor, base_weight: Tensor, selected: Tensor
) -> None:
    check.tensor("label", label, (torch.uint8,), ("B", "H", "W"))
    batch, height, width = label.shape
    for name, value in (("image", image), ("base_image", base_image)):
        check.tensor(name, value, (torch.uint8,), (batch, height, width, 3))
    check.tensor("base_label", base_label, (torch.uint8,), (batch, height, width))
    shape = (batch,) if base_weight.dim() == 1 else (batch, height, width)
    check.tensor("base_weight ([B] or [B,H,W])", base_weight, (torch.float32,), shape)
    check.tensor("selected", selected, (torch.bool,), (batch, reference.VALUES))
    base = {"base_image": base_image, "base_label": base_label, "base_weight": base_weight}
    check.same_device(("label", label), {"image": image, **base, "selected": selected})


def _empty_mix(label: Tensor, dtype: torch.dtype) -> Mix:
    batch, height, width = label.shape
    return Mix(
        empty_images(batch, height, width, dtype, label.device),
        torch.empty(label.shape, dtype=torch.uint8, device=label.device),
        torch.empty(label.shape, dtype=torch.float32, device=label.device),
    )


def _check_mix(out: Mix, label: Tensor) -> None:
    batch, height, width = label.shape
    check_out("out.image", out.image, check.FLOATS, (batch, 3, height, width))
    check_out("out.label", out.label, (torch.uint8,), (batch, height, width))
    check_out("out.weight", out.weight, (torch.float32,), (batch, height, width))
    check.same_device(("label", label), {f"out.{n}": getattr(out, n) for n in Mix._fields})
