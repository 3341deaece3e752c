"""StreetScenes: the same bytes everywhere, all classes in both domains in realistic shares."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from iidm.data.scenes import DOMAINS, VAL_START, draw_scene
from iidm.data.specs.classes import CITYSCAPES
from iidm.data.specs.known import SCENES_COUNTS, SCENES_SEED
from iidm.types import IGNORE_INDEX, UserError

SIZE = (64, 128)
RARE = ("traffic light", "rider", "truck", "bus", "train", "motorcycle", "bicycle")


def _digest(domain: str, seed: int, index: int) -> str:
    image, label = draw_scene(domain, seed, index, SIZE)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    """Labels [N,H,W] of 90 scenes of each domain, small."""
    return {d: np.stack([draw_scene(d, SCENES_SEED, i, (128, 256))[1] for i in range(90)]) for d in DOMAINS}


def test_another_process_and_another_order_draw_the_same_bytes() -> None:
    asked = [(d, seed, index) for d in DOMAINS for seed in (0, 7) for index in (0, 3, VAL_START)]
    here = [_digest(*a) for a in asked]
    code = (
        "import hashlib, json, sys; from iidm.data.scenes import draw_scene\n"
        "for a in json.loads(sys.argv[1]):\n"
        f"    image, label = draw_scene(*a, {SIZE})\n"
        "    print(hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, json.dumps(asked[::-1])]
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert there[::-1] == here
    assert len(set(here)) == len(here)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [(64, 128), (97, 131), (256, 512)])
def test_pictures_have_the_size_that_was_asked_for(domain: str, size: tuple[int, int]) -> None:
    image, label = draw_scene(domain, 1, 2, size)
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (*size, 3) and label.shape == size
    assert image.flags.writeable and label.flags.writeable
    assert len(np.unique(image)) > 30


def test_labels_are_train_ids_and_only_the_camera_has_ignored_pixels(labels: dict[str, np.ndarray]) -> None:
    assert set(np.unique(labels["rendered"])) == set(range(19))
    assert set(np.unique(labels["camera"])) == {*range(19), IGNORE_INDEX}
    assert (labels["camera"] == IGNORE_INDEX).mean() < 0.05


@pytest.mark.parametrize("domain", DOMAINS)
def test_common_classes_are_common_and_rare_ones_rare_but_not_specks(
    domain: str, labels: dict[str, np.ndarray]
) -> None:
    found = labels[domain]
    per_image = np.stack([np.bincount(label.ravel(), minlength=256)[:19] for label in found]) / found[0].size
    share = dict(zip(CITYSCAPES.names, per_image.mean(axis=0), strict=True))
    assert max(share, key=lambda name: share[name]) == "road" and 0.3 < share["road"] < 0.42
    assert 0.13 < share["building"] < 0.27 and 0.09 < share["vegetation"] < 0.2
    assert 0.04 < share["sky"] < 0.15 and 0.03 < share["car"] < 0.12 and 0.03 < share["sidewalk"] < 0.09
    assert all(share[name] < 0.012 for name in RARE)
    # 1/500 of the picture: 16x16 pixels of 256x512, what rare class sampling can aim at
    large = dict(zip(CITYSCAPES.names, (per_image > 0.002).mean(axis=0), strict=True))
    assert all(large[name] > 0.04 for name in CITYSCAPES.names)


def test_every_class_validates_in_several_images() -> None:
    count = SCENES_COUNTS["camera", "val"]
    found = [np.unique(draw_scene("camera", SCENES_SEED, VAL_START + i, (128, 256))[1]) for i in range(count)]
    images = np.bincount(np.concatenate(found), minlength=256)[:19]
    assert images.min() >= 3, dict(zip(CITYSCAPES.names, images, strict=True))


def test_the_camera_is_noisier_and_less_blue_than_the_rendered_domain() -> None:
    blue, noise = {}, {}
    for domain in DOMAINS:
        images = np.stack([draw_scene(domain, 0, i, SIZE)[0] for i in range(20)]).astype(int)
        blue[domain] = (images[..., 2] - images[..., 0]).mean()
        noise[domain] = np.median(abs(np.diff(images, axis=2)))
    assert blue["rendered"] > blue["camera"] + 10
    assert noise["camera"] > noise["rendered"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("painted", 0, 0, SIZE), "rendered and camera, not 'painted'"),
        (("camera", 0, 0, (32, 128)), "64x128 pixels or more, not 32x128"),
        (("camera", -1, 0, SIZE), "0 or more, not -1 and 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(asked: tuple[str, int, int, tuple[int, int]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        draw_scene(*asked)
