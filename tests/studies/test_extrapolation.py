"""What more labels would bring: the fit against curves of which the truth is known, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import made_up
import numpy as np
import pytest

from iidm.studies.budget import default_counts, draw, sentences
from iidm.studies.extrapolation import Curve, fit
from iidm.studies.grid import Row, Study
from iidm.studies.plan import Plan, Wishes, make_plan
from iidm.studies.results import collect
from iidm.types import UserError

COUNTS = (5, 10, 20, 40, 80)


def law(labels: float, a: float = 60.0, b: float = 30.0, c: float = 0.5) -> float:
    return float(a - b * labels**-c)


def scores(
    rng: np.random.Generator, shared: float, own: float, *, seeds: int = 3, **of_law: float
) -> dict[int, list[tuple[int, float]]]:
    """Runs of a law, with what a seed shares, such as its first images, and what is a run's own."""
    offsets = rng.normal(0, shared, seeds)
    noise = {n: own * (1.3 if n <= 10 else 0.8) for n in COUNTS}
    return {n: [(s, law(n, **of_law) + offsets[s] + rng.normal(0, noise[n])) for s in range(seeds)] for n in COUNTS}


@pytest.mark.parametrize(("shared", "own"), [(0.8, 0.8), (0.0, 1.0)])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(shared: float, own: float) -> None:
    rng = np.random.default_rng(3)
    held, widths = [], []
    for _ in range(60):
        a, c, rise = rng.uniform(50, 75), rng.uniform(0.2, 1.2), rng.uniform(6, 25)
        b = rise / (COUNTS[0] ** -c - COUNTS[-1] ** -c)
        curve = fit(scores(rng, shared, own, a=a, b=b, c=c))
        if isinstance(curve, Curve):
            expected = curve.at(160)
            held.append(expected.low <= law(160, a, b, c) <= expected.high)
            widths.append(expected.high - expected.low)
    assert len(held) > 50
    assert 0.87 <= np.mean(held), np.mean(held)
    assert np.median(widths) < 6  # what is so wide that it always holds tells nothing


def test_without_noise_the_law_itself_is_found() -> None:
    curve = fit(scores(np.random.default_rng(0), 0, 0.01))
    assert isinstance(curve, Curve)
    for labels in (160, 320):
        assert curve.at(labels).middle == pytest.approx(law(labels), abs=0.15)
    assert curve.gain(160).middle == pytest.approx(law(160) - law(80), abs=0.1)
    assert curve.farthest == 320


def test_more_noise_is_a_wider_interval_and_in_the_end_none() -> None:
    quiet, loud = (fit(scores(np.random.default_rng(0), 0, own)) for own in (0.1, 0.8))
    assert isinstance(quiet, Curve) and isinstance(loud, Curve)
    assert loud.at(160).high - loud.at(160).low > 3 * (quiet.at(160).high - quiet.at(160).low)
    assert "differ too much" in str(fit(scores(np.random.default_rng(0), 6, 6)))


def test_what_seeds_share_does_not_average_out_over_the_counts() -> None:
    rng = np.random.default_rng(0)
    apart = scores(rng, 0, 0.1)
    together = {n: [(s, score + (-1.2, 0, 1.2)[s]) for s, score in runs] for n, runs in apart.items()}
    mixed = {
        n: [(s, score + (-1.2, 0, 1.2)[(s + i) % 3]) for s, score in runs] for i, (n, runs) in enumerate(apart.items())
    }
    widths = []
    for runs in (mixed, together):  # the same scores at each count, by other seeds
        curve = fit(runs)
        assert isinstance(curve, Curve)
        widths.append(curve.at(160).high - curve.at(160).low)
    assert widths[1] > 1.2 * widths[0], widths


def test_what_cannot_be_told_is_said() -> None:
    whole = scores(np.random.default_rng(0), 0, 0.3)
    assert "takes 4 different numbers" in str(fit({n: whole[n] for n in COUNTS[:3]}))
    assert "takes 5 runs" in str(fit({n: whole[n][:1] for n in COUNTS[:4]}))
    falling = {n: [(s, 60 - score) for s, score in runs] for n, runs in whole.items()}
    assert "nothing that these runs can tell" in str(fit(falling))


# What a person reads


def budget_plan(counts: tuple[int, ...] = COUNTS, seeds: int = 3) -> Plan:
    study = Study("budget", "What labels are worth", (Row("iidm", "iidm"),), split_per_seed=True)
    return make_plan(study, Wishes(seeds=seeds, budgets=counts, steps=10))


def said(plan: Plan, runs: Mapping[int, list[tuple[int, float]]]) -> list[str]:
    records = {run.key: made_up.record(run, dict(runs[run.labeled])[run.config.seed], 50) for run in plan.runs}
    return sentences(collect(plan, records))


def test_the_sentences_tell_score_gain_and_reach() -> None:
    found = said(budget_plan(), scores(np.random.default_rng(1), 0.1, 0.1))
    assert found[0].startswith("With 80 labels the student's mIoU is 56.")
    assert "(± 0." in found[0] and "over 3 draws" in found[0]
    assert found[1].startswith("Doubling to 160 is expected to give 57.")
    assert "a gain of 1." in found[1] and "320 labels 58." in found[1]
    assert "Nothing is said beyond 320 labels" in found[2]


def test_with_three_counts_nothing_is_foretold() -> None:
    found = said(budget_plan(COUNTS[:3]), scores(np.random.default_rng(1), 0.1, 0.1))
    assert found[0].startswith("With 20 labels")
    assert found[1] == (
        "What more labels would bring cannot be told: that takes 4 different numbers of labels, and 3 are done."
    )


def test_the_picture_is_drawn_with_and_without_a_law(tmp_path: Path) -> None:
    for number, counts in enumerate((COUNTS, COUNTS[:2])):
        plan, runs = budget_plan(counts), scores(np.random.default_rng(1), 0.1, 0.1)
        records = {run.key: made_up.record(run, runs[run.labeled][run.config.seed][1], 50) for run in plan.runs}
        draw(collect(plan, records), tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 10_000
    draw([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_each_seed_labels_other_images_and_a_larger_count_holds_the_smaller() -> None:
    for run in budget_plan().runs:
        assert run.config.data.split_seed == run.config.seed
        assert run.command.endswith(f"--data.split-seed {run.config.seed}")


@pytest.mark.parametrize(("labels", "counts"), [(80, (5, 10, 20, 40, 80)), (20, (2, 4, 6, 11, 20)), (4, (2, 3, 4))])
def test_the_counts_go_up_to_all_labels_in_even_steps(labels: int, counts: tuple[int, ...]) -> None:
    assert default_counts(labels) == counts


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(UserError, match="3 labeled training images"):
        default_counts(3)
