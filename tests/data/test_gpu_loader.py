"""On a GPU the loaders give what they give on a CPU, bit for bit but for the rounding of nvJPEG."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
import torch
from PIL import Image

from iidm.config import DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, Domains, open_dataset
from iidm.data.files.encoded import decodable_bytes
from iidm.data.loading.eval_loader import EvalLoader
from iidm.data.loading.loader import TrainLoader
from iidm.data.loading.pipeline import ImageDecoder
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.entries import ImageFormat
from iidm.method.graph import StepGraph
from iidm.types import TrainBatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DATA = DataConfig(crop_size=(48, 64), rare_class_sampling=False)
CONFIG = DatasetConfig(spec="camvid")
MEAN_ERROR = {"raw": 0.0, "png": 0.0, "jpeg": 1.0, "downloaded": 1.0}
"""Largest mean difference of grey levels; the downloaded images are JPEGs."""


def _dataset(folder: Path, image_format: str) -> Dataset:
    raw = folder / "downloaded"
    for split in ("train", "val"):
        make.write_camvid(raw, [f"{i:03d}" for i in range(6)], split, size=(70, 90))
    if image_format == "downloaded":
        return open_dataset(CONFIG, raw, "train")
    kind: ImageFormat = image_format  # type: ignore[assignment]
    prepare(make_plan(CONFIG, raw, folder / "prepared", image_format=kind), jobs=1)
    return open_dataset(CONFIG, folder / "prepared", "train")


def _batches(dataset: Dataset, device: str, data: DataConfig = DATA) -> list[TrainBatch]:
    domains = Domains(dataset.classes, dataset, dataset, dataset, dataset)
    with TrainLoader(domains, data, seed=0, device=torch.device(device)) as loader:
        return list(islice(loader, 6))


def _error(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.abs(one.cpu().numpy().astype(int) - other.cpu().numpy()).mean())


@pytest.mark.parametrize("scale_range", [(1.0, 1.0), (0.7, 1.4)], ids=["as they are", "scaled"])
@pytest.mark.parametrize("image_format", MEAN_ERROR)
def test_training_batches_are_those_of_the_cpu(
    tmp_path: Path, image_format: str, scale_range: tuple[float, float]
) -> None:
    dataset, data = _dataset(tmp_path, image_format), replace(DATA, scale_range=scale_range)
    most = MEAN_ERROR[image_format] + (0.5 if scale_range != (1.0, 1.0) else 0.0)  # the filter rounds in its own way
    for gpu, cpu in zip(_batches(dataset, "cuda", data), _batches(dataset, "cpu", data), strict=True):
        assert gpu.source and cpu.source and gpu.unlabeled is not None and cpu.unlabeled is not None
        assert gpu.source.image.is_cuda and gpu.source.label.is_cuda and gpu.unlabeled.is_cuda
        assert torch.equal(gpu.source.label.cpu(), cpu.source.label)
        assert _error(gpu.source.image, cpu.source.image) <= most
        assert _error(gpu.unlabeled, cpu.unlabeled) <= most


@pytest.mark.parametrize("image_format", MEAN_ERROR)
def test_evaluation_batches_are_those_of_the_cpu(tmp_path: Path, image_format: str) -> None:
    dataset = _dataset(tmp_path, image_format)
    loaders = (EvalLoader(dataset, device=torch.device(device), batch_size=2) for device in ("cuda", "cpu"))
    for gpu, cpu in zip(*loaders, strict=True):
        assert gpu.names == cpu.names and gpu.image.is_cuda and gpu.label.is_cuda
        assert torch.equal(gpu.label.cpu(), cpu.label)
        assert _error(gpu.image, cpu.image) <= MEAN_ERROR[image_format]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_images_are_turned_as_on_the_cpu(tmp_path: Path, ending: str, orientation: int) -> None:
    dataset = _dataset(tmp_path, "downloaded")
    path = tmp_path / f"turned.{ending}"
    with Image.open(dataset.samples[0].image) as image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)
    decoded = []
    for device in ("cuda", "cpu"):
        decoder = ImageDecoder(device=torch.device(device), batch_size=1, threads=1)
        decoded += decoder([decodable_bytes(path)], [None])
    assert decoded[0].shape == decoded[1].shape and _error(*decoded) <= MEAN_ERROR["downloaded"]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_are_those_of_the_cpu(tmp_path: Path, mode: str) -> None:
    dataset = _dataset(tmp_path, "downloaded")
    with Image.open(dataset.samples[0].image) as image:
        image.convert(mode).save(tmp_path / "mode.jpg", quality=95)
    decoders = (ImageDecoder(device=torch.device(device), batch_size=1, threads=1) for device in ("cuda", "cpu"))
    decoded = [decoder([decodable_bytes(tmp_path / "mode.jpg")], [None])[0] for decoder in decoders]
    assert _error(*decoded) <= MEAN_ERROR["downloaded"]


@pytest.mark.parametrize("image_format", MEAN_ERROR)
def test_a_step_is_captured_while_the_loader_reads_ahead(tmp_path: Path, image_format: str) -> None:
    """What DALI's threads and the loader's own call meanwhile must not break the capture, nor the capture them."""
    dataset = _dataset(tmp_path, image_format)
    domains = Domains(dataset.classes, dataset, dataset, dataset, dataset)

    def function(inputs: list[TrainBatch], _: int) -> torch.Tensor:
        assert inputs[0].unlabeled is not None
        if torch.cuda.is_current_stream_capturing():
            time.sleep(1.0)  # time for the batches that are read ahead
        return inputs[0].unlabeled.float().mean()

    graph: StepGraph[list[TrainBatch], int, torch.Tensor] = StepGraph(function, [])
    for batch in _batches(dataset, "cuda")[: StepGraph.WARMUP]:
        graph([batch], 0)
    with TrainLoader(domains, replace(DATA, prefetch=64), seed=0, device=torch.device("cuda")) as loader:
        for batch in islice(loader, 80):  # captured while those after the first are made
            assert batch.unlabeled is not None
            assert float(graph([batch], 0)) == pytest.approx(float(batch.unlabeled.float().mean()), rel=1e-5)
    assert graph.captured
