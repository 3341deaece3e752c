"""Files of weights, exported networks and videos; and pickles that would run code."""

from __future__ import annotations

import os
import pickle
import zipfile
from copy import deepcopy
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from iidm.exporting.opened import open_file
from iidm.models import Network, build_network, load_pretrained
from iidm.models import weights as weights_module
from iidm.prediction.video_files import VideoReader, VideoWriter
from iidm.types import UserError

from .base import SIZE, Kind, photo

BACKBONE = "mobilenet_v2"


class Hostile:
    """Its pickle calls a function when it is read."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile_pickles(canary: Path) -> dict[str, Any]:
    """Objects whose pickles make a file `canary` if their code runs, by what they try."""
    touch = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    return {
        "exec": Hostile(exec, touch),
        "system": Hostile(os.system, f"touch {canary}"),
        "getattr": Hostile(getattr, Hostile(__import__, "os"), "system"),
        "open": Hostile(open, str(canary), "w"),
        "load": Hostile(torch.load, str(canary)),
        "beside": {"state_dict": {"conv.weight": torch.ones(2)}, "args": Hostile(exec, touch)},
        "tensor": {
            "conv.weight": Hostile(torch._utils._rebuild_tensor_v2, Hostile(exec, touch), 0, (1,), (1,), False, {})
        },
    }


@cache
def _network() -> Network:
    weights_module._known_backbones()  # what a wrong file is compared with; made once, before processes are forked
    return build_network(BACKBONE, 3, output_stride=16)


def write_weights(folder: Path) -> None:
    """State dicts in every form that is read; hostile ones."""
    state = _network().backbone.state_dict()
    torch.save({"state_dict": state, "epoch": 3}, folder / "zip.pth")
    torch.save(
        {f"module.{key}": value for key, value in state.items()},
        folder / "old.pth",
        _use_new_zipfile_serialization=False,
    )
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "plain.safetensors")
    small = {"features.0.0.weight": torch.ones(2, 3), "head.bias": torch.zeros(3)}
    torch.save(small, folder / "small.bin")
    torch.save(small, folder / "small-old.bin", _use_new_zipfile_serialization=False)
    save_file(small, folder / "small.safetensors")
    canary = Path(os.environ.get(CANARY, str(folder.parent / "canary")))
    for name, value in hostile_pickles(canary).items():
        torch.save(value, folder / f"hostile-{name}.pth")
        torch.save(value, folder / f"hostile-old-{name}.pth", _use_new_zipfile_serialization=False)
        (folder / f"hostile-plain-{name}.pth").write_bytes(pickle.dumps(value))
    with zipfile.ZipFile(folder / "hostile-slip.pth", "w") as archive:
        for name in ("../../outside", "/tmp/outside", "archive/data.pkl"):
            archive.writestr(name, pickle.dumps(Hostile(exec, "1")))


CANARY = "IIDM_FUZZ_CANARY"


def use_weights(folder: Path, path: Path) -> None:
    """--model.weights FILE."""
    load_pretrained(deepcopy(_network()), str(path), backbone=BACKBONE)


def write_onnx(folder: Path) -> None:
    """Networks as `iidm export` writes them, as far as their form goes; one whose numbers lie in another file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    for name in ("plain", "hostile"):
        weight = numpy_helper.from_array(np.ones(3, np.float32) / 3, "w")
        if name == "hostile":
            onnx.external_data_helper.set_external_data(weight, "../../../../../../etc/hostname", 0, 12)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
        nodes = [
            helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["g"]),
            helper.make_node("Cast", ["g"], ["label"], to=TensorProto.UINT8),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", "h", "w", 3])
        label = helper.make_tensor_value_info("label", TensorProto.UINT8, ["b", "h", "w"])
        graph = helper.make_graph(nodes, "g", [image], [label], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def use_onnx(folder: Path, path: Path) -> None:
    """As `iidm export` runs the file that it has just written. No command opens another one."""
    try:
        open_file(path)(np.zeros((1, 4, 5, 3), np.uint8))
    except UnicodeDecodeError as error:  # in a message of onnxruntime, which quotes bytes of the file
        raise UserError(f"{path} cannot be opened ({error}).") from None


def write_videos(folder: Path) -> None:
    """Of three containers and codecs."""
    with VideoWriter(folder / "clip.mp4", Fraction(25)) as writer:
        for number in range(6):
            writer.add(number / 25, np.asarray(photo(number)))
    import av

    for ending, codec in (("avi", "mpeg4"), ("mkv", "libx264"), ("mov", "mjpeg"), ("webm", "libvpx")):
        with av.open(str(folder / f"clip.{ending}"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = SIZE
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(4):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(photo(number)), format="rgb24")))
            container.mux(stream.encode(None))


def use_video(folder: Path, path: Path) -> None:
    """Every frame, as `iidm predict` reads them."""
    with VideoReader(path) as reader:
        for frame in reader.frames(1):
            assert frame.image.ndim == 3
        if reader.problem:
            raise UserError(reader.problem)


NETWORKS = (
    Kind("weights", write_weights, ("*.pth", "*.bin", "*.safetensors"), use_weights, share=0.5),
    Kind("onnx", write_onnx, ("*.onnx",), use_onnx, may_raise=("onnxruntime",)),
    Kind("video", write_videos, ("clip.*",), use_video, is_written_apart=True),
)
