"""Compares two sequences of rows: where they first differ, and how the difference develops.

The rows may come from two recorded runs, from two engines in lockstep, or from a run and its snapshot. A row only needs
a number, a step and values.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy
from torch import Tensor

from runner.compare.numbers.bounds import Uncertainty, rounding
from runner.compare.numbers.differences import Deviation, Difference
from runner.compare.numbers.digested import Condensed
from runner.compare.numbers.growth import Growth, Trace
from runner.compare.numbers.observed import deviation, difference, is_same
from runner.compare.numbers.tolerances import Tolerance, root_mean_square
from runner.compare.rows.results import (
    AnyRow,
    Divergence,
    FirstDifference,
    Pair,
    Place,
    Redeclared,
    Rows,
    Tally,
    Verdict,
)
from runner.plan.rows.columns import Column, Role

CAUSAL_ORDER: tuple[Role, ...] = ("value", "norm", "gradient", "weight", "state")
"""The order within a step: computed values, their gradients, the update, the optimizer state."""


Tolerate = Callable[[Column], Tolerance]

Uncertain = Callable[[AnyRow, str], Uncertainty | None]
"""Returns the uncertainty of a tensor in an expected row; None if it is exact."""


Observe = Callable[["Watch", AnyRow | None, AnyRow | None], None]
"""Sees each pair of rows, as found and as expected, after a `Watch` has compared it."""


def certain(row: AnyRow, name: str) -> Uncertainty | None:
    """An `Uncertain` for rows without measured uncertainty: returns None for every tensor."""
    return None


def align(
    found: Iterable[AnyRow], expected: Iterable[AnyRow], key: Callable[[AnyRow], Hashable] | None = None
) -> Iterator[Pair]:
    """Pairs the rows of both sides: those of the same step and iteration.

    If a step was added or removed, the rows after it are still paired. Rows without a partner, at most `WINDOW` at a
    time, are yielded alone until the steps agree again.

    Args:
        key: returns what the rows of a pair share; by default, step and iteration.
    """
    key = key or _step_of
    left, right = _Lookahead(found, key), _Lookahead(expected, key)
    while (a := left.head()) is not None and (b := right.head()) is not None:
        if key(a) == key(b):
            yield left.take(), right.take()
            continue
        passed_left, passed_right = left.distance(key(b)), right.distance(key(a))
        if passed_left is None and passed_right is None:
            passed_left = passed_right = 1
        elif passed_left is None or (passed_right is not None and passed_right < passed_left):
            passed_left = 0
        else:
            passed_right = 0
        for _ in range(passed_left or 0):
            yield left.take(), None
        for _ in range(passed_right or 0):
            yield None, right.take()
    while left.head() is not None:
        yield left.take(), None
    while right.head() is not None:
        yield None, right.take()


def align_edited(found: Sequence[AnyRow], expected: Sequence[AnyRow], values: Sequence[str]) -> Iterator[Pair]:
    """Pairs the rows of a run with those of a snapshot of an older version of its config, in order.

    Rows of the same step and iteration are paired. Between these, rows are paired by the kind of step and by the values
    it computes, because the steps may have moved into other loops.

    Args:
        values: the named values that both sides declare.
    """

    def kind(row: AnyRow) -> Hashable:
        return row.step, *(row[name] is not None for name in values)

    left, right = 0, 0
    for at, of in _anchors(found, expected):
        yield from align(found[left:at], expected[right:of], kind)
        yield found[at], expected[of]
        left, right = at + 1, of + 1
    yield from align(found[left:], expected[right:], kind)


def _anchors(found: Sequence[AnyRow], expected: Sequence[AnyRow]) -> Iterator[tuple[int, int]]:
    """Yields the positions of rows that surely correspond: step and iteration occur once on each side, in one order."""
    counts = [Counter(map(_step_of, rows)) for rows in (found, expected)]
    places = {_step_of(row): place for place, row in enumerate(expected)}
    last = -1
    for place, row in enumerate(found):
        step = _step_of(row)
        if all(count[step] == 1 for count in counts) and places[step] > last:
            last = places[step]
            yield place, last


WINDOW = 64
"""The number of rows that are searched for a partner."""

_ORDINAL = re.compile(r"(?<![^.])\d+\.")


def _step_of(row: AnyRow) -> tuple[str, str]:
    """The step of a row, without its position in a list of steps: `train`, `repeat[12].train`."""
    return row.step, _ORDINAL.sub("", row.path)


class _Lookahead:
    """Reads rows, and looks ahead of the next one."""

    def __init__(self, rows: Iterable[AnyRow], key: Callable[[AnyRow], Hashable]) -> None:
        self._rows = iter(rows)
        self._key = key
        self._ahead: deque[AnyRow] = deque()

    def head(self) -> AnyRow | None:
        self._fill(1)
        return self._ahead[0] if self._ahead else None

    def take(self) -> AnyRow:
        return self._ahead.popleft()

    def distance(self, step: Hashable) -> int | None:
        """The number of rows before the first one of a step; None if it is not within `WINDOW` rows."""
        self._fill(WINDOW)
        return next((place for place, row in enumerate(self._ahead) if self._key(row) == step), None)

    def _fill(self, count: int) -> None:
        while len(self._ahead) < count:
            row = next(self._rows, None)
            if row is None:
                return
            self._ahead.append(row)


def compare(
    pairs: Iterable[Pair],
    found_columns: Sequence[Column],
    expected_columns: Sequence[Column],
    tolerate: Tolerate,
    uncertain: Uncertain = certain,
    observe: Observe | None = None,
) -> Verdict:
    """The verdict on pairs of rows, which it reads one by one.

    Args:
        pairs: as `align` yields them.
        found_columns, expected_columns: the columns of each side. A column with another dtype is not compared; one with
            another shape is, to show the step where the shapes differ.
        tolerate: returns the tolerance of each column, as `Tolerances` does.
        uncertain: returns the uncertainty in an expected row, for columns whose tolerance is `measured`.
        observe: sees each pair after it was compared.
    """
    watch = Watch(found_columns, expected_columns, tolerate, uncertain)
    for found, expected in pairs:
        watch(found, expected)
        if observe is not None:
            observe(watch, found, expected)
    return watch.verdict()


def in_causal_order(columns: Iterable[Column]) -> list[Column]:
    """Columns in the order in which a step computes them: named values in source order, gradients, weights, state."""
    return sorted(columns, key=lambda column: CAUSAL_ORDER.index(column.role))


@dataclass(slots=True)
class Series:
    """Statistics of one column over the rows so far."""

    column: Column
    tolerance: Tolerance
    size: float = 0.0  # the largest root mean square of a scaled gradient
    compared: int = 0
    differing: int = 0
    first_number: int = -1
    error: float = 0.0  # in the last compared row
    before: float = 0.0
    first: float = 0.0
    last_number: int = -1
    largest: float = 0.0
    largest_number: int = -1  # -1 if no error is known
    trace: Trace = field(init=False)

    def __post_init__(self) -> None:
        self.trace = Trace(rounding(self.column.rounded))

    def add(
        self,
        number: int,
        found: Tensor | None,
        expected: Tensor | Condensed | None,
        same: bool,
        whole: bool,
        uncertainty: Uncertainty | None = None,
    ) -> Difference | None:
        """Compare the values of one row; returns the difference only if `whole` is set."""
        self.compared += 1
        if self.tolerance.scaled and isinstance(expected, Tensor):
            self.size = max(self.size, root_mean_square(expected))
        previous, self.last_number = self.error, number
        if same:
            self.error = 0.0
            self.trace.add(number, 0.0)
            return None
        tolerance = self.tolerance.of_row(uncertainty)
        difference_found = difference(found, expected, tolerance, self.size) if whole else None
        if self.column.is_digest and found is not None and expected is not None:
            difference_found = (
                None if difference_found is None else replace(difference_found, kind="digest", values=None)
            )
            deviates = Deviation(True, math.nan)
        elif difference_found is not None and difference_found.values is not None:
            deviates = Deviation(True, difference_found.values.error)
        else:
            deviates = deviation(found, expected, tolerance, self.size)
        self.error = deviates.error
        self.trace.add(number, self.error)
        if not deviates.beyond:
            return None
        if self.differing == 0:
            self.first_number, self.before, self.first = number, previous, self.error
        self.differing += 1
        if self.error >= self.largest:
            self.largest, self.largest_number = self.error, number
        return difference_found

    def add_many(self, numbers: Tensor, same: Tensor, beyond: Tensor, error: Tensor) -> None:
        """Compare the values of many rows, given what `add` finds out about each; none is the first difference.

        Args:
            numbers: int64 `(rows,)`.
            same, beyond: bool `(rows,)`.
            error: float64 `(rows,)`, 0 where the bits are the same.
        """
        rows = len(numbers)
        if not rows:
            return
        self.compared += rows
        self.last_number = int(numbers[-1])
        if bool(same.all()):
            self.error = 0.0
            self.trace.add_zeros(rows)
            return
        places, errors = numbers.numpy(), error.numpy()
        self.trace.add_many(places, errors)
        differing = beyond.numpy().nonzero()[0]
        if len(differing):
            first = int(differing[0])
            if self.differing == 0:
                self.first_number, self.first = int(places[first]), float(errors[first])
                self.before = float(errors[first - 1]) if first else self.error
            self.differing += len(differing)
            known = differing[~numpy.isnan(errors[differing])]
            largest = float(errors[known].max()) if len(known) else -math.inf
            if largest >= self.largest:
                last = known[errors[known] == largest][-1]
                self.largest, self.largest_number = largest, int(places[last])
        self.error = float(errors[-1])

    def tally(self) -> Tally:
        largest = math.nan if self.differing and self.largest_number < 0 else self.largest
        return Tally(self.column, self.differing, self.compared, self.first_number, largest)

    def growth(self) -> Growth | None:
        """None if no error is known."""
        if self.largest_number < 0:
            return None
        kind = self.trace.kind(self.before, self.first)
        leap = self.trace.leap
        return Growth(
            self.column,
            kind,
            self.before,
            self.first,
            self.error,
            self.last_number,
            self.largest,
            self.largest_number,
            None if leap is None or leap.number == self.first_number else leap,
        )


@dataclass(slots=True)
class Watch:
    """Compares pairs of rows one by one, in the columns that both sides declare."""

    found_columns: Sequence[Column]
    expected_columns: Sequence[Column]
    tolerate: Tolerate
    uncertain: Uncertain = certain
    series: dict[str, Series] = field(default_factory=dict)
    compared: int = 0
    missing: int = 0
    new: int = 0
    first_missing: Place | None = None
    first_new: Place | None = None
    first_difference: FirstDifference | None = None
    unequal_since: tuple[Place, Column] | None = None
    before: AnyRow | None = None

    def __post_init__(self) -> None:
        found = {column.name: column for column in self.found_columns}
        for column in in_causal_order(self.expected_columns):
            if column.name in found and found[column.name].dtype == column.dtype:
                self.series[column.name] = Series(column, self.tolerate(column))

    def __call__(self, found: AnyRow | None, expected: AnyRow | None) -> None:
        if found is not None and expected is not None:
            self._compare(found, expected)
        elif expected is not None:
            self.missing += 1
            self.first_missing = self.first_missing or Place.of(expected)
        elif found is not None:
            self.new += 1
            self.first_new = self.first_new or Place.of(found)

    def _compare(self, found: AnyRow, expected: AnyRow) -> None:
        self.compared += 1
        divergences: list[Divergence] = []
        equal: list[Column] = []
        within: list[Column] = []
        for name, series in self.series.items():
            left, right = found[name], expected[name]
            if left is None and right is None:
                continue
            assert not isinstance(left, Condensed)  # only expected values are condensed
            same = left is not None and right is not None and is_same(left, right)
            uncertainty = self.uncertain(expected, name) if series.tolerance.mode == "measured" and not same else None
            difference = series.add(expected.number, left, right, same, self.first_difference is None, uncertainty)
            if not same and self.unequal_since is None:
                self.unequal_since = Place.of(expected), series.column
            if difference is not None:
                divergences.append(Divergence(series.column, difference))
            else:
                (equal if same else within).append(series.column)
        if divergences and self.first_difference is None:
            self.first_difference = FirstDifference(
                Place.of(expected), tuple(divergences), tuple(equal), tuple(within), found, expected, self.before
            )
        self.before = expected

    def _growth(self, first: Divergence) -> Growth | None:
        """How the error of the tensor that differs first develops; None if its first difference is not an error."""
        return self.series[first.column.name].growth() if first.difference.kind in ("value", "digest") else None

    def verdict(self) -> Verdict:
        found = {column.name: column for column in self.found_columns}
        expected = {column.name: column for column in self.expected_columns}
        first_difference = self.first_difference
        unequal = self.unequal_since
        if first_difference is not None and unequal is not None and unequal[0] == first_difference.place:
            unequal = None
        differing = [series for series in self.series.values() if series.differing]
        differing.sort(key=lambda series: series.first_number)  # stable: in causal order within a row
        return Verdict(
            compared=self.compared,
            missing_rows=Rows(self.missing, self.first_missing),
            new_rows=Rows(self.new, self.first_new),
            missing_columns=tuple(column for name, column in expected.items() if name not in found),
            new_columns=tuple(column for name, column in found.items() if name not in expected),
            redeclared=tuple(
                Redeclared(column, found[name])
                for name, column in expected.items()
                if name in found and (column.dtype, column.shape) != (found[name].dtype, found[name].shape)
            ),
            first_difference=first_difference,
            unequal_since=unequal,
            growth=None if first_difference is None else self._growth(first_difference.divergences[0]),
            tallies=tuple(series.tally() for series in differing),
            same_bits=self.unequal_since is None,
        )
