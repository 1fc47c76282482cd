"""Finds numbers of a run that rounding decides, and that mean little."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from runner.compare.numbers.bounds import Uncertainty, significant_digits
from runner.compare.numbers.tolerances import root_mean_square
from runner.compare.uncertainty.measuring import Measurement
from runner.engine import Row
from runner.errors import Problem, SnapshotError, listing
from runner.plan import Plan
from runner.plan.rows.columns import Column

DOUBTFUL = 0.01
"""From this relative uncertainty on, a warning says so: fewer than two digits are significant."""
MEANINGLESS = 0.1
"""Beyond this relative uncertainty, a number is noise: less than one digit is significant."""
_MOST_NAMES = 4
_MOST_LINES = 3


def doubts(plan: Plan, rows: Sequence[Row], measurement: Measurement) -> Iterator[str]:
    """Warnings for a new snapshot: numbers that mean little, and unusual perturbed runs.

    A tensor is named with the row from which on its uncertainty stays above `DOUBTFUL` to the end.
    """
    starts: dict[int, list[tuple[str, float]]] = {}
    for column in plan.columns:
        series = [(row, relative(row, column, measurement.rows.get(row.number, {}))) for row in rows]
        known = [(row, each) for row, each in series if each is not None]
        certain = [place for place, (_, each) in enumerate(known) if each < DOUBTFUL]
        first = certain[-1] + 1 if certain else 0
        if first < len(known):
            worst = max(each for _, each in known[first:])
            starts.setdefault(known[first][0].number, []).append((column.name, worst))
    for count, (number, found) in enumerate(sorted(starts.items())):
        if count == _MOST_LINES:
            later = len(starts) - count
            yield f"and other tensors from {later} later row{'' if later == 1 else 's'} on"
            break
        names = listing([f"`{name}`" for name, _ in found], _MOST_NAMES)
        are = "is" if len(found) == 1 else "are"
        worst = max(each for _, each in found)  # of the named tensors
        yield f"from row {number} on {names} {are} uncertain to {_percent(worst)}: keep earlier rows"
    yield from measurement.notes


def check_meaning(name: str, rows: Sequence[Row], measurement: Measurement) -> None:
    """Refuse a snapshot that contains only noise.

    Raises:
        SnapshotError: every number of every row is uncertain by more than `MEANINGLESS`, not counting the initial
            values.
    """
    found = [
        each
        for row in rows[1:]
        for column in row.columns
        if (each := relative(row, column, measurement.rows.get(row.number, {}))) is not None
    ]
    if found and min(found) > MEANINGLESS:
        message = (
            f"every number of {name} is uncertain by more than a tenth, in every row: a snapshot would be meaningless"
        )
        hint = "keep earlier rows, with a smaller `every` or fewer steps, or compute in `dtype: float64`"
        raise SnapshotError(Problem(message, hint))


def relative(row: Row, column: Column, uncertain: Mapping[str, Uncertainty]) -> float | None:
    """The uncertainty of a floating-point tensor in a row, relative to its root mean square; None if it is not one."""
    value, uncertainty = row[column.name], uncertain.get(column.name)
    if value is None or uncertainty is None or not _rounds(value) or not value.numel():
        return None
    size = root_mean_square(value)
    if uncertainty.rms == 0:
        return 0.0
    return uncertainty.rms / size if size else math.inf


def digits(row: Row, column: Column, uncertain: Mapping[str, Uncertainty]) -> float | None:
    """The significant decimal digits of a floating-point tensor in a row; None if it is not one."""
    value, uncertainty = row[column.name], uncertain.get(column.name)
    if value is None or uncertainty is None or not _rounds(value) or not value.numel():
        return None
    return significant_digits(uncertainty.rms, root_mean_square(value), column.dtype)


def _rounds(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _percent(share: float) -> str:
    return "100%" if share > 0.995 else f"{100 * share:.2g}%"
