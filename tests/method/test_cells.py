"""What methods compute on the grid of the output, against loops."""

import pytest
import torch

from iidm.method.cells import Prototypes, class_means, dominant_cells, nearest_cells, reversed_gradient

K, C = 3, 4


def test_a_cell_takes_the_class_that_rules_it_or_none() -> None:
    label = torch.tensor([[[0, 0, 1, 1], [0, 2, 1, 255], [2, 2, 0, 1], [2, 2, 2, 255]]], dtype=torch.uint8)
    assert dominant_cells(label, (2, 2), K, 0.75).tolist() == [[[0, 1], [2, 255]]]
    assert dominant_cells(label, (2, 2), K, 1.0).tolist() == [[[255, 255], [2, 255]]]


def test_a_cell_may_take_the_label_at_its_centre() -> None:
    label = torch.arange(36, dtype=torch.uint8).view(1, 6, 6)
    assert nearest_cells(label, (2, 2)).tolist() == [[[7, 10], [25, 28]]]


def test_class_means_are_those_of_a_loop() -> None:
    features, cells = torch.randn(2, C, 3, 5), torch.randint(0, K, (2, 3, 5))
    cells[0, 0], cells[cells == 2] = 255, 0
    means, count = class_means(features, cells, K)
    for k in range(K):
        chosen = [features[b, :, y, x] for b in range(2) for y in range(3) for x in range(5) if cells[b, y, x] == k]
        assert int(count[k]) == len(chosen)
        expected = torch.stack(chosen).mean(0) if chosen else torch.zeros(C)
        torch.testing.assert_close(means[k], expected)
    assert int(count[2]) == 0


def test_a_prototype_is_a_mean_at_first_and_then_a_running_one() -> None:
    prototypes = Prototypes(K, C, momentum=0.75, device=torch.device("cpu"))
    values = torch.randn(6, C)
    expected = torch.zeros(C)
    for i, value in enumerate(values):
        prototypes.update(value.view(1, C, 1, 1), torch.ones(1, 1, 1, dtype=torch.int64))
        step = max(1 / (i + 1), 0.25)
        expected = expected + step * (value - expected)
    torch.testing.assert_close(prototypes.mean[1], expected)
    assert prototypes.updates.tolist() == [0, 6, 0] and not bool(prototypes.mean[0].any())


def test_distances_are_euclidean_and_an_unknown_class_is_never_the_nearest() -> None:
    prototypes = Prototypes(K, C, momentum=0.9, device=torch.device("cpu"))
    features = torch.randn(2, C, 3, 5)
    prototypes.update(features[:1], torch.zeros(1, 3, 5, dtype=torch.int64))
    prototypes.update(features[1:], torch.full((1, 3, 5), 2))
    distance = prototypes.distances(features)
    for k in (0, 2):
        expected = (features - prototypes.mean[k][:, None, None]).square().sum(1).sqrt()
        torch.testing.assert_close(distance[:, k], expected, rtol=1e-4, atol=1e-4)
    assert bool((distance[:, 1] == distance.amax(1)).all())


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_a_reversed_gradient_comes_back_negative(factor: float) -> None:
    x = torch.randn(5, requires_grad=True)
    reversed_gradient(x, factor).square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, -factor * 2 * x.detach())
