"""Alleviating semantic-level shift (ASS): neither outputs nor a class's features shall tell the domain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import Config
from iidm.types import UserError

from ..base import Method, Scene, normalized
from ..cells import class_means, nearest_cells, reversed_gradient
from ..losses import Branch, Output

HIDDEN = 64
"""Channels of the discriminators; AdaptSegNet's first layer has as many."""
SLOPE = 0.2
"""Of the leaky ReLU (AdaptSegNet)."""


class SemanticLevelShift(Method):
    """L_s + L_t, and two discriminators that the network deceives: of outputs, and of the mean features of each class.

    Known: AdaptSegNet (arXiv 1802.10349) with target labels, whose discriminator reads softmax outputs, of source
    against unlabeled target images; and, which is ASS's own, a second one that reads the features of each class in
    labeled images of both domains, averaged by their labels. Of AdaptSegNet's code: lambda 0.001, binary
    cross-entropy, leaky ReLU 0.2, and that the network is moved on target images alone.

    One forward and one backward train all: what a discriminator reads of target images has its gradient reversed and
    multiplied by lambda, what it reads of source images is detached, and the terms have weight 1. So the discriminators
    learn in full, the network feels lambda (`auxiliary_weight`), and the logged total holds their losses in full.

    Chosen, as no more of ASS could be read: features are the head's input, means are of each image, and the second
    discriminator has an output a class, of which that of the mean's own class counts; lambda is the same for both. The
    first one has strides 2, 2 and 1 in 3x3 convolutions: at output stride 8 it looks at 120 px every 32 px, which
    AdaptSegNet's five layers do at 94 and 32, and it takes any crop. Both are trained by the head's AdamW, at its rate.
    Not AdaptSegNet's: with D the probability of the target, reversal ascends -log D where it descends -log(1 - D),
    which is stronger where the discriminator is sure. Missing: its second, lower level of outputs; SGD, and Adam at
    1e-4 for the discriminators.
    """

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        self.factor, count = config.loss.auxiliary_weight, len(classes)
        if self.factor == 0:
            return
        if min(config.loss.source_weight, config.loss.target_weight) == 0:
            raise UserError(
                "ass compares labeled images of both domains: --loss.source-weight and --loss.target-weight may not be"
                " 0. Without the comparison, --loss.auxiliary-weight 0, they may."
            )
        channels: int = student.head.channels  # type: ignore[union-attr, assignment]
        self.of_outputs = nn.Sequential(
            nn.Conv2d(count, HIDDEN, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(HIDDEN, HIDDEN, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(HIDDEN, 1, 3, padding=1),
        )
        self.of_classes = nn.Sequential(nn.Linear(channels, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, count))
        self.to(self.progress.device)

    def branches(self, scene: Scene) -> list[Branch]:
        """The supervised ones with what the discriminators read of them, and the unlabeled images."""
        found = super().branches(scene)
        if self.factor == 0:
            return found
        batch = scene.batch
        assert batch.source is not None and batch.target is not None and batch.unlabeled is not None
        source_label, target_label = batch.source.label, batch.target.label

        def source(out: Output) -> Tensor:
            return self.output_loss(out, of_target=False) + self.class_loss(out, source_label, of_target=False)

        def target(out: Output) -> Tensor:
            return self.class_loss(out, target_label, of_target=True)

        def unlabeled(out: Output) -> Tensor:
            return self.output_loss(out, of_target=True)

        terms = {"source": source, "target": target}
        found = [
            branch._replace(objective=terms[branch.name], objective_weight=1.0) if branch.name in terms else branch
            for branch in found
        ]
        image = normalized(batch.unlabeled)
        return [*found, Branch("auxiliary", image, None, None, 0.0, "pixels", unlabeled, 1.0)]

    def output_loss(self, out: Output, *, of_target: bool) -> Tensor:
        """Cross-entropy of the domain, by the softmax of the logits; a mean over what the discriminator says."""
        said = self.of_outputs(self._read(torch.softmax(out.logits, 1), of_target))
        return _domain_loss(said, of_target).mean()

    def class_loss(self, out: Output, label: Tensor, *, of_target: bool) -> Tensor:
        """Cross-entropy of the domain, by the mean feature of each class in each image; a mean over those there are."""
        assert out.features is not None
        features, classes = self._read(out.features, of_target), len(self.classes)
        images = len(features)
        cells = nearest_cells(label, (features.shape[2], features.shape[3]))
        first = classes * torch.arange(images, device=cells.device)[:, None, None]
        own = torch.where(cells < classes, cells + first, images * classes)
        means, count = class_means(features, own, images * classes)
        said = self.of_classes(means).view(images, classes, classes).diagonal(dim1=1, dim2=2)
        present = count.view(images, classes) > 0
        return (_domain_loss(said, of_target) * present).sum() / present.sum().clamp(min=1)

    def _read(self, x: Tensor, of_target: bool) -> Tensor:
        return reversed_gradient(x, self.factor) if of_target else x.detach()


def _domain_loss(said: Tensor, of_target: bool) -> Tensor:
    """Binary cross-entropy of each logit of "from the target"."""
    return F.softplus(-said if of_target else said)
