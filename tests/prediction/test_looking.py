"""Confidence and probabilities are the softmax of the logits, in whole images, batches and windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import SlidingWindow
from iidm.engine.windows import image_logits
from iidm.evaluation import normalize_image
from iidm.prediction.looking import Look

SIZE = (150, 110)


class Cells(nn.Module):
    """Logits of 7 classes at an output stride of 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, 7, 8, stride=8)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.cells(image) * 3
        return logits


@pytest.mark.parametrize("size", [SIZE, (90, 66)])
@pytest.mark.parametrize("windows", [None, SlidingWindow((48, 40), (24, 20), 3)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_they_are_the_softmax(size: tuple[int, int], windows: SlidingWindow | None, align_corners: bool) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8) for _ in range(1 if windows else 2)]
    network = Cells()
    look = Look(network, None, align_corners, with_confidence=True, with_probabilities=True)  # type: ignore[arg-type]
    for image, said in zip(images, look(images, size, windows), strict=True):
        with torch.inference_mode():
            whole = normalize_image(torch.from_numpy(image)[None])
            whole = whole if size == SIZE else F.interpolate(whole, size=size, mode="bilinear", antialias=True)
            logits = image_logits(network, whole, windows, align_corners=align_corners)
            full = F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=align_corners)
            expected = full.softmax(1)[0].numpy()
        assert said.probabilities is not None and said.confidence is not None
        assert said.probabilities.dtype == np.float16 and said.confidence.dtype == np.uint8
        np.testing.assert_allclose(said.probabilities, expected, atol=2e-3)
        np.testing.assert_allclose(said.confidence / 255, expected.max(0), atol=0.5 / 255 + 1e-4)
        ties = np.ptp(np.sort(expected, 0)[-2:], 0)
        assert (said.label == expected.argmax(0))[ties > 1e-4].all()


def test_what_is_not_wished_is_not_made() -> None:
    said = Look(Cells(), None)([np.zeros((*SIZE, 3), np.uint8)], SIZE)[0]  # type: ignore[arg-type]
    assert said.confidence is None and said.probabilities is None
