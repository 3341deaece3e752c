"""All that a report says of one run: what its folder holds, its scores, its images, its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iidm.cli.arguments import ReportArguments
from iidm.config import Config
from iidm.data import Dataset, open_domains, require_validation, target_classes, with_kept_validation
from iidm.data.datasets.statistics import label_pixel_totals
from iidm.data.datasets.summary import TITLES
from iidm.engine.log import Progress
from iidm.engine.runtime import pick_device
from iidm.models import Network
from iidm.runs import description_notes, load_network, run_precision
from iidm.types import ClassSet, UserError

from .folder import RunFolder
from .pictures import ImagePanels, panels_of
from .scoring import (
    NETWORKS,
    Evaluation,
    evaluate_images,
    evaluation_as_json,
    evaluation_from_json,
    evaluation_key,
    keep,
    read_kept,
)


@dataclass
class Gathered:
    """A run for the report. What is not there is None or empty, and `missing` tells why."""

    folder: RunFolder
    classes: ClassSet | None = None
    evaluation: Evaluation | None = None
    pixels: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Title of a set -> int64 [K+1], pixels of each class in its labels and of what is ignored."""
    worst: list[ImagePanels] = field(default_factory=list)
    best: list[ImagePanels] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def gather(folder: RunFolder, arguments: ReportArguments, pictures: int) -> Gathered:
    """Read, evaluate and draw what there is of a run.

    Args:
        arguments: which network is shown, where the data lie now, whether networks may be evaluated.
        pictures: most validation images among the worst, and among the best.
    """
    config = with_kept_validation(folder.config, folder.path)
    roots = {name: getattr(arguments, name) for name in ("source_root", "target_root")}
    config = replace(config, **{name: root for name, root in roots.items() if root is not None})
    found = Gathered(folder, missing=list(folder.missing) + description_notes(folder.path))
    kept = read_kept(folder.path)
    found.classes = _told(found, "class colours", lambda: target_classes(config))
    val = _told(found, "validation images", lambda: require_validation(config))
    before = dict(kept)
    _read_pixels(found, config, kept)
    scorer = _Scorer(found, config, arguments)
    found.evaluation = scorer.evaluation(val, kept)
    if found.evaluation is not None and val is not None:
        _told(found, "pictures of validation images", lambda: scorer.draw(val, pictures))
    if kept != before:
        line = keep(folder.path, kept)
        found.missing += [line] if line else []
    return found


def _told(found: Gathered, what: str, make: Callable[[], Any]) -> Any:
    """What `make` returns; where data or weights are not as it needs them None, and a sentence that says so."""
    try:
        return make()
    except (UserError, OSError) as error:
        found.missing.append(f"No {what}: {error}")
        return None


def _read_pixels(found: Gathered, config: Config, kept: dict[str, Any]) -> None:
    """The pixels of each class in each set of labels: counted (from the cache, as a rule), else as kept before."""

    def count() -> dict[str, NDArray[np.int64]]:
        with Progress("reading the labels, once", config.quiet) as progress:
            domains = open_domains(config, progress=progress)
            sets = {title: getattr(domains, stream) for stream, title in TITLES.items() if stream != "unlabeled"}
            skip = config.data.skip_damaged
            return {
                title: label_pixel_totals(dataset, skip_damaged=skip and title != TITLES["val"], progress=progress)
                for title, dataset in sets.items()
                if dataset is not None and len(dataset.samples)
            }

    told = len(found.missing)
    pixels = _told(found, "class shares", count)
    if pixels is not None:
        found.pixels = pixels
        kept["pixels"] = {title: counts.tolist() for title, counts in pixels.items()}
        return
    classes = 0 if found.classes is None else len(found.classes)
    before = kept.get("pixels", {})
    if classes and before and all(len(counts) == classes + 1 for counts in before.values()):
        found.pixels = {title: np.array(counts, np.int64) for title, counts in before.items()}
        found.missing[told] = f"Class shares are those of an earlier report. {found.missing[told].partition(': ')[2]}"


class _Scorer:
    """Evaluates and draws with the networks of one run, which are read when they are first needed."""

    def __init__(self, found: Gathered, config: Config, arguments: ReportArguments) -> None:
        self.found, self.config, self.arguments = found, config, arguments
        self.device = pick_device(arguments.device)
        self.amp_dtype = run_precision(config, "run", self.device)
        self._networks: dict[str, Network] = {}

    def network(self, name: str) -> Network:
        """The student or the teacher of the newest checkpoint."""
        if name not in self._networks:
            checkpoint, classes = self.found.folder.checkpoint, self.found.classes
            assert checkpoint is not None and classes is not None
            self._networks[name] = load_network(self.config, checkpoint, name, len(classes), self.device)
        return self._networks[name]

    def evaluation(self, val: Dataset | None, kept: dict[str, Any]) -> Evaluation | None:
        """As kept by an earlier report of the same checkpoint and images, else made now."""
        found, folder = self.found, self.found.folder
        if folder.checkpoint is None or found.classes is None:
            return None
        checkpoint_key = evaluation_key(folder.metadata, None, None)
        key = ""
        if val is not None:
            key = _told(found, "confusion matrix", lambda: evaluation_key(folder.metadata, val, self.amp_dtype))
            if key is None:  # a file that has gone since it was listed
                return None
        entry = kept.get("evaluation", {})
        known = entry.get("key") == key if val is not None else entry.get("checkpoint") == checkpoint_key
        if known:
            try:
                evaluation = evaluation_from_json(entry, found.classes)
            except (KeyError, TypeError, ValueError):
                pass  # of another version, or damaged: it is made anew
            else:
                if val is None:
                    found.missing.append("Scores are those that an earlier report counted on the validation images.")
                return evaluation
        if val is None:
            return None
        if not self.arguments.evaluate:
            found.missing.append("No confusion matrix and no pictures of validation images: --no-evaluate.")
            return None
        evaluation = _told(found, "confusion matrix", lambda: self._evaluate(val))
        if evaluation is not None:
            kept["evaluation"] = {"key": key, "checkpoint": checkpoint_key, **evaluation_as_json(evaluation)}
        return evaluation

    def _evaluate(self, val: Dataset) -> Evaluation:
        networks = {name: self.network(name) for name in NETWORKS}
        with Progress(f"evaluating {self.found.folder.name}", False) as progress:
            return evaluate_images(networks, val, self.config, self.amp_dtype, progress)

    def draw(self, val: Dataset, count: int) -> None:
        """The worst and the best validation images of the network that is shown."""
        found, name = self.found, self.arguments.network
        assert found.evaluation is not None
        order = found.evaluation.ranking(name)
        most = min(count, (len(order) + 1) // 2)
        chosen = {"worst": order[:most], "best": order[::-1][: min(count, len(order) - most)]}
        for which, places in chosen.items():
            scores = [found.evaluation.images[name][place] for place in places]
            drawn = panels_of(self.network(name), val, places, scores, self.config, self.amp_dtype)
            setattr(found, which, drawn)
