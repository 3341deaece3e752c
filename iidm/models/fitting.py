"""Finding a backbone in what people bring: a state dict under wrappers, its keys under prefixes, a head beside it.

DataParallel puts `module.` before every key, mmsegmentation `backbone.`, segmentation_models.pytorch `encoder.`, MoCo
`module.encoder_q.`; training scripts save {"model": ...}, {"state_dict": ...}, {"student": ..., "teacher": ...}. No
list of prefixes is complete, so the prefix is the one under which most of the backbone's own names are found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor

WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "teacher",
    "student",
    "network",
    "net",
    "state_dict_ema",
    "weights",
)
"""Under which a file keeps a state dict, in the order in which they are taken where it has several: the teacher before
the student, as DINO's evaluation has it."""
PREFERRED = ("teacher", "model", "encoder_q", "student", "backbone")
"""The parts of a prefix by which one of several networks that fit is taken, in this order: MIC's `model.backbone.` is
its student, beside an EMA and an ImageNet network; MoCo's `encoder_q` is the one that learns."""
HEADS = ("head", "heads", "classifier", "fc", "decoder", "projector", "last_linear", "attention")
"""Names of what lies on top of a backbone; those that end with _head or _classifier too."""


class Part(NamedTuple):
    """A backbone's tensors in a larger state dict."""

    state: dict[str, Tensor]
    """In the backbone's names, as far as they are known."""
    aside: dict[str, int]
    """What else there is: the name of a part -> its tensors."""

    @property
    def left_aside(self) -> str:
        """What is not loaded, for a line about what is; empty where there is nothing."""
        heads = [name for name in self.aside if is_head(name)]
        others = [name for name in self.aside if not is_head(name)]
        words = [f"its head is left aside ({_counted(self.aside, heads)})"] if heads else []
        words += [f"{_counted(self.aside, others)} {'too' if heads else 'are left aside'}"] if others else []
        return "; ".join(words)


def unwrapped(state: Any) -> tuple[Any, str]:
    """The state dict out of its wrappers, and by which of several keys it was taken; empty where there was one."""
    taken = ""
    while isinstance(state, Mapping):
        found = [key for key in WRAPPERS if isinstance(state.get(key), Mapping)]
        if not found:
            break
        if len(found) > 1:
            taken = f"its {found[0]!r}, beside {' and '.join(map(repr, found[1:]))}"
        state = state[found[0]]
    return state, taken


def fitting_parts(
    state: Mapping[str, Tensor], own: Collection[str], translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> dict[str, Part]:
    """The parts of a state dict that hold most of a backbone's names, by their prefix; mostly one.

    Where none of the names is found the whole state dict is the part, with the prefix "".

    Args:
        state: any names -> tensors.
        own: the backbone's names.
        translate: into the names of this kind of backbone; what it does not know it leaves.
    """
    prefixes = Counter(key[: i + 1] for key in state for i, letter in enumerate(key) if letter == ".")
    likely = ["", *(prefix for prefix, count in prefixes.items() if 2 * count >= len(own))]
    found = {p: translate({k.removeprefix(p): v for k, v in state.items() if k.startswith(p)}) for p in likely}
    hits = {prefix: sum(key in own for key in part) for prefix, part in found.items()}
    most = max(hits.values())
    best = [prefix for prefix in likely if hits[prefix] == most] if most else [""]
    for word in PREFERRED:
        best = [prefix for prefix in best if word in prefix.split(".")] or best
    return {prefix: _cleaned(found[prefix], own, prefix, state) for prefix in best}


def is_head(name: str) -> bool:
    """Whether a part of a network is, by its name, what classifies."""
    last = name.rpartition(".")[2]
    return last in HEADS or last.endswith(("_head", "_classifier"))


def _cleaned(translated: dict[str, Tensor], own: Collection[str], prefix: str, state: Mapping[str, Tensor]) -> Part:
    """Without counters, which count batches of BatchNorm layers, and without the heads beside the backbone's parts."""
    aside: Counter[str] = Counter()
    kept = {}
    for key, value in translated.items():
        first = key.partition(".")[0]
        if key in own or not (is_head(first) or key.startswith("features.18.")):
            if not key.endswith("num_batches_tracked"):
                kept[key] = value
        else:
            aside[prefix + ("head" if first == "features" else first)] += 1
    for key in state:
        if not key.startswith(prefix):
            aside[_branch_of(key, prefix)] += 1
    return Part(kept, dict(aside))


def _branch_of(key: str, prefix: str) -> str:
    """The first parts of a key up to where it leaves the prefix."""
    parts, others = key.split("."), prefix.split(".")
    same = next((i for i, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b), 0)
    return ".".join(parts[: same + 1])


def _counted(aside: Mapping[str, int], names: list[str]) -> str:
    shown = ", ".join(f"{name}: {aside[name]} tensor{'' if aside[name] == 1 else 's'}" for name in names[:3])
    return shown + (f", and {len(names) - 3} more parts" if len(names) > 3 else "")
