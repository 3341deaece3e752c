"""iidm.train and iidm.evaluate on prepared folders: whole runs, resumed ones, and ones that meet a damaged file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from small_runs import (
    CLASSES,
    STEPS,
    VAL_IMAGES,
    Finished,
    Said,
    evaluate,
    half_done,
    metrics,
    options,
    refusal,
    train,
    weights,
)

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.check import slow_reading_notes
from iidm.data.datasets.domains import open_domains
from iidm.data.loading.crops import CropRules
from iidm.data.loading.sampling import Sampler
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import ImageFormat

FORMATS: tuple[ImageFormat, ...] = ("raw", "jpeg")
SLOW_NOTE = "whole images are decoded for every crop; iidm prepare does that once"


class Run(NamedTuple):
    """A finished run from prepared folders of both domains."""

    image_format: ImageFormat
    folder: Path
    """Of its data: source/ and target/."""
    run_dir: Path
    said: Said


def _config() -> DatasetConfig:
    return DatasetConfig(images="images/{split}", labels="labels/{split}", class_names=CLASSES)


@pytest.fixture(scope="module", params=FORMATS)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("prepared")
    for domain in ("source", "target"):
        splits = None if domain == "target" else ("train",)
        plan = make_plan(_config(), data / domain, folder / "data" / domain, image_format=request.param, splits=splits)
        prepare(plan, jobs=1)
    said = train(options(folder / "data", folder / "run"))
    return Run(request.param, folder / "data", folder / "run", said)


@pytest.fixture(scope="module")
def downloads(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same run from the files as downloaded: JPEG in the source, PNG in the target."""
    run_dir = tmp_path_factory.mktemp("downloads") / "run"
    return Finished(run_dir, train(options(data, run_dir)))


def _scores(run_dir: Path) -> dict[str, dict[str, object]]:
    results = json.loads((run_dir / "results.json").read_text())
    return {network: results[network] for network in ("student", "teacher")}


def test_a_run_trains_from_prepared_folders_and_is_evaluated(run: Run) -> None:
    assert metrics(run.run_dir).count("\n") == STEPS
    assert sorted(path.stem for path in (run.run_dir / "splits").iterdir()) == sorted(
        ("source", "labeled", "unlabeled", "val")
    )
    results = json.loads(evaluate([run.run_dir, "--json"]).out)
    assert results["images"] == VAL_IMAGES
    assert {network: results[network] for network in ("student", "teacher")} == _scores(run.run_dir)


def test_a_run_from_raw_or_jpeg_differs_from_that_of_the_downloads_by_the_jpeg_alone(
    run: Run, downloads: Finished
) -> None:
    """Raw keeps the images as they are, those of the source as they were once decoded."""
    assert (metrics(downloads.run_dir) == metrics(run.run_dir)) == (run.image_format == "raw")


def test_downloads_are_said_to_be_decoded_whole_and_prepared_folders_are_not(run: Run, downloads: Finished) -> None:
    assert downloads.said.err.count(SLOW_NOTE) == 1
    assert SLOW_NOTE not in run.said.err


def test_of_two_domains_the_one_that_is_not_prepared_is_named(run: Run, data: Path, tmp_path: Path) -> None:
    spec = tmp_path / "my-camera.toml"
    classes = "".join(f'[[classes]]\nname = "{name}"\n' for name in CLASSES)
    spec.write_text(f'images = "images/{{split}}"\nlabels = "labels/{{split}}"\n{classes}')
    words = DataConfig(source=_config(), target=DatasetConfig(spec=str(spec)), labeled_count=2)
    domains = open_domains(Config(source_root=run.folder / "source", target_root=data / "target", data=words))
    assert slow_reading_notes(domains) == [f"my-camera: {SLOW_NOTE}"]


def test_a_resumed_run_ends_like_one_that_was_not_stopped(run: Run, tmp_path: Path) -> None:
    again = half_done(run.run_dir, tmp_path / "run")
    (again / "results.json").unlink()
    train(["--resume", again, "--quiet"])
    assert metrics(again) == metrics(run.run_dir)
    assert weights(again, STEPS) == weights(run.run_dir, STEPS)
    assert _scores(again) == _scores(run.run_dir)


def _damage(path: Path) -> None:
    """An array is cut off; a JPEG keeps its length, so that only the decoder notices."""
    body = path.read_bytes()
    path.write_bytes(body[:-1] if path.suffix == ".npy" else bytes(20) + body[20:])


def _drawn_at(folder: Path, step: int) -> Path:
    """The unlabeled image that a run of one image a step draws first at `step` and at no step before."""
    data = DataConfig(source=_config(), target=_config(), labeled_count=2)
    unlabeled = open_domains(Config(source_root=folder / "source", target_root=folder / "target", data=data)).unlabeled
    assert unlabeled is not None and len(unlabeled.samples) > step
    return Sampler(unlabeled, CropRules((48, 64)), seed=0, stream=2, labeled=False).draw(step).sample.image


def test_a_damaged_file_stops_a_run_that_goes_on_without_it_as_if_it_had_never_been_there(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(run.folder, folder)
    path = _drawn_at(folder, 3)
    _damage(path)
    ones = "--data.source-batch 1 --data.target-batch 1 --data.unlabeled-batch 1 --data.no-check".split()
    ones += ["--eval.statistics", "running"]  # those of the target would read the file before the first step
    stopped = tmp_path / "stopped"
    message = refusal("train", options(folder, stopped, *ones, "--quiet", "--log.checkpoint-every", "0"))
    assert str(path) in message and f"--resume {stopped}" in message
    done = metrics(stopped).count("\n")
    assert 1 <= done <= 3
    assert [checkpoint.name for checkpoint in (stopped / "checkpoints").iterdir()] == [f"step-{done:08d}"]
    assert str(path) in refusal("train", ["--resume", stopped, "--quiet"])
    train(["--resume", stopped, "--data.skip-damaged", "--quiet"])
    assert (stopped / "results.json").exists()
    train(options(folder, tmp_path / "skipped", *ones, "--quiet", "--data.skip-damaged"))
    assert metrics(stopped) == metrics(tmp_path / "skipped")
    assert weights(stopped, STEPS) == weights(tmp_path / "skipped", STEPS)


def test_a_file_of_another_length_is_found_before_the_first_step(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(run.folder, folder)
    path = _drawn_at(folder, 3)
    path.write_bytes(path.read_bytes()[:-1])
    message = refusal("train", options(folder, tmp_path / "run", "--quiet"))
    assert f"{path} is damaged" in message and not (tmp_path / "run" / "metrics.jsonl").exists()
    said = train(options(folder, tmp_path / "run", "--data.skip-damaged", "--max-steps", "1"))
    assert "1 damaged images are left out (--data.skip-damaged)" in said.err
