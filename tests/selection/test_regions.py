"""Regions of logits and features, against sums over cells one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from iidm.selection.regions import FEATURES, _projected, _regions


@pytest.mark.parametrize("finer", [1, 2])
def test_a_region_is_the_mean_over_cells_by_their_probability(finer: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4, 6), torch.randn(2, 3, 4, 4, 6)
    student, teacher = student[0] * 2, teacher[0] * 2
    teacher[1, 3] = student[1, 3] = -30.0  # class 3 is nowhere in the second image
    features = torch.randn(3, 5, 4 // finer, 6 // finer)  # HRDA's features have half the cells of its logits
    found, differs = _regions(student, teacher, features, np.array([4, 5, 6]))
    near = features if finer == 1 else F.interpolate(features, (4, 6), mode="bilinear")
    mean = (student.softmax(1) + teacher.softmax(1)) / 2
    rows = [(b, k) for b in range(3) for k in range(4) if mean[b, k].sum() >= 1]
    assert (1, 3) not in rows and len(rows) == 11
    assert list(zip(found.image.tolist(), found.kind.tolist(), strict=True)) == [(4 + b, k) for b, k in rows]
    for row, (b, k) in enumerate(rows):
        total, entropy, feature = 0.0, 0.0, torch.zeros(5)
        for y in range(4):
            for x in range(6):
                p = mean[b, :, y, x].tolist()
                total += p[k]
                entropy -= p[k] * sum(q * math.log(max(q, 1e-12)) for q in p) / math.log(4)
                feature += p[k] * near[b, :, y, x]
        assert found.area[row] == pytest.approx(total / 24, rel=1e-5)
        assert found.uncertainty[row] == pytest.approx(entropy / total, rel=1e-4)
        assert found.feature[row] == pytest.approx((feature / total).numpy(), abs=2e-3)
    other = (student.argmax(1) != teacher.argmax(1)).float().mean((1, 2))
    assert differs == pytest.approx(other.numpy())


def test_long_features_keep_their_distances_about() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 1280, 1, 40)
    short = _projected(features)
    assert short.shape == (1, FEATURES, 1, 40)
    assert torch.equal(short, _projected(features))
    before, after = (torch.pdist(x[0, :, 0].T) for x in (features, short))
    assert ((after / before - 1).abs() < 0.3).all() and abs((after / before).mean() - 1) < 0.05
    assert _projected(features[:, :FEATURES]) is not None and _projected(features[:, :5]).shape[1] == 5
