"""Names that published Mix Transformers give their parameters, translated into the original ones (those of mit.py).

| original | Hugging Face `nvidia/mit-b*` | timm's `pvt_v2_b5` | mmsegmentation 1.x |
| --- | --- | --- | --- |
| patch_embed{i}.proj, norm | patch_embeddings.{i-1}.proj, layer_norm | patch_embed, stages.{i-1}.downsample | layers.{i-1}.0.projection, norm |
| block{i}.{j} | block.{i-1}.{j} | stages.{i-1}.blocks.{j} | layers.{i-1}.1.{j} |
| norm1, norm2 | layer_norm_1, layer_norm_2 | norm1, norm2 | norm1, norm2 |
| attn.q | attention.self.query | attn.q | attn.attn.in_proj_*, first third |
| attn.kv | attention.self.key, .value | attn.kv | attn.attn.in_proj_*, the rest |
| attn.sr, norm | attention.self.sr, layer_norm | attn.sr, norm | attn.sr, norm |
| attn.proj | attention.output.dense | attn.proj | attn.attn.out_proj |
| mlp.fc1, fc2 | mlp.dense1, dense2 | mlp.fc1, fc2 | ffn.layers.0, 4 (1x1 convolutions) |
| mlp.dwconv.dwconv | mlp.dwconv.dwconv | mlp.dwconv | ffn.layers.1 |
| norm{i} | layer_norm.{i-1} | stages.{i-1}.norm | layers.{i-1}.2 |

The files of segmentation_models.pytorch and of PVTv2's authors have the original names.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

STAGES = (
    (r"(?:patch_embeddings\.(\d)|stages\.(\d)\.downsample|layers\.(\d)\.0)\.", "patch_embed"),
    (r"(?:block\.(\d)|stages\.(\d)\.blocks|layers\.(\d)\.1)\.", "block"),
    (r"(?:layer_norm\.(\d)|stages\.(\d)\.norm|layers\.(\d)\.2)\.", "norm"),
)
"""How the name of a part of a stage begins, with the number of the stage from 0; the original counts from 1."""

PARTS = (
    (r"^patch_embed\.", "patch_embed1."),
    (r"\.projection\.", ".proj."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"\.attention\.self\.query\.", ".attn.q."),
    (r"\.attention\.self\.key\.", ".attn.k."),
    (r"\.attention\.self\.value\.", ".attn.v."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.(?:attention\.output\.dense|attn\.attn\.out_proj)\.", ".attn.proj."),
    (r"\.attn\.attn\.in_proj_", ".attn.qkv."),
    (r"\.(?:mlp\.dense1|ffn\.layers\.0)\.", ".mlp.fc1."),
    (r"\.(?:mlp\.dense2|ffn\.layers\.4)\.", ".mlp.fc2."),
    (r"\.(?:mlp\.dwconv|ffn\.layers\.1)\.(?!dwconv\.)", ".mlp.dwconv.dwconv."),
)
"""What else is replaced, in this order."""


def original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Mix Transformer's state dict in the original names.

    What no naming has is left as it is.

    Args:
        state: names -> tensors, as published, without what stands before all of them; not changed.
    """
    found = {_original(key): value for key, value in state.items()}
    for key, value in list(found.items()):
        if re.search(r"\.fc[12]\.weight$", key) and value.dim() == 4:
            found[key] = value.flatten(1)  # of a 1x1 convolution
        elif ".attn.k." in key and (other := key.replace(".attn.k.", ".attn.v.")) in found:
            if value.shape == found[other].shape:
                found[key.replace(".attn.k.", ".attn.kv.")] = torch.cat((found.pop(key), found.pop(other)))
        elif ".attn.qkv." in key:
            q, kv = found.pop(key).tensor_split((len(value) // 3,))
            found[key.replace(".qkv.", ".q.")], found[key.replace(".qkv.", ".kv.")] = q, kv
    return found


def _original(key: str) -> str:
    for pattern, part in STAGES:
        if match := re.match(pattern, key):
            key = f"{part}{int(match[match.lastindex or 0]) + 1}.{key[match.end() :]}"
            break
    for pattern, replacement in PARTS:
        key = re.sub(pattern, replacement, key)
    return key
