"""Minimax entropy against its definition, and which way each part moves."""

from types import SimpleNamespace

import torch
from small_steps import CLASSES, H, K, W, batch, config_of

from iidm.method.base import Mixes, Scene
from iidm.method.losses import Branch, Output
from iidm.method.published.mme import MinimaxEntropy
from iidm.models.cosine import CosineHead


def entropy_branch(head: torch.nn.Module) -> Branch:
    student = torch.nn.Module()
    student.head = head
    method = MinimaxEntropy(config_of("mme"), head, CLASSES)
    scene = Scene(batch(), None, Mixes(None, ()), student, SimpleNamespace(), torch.Generator())  # type: ignore[arg-type]
    return method.branches(scene)[-1]


def entropy(head: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Mean over cells of -sum p log p, cell by cell."""
    cells = []
    for b in range(features.shape[0]):
        for y in range(features.shape[2]):
            for x in range(features.shape[3]):
                p = torch.softmax(head(features[b : b + 1, :, y : y + 1, x : x + 1])[0, :, 0, 0].double(), 0)
                cells.append(-(p * p.log()).sum())
    return torch.stack(cells).mean()


def test_the_head_maximises_the_entropy_that_the_features_minimise() -> None:
    head = CosineHead(6, 8, K, 0.0)
    torch.nn.init.normal_(head.conv.weight, 0.0, 0.02)
    features = torch.randn(2, 6, 2, 3, requires_grad=True)
    branch = entropy_branch(head)
    assert branch.label is None and branch.objective is not None and branch.objective_weight == 0.1
    assert branch.image.shape == (2, 3, H, W)
    value = branch.objective(Output(head(features), features))
    value.backward()
    mine = features.grad, head.conv.weight.grad
    features.grad = head.conv.weight.grad = None
    expected = entropy(head, features)
    expected.backward()
    torch.testing.assert_close(value.double(), -expected)
    assert features.grad is not None and head.conv.weight.grad is not None
    torch.testing.assert_close(mine[0], features.grad, rtol=1e-3, atol=1e-6)  # descends H
    torch.testing.assert_close(mine[1], -head.conv.weight.grad, rtol=1e-3, atol=1e-6)  # descends -H


def test_a_cosine_head_knows_no_length_and_divides_by_its_temperature() -> None:
    head = CosineHead(6, 8, K, 0.0)
    features = torch.randn(2, 6, 2, 3)
    logits = head(features)
    torch.testing.assert_close(head(features * 7), logits)
    unit = features[1, :, 0, 2] / features[1, :, 0, 2].norm()
    torch.testing.assert_close(logits[1, :, 0, 2], head.conv.weight[:, :, 0, 0] @ unit / 0.05)
