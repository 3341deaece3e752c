"""Which pseudo-labels DiGA believes, what its centroids follow, and the distillation in both directions."""

from types import SimpleNamespace

import pytest
import torch
from small_steps import batch
from tiny_steps import (
    CHANNELS,
    assert_merged_is_sequential,
    assert_trains_and_resumes,
    teacher_that_says,
    tiny_config,
    tiny_network,
)

from iidm.method.base import Mixes, Scene, normalized
from iidm.method.losses import Branch, Output
from iidm.method.published.diga import DiGA
from iidm.recipes import with_values
from iidm.types import UserError

B, K, H, W = 2, 3, 4, 6
NAMES = tuple("abc")
CELLS = [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]


def method_of(**teacher: object) -> DiGA:
    torch.manual_seed(0)
    return DiGA(with_values(tiny_config("diga"), {"teacher": teacher}), tiny_network(K), NAMES)


def nearest(features: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    distance = [(features - c[:, None, None]).square().sum(1) for c in centroids]
    return torch.stack(distance, 1).argmin(1)


def moved(
    centroids: torch.Tensor, features: torch.Tensor, cells: dict[int, list[tuple[int, int, int]]]
) -> torch.Tensor:
    """Centroids that remember 4 of 100 updates, each by a quarter of the way to the mean of its cells."""
    out = centroids.clone()
    for k, places in cells.items():
        if places:
            out[k] += (torch.stack([features[b, :, y, x] for b, y, x in places]).mean(0) - centroids[k]) / 4
    return out


@pytest.mark.parametrize("progress", [0.2, 0.5])
def test_a_pseudo_label_counts_where_the_nearest_centroid_agrees_and_not_in_the_warm_up(progress: float) -> None:
    method = method_of()
    logits, features = torch.randn(B, K, H, W), torch.randn(B, CHANNELS, H, W)
    centroids = torch.randn(K, CHANNELS)
    method.centroids.mean.copy_(centroids)
    method.centroids.updates.fill_(1000.0)
    method.progress.fill_(progress)
    found = method.pseudo_label(teacher_that_says(method.config, logits, features), torch.zeros(B, H, W, 3).byte())
    label, near = logits.argmax(1), nearest(features, centroids)
    agrees = label == near
    assert 0 < int(agrees.sum()) < len(CELLS)
    assert torch.equal(found.label.long(), label), "the classifier's, whatever its confidence"
    assert found.weight is not None
    assert torch.equal(found.weight, agrees.float() * (progress == 0.5))
    torch.testing.assert_close(found.quality, agrees.float().mean((1, 2)))
    trusted = {k: [c for c in CELLS if agrees[c] and label[c] == k] for k in range(K)}
    expected = moved(centroids, features, trusted) if progress == 0.5 else centroids
    torch.testing.assert_close(method.centroids.mean, expected)


def scene_of(method: DiGA, logits: torch.Tensor, features: torch.Tensor) -> tuple[Scene, list[Branch]]:
    data = batch()._replace(target=None)
    teacher = teacher_that_says(method.config, logits, features)
    scene = Scene(data, None, Mixes(None, ()), SimpleNamespace(), teacher, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return scene, method.branches(scene)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 2.0), (0.9, 1.0)])
def test_each_view_learns_what_the_teacher_says_of_the_other(progress: float, factor: float) -> None:
    method = method_of()
    method.progress.fill_(progress)
    said = torch.randn(2 * B, K, H, W)
    scene, (plain, changed) = scene_of(method, said, torch.randn(2 * B, CHANNELS, H, W))
    assert scene.batch.source is not None
    assert torch.equal(plain.image, normalized(scene.batch.source.image)) and plain.label is scene.batch.source.label
    assert changed.label is None and changed.image.shape == plain.image.shape
    assert not torch.allclose(changed.image, plain.image, atol=0.05)
    assert plain.objective_weight == changed.objective_weight == 0.25
    logits = torch.randn(B, K, H, W)
    features = torch.zeros(B, CHANNELS, H, W)
    for branch, taught, share in ((plain, said[B:], 0.5), (changed, said[:B], 1.0)):
        expected = 0.0
        for b, y, x in CELLS:
            p = torch.softmax(taught[b, :, y, x].double(), 0)
            q = torch.log_softmax(logits[b, :, y, x].double(), 0)
            expected -= float((p * q).sum()) / len(CELLS)
        assert branch.objective is not None
        value = branch.objective(Output(logits, features))
        assert float(value) == pytest.approx(factor * share * expected, rel=1e-5)


def test_centroids_follow_the_changed_source_where_label_and_teacher_agree() -> None:
    method = method_of()
    centroids = torch.randn(K, CHANNELS)
    method.centroids.mean.copy_(centroids)
    method.centroids.updates.fill_(1000.0)
    said, features = torch.randn(2 * B, K, H, W), torch.randn(2 * B, CHANNELS, H, W)
    scene, _ = scene_of(method, said, features)
    assert scene.batch.source is not None
    cells = scene.batch.source.label[:, 4::8, 4::8].long()  # constant in a cell; the first row is ignored
    agrees = cells == said[B:].argmax(1)
    assert 0 < int(agrees.sum()) < len(CELLS) and not bool(agrees[:, 0].any())
    trusted = {k: [c for c in CELLS if agrees[c] and cells[c] == k] for k in range(K)}
    torch.testing.assert_close(method.centroids.mean, moved(centroids, features[B:], trusted))


def test_without_distillation_the_source_is_seen_once() -> None:
    torch.manual_seed(0)
    config = with_values(tiny_config("diga"), {"loss": {"auxiliary_weight": 0.0}})
    method = DiGA(config, tiny_network(K), NAMES)
    _, branches = scene_of(method, torch.randn(2 * B, K, H, W), torch.randn(2 * B, CHANNELS, H, W))
    assert [branch.name for branch in branches] == ["source"] and branches[0].objective is None


def test_the_student_cannot_be_its_own_teacher() -> None:
    with pytest.raises(UserError, match="leave --teacher.labels-by at teacher"):
        method_of(labels_by="student")


def test_merged_branches_are_sequential_ones_early_and_late() -> None:
    assert_merged_is_sequential("diga")


def test_it_trains_and_goes_on_from_its_state() -> None:
    assert_trains_and_resumes("diga")
