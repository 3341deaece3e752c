"""The tables of the Triton kernels are made before a capture, or the capture is told what to do."""

from __future__ import annotations

import pytest
import torch

from iidm.kernels._cells import axis

CUDA = torch.device("cuda", 0)


def test_a_new_size_in_a_capture_is_refused_before_anything_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="Upsampling 7 to 56 is new.*Run the step once before the capture"):
        axis(7, 56, False, CUDA)


def test_new_groups_in_a_capture_are_refused_before_anything_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from iidm.kernels.batch_norm.fused_triton import _starts

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"Groups of \(2, 3\) images are new.*Run the step once before the capture"):
        _starts((2, 3), 56, CUDA)
