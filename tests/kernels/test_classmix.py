from __future__ import annotations

import itertools
import math

import pytest
import torch
from bodies import run_with
from hypothesis import given, settings
from hypothesis import strategies as st

from iidm.kernels.classmix import Mix, classmix, draw_classes
from iidm.kernels.jitter import draw_jitter, jitter, normalize

pytestmark = run_with("reference", "fused", "emulated")

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def random_label(batch: int, height: int, width: int, classes: int) -> torch.Tensor:
    label = torch.randint(0, classes, (batch, height, width), dtype=torch.uint8)
    return label.masked_fill(torch.rand(label.shape) < 0.2, 255)


def expected_classes(label: torch.Tensor, keys: torch.Tensor, rounding: str, ignored: bool) -> set[int]:
    present = sorted(set(label.flatten().tolist()) - (set() if ignored else {255}))
    half = len(present) / 2
    count = math.ceil(half) if rounding == "ceil" else max(math.floor(half), min(1, len(present)))
    return set(sorted(present, key=lambda c: float(keys[c]))[:count])


def as_sets(selected: torch.Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in selected]


@pytest.mark.parametrize("rounding", ["ceil", "floor"])
@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("classes", [1, 2, 7, 19, 255])
def test_half_of_the_present_classes_with_the_smallest_keys_are_drawn(
    rounding: str, ignored: bool, classes: int
) -> None:
    label, keys = random_label(3, 9, 63, classes), torch.rand(3, 256)
    selected = draw_classes(label, keys, rounding=rounding, include_ignored=ignored)
    expected = [expected_classes(label[b], keys[b], rounding, ignored) for b in range(3)]
    assert as_sets(selected) == expected
    of_batch = draw_classes(label, keys, rounding=rounding, include_ignored=ignored, from_batch=True)
    assert as_sets(of_batch) == [expected_classes(label, keys[b], rounding, ignored) for b in range(3)]


def test_an_image_without_a_class_selects_nothing() -> None:
    label = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    for rounding in ("ceil", "floor"):
        assert not draw_classes(label, torch.rand(2, 256), rounding=rounding).any()
    assert as_sets(draw_classes(label, torch.rand(2, 256), include_ignored=True)) == [{255}, {255}]


def test_equal_keys_draw_the_lower_classes() -> None:
    label = torch.tensor([[[9, 3, 5, 200]]], dtype=torch.uint8)
    assert as_sets(draw_classes(label, torch.zeros(1, 256))) == [{3, 5}]


def test_every_half_is_drawn_equally_often() -> None:
    draws = 6000
    label = torch.tensor([0, 4, 7, 18], dtype=torch.uint8).expand(draws, 1, 4)
    keys = torch.rand((draws, 256), generator=torch.Generator(torch.get_default_device()).manual_seed(11))
    chosen = draw_classes(label, keys)[:, [0, 4, 7, 18]]
    subsets = list(itertools.combinations(range(4), 2))
    counts = [int((chosen[:, list(s)].all(1) & (chosen.sum(1) == 2)).sum()) for s in subsets]
    assert sum(counts) == draws
    # Chi-square, 5 degrees of freedom: 20.5 is exceeded once in a thousand.
    assert sum((c - draws / 6) ** 2 / (draws / 6) for c in counts) < 20.5


@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 6),
    margins=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    pasted_weight=st.sampled_from([None, 1.0, 0.25]),
    per_pixel=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25)
def test_every_pixel_comes_from_its_own_image(
    batch: int,
    height: int,
    width: int,
    margins: tuple[int, int],
    pasted_weight: float | None,
    per_pixel: bool,
    seed: int,
) -> None:
    g = torch.Generator(torch.get_default_device()).manual_seed(seed)
    size = (batch, height, width)
    image, base_image = (torch.randint(0, 256, (*size, 3), generator=g, dtype=torch.uint8) for _ in range(2))
    label, base_label = (torch.randint(250, 256, size, generator=g, dtype=torch.uint8) for _ in range(2))
    base_weight = torch.rand(size if per_pixel else batch, generator=g)
    selected = torch.rand((batch, 256), generator=g) < 0.5
    mixed, mixed_label, weight = classmix(
        image, label, base_image, base_label, base_weight, selected, None, pasted_weight=pasted_weight,
        mean=MEAN, std=STD, margins=margins,
    )  # fmt: skip
    for b, y, x in itertools.product(range(batch), range(height), range(width)):
        pasted = bool(selected[b, int(label[b, y, x])])
        pixel = (image if pasted else base_image)[b, y, x]
        for c in range(3):
            assert float(mixed[b, c, y, x]) == pytest.approx((float(pixel[c]) - MEAN[c]) / STD[c], abs=1e-5)
        assert mixed_label[b, y, x] == (label if pasted else base_label)[b, y, x]
        base = float(base_weight[b, y, x] if per_pixel else base_weight[b])
        if pasted:
            assert float(weight[b, y, x]) == (base if pasted_weight is None else pasted_weight)
        else:
            assert float(weight[b, y, x]) == (base if margins[0] <= y < height - margins[1] else 0.0)


def inputs(batch: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    images = (torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8) for _ in range(2))
    image, base_image = images
    return (
        image,
        random_label(batch, height, width, 5),
        base_image,
        random_label(batch, height, width, 5),
        torch.rand(batch),
        torch.rand(batch, 256) < 0.5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_jitter_applies_to_the_mixed_image(dtype: torch.dtype) -> None:
    image, label, base_image, base_label, quality, selected = inputs(3, 8, 63)
    params = draw_jitter(3, 0.5, 1.0, False, None, torch.get_default_device())
    mixed, _, _ = classmix(
        image, label, base_image, base_label, quality, selected, params,
        pasted_weight=None, mean=MEAN, std=STD, dtype=dtype,
    )  # fmt: skip
    pasted = torch.stack([selected[b][label[b].long()] for b in range(3)])
    by_hand = torch.where(pasted[..., None], image, base_image)
    assert torch.equal(mixed, jitter(by_hand, params, mean=MEAN, std=STD, dtype=dtype))
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_the_result_is_written_into_slices_of_a_batch() -> None:
    arguments = inputs(2, 6, 7)
    settings_ = {"pasted_weight": None, "mean": MEAN, "std": STD}
    images = torch.full((6, 3, 6, 7), torch.nan).contiguous(memory_format=torch.channels_last)
    labels, weights = torch.full((6, 6, 7), 77, dtype=torch.uint8), torch.full((6, 6, 7), torch.nan)
    out = Mix(images[2:4], labels[2:4], weights[2:4])
    assert classmix(*arguments, None, **settings_, out=out) is out
    expected = classmix(*arguments, None, **settings_)
    assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))
    for whole in (images, weights):
        assert whole[:2].isnan().all() and whole[4:].isnan().all() and not whole[2:4].isnan().any()
    assert (labels[:2] == 77).all() and (labels[4:] == 77).all()
    with pytest.raises(ValueError, match="out.image must be dense in channels-last memory"):
        classmix(*arguments, None, **settings_, out=out._replace(image=torch.zeros(2, 3, 6, 7)))


def test_nothing_selected_leaves_the_base_and_everything_selected_the_labeled_image() -> None:
    image, label, base_image, base_label, quality, selected = inputs(2, 6, 5)
    for everything, expected, expected_label in ((False, base_image, base_label), (True, image, label)):
        choice = torch.full_like(selected, everything)
        mixed, mixed_label, weight = classmix(
            image, label, base_image, base_label, quality, choice, None, pasted_weight=1.0, mean=MEAN, std=STD
        )
        assert torch.equal(mixed, normalize(expected, mean=MEAN, std=STD))
        assert torch.equal(mixed_label, expected_label)
        assert torch.equal(weight, torch.ones(2, 6, 5) if everything else quality.view(2, 1, 1).expand(2, 6, 5))
        assert mixed_label.data_ptr() not in (label.data_ptr(), base_label.data_ptr())


def test_views_with_strides_give_the_same_as_dense_inputs() -> None:
    dense = inputs(2, 10, 12)
    views = tuple(t[:, 1::2].flip(2) if t.dim() > 2 else t for t in dense)
    settings_ = {"pasted_weight": None, "mean": MEAN, "std": STD}
    from_views = classmix(*views, None, **settings_)
    from_dense = classmix(*(v.contiguous() for v in views), None, **settings_)
    assert all(torch.equal(a, b) for a, b in zip(from_views, from_dense, strict=True))
    keys = torch.rand(2, 256)
    assert torch.equal(draw_classes(views[1], keys), draw_classes(views[1].contiguous(), keys))


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, torch.zeros(2, 3, 4, 5, dtype=torch.uint8), ValueError, r"image must have the shape \[2,4,5,3\]"),
        (1, torch.zeros(2, 4, 5, dtype=torch.int64), TypeError, "label must be uint8, not int64"),
        (3, torch.zeros(2, 4, 4, dtype=torch.uint8), ValueError, r"base_label must have the shape \[2,4,5\]"),
        (4, torch.zeros(3), ValueError, r"base_weight \(\[B\] or \[B,H,W\]\) must have the shape \[2\]"),
        (5, torch.zeros(2, 19, dtype=torch.bool), ValueError, r"selected must have the shape \[2,256\]"),
        (
            5,
            torch.zeros(2, 256, dtype=torch.bool, device="meta"),
            ValueError,
            "selected lies on meta, label on (cpu|cuda)",
        ),
    ],
)
def test_wrong_arguments_are_named(position: int, value: torch.Tensor, error: type[Exception], message: str) -> None:
    arguments = list(inputs(2, 4, 5))
    arguments[position] = value
    with pytest.raises(error, match=message):
        classmix(*arguments, None, pasted_weight=None, mean=MEAN, std=STD)


def test_wrong_settings_are_named() -> None:
    arguments = inputs(2, 4, 5)
    with pytest.raises(ValueError, match="Margins must be >= 0"):
        classmix(*arguments, None, pasted_weight=None, mean=MEAN, std=STD, margins=(-1, 0))
    with pytest.raises(ValueError, match="rounding must be one of ceil, floor, not 'up'"):
        draw_classes(arguments[1], torch.rand(2, 256), rounding="up")
    with pytest.raises(TypeError, match="dtype must be float32"):
        classmix(*arguments, None, pasted_weight=None, mean=MEAN, std=STD, dtype=torch.float64)


def test_opcheck() -> None:
    arguments = inputs(2, 4, 5)
    torch.library.opcheck(torch.ops.iidm.draw_classes.default, (arguments[1], torch.rand(2, 256), True, "ceil", False))
    out = classmix(*arguments, None, pasted_weight=0.5, mean=MEAN, std=STD, dtype=torch.bfloat16)
    for params in ([], list(draw_jitter(2, 0.2, 1.0, False, None, torch.get_default_device()))):
        settings_ = (0.5, list(MEAN), list(STD), [1, 0])
        torch.library.opcheck(torch.ops.iidm.classmix.default, (*arguments, params, *settings_, *out))


def test_it_compiles_as_one_graph() -> None:
    arguments = inputs(2, 4, 5)
    keys, params = torch.rand(2, 256), draw_jitter(2, 0.2, 1.0, False, None, torch.get_default_device())

    def mix(*tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        selected = draw_classes(tensors[1], keys)
        return classmix(*tensors[:5], selected, params, pasted_weight=None, mean=MEAN, std=STD)

    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(*arguments), mix(*arguments), strict=True))
