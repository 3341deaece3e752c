"""A killed process leaves none of the files in which DALI keeps the code of its graphs."""

from __future__ import annotations

import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali._autograph.pyct import loader

from iidm.data.loading.generated_code import generated_in_memory


@pipeline_def(batch_size=1, num_threads=1, device_id=None, enable_conditionals=True)
def graph(is_larger: bool) -> object:
    number = fn.external_source(name="number", dtype=types.INT32, ndim=0)
    if number > 0:
        number = number + is_larger
    return number


def no_file(*_: object, **__: object) -> None:
    raise AssertionError("a file is written")


def test_graphs_with_an_if_are_made_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.tempfile, "NamedTemporaryFile", no_file)
    with generated_in_memory():
        pipeline = graph(is_larger=True)
    pipeline.feed_input("number", [np.array(1, np.int32)])
    (numbers,) = pipeline.run()
    assert numbers.as_array().tolist() == [2]


def test_elsewhere_dali_does_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    before = loader.load_source
    with pytest.raises(ZeroDivisionError), generated_in_memory():
        assert loader.load_source is not before
        raise ZeroDivisionError
    assert loader.load_source is before
