"""Files of a small network, run by onnxruntime and by torch alone: sizes, batches, windows, ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iidm.config import SlidingWindow
from iidm.data.datasets.dataset import fit_into
from iidm.data.labels.encodings import encoding
from iidm.exporting.check import TIE, check
from iidm.exporting.deployed import Deployed, Form, fitting_size
from iidm.exporting.facts import dataset_ids, describe
from iidm.exporting.graph import FACTS, OPSET, trace, write_onnx, write_torch
from iidm.exporting.images import Known
from iidm.exporting.opened import open_file
from iidm.models import build_network
from iidm.models.head import Head, Level
from iidm.models.hrda import HRDANetwork
from iidm.models.network import Network
from iidm.models.norm import BatchNorm2d
from iidm.prediction.looking import predict
from iidm.presets import preset_config
from iidm.types import ClassSet, UserError

CLASSES = 5


class Body(nn.Module):
    """One convolution of stride 4 and BatchNorm."""

    levels = (Level(8, 4),)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 5, 4, 2), BatchNorm2d(8, "relu")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.norm(self.conv(x)),)


class Top(Head):
    """1x1 convolution."""

    def __init__(self) -> None:
        super().__init__(8, 4)
        self.conv = nn.Conv2d(8, CLASSES, 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.conv(features)
        return logits


def small() -> Network:
    """A network whose BatchNorm has statistics to fold."""
    torch.manual_seed(3)
    network = Network(Body(), Top())
    norm = network.backbone.norm
    assert isinstance(norm, BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.4)
    bias = network.head.conv.bias
    assert isinstance(bias, nn.Parameter)
    with torch.no_grad():  # no class is the largest everywhere
        logits = Deployed(network, Form(None, None, None)).logits(torch.from_numpy(pictures(2, 40, 56)))
        bias -= logits.mean((0, 2, 3))
    return network


def pictures(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    """Blobs of colour with noise, uint8 [B,H,W,3]."""
    rng = np.random.default_rng(height * width)
    coarse = torch.from_numpy(rng.uniform(0, 255, (batch, 3, 6, 7))).float()
    image = nn.functional.interpolate(coarse, (height, width), mode="bilinear").permute(0, 2, 3, 1).numpy()
    return (image + rng.uniform(-20, 20, image.shape)).clip(0, 255).astype(np.uint8)


def written(form: Form, folder: Path, *, half: bool = False, endings: Sequence[str] = (".onnx", ".pt2")) -> list[Path]:
    """The small network as a file of each kind."""
    graph = trace(Deployed(small(), form, half=half))
    paths = [folder / f"small{ending}" for ending in endings]
    for path in paths:
        if path.suffix == ".onnx":
            write_onnx(graph, path, {"classes": "five"}, form)
        else:
            write_torch(graph, path, {"classes": "five"})
    return paths


def expected(image: NDArray[np.uint8], form: Form) -> NDArray[np.uint8]:
    """What `iidm predict` says of each image of a batch."""
    size = (image.shape[1], image.shape[2])
    seen = form.seen or fit_into(form.box, size)
    found = [predict(small(), one, seen, None, align_corners=form.align_corners, windows=form.windows) for one in image]
    return np.stack(found)


@pytest.mark.parametrize(
    ("form", "sizes"),
    [
        (Form(None, None, (48, 64)), [(1, 40, 56), (3, 95, 131), (1, 131, 95), (2, 48, 64), (1, 17, 99)]),
        (Form((61, 83), (44, 60), None, align_corners=True), [(1, 61, 83), (3, 61, 83)]),
        (Form((61, 83), (44, 60), None, SlidingWindow((28, 36), (16, 23), 4)), [(1, 61, 83), (2, 61, 83)]),
    ],
    ids=["any size fitted into a box", "one size", "windows"],
)
def test_a_file_labels_as_predict_does(form: Form, sizes: list[tuple[int, int, int]], tmp_path: Path) -> None:
    for path in written(form, tmp_path):
        labels = open_file(path)
        for size in sizes:
            image = pictures(*size)
            said, wanted = labels(image), expected(image, form)
            assert said.shape == size and said.dtype == np.uint8
            assert len(np.unique(wanted)) > 2
            assert (said == wanted).mean() > 0.999, (path, size)


def test_ids_confidence_names_and_facts_are_in_the_file(tmp_path: Path) -> None:
    ids = (7, 11, 26, 200, 0)
    form = Form((40, 56), (40, 56), None, ids=ids, confidence=True)
    image = pictures(2, 40, 56)
    onnx_path, torch_path = written(form, tmp_path)
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("image", ["batch", 40, 56, 3])]
    assert [one.name for one in session.get_outputs()] == ["label", "confidence"]
    assert session.get_modelmeta().custom_metadata_map["classes"] == "five"
    model = onnx.load(onnx_path)
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "batch_norm"}  # folded
    assert str(Path(__file__).parents[2]).encode() not in onnx_path.read_bytes()
    extra = {FACTS: ""}
    program = torch.export.load(torch_path, extra_files=extra)
    assert json.loads(extra[FACTS]) == {"classes": "five"}
    found = program.module()(torch.from_numpy(image))
    logits = Deployed(small(), form).logits(torch.from_numpy(image)).detach()
    wanted = np.array(ids, np.uint8)[expected(image, form)]
    for label, confidence in (session.run(None, {"image": image}), [part.numpy() for part in found]):
        assert (label == wanted).mean() > 0.999
        np.testing.assert_allclose(confidence, logits.softmax(1).amax(1), atol=1e-5)


def test_half_a_network_says_nearly_the_same_in_half_the_bytes(tmp_path: Path) -> None:
    form = Form((41, 57), (30, 41), None)
    image = pictures(2, 41, 57)
    for path in written(form, tmp_path, half=True):
        assert (open_file(path)(image) == expected(image, form)).mean() > 0.99
    weights = {i.name: i.data_type for i in onnx.load(tmp_path / "small.onnx").graph.initializer if len(i.dims) == 4}
    convolutions = [kind for name, kind in weights.items() if name not in ("mean", "std")]
    assert convolutions and set(convolutions) == {onnx.TensorProto.FLOAT16}


def test_whole_numbers_fit_as_the_data_room_does() -> None:
    rng = np.random.default_rng(5)
    for box in ((720, 1280), (512, 1024), (480, 360), (333, 777), (696, 696), (408, 408), (56, 56)):
        sizes = [(720, 1280), (3000, 4000), (45, 80), *rng.integers(20, 4000, (500, 2)).tolist()]
        wrong = [size for size in sizes if fitting_size(box, *size) != fit_into(box, (size[0], size[1]))]
        assert not wrong, (box, wrong)
    assert fitting_size((720, 1280), 1052, 1914) == (704, 1280)
    assert fit_into((696, 696), (720, 1280)) == (392, 696), "391.5 exactly, which floats miss"


def test_windows_of_images_of_any_size_are_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"--size 1080 1920.*--mode whole"):
        Deployed(small(), Form(None, None, None, SlidingWindow((20, 28), (10, 14), 4)))
    hrda = build_network("resnet18", CLASSES, output_stride=32, crop_size=(128, 128), hrda=True)
    assert isinstance(hrda, HRDANetwork)
    with pytest.raises(UserError, match=r"HRDA.*--size 1080 1920"):
        Deployed(hrda, Form(None, None, None))


def test_ids_of_the_data_set_are_its_lowest_and_must_be_there() -> None:
    classes = ClassSet(("road", "car"), ((0, 0, 0), (1, 1, 1)))
    assert dataset_ids(encoding("gray8", {7: 0, 26: 1, 27: 1}, [0, 255]), classes) == (7, 26)
    for table, said in (({7: 0}, "'car'"), ({7: 0, 300: 1}, "300")):
        with pytest.raises(UserError, match=said):
            dataset_ids(encoding("ids", table), classes)


def test_masks_of_0_and_255_keep_their_ids() -> None:
    classes = ClassSet(("background", "crack"), ((0, 0, 0), (1, 1, 1)))
    ids = dataset_ids(encoding("gray8", {0: 0, 255: 1}), classes)
    facts = describe(preset_config("scenes"), Form(None, None, None, ids=ids), classes, "teacher", 6, "fp32", "export")
    assert [one["id"] for one in json.loads(facts["classes"])] == [0, 255]
    assert "the data set's own ids" in facts["output"]


class UpsideDown(Deployed):
    """A fault of ours: what is in the file is not what `iidm predict` computes."""

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        return super().logits(image.flip(1))


def test_a_fault_of_the_module_that_is_written_is_no_tie() -> None:
    form = Form((40, 56), (40, 56), None)
    image = pictures(1, 40, 56)[0]
    for kind, is_right in ((Deployed, True), (UpsideDown, False)):
        deployed = kind(small(), form)
        said = deployed.logits(torch.from_numpy(image)[None]).argmax(1).to(torch.uint8).numpy()
        files = {"file": lambda x, said=said: said}
        _, found = check(files, lambda x: expected(x[None], form)[0], deployed, [Known(image, None)], None, CLASSES)
        assert found["file"].all_ties == is_right, found["file"].gap


def test_pixels_that_differ_are_told_from_ties() -> None:
    form = Form((40, 56), (40, 56), None)
    deployed, image = Deployed(small(), form), pictures(1, 40, 56)[0]
    label = expected(image[None], form)[0]
    two = deployed.logits(torch.from_numpy(image)[None])[0].detach().topk(2, 0)
    gaps = (two.values[0] - two.values[1]).numpy()
    row, column = np.unravel_index(gaps.argmax(), gaps.shape)
    changed = label.copy()
    changed[row, column] = two.indices[1, row, column]
    truth = label.copy()
    truth[:4] = 255
    own, found = check(
        {"same": lambda x: label[None], "changed": lambda x: changed[None]},
        lambda x: label,
        deployed,
        [Known(image, truth)],
        None,
        CLASSES,
    )
    classes = ClassSet(tuple("abcde"), tuple((i, i, i) for i in range(CLASSES)))
    assert own.miou(classes) == 1 and own.confusion.sum() == (40 - 4) * 56
    assert found["same"].all_ties and found["same"].share == "100"
    assert not found["changed"].all_ties and found["changed"].gap == pytest.approx(gaps.max(), abs=1e-5)
    assert found["changed"].equal == label.size - 1 and found["changed"].share != "100" and gaps.max() > TIE
