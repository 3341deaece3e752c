"""Semi-supervised methods that a configuration makes: what is mixed with what, and who labels."""

import torch
from small_steps import B, H, W, batch, config_of, make_step

from iidm.catalog import METHODS
from iidm.config import Streams, streams_of
from iidm.method.base import Scene, normalized
from iidm.recipes import with_values
from iidm.types import TrainBatch

TARGET_ALONE = ("cowmix", "cutmix", "dusperb", "target_intra", "target_only")


def target_alone() -> TrainBatch:
    return batch()._replace(source=None)


def test_methods_of_the_target_alone_read_no_source_and_uda_no_target_label() -> None:
    for name in TARGET_ALONE:
        assert not streams_of(config_of(name)).source, name
    for name in ("dacs", "daformer"):
        assert streams_of(config_of(name)) == Streams(source=True, labeled=False, unlabeled=True), name
    assert streams_of(config_of("mme")) == Streams(True, True, True)
    assert streams_of(config_of("source_target")) == Streams(True, True, False)


def test_two_views_are_two_branches_whose_losses_are_averaged() -> None:
    step = make_step(with_values(config_of("dusperb"), {"teacher": {"confidence_threshold": 0.25}}))
    data = target_alone()
    assert data.unlabeled is not None
    pseudo = step.method.pseudo_label(step.teacher, data.unlabeled)
    mixes = step.method.mixes(data, pseudo, step.generator)
    assert len(mixes.intra) == 2 and not torch.equal(mixes.intra[0].image, mixes.intra[1].image)
    out = make_step(with_values(config_of("dusperb"), {"teacher": {"confidence_threshold": 0.25}}))([data], 0).losses
    assert float(out.intra) > 0
    torch.testing.assert_close(out.total, out.target + out.intra)
    scene = Scene(data, pseudo, mixes, step.student, step.teacher, step.generator)
    assert [(b.name, b.loss_weight) for b in step.method.branches(scene)] == [
        ("target", 1.0),
        ("intra", 0.5),
        ("intra", 0.5),
    ]


def test_the_student_is_its_own_teacher_and_confident_pixels_alone_count() -> None:
    config = with_values(config_of("dusperb"), {"teacher": {"confidence_threshold": 0.25}})
    step = make_step(config)
    unlabeled = target_alone().unlabeled
    assert unlabeled is not None
    with torch.no_grad():
        for parameter in step.teacher.network.parameters():
            parameter.zero_()  # whatever the EMA network says, it is not asked
    pseudo = step.method.pseudo_label(step.teacher, unlabeled)
    step.student.train()
    with torch.no_grad():
        logits = step.student(normalized(unlabeled))
    full = torch.nn.functional.interpolate(logits.double(), (H, W), mode="bilinear").softmax(1)
    confidence, label = full.max(1)
    clear = full.topk(2, 1).values.diff(dim=1)[:, 0].abs() > 1e-4
    assert torch.equal(pseudo.label[clear].long(), label[clear])
    assert pseudo.weight is not None and pseudo.weight.shape == (B, H, W)
    far = (confidence - 0.25).abs() > 1e-5
    assert torch.equal(pseudo.weight[far].bool(), (confidence >= 0.25)[far])
    assert 0 < float(pseudo.weight.mean()) < 1


def test_a_student_that_labels_trains_in_training_mode_and_is_followed() -> None:
    step = make_step(with_values(config_of("dusperb"), {"teacher": {"batchnorm": "running"}}))
    before = [p.clone() for p in step.teacher.network.parameters()]
    step([target_alone()], 0)
    assert step.student.training
    assert any(not torch.equal(a, b) for a, b in zip(before, step.teacher.network.parameters(), strict=True))
    buffers = dict(step.teacher.network.named_buffers())
    assert any(not torch.equal(buffers[n], torch.zeros_like(b)) for n, b in step.student.named_buffers() if "mean" in n)


def test_every_method_of_the_table_says_where_it_is_from() -> None:
    for name in (*TARGET_ALONE, "dacs", "daformer", "mme"):
        assert "arXiv" in METHODS[name].source, name
