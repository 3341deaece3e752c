"""A Mix Transformer's state dict under every name that it is published with, and deterministic numbers to fill it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def filled(name: str, shape: Iterable[int]) -> Tensor:
    """Float64 numbers that depend on the name and the place alone, of the size of a trained network's."""
    size = torch.Size(shape)
    index = torch.arange(size.numel(), dtype=torch.int64) + sum(name.encode())
    wave = torch.sin((index * index % 65_537).double()).view(size)
    if name.endswith("bias"):
        return 0.1 * wave
    if len(size) == 1:
        return 1 + 0.3 * wave
    return wave * (2 / size[1:].numel()) ** 0.5


def fill(backbone: nn.Module) -> dict[str, Tensor]:
    """Gives every parameter of a Mix Transformer its numbers; returns the state dict."""
    state = {name: filled(name, value.shape).to(value) for name, value in backbone.state_dict().items()}
    backbone.load_state_dict(state)
    return state


def image(*shape: int) -> Tensor:
    """Float32 numbers of a normalized image's size."""
    return (2 * filled("image", shape)).float()


def hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `SegformerModel` saves it."""
    found = {}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        stage = int(part[-1]) - 1
        if part.startswith("patch_embed"):
            found[f"encoder.patch_embeddings.{stage}." + rest.replace("norm.", "layer_norm.")] = value
        elif part.startswith("norm"):
            found[f"encoder.layer_norm.{stage}.{rest}"] = value
        else:
            block, rest = rest.split(".", 1)
            own, kind = rest.rsplit(".", 1)
            halves = {"": value}
            if own == "attn.kv":
                half = len(value) // 2
                halves = {"key": value[:half].clone(), "value": value[half:].clone()}
            base = {
                "norm1": "layer_norm_1",
                "norm2": "layer_norm_2",
                "attn.q": "attention.self.query",
                "attn.kv": "attention.self.",
                "attn.sr": "attention.self.sr",
                "attn.norm": "attention.self.layer_norm",
                "attn.proj": "attention.output.dense",
                "mlp.fc1": "mlp.dense1",
                "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
                "mlp.fc2": "mlp.dense2",
            }[own]
            for half_name, tensor in halves.items():
                found[f"encoder.block.{stage}.{block}.{base}{half_name}.{kind}"] = tensor
    return found


def timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As timm's PyramidVisionTransformerV2 has it."""
    found = {}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        stage = int(part[-1]) - 1
        place = {"patch_embed": "downsample", "block": "blocks", "norm": "norm"}[part[:-1]]
        renamed = f"stages.{stage}.{place}.{rest}".replace("dwconv.dwconv", "dwconv")
        found[renamed.replace("stages.0.downsample", "patch_embed")] = value
    return found


def mmsegmentation(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As mmsegmentation's MixVisionTransformer has it."""
    found = {}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        stage = int(part[-1]) - 1
        if part.startswith("patch_embed"):
            found[f"layers.{stage}.0." + rest.replace("proj.", "projection.")] = value
        elif part.startswith("norm"):
            found[f"layers.{stage}.2.{rest}"] = value
        elif ".attn.kv." not in name:
            block, rest = rest.split(".", 1)
            if rest.startswith("attn.q."):
                value = torch.cat((value, state[name.replace("attn.q.", "attn.kv.")]))
            if re.fullmatch(r"mlp\.fc[12]\.weight", rest):
                value = value[:, :, None, None]
            for old, new in (
                ("attn.q.", "attn.attn.in_proj_"),
                ("attn.proj.", "attn.attn.out_proj."),
                ("mlp.fc1.", "ffn.layers.0."),
                ("mlp.dwconv.dwconv.", "ffn.layers.1."),
                ("mlp.fc2.", "ffn.layers.4."),
            ):
                rest = rest.replace(old, new)
            found[f"layers.{stage}.1.{block}.{rest}"] = value
    return found


def prefixed(prefix: str, state: dict[str, Tensor], **others: Tensor) -> dict[str, Tensor]:
    """Inside a larger network, which has other parameters too."""
    return {**{prefix + name: value for name, value in state.items()}, **others}


def _mic(state: dict[str, Tensor]) -> dict[str, Tensor]:
    teacher = {name: value + 1 for name, value in state.items()}
    head = {"model.decode_head.head.conv_seg.weight": torch.ones(19, 4, 1, 1)}
    return {
        **prefixed("imnet_model.backbone.", teacher),
        **prefixed("ema_model.backbone.", teacher),
        **prefixed("model.backbone.", state),
        **head,
    }


_CLASSIFIER = torch.ones(10, 4)

NAMINGS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "original": lambda state: {**state, "head.weight": _CLASSIFIER, "head.bias": _CLASSIFIER[:, 0].clone()},
    "segmentation_models.pytorch": dict,
    "segmentation_models.pytorch, whole": lambda state: {**prefixed("encoder.", state), "decoder.x": _CLASSIFIER},
    "Hugging Face": hugging_face,
    "Hugging Face, classifier": lambda state: {
        **prefixed("segformer.", hugging_face(state)),
        "classifier.weight": _CLASSIFIER,
    },
    "Hugging Face, without prefix": lambda state: {
        name.removeprefix("encoder."): value for name, value in hugging_face(state).items()
    },
    "timm": lambda state: {**timm(state), "head.weight": _CLASSIFIER},
    "mmsegmentation": mmsegmentation,
    "mmsegmentation, whole": lambda state: {
        **prefixed("backbone.", mmsegmentation(state)),
        "decode_head.conv_seg.bias": _CLASSIFIER[0].clone(),
    },
    "MIC": _mic,
}
"""Who publishes it so -> the original state dict in those names."""
