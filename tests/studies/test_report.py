"""What is written of made-up records, against numbers by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import made_up
import numpy as np
import pytest
from PIL import Image

from iidm.data import target_classes
from iidm.engine.preview import PANEL_WIDTH
from iidm.studies.folder import Record, StudyFolder
from iidm.studies.plan import Plan
from iidm.studies.report import Report
from iidm.studies.results import collect, compare
from iidm.studies.runner import Failure
from iidm.studies.tables import markdown

SCORES = {
    ("source_only", 0): (15.0, 14.0, 16.0),
    ("source_target", 20): (38.0, 39.5, 38.7),
    ("source_target", 40): (41.0, 41.0, 44.0),
    ("iidm", 20): (45.3, 46.3, 47.1),
    ("iidm", 40): (45.0,),
}


class Made:
    """A report on `SCORES` in a folder."""

    def __init__(self, root: Path, seeds: int = 3) -> None:
        self.plan: Plan = made_up.plan(seeds)
        self.folder = StudyFolder(root)
        self.folder.create()
        self.records: dict[str, Record] = made_up.records(self.plan, SCORES)
        self.report = Report(self.plan, self.folder, "python -m iidm.study small.toml --out out")

    @property
    def text(self) -> str:
        return (self.folder.root / "small.md").read_text()

    def rows(self) -> dict[str, list[str]]:
        """The cells of the score table by the name of its row."""
        lines = [line.split(" | ") for line in self.report.table(self.records).splitlines()]
        return {line[1]: [cell.strip(" |") for cell in line[2:]] for line in lines}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    found = Made(tmp_path)
    found.report.write(found.records)
    return found


def test_the_table_has_means_deviations_and_the_published_numbers(made: Made) -> None:
    rows = made.rows()
    assert rows["method"] == ["0 labels", "20 labels", "40 labels", "paper, 0", "paper, 100", "paper, 200"]
    assert rows["L_s"] == ["15.0 ± 1.0 (16.0 ± 1.0)", "-", "-", "37.3", "-", "-"]
    assert rows["both\\*"] == [
        "-",
        "38.7 ± 0.8 (39.7 ± 0.8)",  # 38.733, sqrt(0.5633)
        "42.0 ± 1.7 (43.0 ± 1.7)",
        "-",
        "48.5",
        "-",
    ]
    assert rows["IIDM"][1:3] == ["**46.2 ± 0.9** (47.2 ± 0.9)", "**45.0** (46.0), 1 of 3 seeds"]
    assert rows["twin"][1] == rows["IIDM"][1].replace("**", "")
    assert made.report.table(made.records) in made.text


def test_the_text_says_what_the_numbers_are(made: Made) -> None:
    assert made.text.startswith("# A small table\n\nTwo sentences. Made up.\n")
    for words in (
        "streetscenes-rendered -> streetscenes-camera (preset `scenes`), 10 steps, seeds 0 to 2, 60 validation images",
        "published numbers by labeled images on GTA5 -> Cityscapes, which is not the setting here",
        "Recipe `adapt`, backbone `resnet18`, weights `none`, head `segformer`, statistics `target`.",
        "python -m iidm.study small.toml --out out",
        "- 13 runs, 6 min in all, 2020-02-02: 2 of 2 cores of Abacus; Python 3.11.0, torch 2.10.0; iidm 0.0, commit ab",
        "**Missing: 2 of 15 runs.**",
        "- iidm · 40 labels · seed 1\n- iidm · 40 labels · seed 2",
    ):
        assert words in made.text, words


def test_a_failure_is_told_where_the_run_is_missing(made: Made) -> None:
    (run,) = [r for r in made.plan.runs if (r.config.method, r.labeled, r.config.seed) == ("iidm", 40, 2)]
    made.report.write(made.records, [Failure(run, "Training broke | badly", Path("x.log"))])
    assert "- iidm · 40 labels · seed 2: Training broke \\| badly\n" in made.text


def test_differences_are_told_that_the_seeds_do_not_resolve(made: Made) -> None:
    # 20 labels: 46.23 - 38.73 = 7.5 with a standard error of 0.68 is resolved. 40 labels: IIDM has one seed.
    assert "1 comparison of the student's means, 0 of them not resolved" in made.text
    assert "1 more cannot be judged yet: a row has one seed" in made.text
    pairs = compare(collect(made.plan, made.records), 20)
    assert [(p.first, p.second, p.why) for p in pairs] == [("IIDM", "both*", "best")]  # IIDM and twin are one
    gap = pairs[0].difference
    assert gap is not None
    assert gap.value == pytest.approx(7.5)


def test_close_rows_are_not_resolved(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.records |= made_up.records(made.plan, {("source_target", 20): (45.0, 47.5, 46.0)})
    made.report.write(made.records)
    # 46.233 - 46.167 = 0.067; variances 0.8133 and 1.5833, standard error 0.894, 3.63 degrees of freedom: t = 2.89
    assert "- 20 labels: IIDM over both\\*: +0.1 [-2.5, +2.7]" in made.text


def test_with_one_seed_no_difference_is_judged(tmp_path: Path) -> None:
    made = Made(tmp_path, seeds=1)
    made.report.write(made.records)
    assert "With one seed no difference can be judged" in made.text
    assert "±" not in made.report.table(made.records)
    assert all(p["difference"] is None for p in json.loads((tmp_path / "small.json").read_text())["comparisons"])


def test_nothing_done_is_a_table_without_numbers(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.report.write({})
    assert made.report.draw({}) == []
    assert "| missing |" in made.text
    assert not list(tmp_path.glob("*.png"))


def test_the_csv_has_a_line_a_run_in_per_cent(made: Made) -> None:
    with (made.folder.root / "small.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 + 3 * 2 + 2 * (3 + 1)  # twins have lines of their own
    (line,) = [x for x in lines if (x["row"], x["labeled"], x["seed"]) == ("both*", "20", "1")]
    assert float(line["student_miou"]) == pytest.approx(39.5)
    assert float(line["teacher_miou"]) == pytest.approx(40.5)
    assert float(line["student_iou_sidewalk"]) == pytest.approx(1)
    assert line["student_iou_bicycle"] == ""
    assert line["paper_miou"] == ""
    assert {x["paper_miou"] for x in lines if x["row"] == "L_s"} == {"37.3"}


def test_the_json_has_every_value(made: Made) -> None:
    data = json.loads((made.folder.root / "small.json").read_text())
    assert (data["steps"], data["seeds"], data["budgets"]) == (10, 3, [0, 20, 40])
    (cell,) = [c for c in data["cells"] if (c["row"], c["labeled"]) == ("IIDM", 20)]
    assert cell["student"]["miou"] == pytest.approx([45.3, 46.3, 47.1])
    assert cell["student"]["mean"] == pytest.approx(46.2333, abs=1e-4)
    assert cell["student"]["iou"]["building"] == pytest.approx(2)
    assert cell["student"]["iou"]["bicycle"] is None
    assert len(cell["keys"]) == 3


def test_iou_per_class_stands_in_a_table_for_each_budget(made: Made) -> None:
    heads = [line for line in made.text.splitlines() if line.startswith("| method | road | sidewalk |")]
    assert len(heads) == 3
    assert "| IIDM | 0.0 | 1.0 | 2.0 |" in made.text
    assert made.text.count("| 17.0 | - |") == 1 + 3 + 3


def test_pictures_are_drawn_and_shown(made: Made) -> None:
    classes = target_classes(made.plan.runs[0].config)
    made_up.write_predictions(made.plan, made.folder, ["b", "city/a"], ["L_s", "both*", "IIDM"])
    assert made.report.draw(made.records) == []
    made.report.write(made.records)
    names = ["curves", "classes", "strips-0", "strips-20", "strips-40"]
    for name in names:
        assert f"![small-{name}](small-{name}.png)" in made.text
    with Image.open(made.folder.root / "small-strips-20.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    # Image, truth, L_s of 0 labels, both, IIDM and its twin, which is the same run: 6 panels of each of 2 images.
    area = PANEL_WIDTH * PANEL_WIDTH // 2
    for class_number, count in ((0, 2), (1, 2), (2, 4), (18, 2)):
        found = int((pixels == classes.palette[class_number]).all(-1).sum())
        assert count * area <= found <= count * area + 1000, class_number
    with Image.open(made.folder.root / "small-strips-0.png") as image:
        assert image.width < pixels.shape[1]


def test_one_budget_has_no_curves(tmp_path: Path) -> None:
    made = Made(tmp_path)
    few = {key: r for key, r in made.records.items() if r["labeled"] in (0, 20)}
    made.report.draw(few)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["small-classes.png"]


def test_a_bar_in_a_cell_is_escaped_by_who_writes_it() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
