"""What an evaluation tells while it runs, and the table's columns."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from iidm.engine.log import Progress
from iidm.engine.metrics import Scores, evaluate, score_table
from iidm.text import padded, shown_width
from iidm.types import ClassSet, EvalBatch

CLASSES = ClassSet(("road", "car"), ((1, 1, 1), (2, 2, 2)))


def test_progress_hears_the_number_of_images_done() -> None:
    heard: list[int] = []

    def normalize(image: Tensor) -> Tensor:
        return image.permute(0, 3, 1, 2).float()

    sizes = (2, 3, 1)
    batches = [
        EvalBatch(torch.zeros(n, 4, 6, 3, dtype=torch.uint8), torch.zeros(n, 8, 12, dtype=torch.uint8), ("a",) * n)
        for n in sizes
    ]
    network = nn.Conv2d(3, 2, 1)
    arguments = {"device": torch.device("cpu"), "amp_dtype": None, "normalize": normalize}
    evaluate({"n": network}, batches, CLASSES, progress=heard.append, **arguments)
    assert heard == [2, 5, 6]


def test_long_network_names_keep_the_tables_columns_apart() -> None:
    scores = Scores(torch.tensor([[3, 1], [0, 4]]), CLASSES)
    table = score_table({"student": scores, "another-long-name": scores}).splitlines()
    assert table[0].split() == ["class", "student", "another-long-name"]
    assert len({len(line) for line in table}) == 1


def test_wide_letters_keep_the_tables_columns_apart() -> None:
    """A terminal shows Chinese, Japanese and Korean letters two columns wide, and accents over the letter before."""
    names = ("\u9053\u8def", "\ub3c4\ub85c \uc704", "Ba\u0308ume", "a very long name")
    scores = Scores(torch.eye(4, dtype=torch.int64), ClassSet(names, ((1, 1, 1),) * 4))
    table = score_table({"student": scores}).splitlines()
    assert {shown_width(line) for line in table} == {len(table[0])} == {len("a very long name") + 10}
    assert shown_width(padded(names[1], 9)) == 9 and padded("too long", 3) == "too long"


def test_a_second_piece_of_work_has_a_total_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("drawing", quiet=False) as progress:
        for total in (3, 5):
            for done in range(1, total + 1):
                progress(done, total)
        assert (progress._bar.n, progress._bar.total) == (5, 5)
    assert "5/5" in capsys.readouterr().err
