"""Any backbone of timm (https://github.com/huggingface/pytorch-image-models) as the other backbones here are: levels
from fine to coarse, norm layers that know branches. timm is the extra `iidm[timm]`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..types import MEAN_RGB, STD_RGB, UserError
from . import norm
from .head import Level
from .sizes import unseen
from .timm_positions import keep_positions
from .timm_weights import Check, checked, flat, in_one_line

ONE_SIZE = ("MultiScaleVit",)
"""Classes of models that look up positions in a table of one image's size, which no shape tells."""
LEVELS = 4
"""Blocks of a plain ViT whose outputs are levels: evenly spaced, the last one included, as DINOv2's heads read them."""


class TimmBackbone(nn.Module):
    """A timm model without its classifier.

    Convolutional and hierarchical models give the levels of stride 4 and more, with the wished output stride where they
    know it. Plain ViTs give four of their blocks' outputs, with the last norm layer, all of the patches' stride.

    BatchNorm layers become those of `iidm.models.norm`. A model that was trained on images of another mean and
    deviation than ImageNet's gets them so. Dropout and stochastic depth are timm's own and draw from torch's global
    generator, whose state is in a checkpoint.

    Args:
        name: of timm, with or without the tag of its weights.
        output_stride: 8, 16 or 32, for those that can choose it.
        drop_path: chance that the deepest residual branches are dropped.
        state: a state dict to start from, in any form that timm reads; None: a random start.
        pretrained: start from timm's own weights, which are fetched.

    Raises:
        UserError: timm is missing or does not know the name (with the nearest), or the model cannot be built so.
    """

    decays_norms = False
    """Norm layers and what timm itself exempts have no weight decay (see `parameter_groups`)."""

    def __init__(
        self,
        name: str,
        output_stride: int,
        drop_path: float = 0.0,
        *,
        state: Mapping[str, Tensor] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        _check_known(name)
        start: dict[str, Any] = {"pretrained": pretrained or state is not None}
        if state is not None:
            start["pretrained_cfg_overlay"] = {"state_dict": dict(state)}
        self.name, self.wishes = name, (name, output_stride, drop_path)
        depth_rates: tuple[dict[str, Any], ...] = ({"drop_path_rate": drop_path},)  # timm's own default may be above 0
        if drop_path == 0:
            depth_rates += ({},)
        whole: dict[str, Any] = {"num_classes": 0}
        self.model: Any = _created(name, whole, depth_rates, ({"dynamic_img_size": True}, {}))
        self.plain = _is_plain_vit(self.model)
        # Of the model as it is: cut up into levels it no longer tells.
        exempt: set[str] = getattr(self.model, "no_weight_decay", set)()
        names = list(self.model.state_dict())
        if self.plain:
            if start["pretrained"]:
                self.model = _created(name, {**whole, **start}, depth_rates, ({"dynamic_img_size": True}, {}))
            depth = len(self.model.blocks)
            self.taken = [round(depth * (i + 1) / LEVELS) - 1 for i in range(LEVELS)]
            info = self.model.feature_info
            # The last norm of SAM's is a neck of fewer channels.
            channels = [one.get("num_chs_norm", one["num_chs"]) for one in info]
            self.levels = tuple(Level(channels[i], info[i]["reduction"]) for i in self.taken)
            self.model.prune_intermediate_layers(self.taken, prune_norm=False, prune_head=True)
        else:
            of_stride, of_size = {"output_stride": output_stride}, {"strict_img_size": False}
            self.model = _created(name, {"features_only": True, **start}, depth_rates, (of_stride, of_size, {}))
            channels, strides = self.model.feature_info.channels(), self.model.feature_info.reduction()
            first = next((i for i, stride in enumerate(strides) if stride >= 4), len(strides))
            self.taken = list(range(first, len(strides)))
            self.levels = tuple(Level(channels[i], strides[i]) for i in self.taken)
        if not self.levels:
            raise UserError(f"timm's {name} has no feature maps to segment with.")
        # timm's own word: a map of as many rows as channels has the same shape in either order.
        self.channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC" and not self.plain
        self.multiple = max(level.stride for level in self.levels)
        """Pixels that both sides of an image are multiples of where all cells are whole."""
        self._adopt_norms()
        keep_positions(self.model)
        own = {flat(key.removeprefix(self._inner()[1])) for key in self.state_dict()}
        self.kept = tuple(key for key in names if flat(key) in own)
        """Names of the tensors, as timm's whole model has them."""
        self.undecayed = tuple(name for name, _ in self.named_parameters() if self._is_one_of(name, exempt))
        """Parameters that timm exempts from weight decay: position embeddings, class tokens."""
        mean, std = (torch.tensor(self.model.pretrained_cfg[key]) * 255 for key in ("mean", "std"))
        ours = torch.tensor(MEAN_RGB), torch.tensor(STD_RGB)
        same = torch.allclose(mean, ours[0], atol=0.5) and torch.allclose(std, ours[1], atol=0.5)
        self.register_buffer("scale", None if same else (ours[1] / std).reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", None if same else ((ours[0] - mean) / std).reshape(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """float [B,3,H,W] -> a map for each of `levels`.

        An image whose sides are no multiples of what the model can divide is resized to the nearest that are; its cells
        are then as many, and as many pixels of the image stand behind each but for a rest.
        """
        fitting = self.fitting((image.shape[2], image.shape[3]))
        # A graph that is exported for images of any size cannot ask; to the size that it has an image is resized as is.
        if torch.compiler.is_exporting() or fitting != image.shape[2:]:
            image = F.interpolate(image, size=fitting, mode="bilinear", align_corners=False)
        if self.scale is not None:
            image = torch.addcmul(self.shift, image, self.scale)  # type: ignore[arg-type]
        if self.plain:
            found = self.model.forward_intermediates(image, self.taken, norm=True, intermediates_only=True)
        else:
            found = [level for i, level in enumerate(self.model(image)) if i in self.taken]
        return tuple(level.permute(0, 3, 1, 2) if self.channels_last else level for level in found)

    @property
    def resolved(self) -> str:
        """timm's name with the tag of the weights whose images the backbone expects: timm's default where none was
        given."""
        found = self.model.pretrained_cfg
        return ".".join(filter(None, (found.get("architecture") or self.name.partition(".")[0], found.get("tag"))))

    @property
    def normalization(self) -> tuple[str, ...]:
        """What images are normalized with, in words; none where that is ImageNet's mean and deviation."""
        if self.scale is None:
            return ()
        mean, std = (", ".join(f"{one:g}" for one in self.model.pretrained_cfg[key]) for key in ("mean", "std"))
        return (f"images are normalized with mean {mean} and deviation {std}, those of {self.resolved}",)

    def fitting(self, size: tuple[int, int]) -> tuple[int, int]:
        """The nearest (H, W) that the model can divide into cells."""
        # In whole numbers, which may be symbols of a graph.
        counts = ((2 * side + self.multiple) // (2 * self.multiple) for side in size)
        height, width = (torch.sym_max(count, 1) * self.multiple for count in counts)
        return height, width

    def require_sizes(self, crop_size: tuple[int, int], *, whole_cells: bool) -> None:
        """Let the model prove that it sees crops of (H, W), and images of another size.

        Args:
            crop_size: of what it sees in training.
            whole_cells: maps need the cells that `levels` says; else one more or less will do, as they are resized.

        Raises: UserError for a model of one size, or of other maps.
        """
        height, width = self.fitting(crop_size)
        # No square: neither are most images that are scored.
        other = (height + self.multiple, width + 2 * self.multiple)
        if type(self._inner()[0]).__name__ in ONE_SIZE:
            found: tuple[tuple[int, int], str] | None = (other, "positions are looked up in a table of one size")
        else:
            found = unseen(self, ((height, width), other), spare=0 if whole_cells else 1)
        if found is not None:
            (rows, columns), reason = found
            raise UserError(
                f"timm's {self.name} does not see images of {rows}x{columns} ({reason}). A backbone has to see crops,"
                f" here of {height}x{width}, and images of other sizes, which are scored and labeled: give another"
                " --model.backbone, such as timm's ViT, DINOv2, DINOv3, ConvNeXt, Swin or RegNet (docs/networks.md)."
            )

    def set_recompute(self, recompute: bool) -> None:
        """Keep the inner activations of blocks, or compute them again in the backward.

        Raises: UserError for a model with BatchNorm, whose statistics a second forward would change.
        """
        if recompute and norm.norms_of(self):
            raise UserError(
                f"timm's {self.name} has BatchNorm layers, whose statistics a second forward would change: leave"
                " --step.recompute out."
            )
        inner, _ = self._inner()
        able = hasattr(inner, "set_grad_checkpointing")
        try:
            if able:
                inner.set_grad_checkpointing(recompute)
        except AssertionError:  # of models that have it to say that they cannot
            able = False
        if recompute and not able:
            raise UserError(f"timm cannot recompute {self.name}: leave --step.recompute out.")

    def layers(self) -> list[list[str]]:
        """Names of the parameters by layer, for a learning rate that decays towards the image; as timm groups them, or
        part by part."""
        inner, prefix = self._inner()
        if not hasattr(inner, "group_matcher"):
            parts: dict[str, list[str]] = {}
            for name, _ in inner.named_parameters():
                parts.setdefault(name.partition(".")[0], []).append(prefix + name)
            return list(parts.values())
        groups = _timm().models.group_parameters(inner, inner.group_matcher(coarse=False))
        return [[prefix + name for name in groups[key]] for key in sorted(groups) if groups[key]]

    def _inner(self) -> tuple[Any, str]:
        """The model that has timm's methods, and what stands before its names: some levels are given by a wrapper
        around it."""
        children = list(self.model.named_children())
        if len(children) == 1 and children[0][0] in ("model", "body"):
            return children[0][1], f"model.{children[0][0]}."
        return self.model, "model."

    def _is_one_of(self, own: str, names: Iterable[str]) -> bool:
        """Whether a parameter is named by timm: by its whole name, where * stands for anything, or by its last part."""
        whole = flat(own.removeprefix(self._inner()[1]))
        last = own.rpartition(".")[2]
        # Last parts stand alone in lists such as {"pos_embed", "cls_token"}; these two would name all there is.
        by_last = last in names and last not in ("weight", "bias")
        return by_last or any(fnmatchcase(whole, flat(name)) for name in names)

    def fetch(self) -> None:
        """Start from timm's own weights.

        Raises: what timm raises where they cannot be fetched.
        """
        self.load_state_dict(TimmBackbone(*self.wishes, pretrained=True).state_dict())

    def load(self, state: Mapping[str, Tensor], check: Check) -> list[str]:
        """Start from a state dict in timm's names, or in others that timm translates.

        Args:
            state: names -> tensors.
            check: called with the tensors that are needed and what there is of them, both by timm's names; raises.

        Returns: names in timm's translation that are no part of the backbone.
        Raises: what `check` raises, and timm where it cannot read the names.
        """
        with checked(self.kept, check) as left:
            given = TimmBackbone(*self.wishes, state=state)
        self.load_state_dict(given.state_dict())
        return left

    def _adopt_norms(self) -> None:
        """Replace BatchNorm layers by those that keep branches apart, with the activation that timm puts into them."""
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d) and not isinstance(child, norm.BatchNorm2d):
                    setattr(parent, name, _AdoptedNorm(child))


class _AdoptedNorm(norm.BatchNorm2d):
    """A BatchNorm layer of timm, which may hold the dropout and the activation that follow it."""

    def __init__(self, other: nn.BatchNorm2d) -> None:
        momentum = 0.1 if other.momentum is None else other.momentum
        super().__init__(other.num_features, eps=other.eps, momentum=momentum)
        self.drop = getattr(other, "drop", nn.Identity())
        self.act = getattr(other, "act", nn.Identity())
        self.load_state_dict(other.state_dict(), strict=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y: Tensor = self.act(self.drop(super().forward(x, residual)))
        return y


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        raise UserError(
            f"--model.backbone timm:... needs timm, which cannot be imported ({type(error).__name__}: {error})."
            " Install it with: pip install 'iidm[timm]', with a torchvision that belongs to your torch."
        ) from error
    return timm


def _check_known(name: str) -> None:
    """Of a model, with or without the tag of its weights."""
    timm = _timm()
    if not timm.is_model(name):
        near = get_close_matches(name.lower(), timm.list_models() + timm.list_pretrained(), n=3, cutoff=0.4)
        hint = f" The nearest: {', '.join(near)}." if near else ""
        raise UserError(f"timm {timm.__version__} has no model {name!r}.{hint}")
    try:
        timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that the model has not
        known = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise UserError(f"timm {timm.__version__} has no weights {name!r}. Those of the model: {known}.") from error


def _is_plain_vit(model: Any) -> bool:
    """All blocks at one stride, one after the other."""
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not hasattr(model, "blocks") or not hasattr(model, "forward_intermediates"):
        return False
    return len(info) == len(model.blocks) and len({one["reduction"] for one in info}) == 1


def _created(name: str, wishes: dict[str, Any], *options: tuple[dict[str, Any], ...]) -> Any:
    """timm.create_model with the first combination of the options that the model takes."""
    reason: Exception | None = None
    for chosen in itertools.product(*options):
        further = {key: value for option in chosen for key, value in option.items()}
        try:
            return _timm().create_model(name, **wishes, **further)
        except (TypeError, NotImplementedError, AssertionError) as error:
            reason = error
    assert reason is not None
    if wishes.get("pretrained"):  # without weights it could be built
        raise reason
    raise UserError(f"timm's {name} cannot be built as a backbone ({in_one_line(reason)}).") from reason
