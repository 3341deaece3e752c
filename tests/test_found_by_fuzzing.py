"""What the fuzzer (benchmarks/fuzz) found in files of every kind, each fault by its smallest input."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from iidm.cli import read_config, write_config
from iidm.config import Config, DatasetConfig
from iidm.data import check_prepared, make_plan, prepare
from iidm.data.datasets.dataset import open_dataset
from iidm.data.datasets.splits import labeled_places
from iidm.data.inspection.lists import read_colors
from iidm.data.labels.pictures import read_picture
from iidm.data.prepared.columns import open_columns
from iidm.data.specs.described import folder_spec
from iidm.engine.checkpoint import METADATA, TRAINING, load_checkpoint, read_metadata, save_checkpoint
from iidm.engine.log import METRICS, RunLog, read_metrics
from iidm.models import build_network, load_pretrained
from iidm.prediction.video_files import VideoReader
from iidm.runs import description_notes
from iidm.studies.folder import StudyFolder
from iidm.types import UserError

DEEP = '{"a":' * 100_000
CLASSES = ("road", "car")


# Configurations and checkpoints


def test_json_that_is_nested_deeply_is_no_json(tmp_path: Path) -> None:
    for name in ("config.json", METADATA, "prepared.json"):
        (tmp_path / name).write_text(DEEP)
    (tmp_path / "runs.jsonl").write_text(DEEP + "\n")
    with pytest.raises(UserError, match="config.json is no readable"):
        read_config(tmp_path / "config.json")
    with pytest.raises(UserError, match="metadata.json cannot be read"):
        read_metadata(tmp_path)
    with pytest.raises(UserError, match="runs.jsonl, line 1"):
        StudyFolder(tmp_path).records()
    with pytest.raises(UserError, match="prepared.json cannot be read"):
        check_prepared(tmp_path)


def test_toml_that_is_nested_deeply_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(UserError, match="d.toml cannot be read"):
        open_dataset(DatasetConfig(spec=str(tmp_path / "d.toml")), None, "train")


def save(run_dir: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint, and the arguments that saving and loading share."""
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"name": "head", "params": list(net.parameters()), "lr": 1e-2}])
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    parts = {"modules": {"student": net}, "optimizer": optimizer, "scaler": None, "generators": {}}
    return save_checkpoint(run_dir, 1, **parts, metadata={"seconds": 1.0}, keep=1), parts  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["random", "missing", "moment"])
def test_training_state_that_does_not_fit_is_told_with_its_file(change: str, tmp_path: Path) -> None:
    checkpoint, parts = save(tmp_path)
    path = checkpoint / TRAINING
    tensors = load_file(path)
    if change == "random":
        tensors["rng.global.cpu"] = torch.zeros(5, dtype=torch.uint8)
    elif change == "missing":
        del tensors["rng.global.cpu"]
    else:
        tensors["optimizer.7.exp_avg"] = tensors.pop("optimizer.0.exp_avg")
    save_file(tensors, path)
    state = torch.get_rng_state()
    try:
        with pytest.raises(UserError, match="training.safetensors and metadata.json beside it do not fit"):
            load_checkpoint(checkpoint, **parts, device=torch.device("cpu"))
            parts["optimizer"].step()
    finally:
        torch.set_rng_state(state)


@pytest.mark.parametrize("key", ["param_groups", "params"])
def test_an_optimizer_of_another_form_is_told_with_its_file(key: str, tmp_path: Path) -> None:
    checkpoint, parts = save(tmp_path)
    metadata = json.loads((checkpoint / METADATA).read_text())
    if key == "params":
        metadata["optimizer"]["param_groups"][0].pop("params")
    else:
        metadata["optimizer"] = {}
    (checkpoint / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="metadata.json beside it do not fit"):
        load_checkpoint(checkpoint, **parts, device=torch.device("cpu"))


@pytest.mark.parametrize(("key", "value"), [("step", "x"), ("step", None), ("classes", 3), ("optimizer", [])])
def test_metadata_of_other_types_is_damaged(key: str, value: object, tmp_path: Path) -> None:
    (tmp_path / METADATA).write_text(json.dumps({"format": 1, "step": 1, key: value}))
    with pytest.raises(UserError, match=f"metadata.json is damaged: {key}"):
        read_metadata(tmp_path)


def test_lines_of_metrics_that_are_none_are_left_out(tmp_path: Path) -> None:
    lines = ['{"step": 0, "lr": 0.1}', '{"step": null}', '{"step": "1"}', "3", '{"step": 1, "lr": []}', "\xff{"]
    (tmp_path / METRICS).write_bytes("\n".join([*lines, '{"step": 2, "lr": null}']).encode("latin-1"))
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 2]
    with RunLog(tmp_path, total_steps=4, start_step=2, quiet=True, tensorboard=False):
        pass
    assert [line["step"] for line in read_metrics(tmp_path)] == [0]


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "x"},
        {"machine": {"cpu": "x"}},
        {"teacher": {"miou": 1, "iou": {"road": {}}}},
        {"date": 3},
        {"steps": ""},
    ],
)
def test_a_record_that_no_report_can_show_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    machine = {"cpu": "Abacus", "cores": 2, "threads": 2, "python": "3.11.0", "torch": "2.10.0"}
    record = {"key": "k", "config": {}, "student": {"miou": 0.5, "iou": {"road": None}}, "machine": machine}
    record |= {"images": 4, "seconds": 3.5, "steps": 4, "iidm": "0.1.0", "date": "2020-02-02T02:02:02+00:00"}
    folder = StudyFolder(tmp_path)
    folder.records_file.write_text(json.dumps(record) + "\n")
    assert len(folder.records()) == 1
    folder.records_file.write_text(json.dumps({**record, **change}) + "\n")
    with pytest.raises(UserError, match="runs.jsonl, line 1 is no record"):
        folder.records()


def test_a_split_seed_below_zero_is_told() -> None:
    with pytest.raises(UserError, match="--data.split-seed must be 0 or more, not -1"):
        labeled_places(10, 2, "random", -1)


# Prepared folders


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for name in ("a", "b"):
            pixels = np.zeros((8, 8, 3)[: 2 + (kind == "images")], np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / kind / f"{name}.png")
    config = DatasetConfig(images="images", labels="labels", class_names=CLASSES)
    prepare(make_plan(config, tmp_path / "data", tmp_path / "out", image_format="raw", splits=("train",)), jobs=1)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("key", "value"), [("size", [8]), ("size", ["8", 8]), ("name", 3), ("pixels", [{}, 1]), ("size", [2**40, 8])]
)
def test_lines_of_an_index_of_other_types_are_damaged(key: str, value: object, prepared: Path) -> None:
    lines = [json.loads(line) for line in (prepared / "index.jsonl").read_text().splitlines()]
    lines[0][key] = value
    (prepared / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="index.jsonl is damaged"):
        open_columns(prepared, 2, 2)
    with contextlib.suppress(UserError):
        assert any("index.jsonl is damaged" in problem for problem in check_prepared(prepared, jobs=1)[1])


def test_an_index_that_is_no_utf8_ends_there(prepared: Path) -> None:
    path = prepared / "index.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"name":"b"', b'"name":"\xb6"'))
    with pytest.raises(UserError, match="index.jsonl is damaged: 1 of its 2 lines|index.jsonl is damaged: 0 of its 2"):
        open_columns(prepared, 2, 2)


@pytest.mark.parametrize("old", [b"'shape': (2, 2), ", b"(2, 2)", b"'<i4'"])
def test_columns_of_another_form_are_made_anew(old: bytes, prepared: Path) -> None:
    path = prepared / "index.npz"
    good = open_columns(prepared, 2, 2)[0]
    path.write_bytes(path.read_bytes().replace(old, b"(" + old[1:]))
    again = open_columns(prepared, 2, 2)[0]
    assert all(np.array_equal(a, b) for a, b in zip(good, again, strict=True))


# Pictures and annotations


def test_a_label_whose_second_page_has_no_size_is_told_with_its_file(tmp_path: Path) -> None:
    """Pillow raises TypeError where it counts the pages."""
    path = tmp_path / "label.tif"
    Image.new("L", (8, 8)).save(path)
    body = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", body, 4)
    (entries,) = struct.unpack_from("<H", body, start)
    struct.pack_into("<I", body, start + 2 + 12 * entries, len(body))  # where the next page begins
    path.write_bytes(bytes(body) + bytes(6))
    with pytest.raises(UserError, match="label.tif cannot be read"):
        read_picture(path, "gray8", has_colors=False)


def test_what_pillow_logs_of_a_damaged_picture_is_not_printed(tmp_path: Path) -> None:
    """Python prints what a library logs where nobody listens, without the file's name."""
    path = tmp_path / "image.tif"
    Image.new("RGB", (8, 8)).save(path)
    body = bytearray(path.read_bytes())
    place = body.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    struct.pack_into("<H", body, place + 8, 260)
    path.write_bytes(body)
    code = "import pathlib; from iidm.data.files.whole import check_picture as check;"
    code += f" check(pathlib.Path({str(path)!r}), 'image')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "image.tif cannot be read" in said and "samples per pixel" not in said


def data_set(root: Path, labels: str) -> DatasetConfig:
    (root / "images").mkdir()
    Image.new("RGB", (32, 24)).save(root / "images" / "a.png")
    text = f'images = "images"\nlabels = "{labels}"\n' + "".join(f'[[classes]]\nname = "{name}"\n' for name in CLASSES)
    (root / "d.toml").write_text(text)
    return DatasetConfig(spec=str(root / "d.toml"))


def test_a_mask_of_ten_thousand_million_pixels_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """Two numbers say it, and the image's own size need not be in the file."""
    config = data_set(tmp_path, "coco.json")
    mask = {"size": [100_000, 100_000], "counts": [0, 10**10]}
    table = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": mask}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"coco\.json.*more than the 178,956,970 pixels"):
        open_dataset(config, None, "train", labels="some")


@pytest.mark.parametrize("kind", ["huge", "gif", "text"])
def test_a_mask_that_is_no_picture_of_its_box_is_refused(kind: str, tmp_path: Path) -> None:
    config = data_set(tmp_path, "json")
    (tmp_path / "json").mkdir()
    body = io.BytesIO()
    Image.new("1", (9, 9)).save(body, "GIF" if kind == "gif" else "PNG")
    content = {"huge": body.getvalue().replace(struct.pack(">II", 9, 9), struct.pack(">II", 20_000, 20_000))}
    mask = base64.b64encode(content.get(kind, b"no picture" if kind == "text" else body.getvalue())).decode()
    shape = {"label": "road", "shape_type": "mask", "points": [[1, 1], [9, 9]], "mask": mask}
    (tmp_path / "json" / "a.json").write_text(json.dumps({"shapes": [shape]}))
    with pytest.raises(UserError, match=r"a\.json, shape 0 cannot be read: its mask"):
        open_dataset(config, None, "train", labels="some")


def test_a_cell_too_long_for_python_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text(f"name,r,g,b\n{'a' * 200_000},1,2,3\ncar,0,0,142\n")
    assert read_colors(tmp_path / "class_dict.csv") == {"car": 142}


def test_a_video_whose_title_is_no_utf8_is_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Straxe"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Straxe", "Straße".encode("latin-1")))
    with VideoReader(path) as reader:
        assert len(list(reader.frames(1))) == 1


# Weights


def test_weights_that_are_refused_are_refused_in_one_line(tmp_path: Path) -> None:
    """torch warned of the protocol of a pickle beside it."""
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": print}, protocol=4))
    with warnings.catch_warnings(), pytest.raises(UserError, match="w.pth is no readable"):
        warnings.simplefilter("error")
        load_pretrained(
            build_network("mobilenet_v2", 2, output_stride=16), str(tmp_path / "w.pth"), backbone="mobilenet_v2"
        )


def test_a_description_called_by_a_number_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"data": {"source": {"spec": 7}, "target": {"spec": "camvid"}}}))
    assert description_notes(tmp_path) == []


def test_a_palette_of_another_length_names_its_option() -> None:
    with pytest.raises(UserError, match=r"3 classes, 1 colours.*--data\.target\.palette"):
        folder_spec(DatasetConfig(spec="folder", images="i", class_names=("a", "b", "c"), palette=("#000000",)))


def test_a_description_without_labels_is_named(tmp_path: Path) -> None:
    file = tmp_path / "camera.toml"
    file.write_text('images = "."\n[[classes]]\nname = "road"\n[[classes]]\nname = "sky"\n')
    with pytest.raises(UserError, match=r"label folder: give `labels` in .*camera\.toml, --data"):
        open_dataset(DatasetConfig(spec=str(file)), None, "train")


def test_a_configuration_is_read_back(tmp_path: Path) -> None:
    """What the tests above damage is read where it is whole."""
    write_config(Config(), tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == Config()
