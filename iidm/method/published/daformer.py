"""DAFormer's recipe on this engine's networks: DACS, rare classes, and features that stay near ImageNet's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from iidm.config import Config
from iidm.types import LabeledImages, UserError

from ..base import Method, Scene
from ..cells import dominant_cells
from ..losses import Branch, Objective, Output

THINGS = frozenset(
    "person pedestrian rider bicyclist bicycle motorcycle car truck bus train".split()
    + ["traffic light", "traffic sign", "sign symbol"]
)
"""Classes whose ImageNet features are worth keeping: Cityscapes' things with light and sign, as DAFormer lists them (6,
7, 11 to 18), and what CamVid calls them."""
MIN_SHARE = 0.75
"""A cell counts where one class holds this share of its pixels."""


WITHOUT_DISTANCE = ", or leave the feature distance out with --loss.auxiliary-weight 0"


class FeatureDistance:
    """The mean over cells of things of |features - ImageNet's features| of the backbone's deepest level.

    The ImageNet network is the backbone as the run starts, in evaluation mode. Where no class of the data set is a
    known thing, all count.

    Args:
        student: the network at its start.
        classes: names of the classes.
        otherwise: what else the error tells to do.

    Raises:
        UserError: a random start, whose features are not worth keeping.
    """

    def __init__(
        self, config: Config, student: nn.Module, classes: tuple[str, ...], otherwise: str = WITHOUT_DISTANCE
    ) -> None:
        if config.model.weights == "none":
            raise UserError(
                f"{config.method} keeps features near those of pretrained weights, and --model.weights is none. Give"
                f" weights{otherwise}."
            )
        self.classes = len(classes)
        self.things = [i for i, name in enumerate(classes) if name in THINGS] or list(range(len(classes)))
        self.imagenet = copy.deepcopy(student.backbone).requires_grad_(False).eval()  # type: ignore[union-attr]

    def to(self, labeled: LabeledImages, image: Tensor, student: nn.Module) -> Objective:
        """The term of labeled images, normalized in `image` [B,3,H,W]."""
        context_of: Callable[[Tensor], Tensor] = student.context_of  # type: ignore[assignment]
        # Not in the objective: that is float32, in which this network takes several times as long.
        with torch.no_grad():
            kept = self.imagenet(context_of(image))[-1]

        def distance(out: Output) -> Tensor:
            assert out.deepest is not None
            size = (out.deepest.shape[2], out.deepest.shape[3])
            cells = dominant_cells(labeled.label, size, self.classes, MIN_SHARE)
            counts = torch.zeros_like(cells, dtype=torch.bool)
            for thing in self.things:
                counts |= cells == thing
            # The square root of 0 has no gradient.
            norm = ((out.deepest - kept.float()).square().sum(1) + 1e-12).sqrt()
            return (norm * counts).sum() / counts.sum().clamp(min=1)

        return distance


class DAFormer(Method):
    """DACS with a feature distance on the source.

    Known and kept: lambda 0.005, the list of things, the share of 0.75, EMA 0.999 with its ramp, rare class sampling,
    warm-up, and on Cityscapes the margins, as shares of the height of the preset's crop. The network is the preset's:
    with `--model.backbone mit_b5` it is DAFormer's own.
    """

    keeps_start = True

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        # Its network is no part of the checkpoint: a resumed run loads the same weights again.
        self._distance = FeatureDistance(config, student, classes) if config.loss.auxiliary_weight > 0 else None

    def branches(self, scene: Scene) -> list[Branch]:
        """The mixes' and the labeled images', the source's with the feature distance."""
        found = super().branches(scene)
        source = scene.batch.source
        for i, branch in enumerate(found):
            if branch.name == "source" and self._distance is not None and source is not None:
                distance = self._distance.to(source, branch.image, scene.student)
                found[i] = branch._replace(objective=distance, objective_weight=self.config.loss.auxiliary_weight)
        return found
