"""Backbones of timm, of five families, with random weights. They need a timm that can be imported, which takes a
torchvision that belongs to the torch that is installed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from iidm.models import build_network, parameter_groups, set_recompute
from iidm.models.daformer import DAFormerHead
from iidm.models.depthwise import DepthwiseConv2d, DilatedConv2d
from iidm.models.norm import BatchNorm2d
from iidm.models.segformer import SegFormerHead
from iidm.types import UserError

try:
    import timm
except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

K = 3
FAMILIES = {
    # name: crop, strides of the levels at output stride 16
    "convnext_atto": ((64, 96), (4, 8, 16, 16)),
    "regnety_002": ((64, 96), (4, 8, 16, 16)),
    "swin_tiny_patch4_window7_224": ((64, 96), (4, 8, 16, 32)),
    "vit_tiny_patch16_224": ((64, 96), (16, 16, 16, 16)),
    "vit_small_patch14_dinov2.lvd142m": ((56, 84), (14, 14, 14, 14)),
    "vit_small_patch16_dinov3.lvd1689m": ((64, 96), (16, 16, 16, 16)),
}


def network_of(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(f"timm:{name}", K, output_stride=16, head="auto", **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_are_what_they_say(name: str) -> None:
    (height, width), strides = FAMILIES[name]
    backbone = network_of(name).backbone
    assert tuple(level.stride for level in backbone.levels) == strides  # type: ignore[union-attr]
    found = backbone(torch.randn(2, 3, height, width))  # type: ignore[operator]
    for level, own in zip(found, backbone.levels, strict=True):  # type: ignore[union-attr, arg-type]
        assert level.shape == (2, own.channels, height // own.stride, width // own.stride)


def test_a_map_of_as_many_rows_as_channels_is_not_transposed() -> None:
    backbone = network_of("swin_tiny_patch4_window7_224").eval().backbone
    image = torch.randn(1, 3, 384, 64)  # 96 rows of cells at stride 4, where the model has 96 channels
    for ours, theirs in zip(backbone(image), backbone.model(image), strict=True):  # type: ignore[operator, union-attr]
        assert torch.equal(ours, theirs.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_of_any_size_is_seen(name: str) -> None:
    network = network_of(name).eval()
    (height, width), strides = FAMILIES[name]
    logits = network(torch.randn(1, 3, height + 5, width - 3))
    assert logits.shape == (1, K, height // strides[0], width // strides[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_branches_in_one_pass_are_branches_one_after_the_other(name: str) -> None:
    merged = network_of(name).double()
    apart = copy.deepcopy(merged)
    image = torch.randn(3, 3, *FAMILIES[name][0], dtype=torch.float64)
    with merged.branches([1, 2]):  # type: ignore[operator]
        found = merged(image)
    torch.testing.assert_close(found, torch.cat([apart(image[:1]), apart(image[1:])]))
    for ours, theirs in zip(merged.buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_is_reached(name: str) -> None:
    """Not by a gradient above 0: timm starts the last norm layer of RegNet's residual branches at 0."""
    network = network_of(name)
    network(torch.randn(2, 3, *FAMILIES[name][0])).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_plain_vits_have_a_light_head_and_pyramids_daformers() -> None:
    assert isinstance(network_of("vit_tiny_patch16_224").head, SegFormerHead)
    assert isinstance(network_of("convnext_atto").head, DAFormerHead)


def test_the_levels_of_a_vit_are_evenly_spaced_blocks_with_the_last_norm() -> None:
    network = network_of("vit_tiny_patch16_224").eval()
    backbone, image = network.backbone, torch.randn(1, 3, 64, 96)
    assert backbone.taken == [2, 5, 8, 11]  # type: ignore[union-attr]
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    own = {key.removeprefix("model."): value for key, value in backbone.state_dict().items()}  # type: ignore[union-attr]
    plain.load_state_dict(own)
    mean, std = (torch.tensor([0.5, 0.5, 0.5]).reshape(3, 1, 1) for _ in range(2))
    pixels = image * torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    pixels = pixels + torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    tokens = plain.forward_features((pixels - mean) / std)[:, 1:]  # this model was trained on (x - 0.5) / 0.5
    expected = tokens.transpose(1, 2).reshape(1, 192, 4, 6)
    torch.testing.assert_close(backbone(image)[-1], expected, rtol=1e-3, atol=1e-4)  # type: ignore[operator]


def test_batch_norm_with_an_activation_computes_what_timm_computes() -> None:
    network = network_of("regnety_002")
    adopted = [module for module in network.backbone.modules() if isinstance(module, BatchNorm2d)]  # type: ignore[union-attr]
    assert len(adopted) > 10 and not any(type(m).__name__ == "BatchNormAct2d" for m in network.modules())
    torch.manual_seed(0)
    plain = timm.create_model("regnety_002", features_only=True, output_stride=16)
    plain.load_state_dict({k.removeprefix("model."): v for k, v in network.backbone.state_dict().items()}, strict=False)  # type: ignore[union-attr]
    image = torch.randn(2, 3, 64, 96)
    for ours, theirs in zip(network.backbone(image), plain(image)[1:], strict=True):  # type: ignore[operator]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_recomputed_gradients_are_the_same_with_stochastic_depth_too() -> None:
    network = network_of("vit_tiny_patch16_224", drop_path=0.5)
    other = copy.deepcopy(network)
    set_recompute(other, True)
    image = torch.randn(2, 3, 64, 96)
    for own in (network, other):
        torch.manual_seed(3)
        own(image).square().mean().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_pyramids_layers_and_tables_are_known_too() -> None:
    network = network_of("swin_tiny_patch4_window7_224")
    assert len(network.backbone.layers()) > 4  # type: ignore[union-attr, operator]
    undecayed: Any = network.backbone.undecayed  # type: ignore[union-attr]
    assert undecayed and all(name.endswith("relative_position_bias_table") for name in undecayed)
    held = [name for layer in network.backbone.layers() for name in layer]  # type: ignore[union-attr, operator]
    assert sorted(held) == sorted(name for name, _ in network.backbone.named_parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ("swinv2_tiny_window8_256", "twins_svt_small", "maxvit_rmlp_pico_rw_256"))
def test_what_timm_exempts_by_whole_names_exempts_nothing_else(name: str) -> None:
    network = network_of(name)
    exempt = timm.create_model(name).no_weight_decay()
    assert any(one.endswith(".weight") for one in exempt)
    undecayed: Any = network.backbone.undecayed  # type: ignore[union-attr]
    kept = {own.replace(".", "_") for own, _ in network.backbone.named_parameters()}  # type: ignore[union-attr]
    assert len(undecayed) == sum(any(own.endswith(one.replace(".", "_")) for own in kept) for one in exempt)
    groups = parameter_groups(network, 1e-4, 10.0, 0.05)
    held = {
        decay: sum(p.numel() for g in groups if g["weight_decay"] == decay for p in g["params"]) for decay in (0, 0.05)
    }
    assert held[0] < 0.02 * held[0.05]


def test_a_parameter_list_of_a_pattern_is_matched() -> None:
    undecayed: Any = network_of("xcit_nano_12_p16_224").backbone.undecayed  # type: ignore[union-attr]
    assert sorted(undecayed) == [f"model.pos_embed.token_projection.{part}" for part in ("bias", "weight")]


def test_norm_layers_of_timms_own_do_not_decay() -> None:
    network = network_of("convnextv2_atto")
    groups = parameter_groups(network, 1e-4, 10.0, 0.05)
    without = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    norms = [p for name, p in network.backbone.named_parameters() if ".grn." in name]  # type: ignore[union-attr]
    assert norms and all(id(p) in without for p in norms)


def test_hrda_covers_an_image_of_any_size_with_a_pyramid() -> None:
    network = network_of("convnext_atto", hrda=True, crop_size=(128, 128)).eval()
    assert network(torch.randn(1, 3, 90, 180)).shape == (1, K, 23, 45)
    with pytest.raises(UserError, match="--data.crop-size"):
        network_of("convnext_atto", hrda=True, crop_size=(80, 96))


def test_dilated_groups_are_ours() -> None:
    """oneDNN's gradient of their weights is wrong."""
    network = build_network("timm:efficientnet_b0", K, output_stride=16)
    kinds = {(m.kernel_size[0], type(m)) for m in network.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] == 2}
    assert kinds == {(3, DepthwiseConv2d), (5, DilatedConv2d)}


def test_a_teacher_drops_no_path() -> None:
    from iidm.config import TeacherConfig
    from iidm.method.teacher import Teacher

    network = network_of("vit_tiny_patch16_224", drop_path=0.9)
    teacher = Teacher(network, TeacherConfig(), labels_images=True)
    image = torch.randn(2, 3, 64, 96)
    assert torch.equal(teacher.look(image).logits, teacher.look(image).logits)


def test_a_model_with_batch_norm_is_not_recomputed() -> None:
    with pytest.raises(UserError, match="regnety_002 has BatchNorm layers"):
        set_recompute(network_of("regnety_002"), True)


def test_layers_learn_slower_towards_the_image_and_tokens_do_not_decay() -> None:
    network = network_of("vit_tiny_patch16_224")
    groups = parameter_groups(network, 1e-4, 10.0, 0.05, layer_decay=0.5)
    of = {id(p): group for group in groups for p in group["params"]}
    model: Any = network.backbone.model  # type: ignore[union-attr]
    last, before = (of[id(model.blocks[i].attn.qkv.weight)] for i in (11, 10))
    assert last["lr"] == pytest.approx(2 * before["lr"]) and last["weight_decay"] == 0.05
    for exempt in (model.pos_embed, model.cls_token, model.blocks[0].norm1.bias):
        assert of[id(exempt)]["weight_decay"] == 0
    assert len(of) == sum(1 for _ in network.parameters())


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no model 'vit_basee_patch16_224'. The nearest: vit_base_patch16_224"):
        network_of("vit_basee_patch16_224")


def test_an_unknown_tag_names_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"no weights 'vit_small_patch14_dinov2.foo'. .*: vit_small_patch14_dinov2.lvd142m"
    ):
        network_of("vit_small_patch14_dinov2.foo")
    network_of("convnext_atto_rms.untrained")  # a tag of timm's without a file


def test_a_model_that_says_it_cannot_be_recomputed_is_refused() -> None:
    network = network_of("twins_svt_small")
    set_recompute(network, False)
    with pytest.raises(UserError, match="cannot recompute twins_svt_small: leave --step.recompute out"):
        set_recompute(network, True)


def test_a_crop_that_does_not_divide_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"512x512 do not divide .* give --data.crop-size 518 518"):
        network_of("vit_small_patch14_dinov2.lvd142m", crop_size=(512, 512))


ONE_SIZE = (
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "mixer_s32_224",
    "coatnet_nano_rw_224",
    "mvitv2_tiny",
    "levit_128s",
)


@pytest.mark.parametrize("name", ONE_SIZE)
@pytest.mark.parametrize("crop", (256, 512))
def test_a_model_of_one_size_is_refused_before_it_trains(name: str, crop: int) -> None:
    """At a size that it was not built for."""
    with pytest.raises(UserError) as caught:
        network_of(name, crop_size=(crop, crop))
    message = str(caught.value)
    assert f"timm's {name} does not see images of " in message and "\n" not in message
    assert f"crops, here of {crop}x{crop}, and" in message and "give another --model.backbone, such as" in message


def test_a_model_that_sees_its_crops_alone_is_refused_before_it_scores() -> None:
    network_of("mixer_s32_224")  # without crops nothing is asked
    with pytest.raises(UserError, match=r"mixer_s32_224 does not see images of 256x288 \(AssertionError: Input height"):
        network_of("mixer_s32_224", crop_size=(224, 224))


ANY_SIZE = (
    "convnextv2_atto",
    "deit_tiny_patch16_224",
    "efficientnet_b0",
    "eva02_tiny_patch14_224",
    "mobilenetv3_small_050",
    "mobilevitv2_050",  # its deepest map may have a cell more
    "pvt_v2_b0",
    "resnet18",
    "swinv2_tiny_window8_256",
)


@pytest.mark.parametrize("name", (*FAMILIES, *ANY_SIZE))
def test_a_model_of_any_size_is_built_and_stays_as_it_is(name: str) -> None:
    multiple = network_of(name).backbone.multiple  # type: ignore[union-attr]
    crop: tuple[int, int] = (7 * multiple, 7 * multiple)  # type: ignore[operator, assignment]
    network = network_of(name, crop_size=crop)
    assert network.training and all(tensor.device.type == "cpu" for tensor in network.state_dict().values())
    for ours, theirs in zip(network.parameters(), network_of(name).parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours.requires_grad


def test_maps_without_a_border_are_refused() -> None:
    """What is seen at a cell would lie elsewhere than the logits of the cell are put."""
    with pytest.raises(UserError, match=r"inception_v3 does not see .*\(its maps are 192x52x52, 288x25x25, "):
        network_of("inception_v3", crop_size=(224, 224))


def test_hrda_needs_whole_cells() -> None:
    with pytest.raises(UserError, match=r"mobilevitv2_050 does not see .*\(its maps are .*256x16x16, not .*256x15x16"):
        network_of("mobilevitv2_050", hrda=True, crop_size=(448, 448))
