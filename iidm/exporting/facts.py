"""What a file tells of itself, and the ids that it gives."""

from __future__ import annotations

import json

import iidm
from iidm.config import Config
from iidm.data.labels.encodings import LabelEncoding
from iidm.types import ClassSet, UserError

from .deployed import Form


def dataset_ids(encoding: LabelEncoding, classes: ClassSet) -> tuple[int, ...]:
    """The id that each class has in the data set's own label files; the lowest where it has several.

    Raises: UserError where a class has none (labels are colours or names), or one that is no uint8.
    """
    found = []
    for number, name in enumerate(classes.names):
        own = [i for i, train_id in encoding.train_ids if train_id == number]
        if not own or min(own) > 255:
            what = f"its id is {min(own)}, and ids of 8 bits end at 255" if own else "its labels are no ids"
            raise UserError(
                f"--ids dataset needs an id of each class, and {name!r} has none that a file can give: {what}. Leave it"
                " out: the ids are then the classes' places, 0, 1, ..., and the file names them."
            )
        found.append(min(own))
    return tuple(found)


def describe(
    config: Config, form: Form, classes: ClassSet, network: str, steps: int, precision: str, command: str
) -> dict[str, str]:
    """The metadata of a file, text by name; `classes` is JSON: id, name and colour of each.

    Args:
        network: student or teacher.
        steps: that it was trained for.
        command: that wrote the file.
    """
    numbers = form.ids or tuple(range(len(classes)))
    table = [
        {"id": i, "name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
        for i, name, color in zip(numbers, classes.names, classes.palette, strict=True)
    ]
    model = config.model
    return {
        "classes": json.dumps(table),
        "input": f"image: uint8 [batch,height,width,3], RGB, any batch, {size_text(form)}",
        "output": _output_text(form),
        "network": f"{network} after {steps} steps: {model.backbone}, {model.head_by_name} head"
        f"{', HRDA' if model.hrda else ''}; method {config.method}, preset {config.preset}",
        "precision": precision,
        "command": command,
        "iidm": iidm.__version__,
    }


def size_text(form: Form) -> str:
    """What sizes a file takes and at which the network sees them."""
    how = "" if form.windows is None else f", in {form.windows}"
    if form.size is None:
        seen = "at their own size" if form.box is None else "fitted into {}x{}, aspect ratio kept".format(*form.box)
        return f"images of any size, seen {seen}"
    assert form.seen is not None
    return "images of {}x{} (HxW), seen at {}x{}".format(*form.size, *form.seen) + how


def _output_text(form: Form) -> str:
    kind = "places in `classes`, 0, 1, ..." if form.ids is None else "the data set's own ids, see `classes`"
    more = "; confidence: float32 [batch,height,width], the largest class probability" if form.confidence else ""
    return f"label: uint8 [batch,height,width], {kind}{more}"
