"""DAFormer's recipe on this engine's networks: DACS, rare classes, and features that stay near ImageNet's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from iidm.config import Config
from iidm.recipes import DAFORMER as RECIPE
from iidm.types import LabeledImages, UserError

from ..base import Method, Scene
from ..cells import dominant_cells
from ..losses import Branch, Objective, Output
from .entry import MEANS, WITHOUT_LABELS, Entry, Values

THINGS = frozenset(
    "person pedestrian rider bicyclist bicycle motorcycle car truck bus train".split()
    + ["traffic light", "traffic sign", "sign symbol"]
)
"""Classes whose ImageNet features are worth keeping: Cityscapes' things with light and sign, as DAFormer lists them (6,
7, 11 to 18), and what CamVid calls them."""
MIN_SHARE = 0.75
"""A cell counts where one class holds this share of its pixels."""
CROP, TOP, BOTTOM = 512, 15, 120
"""DAFormer's margins are rows of a crop of 512."""


class DAFormer(Method):
    """DACS with a feature distance: the mean over cells of things of |features - ImageNet's features|, on the source.

    The ImageNet network is the backbone as the run starts, in evaluation mode. Known and kept: lambda 0.005, the list
    of things, the share of 0.75, EMA 0.999 with its ramp, the margins (here as shares of the crop's height), rare class
    sampling, warm-up. Not DAFormer's: the network (its Transformer and head are another's), and so the stage whose
    features are compared: here it is the backbone's last. Where no class of the data set is a known thing, all count.
    """

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        self.things = [i for i, name in enumerate(classes) if name in THINGS] or list(range(len(classes)))
        self.distance = config.loss.auxiliary_weight > 0
        if not self.distance:
            return
        if config.model.weights == "none":
            raise UserError(
                "daformer keeps features near those of pretrained weights, and --model.weights is none. Give weights,"
                " or leave the feature distance out with --loss.auxiliary-weight 0."
            )
        # In a list, as it is no part of the checkpoint: a resumed run loads the same weights again.
        self._imagenet = [copy.deepcopy(student.backbone).requires_grad_(False).eval()]  # type: ignore[union-attr]

    def branches(self, scene: Scene) -> list[Branch]:
        """DACS', the source's with the feature distance."""
        found = super().branches(scene)
        if not self.distance:
            return found
        assert scene.batch.source is not None
        source = next(i for i, branch in enumerate(found) if branch.name == "source")
        distance = self._distance(scene.batch.source, found[source].image)
        found[source] = found[source]._replace(objective=distance, objective_weight=self.config.loss.auxiliary_weight)
        return found

    def _distance(self, labeled: LabeledImages, image: Tensor) -> Objective:
        def distance(out: Output) -> Tensor:
            assert out.features is not None
            with torch.no_grad():
                kept = self._imagenet[0](image).float()
            cells = dominant_cells(
                labeled.label, (out.features.shape[2], out.features.shape[3]), len(self.classes), MIN_SHARE
            )
            counts = torch.zeros_like(cells, dtype=torch.bool)
            for thing in self.things:
                counts |= cells == thing
            # The square root of 0 has no gradient.
            norm = ((out.features - kept).square().sum(1) + 1e-12).sqrt()
            return (norm * counts).sum() / counts.sum().clamp(min=1)

        return distance


def _values(config: Config) -> Values:
    height = config.data.crop_size[0]
    return {
        "loss": {
            **WITHOUT_LABELS,
            "source_weight": 1.0,
            "inter_weight": 1.0,
            **MEANS,
            "auxiliary_weight": 0.005,
        },
        "mixing": {**RECIPE["mixing"], "mask": "classmix", "strategy": "one-xu-two-streams"},
        "teacher": {
            **RECIPE["teacher"],
            "ema_decay": 0.999,
            "confidence_threshold": 0.968,
            "ignore_top_px": height * TOP // CROP,
            "ignore_bottom_px": height * BOTTOM // CROP,
        },
        "data": {"rare_class_sampling": True},
    }


DAFORMER = Entry(
    "DACS + rare class sampling + distance to ImageNet features on things + EMA 0.999 + margins, no target label",
    "DAFormer, arXiv 2111.14887 (CVPR 2022); Tables 1 and 2, UDA",
    _values,
    DAFormer,
)
