"""Prepared folders of coordinate images, for the tests that ask for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinate_folders import Folders, mapped


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture
def no_file_stays_mapped(folders: Folders, tmp_path: Path) -> Iterator[None]:
    yield
    if mapped(folders.root) or mapped(tmp_path):  # collecting takes a while
        gc.collect()
    assert not mapped(folders.root) and not mapped(tmp_path)
