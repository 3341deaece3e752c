"""StreetScenes: the same bytes everywhere, and realistic frequencies."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from iidm.data.scenes import DOMAINS, draw_scene
from iidm.types import IGNORE_INDEX, UserError

SIZE = (96, 192)
RARE = {"truck": 14, "bus": 15, "train": 16, "motorcycle": 17, "rider": 12, "bicycle": 18}


def digest(domain: str, index: int) -> str:
    image, label = draw_scene(domain, 7, index, SIZE)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


def test_a_scene_is_the_same_in_another_process_and_order() -> None:
    here = {(domain, index): digest(domain, index) for domain in DOMAINS for index in range(3)}
    program = (
        "import hashlib\nfrom iidm.data.scenes import draw_scene\n"
        "for domain in ('camera', 'rendered'):\n    for index in (2, 0, 1):\n"
        "        image, label = draw_scene(domain, 7, index, (96, 192))\n"
        "        print(domain, index, hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    there = {(line.split()[0], int(line.split()[1])): line.split()[2] for line in out.splitlines()}
    assert there == here


def test_seed_index_and_domain_each_give_another_scene() -> None:
    scenes = {digest("rendered", 0), digest("rendered", 1), digest("camera", 0)}
    scenes.add(hashlib.sha256(b"".join(a.tobytes() for a in draw_scene("rendered", 8, 0, SIZE))).hexdigest())
    assert len(scenes) == 4


@pytest.mark.parametrize("size", [(64, 128), (101, 203), (256, 512)])
@pytest.mark.parametrize("domain", DOMAINS)
def test_images_and_labels_have_the_size_and_the_ids_that_were_asked_for(domain: str, size: tuple[int, int]) -> None:
    image, label = draw_scene(domain, 0, 0, size)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (label.shape, label.dtype) == (size, np.uint8)
    assert set(np.unique(label)) <= {*range(19), IGNORE_INDEX}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_class_occurs_and_the_rare_ones_are_rare(domain: str) -> None:
    counts, images, seen = np.zeros(256, np.int64), 60, np.zeros(256, np.int64)
    for index in range(images):
        count = np.bincount(draw_scene(domain, 0, index, SIZE)[1].ravel(), minlength=256)
        counts += count
        seen += count > 20
    share = counts[:19] / counts[:19].sum()
    assert (seen[:19] >= 3).all(), "each class stands in several of 60 images"
    assert share.argmax() == 0 and 0.25 < share[0] < 0.5, "road is the largest"
    assert 0.1 < share[2] < 0.4 and 0.04 < share[8] < 0.25, "buildings and vegetation come next"
    for name, class_id in RARE.items():
        assert share[class_id] < 0.03, name
        assert seen[class_id] <= images // 2, name


def test_the_domains_look_different() -> None:
    means = {d: np.mean([draw_scene(d, 0, i, SIZE)[0].mean(axis=(0, 1)) for i in range(12)], axis=0) for d in DOMAINS}
    spread = {d: np.mean([draw_scene(d, 0, i, SIZE)[0].std() for i in range(12)]) for d in DOMAINS}
    assert (means["rendered"] - means["camera"] > 10).any()
    assert spread["rendered"] > spread["camera"] + 5, "the camera has less contrast"


@pytest.mark.parametrize(
    ("domain", "size", "word"), [("real", (64, 128), "rendered and camera"), ("camera", (8, 8), "64x128")]
)
def test_a_wrong_request_is_named(domain: str, size: tuple[int, int], word: str) -> None:
    with pytest.raises(UserError, match=word):
        draw_scene(domain, 0, 0, size)
