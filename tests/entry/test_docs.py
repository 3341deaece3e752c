"""docs/own-data.md and docs/label-next.md as a new user follows them: their commands, as written, on a folder of
photographs and a COCO export."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import CLASSES, draw

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, NEXT_PAGE = DOCS / "own-data.md", DOCS / "label-next.md"
SMALL = {
    "train": "--model.weights none --data.crop-size 48 64 --max-steps 2 --eval.statistics-crops 8",
    "train --resume": "--max-steps 3",
    "study": "--model.weights none --data.crop-size 48 64 --eval.statistics-crops 8",
}
"""What makes the page's runs short; everything else is as it stands there."""


def commands() -> list[str]:
    """The five lines below the page's first heading."""
    section = PAGE.read_text().split("## From a folder to a trained network")[1].split("\n\n1. ")[0]
    return re.findall(r"^    (iidm .*)$", section, re.M)


def write_photographs(root: Path) -> None:
    """photos/ with 12 images, export/annotations.json with polygons of 8 of them, one class of which is rare."""
    images, annotations = [], []
    (root / "photos").mkdir()
    (root / "export").mkdir()
    for i in range(12):
        image, label = draw(i)
        Image.fromarray(image).save(root / "photos" / f"IMG_{i:04}.JPG", "JPEG", quality=95)
        if i >= 8:
            continue
        images.append({"id": i, "file_name": f"IMG_{i:04}.JPG", "height": image.shape[0], "width": image.shape[1]})
        for number in range(len(CLASSES)):
            rows, columns = np.nonzero(label == number)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            left, top, right, bottom = map(int, box)
            polygon = [left, top, right, top, right, bottom, left, bottom]
            annotations.append({"image_id": i, "category_id": number + 1, "segmentation": [polygon], "iscrowd": 0})
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(CLASSES)]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (root / "export" / "annotations.json").write_text(json.dumps(table))


def run(command: str, folder: Path) -> str:
    """A line of the page in `folder`; returns what it printed."""
    words = shlex.split(command)[1:]
    kind = "train --resume" if "--resume" in words else words[0]
    if "--max-steps" in words and kind in SMALL:
        words = words[: words.index("--max-steps")]
    process = subprocess.run(
        [sys.executable, "-m", "iidm", *words, *SMALL.get(kind, "").split()],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert process.returncode == 0, (command, process.stderr)
    assert "Traceback" not in process.stderr
    return process.stdout + process.stderr


@pytest.mark.slow
def test_the_five_commands_lead_from_photographs_to_a_network(tmp_path: Path) -> None:
    write_photographs(tmp_path)
    lines = commands()
    assert [line.split()[1] for line in lines] == ["inspect", "train", "evaluate", "predict", "train"]
    said = [run(line, tmp_path) for line in lines]
    assert "12" in said[0] and "8 of 12" in said[0]
    assert (tmp_path / "camera.toml").is_file() and (tmp_path / "camera.png").is_file()
    assert "labeled target: 3 images" in said[1] and "unlabeled target: 4 images" in said[1]
    assert "validation: 5 images" in said[1] and "mIoU" in said[1]
    assert "mIoU" in said[2]
    assert len(list((tmp_path / "results").glob("*.ids.png"))) == 12
    assert "3 steps in place of 2" in said[4] and "mIoU" in said[4]
    say_what_to_label_next(tmp_path)


def say_what_to_label_next(folder: Path) -> None:
    """The commands of the other page, on the run that is there."""
    select, train, study = re.findall(r"^    (iidm .*)$", NEXT_PAGE.read_text().split("## Which images")[0], re.M)
    said = run(select, folder)
    assert "1. Label them" in said and "annotations.json as COCO" in said
    assert train in said
    new = (folder / "runs/first/label-next/new.txt").read_text().split()
    assert len(new) == 3 and len(list((folder / "runs/first/label-next/images").iterdir())) == 3
    label(folder, new)
    said = run(train, folder)
    assert "labeled target: 6 images" in said and "validation: 5 images" in said
    said = run(study.replace(" -- ", " --budgets 1 2 --seeds 1 --steps 2 -- "), folder)
    assert "With 2 labels the student's mIoU is" in said


def label(folder: Path, names: list[str]) -> None:
    """Do as the user does: correct the teacher's labels (here: not at all) and add them to the export."""
    export = folder / "export" / "annotations.json"
    whole = json.loads(export.read_text())
    new = json.loads((folder / "runs/first/label-next/annotations/annotations.json").read_text())
    assert sorted(Path(image["file_name"]).stem for image in new["images"]) == sorted(names)
    whole["images"] += [{**image, "id": 100 + image["id"]} for image in new["images"]]
    whole["annotations"] += [{**own, "image_id": 100 + own["image_id"]} for own in new["annotations"]]
    ids = {own["id"]: own["name"] for own in new["categories"]}
    known = {own["name"]: own["id"] for own in whole["categories"]}
    for own in whole["annotations"][-len(new["annotations"]) :]:
        own["category_id"] = known[ids[own["category_id"]]]
    export.write_text(json.dumps(whole))
