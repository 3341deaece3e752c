"""What a report says in words: the result, what is weak, what a run is, and the command that repeats it."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iidm.cli import config_as_dict, parse_config
from iidm.config import Config, DatasetConfig, streams_of
from iidm.data.datasets.summary import TITLES
from iidm.data.files.common import counted
from iidm.presets import preset_config
from iidm.studies.progress import duration
from iidm.types import UserError

from .folder import RunFolder
from .gather import Gathered
from .scoring import NETWORKS

WEAKEST = 5
"""Classes that are told as weak."""
LARGEST_MISTAKES = 10
"""Pairs of classes that are told as mistaken for each other."""


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 1 in per cent; a dash where there is none."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def small_percent(share: float | None) -> str:
    """A share of pixels, where a rare class is not told as none."""
    if share is None or math.isnan(share) or share == 0:
        return "–"
    return percent(share) if share >= 0.0005 else "<0.1"


class Result(NamedTuple):
    """The scores of one network: of the report's own evaluation, else of results.json; shares of 1."""

    miou: float | None
    accuracy: float | None
    iou: dict[str, float | None]


def results_of(run: Gathered) -> dict[str, Result]:
    """Network -> its scores; empty where there are none."""
    if run.evaluation is not None:
        own = {name: scores.as_json() for name, scores in run.evaluation.scores.items()}
    else:
        own = {name: run.folder.results[name] for name in NETWORKS if isinstance(run.folder.results.get(name), dict)}
    return {
        name: Result(value.get("miou"), value.get("pixel_accuracy"), value.get("iou", {}))
        for name, value in own.items()
    }


def headline(run: Gathered, network: str) -> str:
    """The result in one sentence."""
    results, folder = results_of(run), run.folder
    if network not in results or results[network].miou is None:
        return f"{folder.name} has no scores ({_steps(folder)})."
    other = next(name for name in NETWORKS if name != network)
    own, beside = results[network], results.get(other)
    count = len(run.evaluation.names) if run.evaluation is not None else folder.results.get("images")
    data = data_name(folder.config.data.target, folder.config.target_root)
    images = f"{counted(count, 'validation image')} of " if isinstance(count, int) and count else ""
    compared = f" (the {other}: {percent(beside.miou)}\u00a0%)" if beside is not None else ""
    return (
        f"The {network} labels {images}{data} with a mean IoU of {percent(own.miou)}\u00a0%"
        f"{compared}; {percent(own.accuracy)}\u00a0% of the pixels are right ({_steps(folder)})."
    )


def comparison(runs: Sequence[Gathered], network: str) -> str:
    """The result of several runs in one sentence."""
    found = [(results_of(run).get(network), run) for run in runs]
    scored = [(result.miou, run) for result, run in found if result is not None and result.miou is not None]
    if not scored:
        return f"None of the {len(runs)} runs has scores."
    scored.sort(key=lambda pair: -pair[0])
    (best, run), (worst, _) = scored[0], scored[-1]
    without = f" {len(runs) - len(scored)} have no scores." if len(scored) < len(runs) else ""
    if len(scored) == 1:
        return f"Only {run.folder.name} has scores: a mean IoU of {percent(best)}\u00a0% ({network}).{without}"
    return (
        f"The best of {len(scored)} runs is {run.folder.name}: its {network} has a mean IoU of {percent(best)}\u00a0%,"
        f" that of the worst {percent(worst)}\u00a0%.{without}"
    )


def _steps(folder: RunFolder) -> str:
    wanted = folder.config.max_steps
    done = folder.scored_steps
    return f"after {done} of {wanted} steps" if done < wanted else f"after all {wanted} steps"


class Weak(NamedTuple):
    """A class with a low IoU."""

    name: str
    iou: float
    shares: list[float | None]
    """Of the labeled pixels, a number for each set of training labels."""
    taken_for: str


def weak_classes(run: Gathered, network: str) -> list[Weak]:
    """The classes with the lowest IoU, all below the mean."""
    result = results_of(run).get(network)
    if result is None or result.miou is None:
        return []
    known = [(iou, name) for name, iou in result.iou.items() if iou is not None and iou < result.miou]
    shares = class_shares(run)
    training = [title for title in shares if title != TITLES["val"]]
    return [
        Weak(name, iou, [shares[title].get(name) for title in training], _taken_for(run, network, name))
        for iou, name in sorted(known)[:WEAKEST]
    ]


def _taken_for(run: Gathered, network: str, name: str) -> str:
    """What the pixels of a class are called instead, and how many of them."""
    if run.evaluation is None:
        return ""
    scores = run.evaluation.scores[network]
    row = scores.confusion[scores.classes.names.index(name)].double()
    total = float(row.sum())
    row[scores.classes.names.index(name)] = 0
    place = int(row.argmax())
    return f"{scores.classes.names[place]} ({percent(float(row[place]) / total, 0)}\u00a0%)" if row[place] > 0 else ""


class Mistake(NamedTuple):
    """A class that is taken for another; shares of 1."""

    truth: str
    predicted: str
    of_class: float
    of_errors: float


def largest_mistakes(run: Gathered, network: str) -> list[Mistake]:
    """The pairs of classes with the most wrong pixels."""
    if run.evaluation is None:
        return []
    scores = run.evaluation.scores[network]
    names, wrong, truth = scores.classes.names, scores.confusion.clone(), scores.confusion.sum(1)
    wrong.fill_diagonal_(0)
    every = int(wrong.sum())
    order = wrong.flatten().argsort(descending=True)[:LARGEST_MISTAKES].tolist()
    places = [divmod(place, len(names)) for place in order]
    return [
        Mistake(names[i], names[j], int(wrong[i, j]) / int(truth[i]), int(wrong[i, j]) / every)
        for i, j in places
        if wrong[i, j] > 0
    ]


def class_shares(run: Gathered) -> dict[str, dict[str, float]]:
    """Title of a set of labels -> class -> its share of the labeled pixels."""
    if run.classes is None:
        return {}
    pixels = {title: counts[:-1].tolist() for title, counts in run.pixels.items()}
    if run.evaluation is not None and TITLES["val"] not in pixels:  # at the labels' full size, which is as good
        pixels[TITLES["val"]] = run.evaluation.scores["student"].confusion.sum(1).tolist()
    return {
        title: {name: count / max(sum(counts), 1) for name, count in zip(run.classes.names, counts, strict=True)}
        for title, counts in pixels.items()
    }


def data_name(dataset: DatasetConfig, root: Path | None) -> str:
    """A data set in a word."""
    if dataset.spec == "folder":
        return root.name if root is not None else dataset.images or "a folder"
    return Path(dataset.spec).name


def facts(run: Gathered) -> list[tuple[str, str]]:
    """What the run is: (what, its value)."""
    folder, config = run.folder, run.folder.config
    data, machine = config.data, folder.results.get("machine", {})
    images = ", ".join(f"{count} {title}" for title, count in folder.images.items())
    seconds = folder.results.get("seconds", folder.metadata.get("seconds"))
    uses_source = TITLES["source"] in folder.images or not folder.images
    weights = "random numbers" if config.model.weights == "none" else config.model.weights
    found: list[tuple[str, Any]] = [
        ("Folder", folder.path),
        ("Source", _place(data.source, config.source_root) if uses_source else "none: the method reads no source"),
        ("Target", _place(data.target, config.target_root)),
        ("Images", images),
        ("Classes", len(run.classes) if run.classes else len(folder.metadata.get("classes", ())) or None),
        ("Preset, method, recipe", f"{config.preset}, {config.method}, {config.recipe}"),
        ("Network", f"{config.model.backbone}, started from {weights}"),
        ("Steps", f"{folder.steps} of {config.max_steps}"),
        ("Images a step", _images_a_step(config)),
        ("Crop", f"{data.crop_size[0]}x{data.crop_size[1]} pixels (HxW)"),
        ("Learning rate, seed", f"{config.optim.lr:g}, {config.seed}"),
        ("Precision", "mixed (--amp)" if config.amp else "float32"),
        ("Time", duration(seconds) if isinstance(seconds, int | float) else None),
        ("Machine", _machine(machine, folder.results.get("processes"))),
        ("Versions", _versions(folder.metadata, machine)),
    ]
    return [(what, str(value)) for what, value in found if value not in (None, "")]


def _place(dataset: DatasetConfig, root: Path | None) -> str:
    return dataset.spec + (f" in {root}" if root is not None else "")


def _images_a_step(config: Config) -> str:
    """Of the streams that the method reads; the others' numbers are those of the preset, and mean nothing."""
    data = config.data
    counts = (data.source_batch, data.target_batch, data.unlabeled_batch)
    streams = streams_of(config)
    told = zip(counts, streams._fields, streams, strict=True)
    return ", ".join(f"{count} {name}" for count, name, is_read in told if is_read)


def _machine(machine: Mapping[str, Any], processes: Any) -> str:
    if not machine:
        return "not known: results.json tells it, at the end of a run"
    told = [str(machine[key]) for key in ("gpu", "cpu") if machine.get(key)]
    told += [counted(machine[key], key[:-1]) for key in ("cores", "threads") if machine.get(key)]
    return ", ".join([*told, *([f"{processes} processes"] if processes else [])])


def _versions(metadata: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    told = [("iidm", metadata.get("iidm")), ("torch", machine.get("torch")), ("Python", machine.get("python"))]
    return ", ".join(f"{name} {version}" for name, version in told if version)


OWN_WORDS = ("preset", "method", "recipe", "run_dir")
"""Fields that the command names first, and the folder, which must be a new one."""


def repeat_command(folder: RunFolder) -> str:
    """The command that trains this run again, as a shell reads it: its starting points, and each field that differs
    from theirs. Where these do not make the same configuration it starts from the run's own file."""
    config = folder.config
    words = ["--preset", config.preset, "--method", config.method, "--recipe", config.recipe]
    try:
        base = preset_config(config.preset, config.recipe, config.method)
        words += _options(config_as_dict(base), config_as_dict(config))
        with contextlib.redirect_stderr(io.StringIO()):
            same = parse_config(words)[0] == config
    except (UserError, SystemExit):
        same = False
    if not same:
        words = ["--config", str(folder.path / "config.json")]
    return shlex.join(["iidm", "train", *words])


def _options(base: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> list[str]:
    words: list[str] = []
    for name, value in own.items():
        if isinstance(value, dict):
            words += _options(base[name], value, f"{path}{name}.")
        elif value != base[name] and path + name not in OWN_WORDS:
            dashed = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{path.replace('_', '-')}{'' if value else 'no-'}{dashed}")
            else:
                given = value if isinstance(value, list | tuple) else [value]
                words += [f"--{path.replace('_', '-')}{dashed}", *map(str, given)]
    return words


def differences(runs: Sequence[Gathered]) -> list[tuple[str, list[str]]]:
    """(field, its value in each run) of the configuration, where runs differ."""
    flat = [_flat(config_as_dict(run.folder.config)) for run in runs]
    names = [name for name in flat[0] if name != "run_dir" and not name.startswith("log.")]
    return [
        (name, [_told(values[name]) for values in flat])
        for name in names
        if any(v[name] != flat[0][name] for v in flat)
    ]


def _told(value: Any) -> str:
    return "–" if value in (None, [], ()) else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _flat(data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return found
