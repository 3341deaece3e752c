"""Scores by hand, and the evaluation of networks whose answers are known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from iidm.data.specs.classes import CITYSCAPES, SYNTHIA16
from iidm.engine.metrics import Scores, evaluate, score_table
from iidm.types import ClassSet, EvalBatch

CLASSES = ClassSet(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
# Rows truth, columns prediction. IoU: road 5/(6+7-5), car 3/(5+4-3), sky 4/(5+5-4).
BY_HAND = torch.tensor([[5, 0, 1], [2, 3, 0], [0, 1, 4]])
IOU = (5 / 8, 3 / 6, 4 / 6)


def test_iou_mean_and_accuracy_are_those_computed_by_hand() -> None:
    scores = Scores(BY_HAND, CLASSES)
    assert scores.iou_per_class == pytest.approx(IOU)
    assert scores.miou == pytest.approx(sum(IOU) / 3)
    assert scores.means == {"all classes": scores.miou}
    assert scores.pixel_accuracy == pytest.approx(12 / 16)
    assert scores.as_json() == {
        "miou": pytest.approx(sum(IOU) / 3),
        "iou": {"road": pytest.approx(IOU[0]), "car": pytest.approx(IOU[1]), "sky": pytest.approx(IOU[2])},
        "absent": [],
        "pixel_accuracy": pytest.approx(0.75),
    }


def test_a_class_without_labels_is_left_out_of_the_mean_and_shown_as_a_dash() -> None:
    # No label holds the car; 2 road pixels are taken for it.
    scores = Scores(torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 1]]), CLASSES)
    assert scores.iou_per_class[0] == pytest.approx(6 / 9)
    assert math.isnan(scores.iou_per_class[1])
    assert scores.miou == pytest.approx((6 / 9 + 1 / 2) / 2)
    assert json.loads(json.dumps(scores.as_json(), allow_nan=False))["iou"]["car"] is None
    row = next(line for line in score_table({"teacher": scores}).splitlines() if line.startswith("car"))
    assert row.split() == ["car", "-"]


def test_classes_without_labels_are_named_below_the_table_and_in_the_json() -> None:
    predicted = Scores(torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 1]]), CLASSES)
    never = Scores(torch.tensor([[8, 0, 0], [0, 0, 0], [1, 0, 1]]), CLASSES)
    for scores in (predicted, never):
        assert scores.as_json()["absent"] == ["car"]
        foot = score_table({"student": scores}).splitlines()[-1]
        assert foot == "- no label here holds car: left out of the mIoU, whether or not it is predicted"
    assert "no label" not in score_table({"student": Scores(BY_HAND, CLASSES)})
    both = Scores(torch.tensor([[8, 0, 0], [0, 0, 0], [0, 0, 0]]), CLASSES)
    assert "holds car, sky: left out of the mIoU, whether or not they are" in score_table({"student": both})


def test_a_class_that_no_mean_is_over_is_not_called_absent() -> None:
    reported = ClassSet(CLASSES.names, CLASSES.palette, (("2 classes", (0, 2)),))
    scores = Scores(torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 1]]), reported)
    assert scores.absent == [] and "no label" not in score_table({"student": scores})


def test_a_labeled_class_that_is_never_found_counts_as_zero() -> None:
    scores = Scores(torch.tensor([[4, 0, 0], [4, 0, 0], [0, 0, 4]]), CLASSES)
    assert scores.iou_per_class == pytest.approx([0.5, 0.0, 1.0])
    assert scores.miou == pytest.approx(0.5)


def test_no_label_at_all_gives_no_score_and_no_error() -> None:
    scores = Scores(torch.zeros(3, 3, dtype=torch.int64), CLASSES)
    assert math.isnan(scores.miou) and math.isnan(scores.pixel_accuracy)
    assert scores.as_json()["miou"] is None and scores.as_json()["pixel_accuracy"] is None
    assert score_table({"student": scores}).count("-\n") >= 3


def test_counts_beyond_float32_lose_no_pixel() -> None:
    big = 2**40
    scores = Scores(torch.tensor([[big, 1, 0], [0, big, 0], [0, 0, big]]), CLASSES)
    assert scores.iou_per_class == [big / (big + 1), big / (big + 1), 1.0]


def test_synthia_reports_13_classes_first_and_16_beside_them() -> None:
    names = CITYSCAPES.names
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    for i, name in enumerate(names):
        # IoU of class i is (i+1)/100: the misses are ignored pixels' class 9 (terrain), which no subset holds.
        if name != "terrain":
            confusion[i, i], confusion[i, 9] = i + 1, 99 - i
    scores = Scores(confusion, SYNTHIA16)
    left_out_of_16 = {"terrain", "truck", "train"}
    left_out_of_13 = left_out_of_16 | {"wall", "fence", "pole"}
    expected = {
        f"{19 - len(out)} classes": sum(i + 1 for i, n in enumerate(names) if n not in out) / (19 - len(out)) / 100
        for out in (left_out_of_13, left_out_of_16)
    }
    assert scores.means == pytest.approx(expected)
    assert list(scores.means) == ["13 classes", "16 classes"]
    assert scores.miou == scores.means["13 classes"]
    assert scores.as_json()["means"] == pytest.approx(expected)
    table = score_table({"teacher": scores})
    assert f"mIoU, 13 classes{100 * scores.miou:10.1f}" in table and "mIoU, 16 classes" in table


def test_the_table_has_a_row_a_class_and_a_column_a_network() -> None:
    perfect = Scores(torch.eye(3, dtype=torch.int64) * 7, CLASSES)
    lines = score_table({"student": Scores(BY_HAND, CLASSES), "teacher": perfect}).splitlines()
    assert [line.split() for line in lines if not line.startswith("-")] == [
        ["class", "student", "teacher"],
        ["road", "62.5", "100.0"],
        ["car", "50.0", "100.0"],
        ["sky", "66.7", "100.0"],
        ["mIoU", "59.7", "100.0"],
        ["pixel", "accuracy", "75.0", "100.0"],
    ]
    assert len({len(line) for line in lines}) == 1


class Fixed(nn.Module):
    """Answers with given logits; holds modules of both modes and notes how it was called."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.norm, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.dropout.eval()
        self.calls: list[tuple[bool, bool, bool]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.calls.append((self.training, self.norm.training, torch.is_inference_mode_enabled()))
        assert image.dtype == torch.float32
        return self.logits


def one_hot(label: list[list[int]]) -> Tensor:
    """Logits [1,3,h,w] whose argmax is the label."""
    return nn.functional.one_hot(torch.tensor(label), 3).permute(2, 0, 1)[None].float() * 9


def normalize(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float()


def scored(networks: dict[str, nn.Module], labels: list[Tensor]) -> dict[str, Scores]:
    batches = [EvalBatch(torch.zeros(1, 4, 8, 3, dtype=torch.uint8), label[None], ("a",)) for label in labels]
    return evaluate(networks, batches, CLASSES, device=torch.device("cpu"), amp_dtype=None, normalize=normalize)


def test_labels_count_at_their_own_size_larger_than_the_image() -> None:
    # 1x2 logits, road then car; the image is 4x8, the label 8x16: the border lies in the middle of the label.
    label = torch.zeros(8, 16, dtype=torch.uint8)
    label[:, 8:] = 1
    label[0] = 255
    label[1, :3] = 2
    found = scored({"net": Fixed(one_hot([[0, 1]]))}, [label])["net"]
    assert found.confusion.tolist() == [[7 * 8 - 3, 0, 0], [0, 7 * 8, 0], [3, 0, 0]]
    assert found.confusion.dtype == torch.int64 and found.classes is CLASSES


def test_networks_are_scored_on_the_same_batches_and_batches_add_up() -> None:
    labels = [torch.zeros(4, 8, dtype=torch.uint8), torch.ones(4, 8, dtype=torch.uint8)]
    found = scored({"road": Fixed(one_hot([[0]])), "car": Fixed(one_hot([[1]]))}, labels)
    assert found["road"].confusion.tolist() == [[32, 0, 0], [32, 0, 0], [0, 0, 0]]
    assert found["car"].confusion.tolist() == [[0, 32, 0], [0, 32, 0], [0, 0, 0]]


@pytest.mark.parametrize("training", (True, False))
def test_the_mode_of_every_module_is_put_back(training: bool) -> None:
    network = Fixed(one_hot([[0, 1]]))
    network.training = network.norm.training = training
    scored({"net": network}, [torch.zeros(4, 8, dtype=torch.uint8)])
    assert network.calls == [(False, False, True)]
    assert [m.training for m in (network, network.norm, network.dropout)] == [training, training, False]


def test_the_modes_are_put_back_after_an_error() -> None:
    network = Fixed(one_hot([[0, 1]]))
    with pytest.raises(ValueError, match="hold no class"):
        scored({"net": network}, [torch.full((4, 8), 7, dtype=torch.uint8)])
    assert network.training and network.norm.training and not network.dropout.training


@pytest.mark.parametrize(("align_corners", "road"), ((False, 2), (True, 3)))
def test_the_corner_convention_is_passed_on(align_corners: bool, road: int) -> None:
    # Road falls from 4 to -1.8 between the two cells, car is 0 in both: road wins up to 0.69 of the way. The four
    # pixels lie at 0, 1/4, 3/4 and 1 of the way; with aligned corners at 0, 1/3, 2/3 and 1.
    logits = torch.tensor([[[[4.0, -1.8]], [[0.0, 0.0]], [[-9.0, -9.0]]]])
    label = torch.zeros(1, 1, 4, dtype=torch.uint8)
    found = evaluate(
        {"net": Fixed(logits)},
        [EvalBatch(torch.zeros(1, 4, 8, 3, dtype=torch.uint8), label, ("a",))],
        CLASSES,
        device=torch.device("cpu"),
        amp_dtype=None,
        normalize=normalize,
        align_corners=align_corners,
    )
    assert found["net"].confusion[0].tolist() == [road, 4 - road, 0]


def test_autocast_is_on_with_a_dtype_alone() -> None:
    seen: list[torch.dtype] = []

    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 1)

        def forward(self, image: Tensor) -> Tensor:
            out: Tensor = self.convolution(image)
            seen.append(out.dtype)
            return out

    batch = EvalBatch(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8), ("a",))
    for dtype in (None, torch.bfloat16):
        network = {"net": Convolution()}
        evaluate(network, [batch], CLASSES, device=torch.device("cpu"), amp_dtype=dtype, normalize=normalize)
    assert seen == [torch.float32, torch.bfloat16]
