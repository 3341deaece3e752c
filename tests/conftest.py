"""What every test may use: a cache of its own, `import make_datasets`, and CamVid where it is at hand."""

from __future__ import annotations

import functools
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "data"))  # so that any test can `import make_datasets`

# `make test &` hands down that Ctrl-C is ignored, and the programs that the tests start would ignore it too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on speed: beside other programs an example may take seconds.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@functools.cache
def has_gpu() -> bool:
    """Whether torch finds a GPU, not counting the one that tests/rehearsal/ makes up for a torch without CUDA."""
    import torch  # late: the rehearsal loads its device first

    return torch.backends.cuda.is_built() and torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Only a test that is marked `gpu` sees one. The others hold for a CPU, where equal runs are equal bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("gpu") is None and has_gpu():
            patch.setenv("CUDA_VISIBLE_DEVICES", "")  # of the programs that it starts
            patch.setattr("torch.cuda.is_available", lambda: False)
        return (yield)


CAMVID = Path(__file__).parents[2] / "shared" / "data" / "camvid"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, so that no test reads or writes the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IIDM_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """CamVid's 468 images, beside the repository."""
    if not (CAMVID / "images" / "train").is_dir():
        pytest.skip(f"CamVid is not at {CAMVID}")
    return CAMVID
