"""`iidm report`: a page that stands alone, with the numbers of the evaluation, whatever a run still has."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_reports import Parsed, change_config, copied, report
from PIL import Image
from small_runs import BACKBONE, CLASSES, VAL_IMAGES, evaluate, half_done

from iidm.cli import parse_config, read_config
from iidm.reports.folder import open_folders
from iidm.reports.gather import Gathered
from iidm.reports.pictures import WRONG
from iidm.reports.words import facts, repeat_command
from iidm.types import UserError


@pytest.fixture
def copy(reported: Path, tmp_path: Path) -> Path:
    """A run that a test may damage; what the report has counted is not there."""
    run_dir = copied(reported, tmp_path)
    for name in ("report.html", "report.json"):
        (run_dir / name).unlink()
    return run_dir


# What it tells


def test_the_steps_are_those_of_the_networks_that_are_scored(reported: Path, tmp_path: Path) -> None:
    """As after a kill before the last checkpoint: more steps were logged."""
    run_dir = half_done(reported, tmp_path / "run")
    for name in ("results.json", "report.json"):
        (run_dir / name).unlink()
    report(run_dir)
    text = Parsed(run_dir / "report.html").text
    assert "(after 3 of 6 steps)" in text and "after all 6 steps" not in text


def test_the_numbers_are_those_of_the_evaluation(reported: Path, data: Path) -> None:
    page = Parsed(reported / "report.html")
    scores = json.loads(evaluate([reported, "--json"]).out)
    rows = {row[0].strip(): row[1:3] for row in page.table("class", "student")[1:]}
    for number, network in enumerate(("student", "teacher")):
        for name in CLASSES:
            assert rows[name][number] == f"{100 * scores[network]['iou'][name]:.1f}"
        assert rows["mIoU"][number] == f"{100 * scores[network]['miou']:.1f}"
        assert f"{100 * scores[network]['miou']:.1f}\u00a0%" in "".join(data for _, data in page.texts)
    kept = json.loads((reported / "report.json").read_text())["evaluation"]
    student = np.array(kept["confusion"]["student"])
    assert student.trace() / student.sum() == pytest.approx(scores["student"]["pixel_accuracy"])
    assert len(kept["names"]) == VAL_IMAGES
    truth = [np.asarray(Image.open(data / "target" / "labels" / "val" / f"v{i}.png")) for i in range(VAL_IMAGES)]
    assert student.sum(1).tolist() == np.bincount(np.stack(truth).ravel(), minlength=256)[: len(CLASSES)].tolist()
    accuracy = [image[1] for image in kept["images"]["student"]]
    assert np.mean(accuracy) == pytest.approx(scores["student"]["pixel_accuracy"])  # images of equal size


def test_the_worst_image_comes_first_with_the_picture_of_its_own_mistakes(reported: Path) -> None:
    page = Parsed(reported / "report.html")
    kept = json.loads((reported / "report.json").read_text())["evaluation"]
    miou = dict(zip(kept["names"], (score[0] for score in kept["images"]["student"]), strict=True))
    shown = [a["alt"] or "" for tag, a in page.tags if tag == "img" and (a["alt"] or "").startswith("image of")]
    order = [name.removeprefix("image of ") for name in shown]
    assert sorted(order) == sorted(miou) and order[:2] == sorted(miou, key=lambda name: miou[name])[:2]
    places = {a["alt"]: i for i, (_, a) in enumerate([t for t in page.tags if t[0] == "img"])}
    wrong = page.pictures[places[f"difference of {order[0]}"]].astype(int)
    red = (np.abs(wrong - WRONG).sum(-1) < 90).mean()
    accuracy = dict(zip(kept["names"], (score[1] for score in kept["images"]["student"]), strict=True))[order[0]]
    assert red == pytest.approx(1 - accuracy, abs=0.04)


def test_it_tells_what_was_trained_on_what_and_how_to_do_it_again(reported: Path) -> None:
    text = Parsed(reported / "report.html").text
    for words in (BACKBONE, "6 of 6", "48x64 pixels", "2 labeled target", "6 source", "4 unlabeled target", "torch"):
        assert words in text, words
    assert " ".join((reported / "notes.txt").read_text().split()) in text
    assert "What is missing" not in text


def test_it_tells_the_images_of_what_the_method_reads_alone(reported: Path) -> None:
    (folder,) = open_folders([reported])
    assert dict(facts(Gathered(folder)))["Images a step"] == "2 source, 2 labeled, 2 unlabeled"
    loss = replace(folder.config.loss, source_weight=0.0, inter_weight=0.0)
    folder = replace(folder, config=replace(folder.config, loss=loss), results={"machine": {"cores": 2, "threads": 1}})
    told = dict(facts(Gathered(folder)))
    assert told["Images a step"] == "2 labeled, 2 unlabeled" and told["Machine"] == "2 cores, 1 thread"


def test_the_command_makes_the_same_configuration(reported: Path) -> None:
    command = repeat_command(open_folders([reported])[0])
    assert shlex.split(command)[:2] == ["iidm", "train"] and "--config" not in command
    assert parse_config(shlex.split(command)[2:])[0] == read_config(reported / "config.json")


def test_a_configuration_that_no_options_make_starts_from_its_file(copy: Path) -> None:
    change_config(copy, preset="gone-since")
    assert repeat_command(open_folders([copy])[0]) == shlex.join(["iidm", "train", "--config", f"{copy}/config.json"])


def test_it_loads_nothing_and_every_picture_is_in_it(reported: Path) -> None:
    page = Parsed(reported / "report.html")
    assert not re.search("https?://", (reported / "report.html").read_text())
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert len(page.pictures) == 4 * VAL_IMAGES + 2 + 2  # panels; pseudo-labels and a validation image, twice each
    assert all(picture.size for picture in page.pictures)
    assert (reported / "report.html").stat().st_size < 1e6


def test_a_second_report_evaluates_nothing_again(reported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Parsed(reported / "report.html")
    monkeypatch.setattr("iidm.reports.gather.evaluate_images", None)
    report(reported)
    assert Parsed(reported / "report.html").text == before.text


def test_another_checkpoint_or_other_labels_are_evaluated_anew(reported: Path, copy: Path, tmp_path: Path) -> None:
    kept = json.loads((reported / "report.json").read_text())
    kept["evaluation"]["key"] = "of another checkpoint"
    kept["evaluation"]["confusion"]["student"][0][0] += 1000
    (copy / "report.json").write_text(json.dumps(kept))
    report(copy)
    assert json.loads((copy / "report.json").read_text()) == json.loads((reported / "report.json").read_text())


def test_several_runs_stand_side_by_side(reported: Path, copy: Path, tmp_path: Path) -> None:
    other = copy.rename(copy.with_name("other"))
    change_config(other, seed=7)
    said = report(reported, other, "--out", tmp_path / "both.html")
    page = Parsed(tmp_path / "both.html")
    classes = page.table("class", reported.name)
    assert [row[0].strip() for row in page.table("run")] == ["run", reported.name, "other"]
    assert [cell.strip() for cell in classes[0]] == ["class", reported.name, "other"]
    assert [cell.strip() for cell in page.table("value")[1]] == ["seed", "0", "7"]
    assert "both.html" in said.out
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


# Names that are no text of ours


def test_names_cannot_write_into_the_page(copy: Path, tmp_path: Path, data: Path) -> None:
    evil = "<script>alert(1)</script>"
    images = tmp_path / "target"
    shutil.copytree(data / "target", images)
    for kind in ("images", "labels"):
        (images / kind / "val" / "v0.png").rename(images / kind / "val" / "<img src=x onerror=y>.png")
    names = [evil, 'b" onclick="c', "$x^2$ & {{ 7*7 }}"]
    change_config(copy, data__target__class_names=names, data__source__class_names=names, target_root=str(images))
    (copy / "notes.txt").write_text("</pre><script>no()</script>")
    run_dir = copy.rename(tmp_path / "<b>run")
    report(run_dir, "--network", "teacher")
    page = Parsed(run_dir / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "b" not in [tag for tag, _ in page.tags]
    for name in (*names, "<img src=x onerror=y>", "</pre><script>no()</script>", "<b>run"):
        assert name in page.text


# What is not there any more


def test_a_run_that_is_not_finished_is_evaluated_where_it_stands(copy: Path) -> None:
    (copy / "results.json").unlink()
    change_config(copy, max_steps=12)
    said = report(copy)
    text = Parsed(copy / "report.html").text
    assert "after 6 of 12 steps" in text and "6 of 12 steps are done" in text and f"--resume {copy}" in text
    assert "6 of 12 steps are done" in said.out
    assert "mean IoU of" in text


def test_without_its_data_the_scores_of_the_run_are_told(copy: Path, reported: Path) -> None:
    change_config(copy, target_root=str(copy / "gone"))
    report(copy)
    page = Parsed(copy / "report.html")
    results = json.loads((copy / "results.json").read_text())
    assert f"{100 * results['student']['miou']:.1f}" in page.text
    assert "No validation images" in page.text and str(copy / "gone") in page.text and "No class shares" in page.text
    assert len(page.pictures) == 4  # the previews are there
    shutil.copy(reported / "report.json", copy / "report.json")
    report(copy)
    page = Parsed(copy / "report.html")
    assert "earlier report" in page.text and "Class shares are those of an earlier report" in page.text
    assert page.table("truth")


def test_without_checkpoint_previews_metrics_and_notes_it_says_so(copy: Path) -> None:
    for name in ("previews", "splits"):
        shutil.rmtree(copy / name)
    for name in ("checkpoints", "metrics.jsonl", "notes.txt"):
        (copy / name).unlink()
    (copy / "results.json").write_text('{"student": ')
    report(copy)
    text = Parsed(copy / "report.html").text
    for words in (
        "No checkpoint",
        "No curves",
        "No notes",
        "No pseudo-labels",
        "results.json cannot be read",
        "splits/",
    ):
        assert words in text, words
    assert "has no scores" in text


def test_a_damaged_label_is_told_and_the_rest_is_there(copy: Path, tmp_path: Path, data: Path) -> None:
    shutil.copytree(data / "target", tmp_path / "target")
    (tmp_path / "target" / "labels" / "val" / "v1.png").write_bytes(b"no picture")
    report(copy, "--target-root", tmp_path / "target")
    text = Parsed(copy / "report.html").text
    assert "No confusion matrix" in text and "v1.png" in text and "mean IoU of" in text


def test_no_evaluate_needs_no_network(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iidm.reports.gather.load_network", None)
    report(copy, "--no-evaluate")
    assert "--no-evaluate" in Parsed(copy / "report.html").text


@pytest.mark.parametrize("case", ["no run", "twice", "a folder", "another file", "pictures"])
def test_mistakes_are_refused(case: str, reported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<p>mine")
    words, said = {
        "no run": ([tmp_path], "no run"),
        "twice": ([reported, reported / "."], "named twice"),
        "a folder": ([reported, "--out", tmp_path], "is a folder"),
        "another file": ([reported, "--out", tmp_path / "mine.html"], "no report of iidm"),
        "pictures": ([reported, "--pictures", "-1"], "--pictures"),
    }[case]
    with pytest.raises(UserError, match=re.escape(said)):
        report(*words)
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


def test_a_run_of_somebody_else_is_refused_before_it_is_evaluated(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != copy.absolute() and may(path, mode))
    with pytest.raises(UserError, match=r"Nothing can be written in .*--out report\.html"):
        report(copy)
    report(copy, "--no-evaluate", "--out", tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").is_file()
