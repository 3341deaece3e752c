"""Markdown of a study's tables."""

from __future__ import annotations

from collections.abc import Sequence

from .grid import Row
from .plan import Plan
from .results import NETWORKS, Comparison, Result, best_of
from .statistics import Sample

NOTHING = "-"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    for sign in "\\|*<":
        text = text.replace(sign, f"\\{sign}")
    return text


def score_table(plan: Plan, results: Sequence[Result]) -> str:
    """Rows by budgets: mean and deviation of the student, of the teacher in brackets, and the published numbers."""
    by_place = {(result.row.name, result.labeled): result for result in results}
    best = [best_of(results, labeled) for labeled in plan.budgets]
    types = any(row.type for row in plan.study.rows)
    paper = plan.study.paper_budgets
    head = ["type"] * types + ["method", *map(labels, plan.budgets), *(f"paper, {count}" for count in paper)]
    lines = []
    for row in plan.study.rows:
        cells = [by_place.get((row.name, labeled)) for labeled in plan.budgets]
        shown = [_cell(cell, any(cell is other for other in best if cell), plan.seeds) for cell in cells]
        published = [f"{row.paper[count]:.1f}" if count in row.paper else NOTHING for count in paper]
        lines.append([escaped(row.type)] * types + [escaped(row.name), *shown, *published])
    return markdown(head, lines)


def class_table(plan: Plan, results: Sequence[Result], labeled: int) -> str:
    """IoU of the student per class, mean over seeds, of the rows that have a cell at this budget; empty without any."""
    found = [(result.row, result.iou("student")) for result in results if result.labeled == labeled and result.found]
    if not found:
        return ""
    names = list(found[0][1])
    rows = [[escaped(row.name), *(percent(iou.get(name)) for name in names)] for row, iou in found]
    return markdown(["method", *map(escaped, names)], rows)


def difference_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each difference that is not resolved."""
    lines = []
    for pair in comparisons:
        if pair.difference is not None and not pair.difference.is_resolved:
            lines.append(f"{labels(pair.labeled)}: {pair_words(pair)}")
    return lines


def pair_words(pair: Comparison) -> str:
    """Both rows, their difference and its interval."""
    names = f"{escaped(pair.first)} over {escaped(pair.second)}"
    if pair.difference is None:
        return names
    gap = pair.difference
    return f"{names}: {gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"


def labels(count: int) -> str:
    """The head of a column."""
    return "1 label" if count == 1 else f"{count} labels"


def percent(value: float | None) -> str:
    """One decimal, as the field has it."""
    return NOTHING if value is None else f"{value:.1f}"


def row_title(row: Row) -> str:
    """A row's name with the budget that is its own."""
    return row.name if row.labeled is None else f"{row.name}, {labels(row.labeled)}"


def _cell(result: Result | None, is_best: bool, seeds: int) -> str:
    if result is None:
        return NOTHING
    student, teacher = (result.miou(network) for network in NETWORKS)
    if student is None:
        return "missing"
    text = f"**{_spread(student)}**" if is_best else _spread(student)
    text += f" ({_spread(teacher)})" if teacher is not None else ""
    return text if len(student.values) == seeds else f"{text}, {len(student.values)} of {seeds} seeds"


def _spread(sample: Sample) -> str:
    deviation = sample.deviation
    return f"{sample.mean:.1f}" if deviation is None else f"{sample.mean:.1f} ± {deviation:.1f}"
