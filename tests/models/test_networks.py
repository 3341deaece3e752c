"""Every backbone at every output stride: sizes, grids, counts of parameters and of arithmetic, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from iidm.models import BACKBONES, Network, build_network, parameter_groups
from iidm.models.mit import SIZES
from iidm.models.mobilenet import MobileNetV2
from iidm.types import UserError

K = 5

# Parameters that torchvision publishes for its models, without their classifiers; a v1c stem has
# 3*32*9 + 32*32*9 + 32*64*9 weights and 2*(32 + 32 + 64) of BatchNorm where a v1 stem has 9408 + 128.
RESNET_CLASSIFIER = {"resnet18": 513 * 1000, "resnet50": 2049 * 1000, "resnet101": 2049 * 1000}
PUBLISHED = {"resnet18": 11_689_512, "resnet50": 25_557_032, "resnet101": 44_549_160}
STEM_V1C_MINUS_V1 = (864 + 9216 + 18432 + 256) - (9408 + 128)
# Published 3,504,872, less the classifier and features.18 (320 -> 1280 and its BatchNorm).
PARAMETERS = {"mobilenet_v2": 3_504_872 - 1281 * 1000 - (320 * 1280 + 2 * 1280)}
# SegFormer's encoders; PVTv2-B5 is the same graph.
PARAMETERS |= {"mit_b0": 3_319_392, "mit_b1": 13_151_424, "mit_b2": 24_196_288, "mit_b3": 44_072_128}
PARAMETERS |= {"mit_b4": 60_842_688, "mit_b5": 81_443_008, "pvt_v2_b5": 81_443_008}
for _name, _count in PUBLISHED.items():
    PARAMETERS[_name] = _count - RESNET_CLASSIFIER[_name]
    PARAMETERS[_name + "-v1c"] = PARAMETERS[_name] + STEM_V1C_MINUS_V1


def on_meta(backbone: str, **options: object) -> Network:
    """Shapes alone: no memory, no arithmetic."""
    with torch.device("meta"):
        return build_network(backbone, K, **options)  # type: ignore[arg-type]


def randomized(network: nn.Module) -> nn.Module:
    """In evaluation mode, with BatchNorm that does something."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.2), (module.running_var, 0.5)):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + low)
    return network.eval()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("output_stride", (8, 16, 32))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_have_a_cell_per_started_output_stride(backbone: str, output_stride: int) -> None:
    if backbone in SIZES:  # it has a stride of its own
        output_stride = 32
    network = on_meta(backbone, output_stride=output_stride)
    assert network.output_stride == output_stride
    height, width = 97, 127  # one pixel more and one less than a multiple of 32
    image = torch.empty(2, 3, height, width, device="meta")
    assert network(image).shape == (2, K, -(-height // output_stride), -(-width // output_stride))


@pytest.mark.parametrize("backbone", ("resnet18", "resnet18-v1c", "mobilenet_v2"))
def test_a_real_forward_has_the_shape_that_meta_tensors_promise(backbone: str) -> None:
    image = torch.randn(2, 3, 35, 66)
    logits = build_network(backbone, K)(image)
    assert logits.shape == (2, K, 5, 9)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbones_have_the_published_number_of_parameters(backbone: str) -> None:
    assert parameters(on_meta(backbone).backbone) == PARAMETERS[backbone]


def test_the_papers_network_has_the_parameters_of_its_parts() -> None:
    with torch.device("meta"):
        network = build_network("resnet101-v1c", 19)
    assert parameters(network.head) == 2 * (2048 * 19 * 9 + 19)
    assert parameters(network) == 42_519_392 + 700_454


def forward_gflop(network: Network) -> float:
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 512, 512, device="meta"))
    return counter.get_total_flops() / 1e9


def test_the_papers_network_costs_0_363_tflop_forward() -> None:
    with torch.device("meta"):
        network = build_network("resnet101-v1c", 19, output_stride=8, dilations=(6, 12))
    assert forward_gflop(network) == pytest.approx(363, rel=2e-3)


def test_with_dacs_stem_pooling_and_stride_it_costs_370_6_gflop() -> None:
    # DACS's DeepLabV2 has the 7x7 stem, rounds its pooling up (65x65 cells instead of 64x64) and strides in
    # the 1x1 convolution; everything else is the same work.
    with torch.device("meta"):
        network = build_network("resnet101", 19, output_stride=8, dilations=(6, 12))
    for name, attribute, value in (
        ("maxpool", "ceil_mode", True),
        ("layer2.0.conv1", "stride", (2, 2)),
        ("layer2.0.conv2", "stride", (1, 1)),
    ):
        setattr(network.backbone.get_submodule(name), attribute, value)
    assert forward_gflop(network) == pytest.approx(370.6, rel=1e-4)


@pytest.mark.parametrize("output_stride", (8, 16))
@pytest.mark.parametrize("backbone", ("resnet50", "resnet50-v1c", "mobilenet_v2 dilated"))
def test_dilation_keeps_the_features_of_the_undilated_network(backbone: str, output_stride: int) -> None:
    """Strides put into dilation compute the same at more places: every fourth (second) cell is the old one.

    It holds to the border, where both read zeros, and fails for any wrong dilation, stride or padding.
    """

    def build(stride: int) -> nn.Module:
        if backbone.startswith("mobilenet"):
            return MobileNetV2(output_stride=stride, dilate=True)
        return BACKBONES[backbone](stride)

    coarse, fine = build(32), build(output_stride)
    randomized(coarse)
    fine.load_state_dict(coarse.state_dict())
    step = 32 // output_stride
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected, found = coarse(image)[-1], fine.eval()(image)[-1]
    assert expected.abs().mean() > 1e-3
    torch.testing.assert_close(
        found[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("backbone", ("resnet18", "resnet50-v1c"))
def test_dilation_leaves_the_first_two_stages_alone(backbone: str) -> None:
    def first_half(output_stride: int) -> nn.Sequential:
        body = BACKBONES[backbone](output_stride)
        stem = [body.stem] if body.stem is not None else [body.conv1, body.bn1, nn.ReLU()]
        return nn.Sequential(*stem, body.maxpool, body.layer1, body.layer2)  # type: ignore[arg-type]

    coarse, fine = first_half(32), first_half(8)
    randomized(coarse)
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 47, 64)
    with torch.no_grad():
        found = fine.eval()(image)
        assert found.shape[2:] == (6, 8)
        assert torch.equal(found, coarse(image))


def convolutions(network: nn.Module, stage: str) -> list[tuple[int, int]]:
    """(stride, dilation) of each 3x3 convolution of a stage."""
    found = []
    for module in network.get_submodule(stage).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            assert module.padding == module.dilation
            found.append((module.stride[0], module.dilation[0]))
    return found


def test_basic_blocks_dilate_their_first_convolution_alone() -> None:
    # OpenMMLab's BasicBlock; the first block of a stage uses half of its dilation.
    backbone = on_meta("resnet18", output_stride=8).backbone
    assert convolutions(backbone, "layer2") == [(2, 1), (1, 1), (1, 1), (1, 1)]
    assert convolutions(backbone, "layer3") == [(1, 1), (1, 1), (1, 2), (1, 1)]
    assert convolutions(backbone, "layer4") == [(1, 2), (1, 1), (1, 4), (1, 1)]


def test_bottlenecks_have_stride_and_dilation_in_the_3x3() -> None:
    backbone = on_meta("resnet50", output_stride=8).backbone
    assert convolutions(backbone, "layer2") == [(2, 1)] + [(1, 1)] * 3
    assert convolutions(backbone, "layer3") == [(1, 1)] + [(1, 2)] * 5
    assert convolutions(backbone, "layer4") == [(1, 2), (1, 4), (1, 4)]
    assert convolutions(on_meta("resnet50", output_stride=16).backbone, "layer4") == [(1, 1), (1, 2), (1, 2)]


def test_mobilenet_dilates_only_when_asked() -> None:
    with torch.device("meta"):
        plain = MobileNetV2(output_stride=8)
        dilated = MobileNetV2(output_stride=8, dilate=True)
    assert {dilation for _, dilation in convolutions(plain, "features")} == {1}
    assert [dilation for _, dilation in convolutions(dilated, "features")] == [1] * 8 + [2] * 6 + [2] + [4] * 3
    for network in (plain, dilated):
        assert [stride for stride, _ in convolutions(network, "features")].count(2) == 3


@pytest.mark.parametrize("backbone", ("resnet18", "resnet18-v1c", "mobilenet_v2"))
def test_channels_last_is_kept_to_the_logits(backbone: str) -> None:
    network = build_network(backbone, K).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    seen: list[str] = []

    def check(name: str, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        for part in output if isinstance(output, tuple) else (output,):
            if not part.is_contiguous(memory_format=torch.channels_last):
                seen.append(name)

    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, output, name=name: check(name, output))
    assert network(image).is_contiguous(memory_format=torch.channels_last)
    assert seen == []


@pytest.mark.parametrize("backbone", ("resnet18", "resnet18-v1c", "mobilenet_v2"))
def test_every_parameter_learns(backbone: str) -> None:
    network = build_network(backbone, K)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_parameter_groups_hold_each_parameter_once() -> None:
    network = build_network("resnet18", K)
    backbone, head = parameter_groups(network, lr=6e-5, head_lr_mult=10.0, weight_decay=0.01)
    held = [id(p) for group in (backbone, head) for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    assert {id(p) for p in head["params"]} == {id(p) for p in network.head.parameters()}
    assert (backbone["lr"], head["lr"]) == (6e-5, pytest.approx(6e-4))
    assert backbone["weight_decay"] == head["weight_decay"] == 0.01
    assert len(torch.optim.AdamW([backbone, head]).param_groups) == 2


@pytest.mark.parametrize(
    ("wrong", "near"),
    (
        ("resnet-101-v1c", "resnet101-v1c"),
        ("resnet34", "resnet"),
        ("MobileNet_V2", "mobilenet_v2"),
        ("mobilenetv2", "mobilenet_v2"),
    ),
)
def test_an_unknown_backbone_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=f"{wrong!r}. Did you mean '{near}") as caught:
        build_network(wrong, K)
    assert all(name in str(caught.value) for name in BACKBONES)


def test_an_unknown_head_names_those_there_are() -> None:
    with pytest.raises(UserError, match="'deeplabv3'. Did you mean 'deeplabv2'"):
        build_network("resnet18", K, head="deeplabv3")


@pytest.mark.parametrize("output_stride", (0, 4, 12, 64))
@pytest.mark.parametrize("backbone", ("resnet18", "resnet101-v1c", "mobilenet_v2", "mit_b0", "timm:convnext_atto"))
def test_an_output_stride_that_no_backbone_has_is_refused(backbone: str, output_stride: int) -> None:
    with pytest.raises(UserError, match=rf"8, 16 or 32, not {output_stride}\b"):
        build_network(backbone, K, output_stride=output_stride)


@pytest.mark.parametrize("num_classes", (-1, 0, 1, 256))
def test_a_number_of_classes_out_of_range_is_refused(num_classes: int) -> None:
    with pytest.raises(UserError, match=f"2 to 255 classes, not {num_classes}"):
        build_network("resnet18", num_classes)


@pytest.mark.parametrize("dilations", ((), (6, 0), (-1,)))
def test_dilations_that_are_none_are_refused(dilations: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="--model.dilations"):
        build_network("resnet18", K, dilations=dilations)


@pytest.mark.parametrize("dropout", (-0.1, 1.0))
def test_a_dropout_out_of_range_is_refused(dropout: float) -> None:
    with pytest.raises(UserError, match="--model.dropout"):
        build_network("resnet18", K, dropout=dropout)
