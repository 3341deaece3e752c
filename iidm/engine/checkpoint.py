"""Checkpoints: RUN/checkpoints/step-<n>/ with weights and training state as safetensors and the rest as JSON.

    student.safetensors, teacher.safetensors    float32 weights in their state-dict names
    training.safetensors                        optimiser tensors, states of the random generators, BatchNorm
                                                statistics of training where the saved networks have others
    metadata.json                               step, configuration, classes, versions, the optimiser's plain numbers
    SHA256SUMS                                  of these files (checksums.py)

Nothing in it can execute code when it is read. A checkpoint is written beside its place, synced to the disk and
renamed: it is there whole or not at all. One that was damaged later is found by its checksums, and the one before it is
used (whole_checkpoint.py).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..text import sync
from ..types import UserError
from .checksums import write_sums
from .optim import load_optimizer_state, optimizer_state

FORMAT = 1
TRAINING, METADATA = "training.safetensors", "metadata.json"


def save_checkpoint(
    run_dir: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    generators: Mapping[str, torch.Generator],
    metadata: Mapping[str, Any],
    keep: int,
    buffers: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Path:
    """Write everything that the next step depends on, then remove all but the `keep` newest checkpoints.

    Args:
        run_dir: the run's folder.
        step: the next step to run.
        modules: weights by file name.
        optimizer, scaler, generators: their state; torch's global generators are saved too.
        metadata: what a person or a program wants to know of it.
        keep: how many stay.
        buffers: by module, what its buffers hold in training where they are saved with other values; `load_checkpoint`
            puts it back.

    Returns: the checkpoint's folder.
    Raises: UserError when it cannot be written (a full disk); earlier checkpoints stay as they are.
    """
    numbers, tensors = optimizer_state(optimizer)
    tensors |= {f"rng.{name}": generator.get_state() for name, generator in generators.items()}
    tensors |= {f"rng.global.{name}": state for name, state in _global_rng().items()}
    tensors |= {f"buffers.{name}.{key}": value for name, own in (buffers or {}).items() for key, value in own.items()}
    facts = {
        "format": FORMAT,
        "step": step,
        **metadata,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "optimizer": numbers,
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    final = run_dir / "checkpoints" / f"step-{step:08d}"
    try:
        remove_halves(run_dir)
        with _whole_folder(final) as half:
            for name, module in modules.items():
                save_file(_contiguous(module.state_dict()), half / f"{name}.safetensors")
            save_file(_contiguous(tensors), half / TRAINING)
            (half / METADATA).write_text(json.dumps(facts, indent=2) + "\n")
            write_sums(half)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint of step {step} could not be written to {final.parent} ({error}). Free some space; earlier"
            f" checkpoints are whole, go on with --resume {run_dir}."
        ) from None
    remove_old(run_dir, keep)
    return final


@contextmanager
def _whole_folder(final: Path) -> Iterator[Path]:
    """A folder to write files into. It takes the place `final` once they are on the disk; after an error it is gone."""
    half = final.with_name(f".{final.name}.{os.getpid()}")
    aside = half.with_name(f"{half.name}.replaced")
    try:
        half.mkdir(parents=True)
        yield half
        for path in (*half.iterdir(), half):
            sync(path)
        if final.exists():  # the same step again: it goes when the new one has its place, not before
            os.replace(final, aside)
        os.replace(half, final)
        shutil.rmtree(aside, ignore_errors=True)
        sync(final.parent)
    finally:
        if aside.exists() and not final.exists():
            os.replace(aside, final)
        for left in (half, aside):
            shutil.rmtree(left, ignore_errors=True)


def remove_halves(run_dir: Path) -> None:
    """Remove what a kill left of checkpoints; it would stay for good and take the disk's space."""
    for stale in (run_dir / "checkpoints").glob(".step-*"):
        shutil.rmtree(stale, ignore_errors=True)


def remove_old(run_dir: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints. Each is renamed first: a kill leaves none that has lost files, nor
    does a power cut."""
    for old in list_checkpoints(run_dir)[:-keep]:
        leaving = old.with_name(f".{old.name}.old")
        with suppress(OSError):  # as before, one that cannot be removed ends no run
            os.replace(old, leaving)
            sync(old.parent)
        shutil.rmtree(leaving, ignore_errors=True)
        with suppress(OSError):  # or a power cut brings it back, and in a run that is done nobody removes it
            sync(old.parent)


def find_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run, or None. Half-written ones have other names and are never found."""
    return next(reversed(list_checkpoints(run_dir)), None)


def read_metadata(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's metadata. Raises UserError naming the file if it cannot be read or has another format."""
    path = checkpoint / METADATA
    try:
        metadata: Any = json.loads(path.read_text())
        if not isinstance(metadata, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Remove {checkpoint} to use the checkpoint before it."
        ) from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} has format {metadata.get('format')}; this version of iidm reads format {FORMAT}.")
    for key, kinds in _KINDS.items():
        if type(metadata.get(key, kinds[0]())) not in kinds or (key == "step" and key not in metadata):
            raise UserError(
                f"{path} is damaged: {key} is {str(metadata.get(key))[:40]!r} there. Remove {checkpoint} to use the"
                " checkpoint before it."
            )
    return metadata


_KINDS: Mapping[str, tuple[type, ...]] = {
    "step": (int,),
    "seconds": (int, float),
    "batches_per_step": (int,),
    "classes": (list,),
    "config": (dict,),
    "optimizer": (dict,),
    "scaler": (dict,),
}
"""Of what metadata.json holds."""


def load_checkpoint(
    checkpoint: Path,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer | None,
    scaler: torch.amp.GradScaler | None,
    generators: Mapping[str, torch.Generator],
    device: torch.device,
) -> dict[str, Any]:
    """Put everything back, bit for bit; returns the metadata.

    Raises: UserError for a damaged file, another architecture, or generators of another kind of device.
    """
    metadata = read_metadata(checkpoint)
    for name, module in modules.items():
        load_weights(checkpoint, name, module)
    tensors = _load_file(checkpoint / TRAINING)
    try:
        _put_back(metadata, tensors, checkpoint, modules, optimizer, scaler, generators)
        torch.set_rng_state(tensors["rng.global.cpu"])
        if device.type == "cuda" and "rng.global.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.global.cuda"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # What torch says where a tensor is missing, or has another form than the optimiser's or the generators'.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{checkpoint / TRAINING} and {METADATA} beside it do not fit together ({reason}). Remove {checkpoint} to"
            " use the checkpoint before it."
        ) from None
    return metadata


def _put_back(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer | None,
    scaler: torch.amp.GradScaler | None,
    generators: Mapping[str, torch.Generator],
) -> None:
    """The training state of `load_checkpoint`, after the weights."""
    for name, module in modules.items():
        start = f"buffers.{name}."
        kept = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if kept:
            module.load_state_dict({**module.state_dict(), **kept})
    if optimizer is not None:
        load_optimizer_state(optimizer, metadata["optimizer"], tensors, checkpoint)
    if scaler is not None and metadata["scaler"]:
        scaler.load_state_dict(metadata["scaler"])
    for name, generator in generators.items():
        _load_generator(name, generator, tensors, checkpoint)


def load_weights(checkpoint: Path, name: str, module: nn.Module, part: str = "") -> None:
    """Put one network's weights into a module of the same architecture. Raises UserError for another one.

    Args:
        part: what begins the names of those that the module has, where it is a part of the network (`backbone.`).
    """
    path = checkpoint / f"{name}.safetensors"
    own = module.state_dict()
    given = {key.removeprefix(part): value for key, value in _load_file(path).items() if key.startswith(part)}
    wrong = [key for key in own.keys() | given.keys() if key not in own or key not in given]
    wrong += [key for key in own.keys() & given.keys() if own[key].shape != given[key].shape]
    if wrong:
        trained = read_metadata(checkpoint)
        raise UserError(
            f"{path} is of another architecture: {len(wrong)} of {len(own)} tensors differ"
            f" ({', '.join(sorted(wrong)[:3])}, ...). It was trained with backbone {trained.get('backbone')} and"
            f" {len(trained.get('classes', []))} classes; use the configuration that lies beside it."
        )
    module.load_state_dict(given)


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(p for p in (run_dir / "checkpoints").glob("step-*") if (p / METADATA).is_file())


def _load_generator(name: str, generator: torch.Generator, tensors: Mapping[str, Tensor], checkpoint: Path) -> None:
    try:
        generator.set_state(tensors[f"rng.{name}"])
    except (KeyError, RuntimeError):
        raise UserError(
            f"{checkpoint} has no state for the random generator {name!r} on {generator.device.type}: it was written on"
            " another kind of device. Continue it there (--device), or train a new run."
        ) from None


def _global_rng() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense copies on the CPU: safetensors keeps no strides, and channels-last ones come back by `load_state_dict`."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _load_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Remove {path.parent} to use the checkpoint before it."
        ) from None
