"""What to do with the chosen images: where their labels go, and the command of the next round."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..config import Config, DatasetConfig, streams_of
from ..data.datasets.places import split_folders
from ..data.specs.described import find_spec

_FORMS = {
    "coco": "as COCO annotations (polygons or RLE)",
    "cvat": "as CVAT for images .xml",
    "labelme": "as one LabelMe .json file an image, named like it",
    "cityscapes-polygons": "as one polygons .json file an image, named like it",
    "masks": "as one mask a class and image, as those that are there",
    "colors": "as one PNG of class colours an image, named like it",
    "auto": "as one PNG of ids or of class colours an image, named like it",
}
_IDS = "as one PNG of ids an image, named like it"


def form_of_labels(config: Config) -> str:
    """The kind of the target's training labels, a key of `_FORMS` or a kind of ids."""
    spec = find_spec(config.data.target)
    labels = split_folders(spec, config.data.target, "train").labels or ""
    return {".json": "coco", ".xml": "cvat"}.get(Path(labels).suffix, spec.encoding.kind)


def where_labels_go(config: Config, root: Path | None, *, is_prepared: bool) -> str:
    """A sentence: the place of the target's training labels, and their form."""
    spec = find_spec(config.data.target)
    labels = split_folders(spec, config.data.target, "train").labels
    if is_prepared:
        return (
            f"Put them beside the labels that {root} was prepared from, prepare it anew (iidm prepare), and give the"
            " new folder with --target-root."
        )
    if not labels:
        return (
            "The run has no place for labels of its target: put them into a folder as PNGs of ids, or export COCO,"
            " CVAT or LabelMe, and add --data.target.labels PLACE."
        )
    folder = root or spec.root
    place = Path(labels) if folder is None else folder / labels
    kind = form_of_labels(config)
    form = _FORMS.get(kind, _IDS)
    if spec.label_suffix and kind not in ("coco", "cvat"):
        form += f" with {spec.label_suffix} at its end"
    if place.suffix:
        return f"Add them to {place} {form}; or export them alone beside it and name the folder as labels."
    return f"Put them into {place} {form}."


def next_round(config: Config, run_dir: Path, labeled_list: Path, root: Path | None = None) -> str:
    """The command that trains on from the run with the longer list; `root`: where the target lies now, if it moved."""
    words = ["iidm", "train", "--config", str(run_dir / "config.json")]
    if not streams_of(config).labeled:
        words += ["--method", "target_intra" if config.data.source == DatasetConfig() else "iidm"]
    words += ["--data.labeled-list", str(labeled_list)]
    if root is not None:
        words += ["--target-root", str(root)]
    kept = run_dir / "splits" / "val.txt"
    if config.data.val_count is not None and kept.is_file():  # another draw might validate with other images
        words += ["--data.val-list", str(kept)]
    return shlex.join([*words, "--model.weights", str(run_dir)])
