"""What a network starts from: pretrained weights (models/weights.py), or a network that iidm trained before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from iidm.config import Config, ModelConfig
from iidm.engine.checkpoint import METADATA, load_weights, read_metadata
from iidm.engine.whole_checkpoint import find_whole_checkpoint
from iidm.models import Network, load_pretrained
from iidm.text import write_bytes
from iidm.types import UserError

START = "start.safetensors"
NETWORKS = ("teacher", "student")
"""Of a checkpoint; the first is taken of a folder, as iidm.predict does."""


class Trained(NamedTuple):
    """A network in a checkpoint."""

    checkpoint: Path
    network: str
    note: str = ""
    """What is to be said of newer checkpoints, which are damaged."""


def start_network(network: Network, config: Config, classes: Sequence[str]) -> str:
    """Put what `model.weights` names into a network with a random start.

    A run's folder stands for its newest checkpoint, a checkpoint for its teacher; student.safetensors or
    teacher.safetensors in a checkpoint is that network. Where the run had the same classes in the same order all of it
    is taken, else the backbone alone: the head starts anew, also where some classes have the same names.

    Args:
        network: as `config` has it.
        classes: names of the classes.

    Returns: one line that says what was loaded.
    Raises: UserError for a network of another kind than configured (with the options that make it), a folder that is no
        run, and what `load_pretrained` raises.
    """
    weights = config.model.weights
    found = None if weights in ("none", "imagenet") else find_trained(Path(weights).expanduser())
    if found is None:
        return load_pretrained(network, weights, backbone=config.model.backbone)
    metadata = read_metadata(found.checkpoint)
    theirs: list[str] = list(map(str, metadata.get("classes", [])))
    same = theirs == list(classes)
    try:
        their_model = _model_of(metadata)
    except (TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{found.checkpoint / METADATA} is damaged: its config makes no network ({error}).") from None
    _require_same_kind(found, their_model, config.model, same)
    title = f"{found.note and found.note + '; '}start: the {found.network} of {found.checkpoint}"
    if same:
        load_weights(found.checkpoint, found.network, network)
        return f"{title}, with its head for the same {len(classes)} classes"
    load_weights(found.checkpoint, found.network, network.backbone, part="backbone.")
    return f"{title}, without its head, which starts anew: its classes are others ({', '.join(theirs)})"


def keep_start(network: nn.Module, run_dir: Path) -> None:
    """Write the weights that a run starts from to RUN/start.safetensors, for a method that goes on reading them: the
    run that they are from may go on, or be gone, before this one is resumed."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(run_dir / START, save(tensors))


def load_kept_start(network: nn.Module, run_dir: Path) -> bool:
    """Put the weights of RUN/start.safetensors into a network; False where there are none.

    Raises: UserError for a file that is damaged.
    """
    path = run_dir / START
    if not path.is_file():
        return False
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{path}, the weights that the run began with, cannot be read ({str(error).splitlines()[0]}). Its method"
            " compares with them; train a new run."
        ) from None
    return True


def find_trained(path: Path) -> Trained | None:
    """The trained network that a path stands for, or None for a file that lies in no checkpoint, and for no file.

    Raises: UserError for a folder that is no run and no checkpoint, and for a file of a checkpoint that is no network.
    """
    if path.is_dir():
        if (path / METADATA).is_file():
            return Trained(path, NETWORKS[0])
        checkpoint, _, notes = find_whole_checkpoint(path)
        if checkpoint is None:
            what = "has no checkpoint yet" if (path / "config.json").is_file() else "is neither a run nor a checkpoint"
            raise UserError(
                f"--model.weights {path}: the folder {what}. Give the folder of a run of iidm.train, one of its"
                " checkpoints, or a file of weights."
            )
        return Trained(checkpoint, NETWORKS[0], "; ".join(notes))
    if not path.is_file() or not (path.parent / METADATA).is_file():
        return None
    if path.suffix != ".safetensors" or path.stem not in NETWORKS:
        raise UserError(
            f"{path} is no network of its checkpoint. Give {' or '.join(f'{name}.safetensors' for name in NETWORKS)}"
            " beside it, or the folder."
        )
    return Trained(path.parent, path.stem)


def _model_of(metadata: Mapping[str, Any]) -> ModelConfig:
    """How a network was made. Values that its version of iidm did not have are today's defaults."""
    known = {field.name for field in fields(ModelConfig)}
    values = {key: value for key, value in metadata.get("config", {}).get("model", {}).items() if key in known}
    if "dilations" in values:  # JSON has no tuples
        values["dilations"] = tuple(values["dilations"])
    return ModelConfig(**values)


def _require_same_kind(found: Trained, theirs: ModelConfig, ours: ModelConfig, with_head: bool) -> None:
    """The same backbone, and the same head where it is taken."""
    differ = []
    if theirs.backbone != ours.backbone:
        differ.append(f"--model.backbone {theirs.backbone}")
    if with_head:
        if theirs.head_by_name != ours.head_by_name:
            differ.append(f"--model.head {theirs.head_by_name}")
        elif theirs.head_by_name == "deeplabv2" and theirs.dilations != ours.dilations:
            differ.append(f"--model.dilations {' '.join(map(str, theirs.dilations))}")
        if theirs.hrda != ours.hrda:
            differ.append("--model.hrda" if theirs.hrda else "--model.no-hrda")
    if differ:
        raise UserError(
            f"--model.weights: the {found.network} of {found.checkpoint} is a network of another kind than this run's:"
            f" give {' '.join(differ)}."
        )
