"""The feature distance against a loop, and what DAFormer's recipe sets."""

import copy
from dataclasses import replace

import pytest
import torch
from small_steps import CLASSES, K, batch, config_of, make_step

from iidm.catalog import with_method
from iidm.config import Config
from iidm.method.base import Mixes, Scene
from iidm.method.losses import Output
from iidm.method.published import build_method
from iidm.method.published.daformer import DAFormer
from iidm.models import build_network
from iidm.presets import preset_config
from iidm.recipes import with_values
from iidm.types import LabeledImages, UserError


def given(**data: object) -> Config:
    return with_values(config_of("daformer"), {"model": {"weights": "given"}, "data": data})


def test_the_distance_is_the_mean_over_cells_that_a_thing_rules() -> None:
    student = build_network("resnet18", K, output_stride=8)
    method = build_method(given(), student, CLASSES)
    assert isinstance(method, DAFormer) and method._distance is not None
    assert method._distance.things == [2, 3]  # car, person
    whole = batch()
    assert whole.source is not None
    label = whole.source.label.clone()
    label[0, :8, :8], label[0, :8, 8:16], label[1, 8:16, 8:16] = 2, 3, 3
    label[0, :4, 8:14] = 0  # the second cell is 62 % person
    data = whole._replace(source=LabeledImages(whole.source.image, label))
    scene = Scene(data, None, Mixes(None, ()), student, None, torch.Generator())  # type: ignore[arg-type]
    source = next(b for b in method.branches(scene) if b.name == "source")
    assert source.objective is not None and source.objective_weight == 0.005
    kept = copy.deepcopy(student.backbone).eval()(source.image)[-1]
    features = torch.randn_like(kept)
    expected, count = 0.0, 0
    for b in range(2):
        for y in range(4):
            for x in range(6):
                cell = label[b, y * 8 : y * 8 + 8, x * 8 : x * 8 + 8]
                if any(int((cell == thing).sum()) >= 48 for thing in (2, 3)):
                    expected += float((features[b, :, y, x] - kept[b, :, y, x]).norm())
                    count += 1
    assert 2 < count < 48
    value = source.objective(Output(torch.zeros(2, K, 4, 6), deepest=features))
    assert float(value) == pytest.approx(expected / count, rel=1e-4)


def test_the_imagenet_network_never_moves_and_is_in_no_checkpoint() -> None:
    step = make_step(given())
    method = step.method
    assert isinstance(method, DAFormer) and method._distance is not None
    before = [p.clone() for p in method._distance.imagenet.state_dict().values()]
    for number in range(2):
        step([batch()._replace(target=None)], number)
    assert all(torch.equal(a, b) for a, b in zip(before, method._distance.imagenet.state_dict().values(), strict=True))
    assert "method" not in step.modules


def test_margins_are_shares_of_the_crop_on_cityscapes_and_none_elsewhere() -> None:
    cityscapes = preset_config("gta5-cityscapes-100")
    teacher = with_method(cityscapes, "daformer").teacher
    assert (teacher.ignore_top_px, teacher.ignore_bottom_px, teacher.ema_decay) == (15, 120, 0.999)
    small = with_method(with_values(cityscapes, {"data": {"crop_size": (128, 256)}}), "daformer").teacher
    assert (small.ignore_top_px, small.ignore_bottom_px) == (3, 30)
    own = preset_config("folder", method="daformer").teacher
    assert (own.ignore_top_px, own.ignore_bottom_px, own.ema_decay) == (0, 0, 0.999)


def test_without_pretrained_weights_there_is_nothing_to_stay_near() -> None:
    student = build_network("resnet18", K, output_stride=8)
    none = with_values(given(), {"model": {"weights": "none"}})
    with pytest.raises(UserError, match="--loss.auxiliary-weight 0"):
        build_method(none, student, CLASSES)
    without = replace(none, loss=replace(none.loss, auxiliary_weight=0.0))
    assert build_method(without, student, CLASSES).labels_images
