"""Nothing that is loaded runs code, and no name leads out of the folder that it belongs to (docs/security.md)."""

from __future__ import annotations

import json
import os
import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.fuzz.kinds.networks import hostile_pickles
from iidm.cli import read_config, run_main
from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data import WRITERS, AnnotatedImage, Regions, find_inputs, make_plan, open_domains, prepare, write_splits
from iidm.data.datasets.dataset import open_dataset
from iidm.engine.checkpoint import METADATA, TRAINING, load_weights, read_metadata
from iidm.models import build_network, load_pretrained
from iidm.studies.grid import find_study
from iidm.types import ClassSet, UserError

CLASSES = ("road", "car")


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        for kind in ("images", "labels"):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((16, 24, 3)[: 2 + (kind == "images")], np.uint8)).save(path)


def everything(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# What is loaded


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that hostile code would make."""
    return tmp_path / "canary"


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", sorted(hostile_pickles(Path("x"))))
def test_weights_run_no_code(name: str, old: bool, canary: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(hostile_pickles(canary)[name], path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match="weights.pth is no readable state dict"):
        load_pretrained(build_network("mobilenet_v2", 2, output_stride=16), str(path), backbone="mobilenet_v2")
    assert not canary.exists()


def test_the_hostile_weights_do_run_code_where_a_program_lets_them(canary: Path, tmp_path: Path) -> None:
    torch.save(hostile_pickles(canary)["exec"], tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert canary.exists()


def test_the_arguments_that_scripts_save_beside_weights_are_of_one_harmless_class(tmp_path: Path) -> None:
    """`Namespace` is allowed; a class of that name in another module is not."""
    stranger = types.ModuleType("stranger")
    stranger.Namespace = type("Namespace", (), {"__module__": "stranger"})  # type: ignore[attr-defined]
    sys.modules["stranger"] = stranger
    network = build_network("mobilenet_v2", 2, output_stride=16)
    state = network.backbone.state_dict()
    try:
        torch.save({"model": state, "args": Namespace(lr=1)}, tmp_path / "good.pth")
        torch.save({"model": state, "args": stranger.Namespace()}, tmp_path / "bad.pth")
    finally:
        del sys.modules["stranger"]
    load_pretrained(network, str(tmp_path / "good.pth"), backbone="mobilenet_v2")
    with pytest.raises(UserError, match="bad.pth is no readable"):
        load_pretrained(network, str(tmp_path / "bad.pth"), backbone="mobilenet_v2")


def test_a_pickle_in_place_of_a_file_of_a_checkpoint_is_no_checkpoint(canary: Path, tmp_path: Path) -> None:
    hostile = hostile_pickles(canary)["exec"]
    (tmp_path / METADATA).write_text(json.dumps({"format": 1, "step": 1}))
    for name in ("student.safetensors", TRAINING):
        torch.save(hostile, tmp_path / name)
    with pytest.raises(UserError, match="student.safetensors cannot be read"):
        load_weights(tmp_path, "student", torch.nn.Linear(1, 1))
    torch.save(hostile, tmp_path / METADATA)
    with pytest.raises(UserError, match="metadata.json cannot be read"):
        read_metadata(tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "text", ['{"max_steps": "__import__(\'os\')"}', '{"data": {"__class__": "os.system"}}', "!!python/object"]
)
def test_a_configuration_names_no_code(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        read_config(tmp_path / "config.json")


def test_pickles_in_the_arrays_of_a_prepared_folder_are_not_loaded(canary: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", "a", "b")
    out = prepared(tmp_path)
    hostile = np.array([hostile_pickles(canary)["exec"]], object)
    np.savez(out / "index.npz", **{name: hostile for name in ("splits", "text", "starts", "lines_bytes")})  # type: ignore[arg-type]
    for path in (out / "images").rglob("*.npy"):
        np.save(path, hostile, allow_pickle=True)
    dataset = open_dataset(folder_config(), out, "train", labels="some")
    with pytest.raises(UserError, match="is damaged"):
        dataset.read_image_file(dataset.samples[0]) if not dataset.is_raw else read_rows(dataset)
    assert not canary.exists()


def read_rows(dataset: Any) -> None:
    from iidm.data.prepared.arrays import read_crop

    sample = dataset.samples[0]
    read_crop(sample.image, dataset.image_size(sample), (0, 0), (8, 8))


def test_entities_of_an_xml_file_do_not_grow_and_read_no_file(tmp_path: Path) -> None:
    write_images(tmp_path, "a")
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    (tmp_path / "camera.toml").write_text(description("a.xml"))
    grown = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 11))
    for entities, use in (
        (f'<!ENTITY a0 "aaaaaaaaaa">{grown}', "&a10;"),
        (f'<!ENTITY x SYSTEM "{secret.as_uri()}">', "&x;"),
    ):
        text = f'<?xml version="1.0"?><!DOCTYPE annotations [{entities}]><annotations>{use}</annotations>'
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(UserError, match=r"a\.xml") as caught:
            open_dataset(DatasetConfig(spec=str(tmp_path / "camera.toml")), None, "train", labels="some")
        assert "hunter2" not in str(caught.value)


# Names


def description(labels: str) -> str:
    return f'images = "images"\nlabels = "{labels}"\n' + "".join(f'[[classes]]\nname = "{name}"\n' for name in CLASSES)


def folder_config() -> DatasetConfig:
    return DatasetConfig(images="images", labels="labels", class_names=CLASSES)


def prepared(root: Path) -> Path:
    plan = make_plan(folder_config(), root / "data", root / "out", image_format="raw", splits=("train",))
    prepare(plan, jobs=1)
    return root / "out"


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/iidm-escaped", "images/../../../escaped"])
def test_an_annotation_file_cannot_name_where_labels_are_drawn(name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "data", "a", "escaped")
    ring = [1, 1, 9, 1, 9, 9, 1, 9]
    table = {
        "images": [{"id": 1, "file_name": f"{name}.png", "height": 16, "width": 24}],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}],
    }
    (tmp_path / "data" / "coco.json").write_text(json.dumps(table))
    (tmp_path / "data" / "camera.toml").write_text(description("coco.json"))
    before = everything(tmp_path)
    try:
        open_dataset(DatasetConfig(spec=str(tmp_path / "data" / "camera.toml")), None, "train", labels="some")
    except UserError as error:
        assert "coco.json" in str(error)
    assert everything(tmp_path) == before and not Path("/tmp/iidm-escaped.png").exists()


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/iidm-escaped", "a/../../../b"])
def test_a_prepared_folder_cannot_name_images_outside_of_it(name: str, tmp_path: Path) -> None:
    """Predictions of a study are written under the names of their images."""
    write_images(tmp_path / "data", "a", "b")
    out = prepared(tmp_path)
    lines = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    lines[0]["name"] = name
    (out / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "index.npz").unlink()
    with pytest.raises(UserError, match="lies outside of it"):
        dataset = open_dataset(folder_config(), out, "train", labels="some")
        print(dataset.names, list(dataset.samples))


@pytest.mark.parametrize("name", ["..png", "...png", "a.png", ".png", "-rf.png", "a\nb.png"])
def test_the_results_of_an_image_lie_in_their_folder_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    Image.new("RGB", (4, 4)).save(path, "PNG")
    (found,), _ = find_inputs([path])
    out = tmp_path / "out"
    for result in (f"{out / found.name}.ids.png", out / found.name / "000000.ids.png"):  # an image's, a video frame's
        real = Path(os.path.realpath(result))
        assert real.is_relative_to(out) and real.parent in (out, out / found.name) and found.name not in (".", "..")


def test_annotations_of_images_of_strange_names_lie_in_their_folder(tmp_path: Path) -> None:
    regions = Regions((4, 4), (), 0)
    for name in ("..png", "...png", "a b.png", "day 2/c.png"):
        for form, writer in WRITERS.items():
            with writer(tmp_path / "out" / form, ClassSet(CLASSES, ((1, 2, 3), (4, 5, 6)))) as opened:
                opened.add(AnnotatedImage(name, tmp_path / "in" / name, regions))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(WRITERS)


def test_a_link_out_of_an_image_folder_is_read_and_nothing_is_written_behind_it(tmp_path: Path) -> None:
    """People keep images on another disk; what belongs to a run is written to the run."""
    write_images(tmp_path / "elsewhere", "x", "y")
    write_images(tmp_path / "data", "a", "b")
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "link").symlink_to(tmp_path / "elsewhere" / kind)
    before = everything(tmp_path / "elsewhere")
    data = DataConfig(source=folder_config(), target=folder_config(), labeled_count=1)
    domains = open_domains(Config(data=data, source_root=tmp_path / "data", target_root=tmp_path / "data"))
    write_splits(domains, tmp_path / "run")
    out = prepared(tmp_path)
    assert "link/x" in (out / "splits" / "train.txt").read_text()
    assert everything(tmp_path / "elsewhere") == before
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_a_study_keeps_its_runs_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('[[row]]\nname = "../../x"\nmethod = "../../iidm"\n')
    from iidm.studies.plan import Wishes, make_plan

    with pytest.raises(UserError, match="iidm"):
        make_plan(find_study(str(tmp_path / "grid.toml")), Wishes(preset="scenes", seeds=1))
    (tmp_path / "grid.toml").write_text('[[row]]\nname = "../../x"\nmethod = "iidm"\n')
    (run, *_) = make_plan(find_study(str(tmp_path / "grid.toml")), Wishes(preset="scenes", seeds=1)).runs
    assert "/" not in run.name


# What is said


def test_what_a_file_holds_does_not_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: object) -> None:
        raise UserError("There is no class 'a\x1b]0;owned\x07\nb\u202e'.")

    with pytest.raises(SystemExit):
        run_main(refuse, [])
    said = capsys.readouterr().err
    assert said == "iidm: There is no class 'a\\x1b]0;owned\\x07\\nb\\u202e'.\n"
