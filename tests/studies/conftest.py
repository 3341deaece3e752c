"""A small study with made-up results, for tests of what is written of them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests can `import made_up`
