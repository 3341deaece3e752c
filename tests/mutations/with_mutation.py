"""A pytest plugin: the tests of a process run on the mutated file that MUTATED_FILE names, in place of ORIGINAL_FILE.

The project's folder stays as it is. `python -m pytest -p with_mutation` with this folder in PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import Phase, settings

# A failure is all that is asked for; to shrink it under the interpreter takes minutes.
settings.register_profile("with_mutation", phases=[Phase.explicit, Phase.generate])
settings.load_profile("with_mutation")

original, mutated = os.environ["ORIGINAL_FILE"], Path(os.environ["MUTATED_FILE"])
if original.startswith("csrc/"):
    import on_cpu

    on_cpu.CSRC = mutated.parent
else:
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated
    from mutate import loaded

    name = ".".join(["iidm", *Path(original).with_suffix("").parts])
    assert name not in sys.modules
    loaded(name, mutated)
