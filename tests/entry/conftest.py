"""One tiny data set and one finished run, shared by every test of the entry points."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests can `import small_runs`

import html_reports  # noqa: E402
import small_runs  # noqa: E402
import small_studies  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of the runs that fixtures make before any test has its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IIDM_CACHE", str(tmp_path_factory.mktemp("shared-cache")))
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source and target folders. Tests that damage a file damage a copy."""
    return small_runs.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> small_runs.Finished:
    """A run of STEPS steps with everything that a run writes."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    words = small_runs.options(data, run_dir, "--amp", "--log.tensorboard", "--log.preview-every", "3")
    return small_runs.Finished(run_dir, small_runs.train([*words, "--log.eval-every", "3"], painted=True))


@pytest.fixture(scope="session")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, small_runs.Said]:
    """A finished study, uninterrupted, of one thread a run: equal numbers need equal threads. Tests that change it
    change a copy."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return root, small_studies.study(small_studies.study_words(data, root))


@pytest.fixture(scope="session")
def reported(finished: small_runs.Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run, with its report."""
    run_dir = html_reports.copied(finished.run_dir, tmp_path_factory.mktemp("report"))
    html_reports.report(run_dir)
    return run_dir


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may damage."""
    return Path(shutil.copytree(data, tmp_path / "data"))
