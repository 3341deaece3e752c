"""The network as a graph, and the graph as a file: ONNX, or torch's own."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

import iidm
from iidm.types import UserError

from .deployed import Deployed, Form, fitting_size

OPSET = 18
"""Of ONNX files: the first that resizes with antialiasing, so that most runtimes read them."""
MOST_BYTES = 2_000_000_000
"""Of the weights in an ONNX file, which may have 2^31 bytes in all."""
FACTS = "iidm.json"
"""Name of the metadata in a file of torch's."""
IMAGE = "image"
"""Name of the input."""


def trace(deployed: Deployed) -> ExportedProgram:
    """The graph of a network: any batch, and images of any size where its form has none."""
    form, free = deployed.form, deployed.form.size is None
    dimensions: dict[int, Any] = {0: Dim.DYNAMIC}
    if free:
        dimensions |= {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    # Two images: torch takes a batch of one for a constant.
    example = torch.zeros((2, *example_size(form), 3), dtype=torch.uint8)
    with torch.no_grad(), quietly():
        program = torch.export.export(deployed, (example,), dynamic_shapes=(dimensions,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of this machine's files
    return program


def example_size(form: Form) -> tuple[int, int]:
    """An image (H, W) to trace with: of a form without size one whose sides are neither equal nor multiples of cells,
    as equal numbers would be taken for one."""
    if form.size is not None:
        return form.size
    height, width = (side + extra for side, extra in zip(form.box or (256, 384), (29, 83), strict=True))
    while form.box is not None and any(side % 32 == 0 for side in fitting_size(form.box, height, width)[:1]):
        height += 1
    return height, width


def write_torch(program: ExportedProgram, path: Path, facts: Mapping[str, str]) -> None:
    """A .pt2 file, which `torch.export.load` reads; the facts are in it as FACTS."""
    with quietly(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={FACTS: json.dumps(dict(facts), indent=2)})


def write_onnx(program: ExportedProgram, path: Path, facts: Mapping[str, str], form: Form) -> None:
    """An ONNX file of opset OPSET, checked by `onnx.checker`; the facts are its metadata.

    Raises: UserError where the weights have more bytes than such a file can hold.
    """

    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > MOST_BYTES:
        raise UserError(
            f"The network has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2 GB. Give --precision fp16, which"
            " halves them, or --format torch, which has no limit."
        )
    with quietly():
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=list(form.outputs),
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _tidy(model, form)
    save_onnx(model, path, facts)


def save_onnx(model: Any, path: Path, facts: Mapping[str, str]) -> None:
    """Write a ModelProto with the facts as its metadata."""
    import onnx

    model.producer_name, model.producer_version = "iidm", iidm.__version__
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _tidy(model: Any, form: Form) -> None:
    """Names for the dimensions; nothing of the files and classes that a node came from."""
    graph = model.graph
    # Shapes within are formulas of the names that go; runtimes find them anew.
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        for name, own in zip(("batch", "height", "width"), value.type.tensor_type.shape.dim, strict=False):
            if name == "batch" or form.size is None:
                own.dim_param = name


@contextmanager
def quietly() -> Iterator[None]:
    """Without what torch and onnxruntime say of optional packages, and of their own names that are to change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
