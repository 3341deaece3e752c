"""The ops of the training step and of the evaluation, one folder each.

Every folder holds the public function with its checks and its `torch.library` registration (`__init__.py`)
and its meaning in plain PyTorch (`reference.py`), which is also the oracle of the fused kernels' tests.
Nothing here imports the rest of iidm; wrong arguments raise TypeError or ValueError.
"""

from ._checks import checks_values
from ._dispatch import OPS, build_info, set_implementation

__all__ = ["OPS", "build_info", "checks_values", "set_implementation"]
