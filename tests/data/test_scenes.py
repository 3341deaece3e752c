"""StreetScenes: the same bytes everywhere, realistic frequencies, and a cache folder that is whole or not there."""

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iidm.data.scenes import DOMAINS, draw_scene, scenes_root, write_scenes
from iidm.types import IGNORE_INDEX, UserError

SIZE = (96, 192)
FEW = {("rendered", "train"): 3, ("camera", "train"): 2, ("camera", "val"): 2}
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


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_written_scenes_are_the_drawn_ones_and_are_not_written_again(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "scenes", seed=3, size=(64, 128), counts=FEW, jobs=2)
    assert len(list((root / "rendered/images/train").glob("*.png"))) == 3
    image, label = draw_scene("camera", 3, 1, (64, 128))
    assert np.array_equal(np.asarray(Image.open(root / "camera/images/train/00001.png")), image)
    assert np.array_equal(np.asarray(Image.open(root / "camera/labels/train/00001.png")), label)
    train, val = (np.asarray(Image.open(root / f"camera/images/{s}/00000.png")) for s in ("train", "val"))
    assert not np.array_equal(train, val)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write_scenes(root, seed=3, size=(64, 128), counts=FEW)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    again = write_scenes(tmp_path / "again", seed=3, size=(64, 128), counts=FEW, jobs=1)
    assert files_of(again) == files_of(root)


@pytest.mark.parametrize("change", ["other", "seed"])
def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path, change: str) -> None:
    root = tmp_path / "scenes"
    if change == "seed":
        write_scenes(root, seed=3, size=(64, 128), counts={("camera", "val"): 1}, jobs=1)
    else:
        root.mkdir()
        (root / "thesis.txt").write_text("mine")
    before = files_of(root)
    with pytest.raises(UserError, match="something else"):
        write_scenes(root, seed=4, size=(64, 128), counts={("camera", "val"): 1}, jobs=1)
    assert files_of(root) == before


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("iidm.data.scenes._draw_all", full)
    with pytest.raises(UserError, match="IIDM_CACHE"):
        write_scenes(tmp_path / "cache" / "scenes", seed=0, size=(64, 128), counts=FEW)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_folder_that_another_process_wrote_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import iidm.data.scenes as scenes

    root, real = tmp_path / "scenes", scenes._draw_all

    def raced(*args: object) -> None:
        monkeypatch.setattr(scenes, "_draw_all", real)
        write_scenes(root, seed=0, size=(64, 128), counts={("camera", "val"): 1}, jobs=1)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(scenes, "_draw_all", raced)
    write_scenes(root, seed=0, size=(64, 128), counts={("camera", "val"): 1}, jobs=1)
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]
    assert json.loads((root / "streetscenes.json").read_text())["seed"] == 0


def test_the_cache_name_changes_with_all_that_changes_the_scenes(tmp_path: Path) -> None:
    names = {
        scenes_root(tmp_path, seed=0, size=(64, 128), counts=FEW),
        scenes_root(tmp_path, seed=1, size=(64, 128), counts=FEW),
        scenes_root(tmp_path, seed=0, size=(64, 256), counts=FEW),
        scenes_root(tmp_path, seed=0, size=(64, 128), counts={**FEW, ("camera", "val"): 3}),
    }
    assert len(names) == 4


@pytest.mark.parametrize(
    ("domain", "size", "word"), [("real", (64, 128), "rendered and camera"), ("camera", (8, 8), "64x128")]
)
def test_a_wrong_request_is_named(domain: str, size: tuple[int, int], word: str) -> None:
    with pytest.raises(UserError, match=word):
        draw_scene(domain, 0, 0, size)
