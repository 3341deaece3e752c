"""docs/own-data.md and docs/label-next.md as a new user follows them: their commands, as written, on a folder of
photographs and a COCO export. In this process: importing iidm for each is slow."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import CLASSES, call, draw

import iidm.select
import iidm.study
import iidm.train
from iidm.command import COMMANDS

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


def run(command: str) -> str:
    """A line of the page in this folder and this process; returns what it printed."""
    words = shlex.split(command)[1:]
    kind = "train --resume" if "--resume" in words else words[0]
    if "--max-steps" in words and kind in SMALL:
        words = words[: words.index("--max-steps")]
    said = call(import_module(COMMANDS[words[0]]).main, [*words[1:], *SMALL.get(kind, "").split()])
    return said.out + said.err


@pytest.mark.slow
def test_the_commands_lead_from_photographs_to_a_network_and_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path)
    lines = commands()
    assert [line.split()[1] for line in lines] == ["inspect", "train", "evaluate", "predict", "train"]
    monkeypatch.chdir(tmp_path)
    said = [run(line) for line in lines]
    assert "12" in said[0] and "8 of 12" in said[0]
    assert (tmp_path / "camera.toml").is_file() and (tmp_path / "camera.png").is_file()
    assert "labeled target: 3 images" in said[1] and "unlabeled target: 4 images" in said[1]
    assert "validation: 5 images" in said[1] and "mIoU" in said[1]
    assert "mIoU" in said[2]
    assert len(list((tmp_path / "results").glob("*.ids.png"))) == 12
    assert "3 steps in place of 2" in said[4] and "mIoU" in said[4]
    say_what_to_label_next()


def say_what_to_label_next() -> None:
    """The commands of the other page on the run that is there."""
    select, train, study = re.findall(r"^    iidm (.*)$", NEXT_PAGE.read_text().split("## Which images")[0], re.M)
    said = call(iidm.select.main, shlex.split(select)[1:])
    assert "1. Label them" in said.out and "annotations.json as COCO" in said.out
    assert train in said.out
    new = Path("runs/first/label-next/new.txt").read_text().split()
    assert len(new) == 3 and len(list(Path("runs/first/label-next/images").iterdir())) == 3
    label(new)
    said = call(iidm.train.main, [*shlex.split(train)[1:], "--max-steps", "1", "--run-dir", "runs/next"])
    assert "start: the teacher of runs/first" in said.out + said.err
    assert set(new) < set(Path("runs/next/splits/labeled.txt").read_text().split())
    assert Path("runs/next/splits/val.txt").read_text() == Path("runs/first/splits/val.txt").read_text()
    words = shlex.split(study.replace(" -- ", " --budgets 1 2 --seeds 1 --steps 2 --jobs 2 -- "))
    said = call(iidm.study.main, [*words[1:], *SMALL["study"].split()])
    assert "With 2 labels the student's mIoU is" in said.out
    assert "cannot be told: that takes 4 different numbers of labels, and 2 are done." in said.out
    report = Path("runs/budget/budget.md").read_text()
    assert "How many labels are needed" in report and "![budget-labels](budget-labels.png)" in report
    assert Path("runs/budget/budget-labels.png").is_file()
    validated = Path("runs/budget/val.txt").read_text().splitlines()
    records = [json.loads(line) for line in Path("runs/budget/runs.jsonl").read_text().splitlines()]
    assert len(validated) == 2 and [record["images"] for record in records] == [2, 2]


def label(names: list[str]) -> None:
    """Do as the user does: correct the teacher's labels (here: not at all) and add them to the export. Background needs
    no outline."""
    export = Path("export/annotations.json")
    whole = json.loads(export.read_text())
    new = json.loads(Path("runs/first/label-next/annotations/annotations.json").read_text())
    assert sorted(Path(image["file_name"]).stem for image in new["images"]) == sorted(names)
    whole["images"] += [{**image, "id": 100 + image["id"]} for image in new["images"]]
    known = {own["name"]: own["id"] for own in whole["categories"]}
    ids = {own["id"]: known.get(own["name"]) for own in new["categories"]}
    own = [{**a, "image_id": 100 + a["image_id"], "category_id": ids[a["category_id"]]} for a in new["annotations"]]
    whole["annotations"] += [annotation for annotation in own if annotation["category_id"] is not None]
    export.write_text(json.dumps(whole))
