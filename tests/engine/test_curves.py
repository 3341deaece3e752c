"""The curves of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from iidm.engine.curves import WINDOWS, save_curves


def write(run_dir: Path, lines: list[dict[str, Any]]) -> None:
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


LINES: list[dict[str, Any]] = [
    {"step": t, "loss_total": 3 / (t + 1), "loss_source": 2 / (t + 1), "loss_intra": 0.0, "quality": 0.5, "lr": 1e-5}
    for t in range(0, 60, 20)
]
LINES += [{"step": 59, "miou": 0.25}]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Title of each panel -> label of each curve -> its points."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    curves: dict[int, dict[str, list[tuple[float, float]]]] = {}
    plot, set_title = Axes.plot, Axes.set_title

    def recorded(self: Axes, steps: list[float], values: list[float], **options: Any) -> Any:
        points = list(zip(steps, values, strict=True))
        curves.setdefault(id(self), {})[options.get("label", "raw")] = points
        return plot(self, steps, values, **options)

    def titled(self: Axes, title: str) -> Any:
        found[title] = curves[id(self)]
        return set_title(self, title)

    monkeypatch.setattr(Axes, "plot", recorded)
    monkeypatch.setattr(Axes, "set_title", titled)
    return found


def test_every_value_of_the_metrics_has_its_curve(
    tmp_path: Path, drawn: dict[str, dict[str, list[tuple[float, float]]]]
) -> None:
    write(tmp_path, LINES)
    assert save_curves(tmp_path) == tmp_path / "curves.png"
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    assert picture.shape[1] > 4 * picture.shape[0] and picture.std() > 5
    assert set(drawn) == {"loss", "quality of pseudo-labels", "learning rate", "mIoU of the teacher"}
    assert drawn["mIoU of the teacher"]["raw"] == [(59, 0.25)]
    assert drawn["learning rate"]["raw"] == [(0, 1e-5), (20, 1e-5), (40, 1e-5)]
    # A loss that is off has no curve; three points are not smoothed.
    assert set(drawn["loss"]) == {"raw", "total", "source"}
    assert drawn["loss"]["total"] == [(t, pytest.approx(3 / (t + 1))) for t in (0, 20, 40)]


def test_a_long_run_is_smoothed_over_its_windows(
    tmp_path: Path, drawn: dict[str, dict[str, list[tuple[float, float]]]]
) -> None:
    # Four values a window: each new one counts a quarter.
    write(tmp_path, [{"step": t, "loss_total": 8.0 if t == 0 else 4.0} for t in range(4 * WINDOWS)])
    save_curves(tmp_path)
    smoothed = drawn["loss"]["total"]
    assert smoothed[:3] == [(0, 8.0), (1, 4 + 4 * 0.75), (2, 4 + 4 * 0.75**2)]
    assert smoothed[-1][1] == pytest.approx(4.0, abs=1e-3)
    assert drawn["loss"]["raw"][1] == (1, 4.0)


def test_lost_values_leave_a_gap_and_panels_without_values_are_left_out(
    tmp_path: Path, drawn: dict[str, dict[str, list[tuple[float, float]]]]
) -> None:
    write(tmp_path, [{"step": 0, "loss_total": None, "lr": 1.0}, {"step": 1, "loss_total": 2.0, "lr": None}])
    assert save_curves(tmp_path) is not None
    assert set(drawn) == {"loss", "learning rate"}
    assert drawn["loss"]["total"] == [(1, 2.0)]


@pytest.mark.parametrize("lines", (None, [], [{"step": 0}], [{"step": 0, "loss_total": None}]))
def test_without_values_there_is_no_picture(lines: list[dict[str, Any]] | None, tmp_path: Path) -> None:
    if lines is not None:
        write(tmp_path, lines)
    assert save_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_no_window_is_ever_needed() -> None:
    assert matplotlib.get_backend().lower() == "agg"
