"""StreetScenes' folder is whole or not there, whoever asks for it and whatever goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_of_at_most
from PIL import Image

from iidm.data.scenes import VAL_START, draw_scene, scenes_root, write_scenes
from iidm.data.scenes import files as scenes_files
from iidm.types import UserError

SIZE = (64, 128)
COUNTS = {("rendered", "train"): 3, ("camera", "train"): 2, ("camera", "val"): 2}


def _write(root: Path, **changes: object) -> Path:
    wanted: dict[str, object] = {"seed": 0, "size": SIZE, "counts": COUNTS, "jobs": 1, **changes}
    return write_scenes(root, **wanted)  # type: ignore[arg-type]


def _files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _leftovers(parent: Path) -> list[str]:
    return [p.name for p in parent.iterdir() if p.suffix != ".lock"]


def test_the_folder_holds_what_was_asked_for(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    root = _write(tmp_path / "scenes", progress=lambda done, of: steps.append((done, of)))
    assert steps == [(i, 7) for i in range(1, 8)]
    for (domain, split), count in COUNTS.items():
        for kind in ("images", "labels"):
            names = sorted(p.name for p in (root / domain / kind / split).iterdir())
            assert names == [f"{i:05d}.png" for i in range(count)]
    image, label = draw_scene("camera", 0, VAL_START + 1, SIZE)
    assert np.array_equal(np.asarray(Image.open(root / "camera/images/val/00001.png")), image)
    with Image.open(root / "camera/labels/val/00001.png") as written:
        assert written.mode == "L" and np.array_equal(np.asarray(written), label)
    card = json.loads((root / "streetscenes.json").read_text())
    assert card["counts"] == {"camera/train": 2, "camera/val": 2, "rendered/train": 3}
    assert len(card["sha256"]) == 64 and card["seed"] == 0 and card["size"] == list(SIZE)
    assert _leftovers(tmp_path) == ["scenes"]


def test_training_and_validation_share_no_scene(tmp_path: Path) -> None:
    root = _write(tmp_path / "scenes", counts={("camera", "train"): 6, ("camera", "val"): 6})
    files = _files(root / "camera" / "images")
    assert len(set(files.values())) == len(files) == 12


def test_several_processes_write_the_same_files_as_one(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "one"), _write(tmp_path / "two", jobs=2)
    assert _files(one) == _files(two)


def test_a_finished_folder_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _write(tmp_path / "scenes")
    monkeypatch.setattr(scenes_files, "_write_one", lambda *_: pytest.fail("drawn again"))
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert _write(root) == root
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_folder_that_lost_files_is_written_anew(tmp_path: Path) -> None:
    root = _write(tmp_path / "scenes")
    whole = _files(root)
    (root / "camera/labels/train/00001.png").unlink()
    assert _files(_write(root)) == whole and _leftovers(tmp_path) == ["scenes"]


def test_what_a_killed_process_left_is_removed_where_no_other_can_be_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / ".scenes-k1ll3d" / "camera"
    half.mkdir(parents=True)
    with monkeypatch.context() as no_locks:
        no_locks.setattr(scenes_files, "locked", lambda place: nullcontext(False))
        _write(tmp_path / "scenes")
    assert half.exists()
    shutil.rmtree(tmp_path / "scenes")
    _write(tmp_path / "scenes")
    assert _leftovers(tmp_path) == ["scenes"]


def test_several_askers_at_once_find_one_whole_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from iidm.data.scenes import write_scenes\n"
        f"write_scenes(Path(sys.argv[1]), seed=0, size={SIZE}, counts={COUNTS}, jobs=1)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "scenes")]
    askers = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [asker.wait() for asker in askers] == [0, 0]
    assert _files(tmp_path / "scenes") == _files(_write(tmp_path / "alone"))
    assert sorted(_leftovers(tmp_path)) == ["alone", "scenes"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": (64, 130)}, {"counts": {("camera", "train"): 2}}])
def test_other_scenes_are_not_overwritten(tmp_path: Path, change: dict[str, object]) -> None:
    root = _write(tmp_path / "scenes")
    before = _files(root)
    with pytest.raises(UserError, match="holds something else"):
        _write(root, **change)
    assert _files(root) == before


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="streetscenes.json is missing or differs"):
        _write(tmp_path)
    assert _files(tmp_path) == {"thesis.txt": b"precious"}
    with pytest.raises(UserError, match="holds something else"):
        _write(tmp_path / "thesis.txt")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, jobs: int) -> None:
    with files_of_at_most(1000), pytest.raises(UserError, match="could not be written to .*IIDM_CACHE"):
        _write(tmp_path / "scenes", jobs=jobs)
    assert _leftovers(tmp_path) == []


def test_a_drawing_process_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes_files, "_WORKER", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError, match=r"ended early \(status -9\)"):
        _write(tmp_path / "scenes", jobs=2)
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({("painted", "train"): 1}, "not 'painted'"),
        ({("camera", "test"): 1}, "splits train and val, not 'test'"),
        ({("camera", "train"): -1}, "not -1"),
    ],
)
def test_counts_that_make_no_sense_are_refused(tmp_path: Path, counts: dict[tuple[str, str], int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _write(tmp_path / "scenes", counts=counts)
    assert _leftovers(tmp_path) == []


def test_the_cache_folder_changes_with_everything_that_changes_the_scenes(tmp_path: Path, own_cache: Path) -> None:
    asked = [
        {"seed": 0, "size": SIZE, "counts": COUNTS},
        {"seed": 1, "size": SIZE, "counts": COUNTS},
        {"seed": 0, "size": (64, 130), "counts": COUNTS},
        {"seed": 0, "size": SIZE, "counts": {**COUNTS, ("camera", "val"): 3}},
    ]
    roots = [scenes_root(tmp_path, **a) for a in asked]  # type: ignore[arg-type]
    assert len(set(roots)) == 4 and {r.parent for r in roots} == {tmp_path}
    reordered = dict(reversed(list(COUNTS.items())))
    assert scenes_root(tmp_path, seed=0, size=SIZE, counts=reordered) == roots[0]
    assert scenes_root(None, seed=0, size=SIZE, counts=COUNTS) == own_cache / roots[0].name
