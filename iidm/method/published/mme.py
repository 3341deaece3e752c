"""Minimax entropy (MME): the classifier spreads its prototypes, the features gather around them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Method, Scene, normalized
from ..cells import reversed_gradient
from ..losses import Branch, Output


class MinimaxEntropy(Method):
    """L_s + L_t, and the entropy H of the unlabeled images: the head maximises it, the backbone minimises it.

    One forward does both: the objective is -H of the head on features whose gradient is reversed, as in MME's code.
    Known: the cosine head with T = 0.05, lambda 0.1, gradient reversal. Chosen: the entropy is that of each cell at the
    output stride (MME classifies images); the unlabeled images are plain.
    """

    def branches(self, scene: Scene) -> list[Branch]:
        """IIDM's supervised ones, and the unlabeled images."""
        found, weight = super().branches(scene), self.config.loss.auxiliary_weight
        if weight == 0:
            return found
        assert scene.batch.unlabeled is not None
        head = scene.student.head

        def negative_entropy(out: Output) -> Tensor:
            assert out.features is not None and callable(head)
            log_p = torch.log_softmax(head(reversed_gradient(out.features)).float(), 1)
            return (log_p.exp() * log_p).sum(1).mean()

        image = normalized(scene.batch.unlabeled)
        return [*found, Branch("auxiliary", image, None, None, 0.0, "pixels", negative_entropy, weight)]
