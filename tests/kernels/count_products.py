"""Counts the float operations of the pseudo-labels' Triton kernel, where the compiler may fuse products and where not.

Run by test_triton_builds.py in a process of its own, where Triton is not set to interpret; prints a JSON line for each
architecture and dtype: python count_products.py 80 90
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter

import torch

from benchmarks.triton_launches import recorded
from iidm.kernels.pseudo_label import fused_triton


def operations(ptx: str) -> Counter[str]:
    """How often each operation of float32 stands there, alone and in pairs."""
    found = re.finditer(r"\b(fma|mul|add|sub)(?:\.rn)?\.f32(x2)?\b", ptx)
    return Counter(match[1] + (match[2] or "") for match in found)


for dtype in (torch.float32, torch.bfloat16, torch.float16):
    with recorded() as launches:
        logits = torch.empty(2, 19, 16, 16, dtype=dtype, device="meta")
        fused_triton.pseudo_label(logits, (123, 131), 0.9, False, False, False, True)
    (launch,) = [one for one in launches if one.kernel is fused_triton.pseudo_label_kernel]
    for arch in map(int, sys.argv[1:]):
        fused, apart = (operations(launch.compiled(arch, enable_fp_fusion=on).asm["ptx"]) for on in (True, False))
        print(json.dumps({"arch": arch, "dtype": str(dtype), "may fuse": fused, "may not": apart}))
