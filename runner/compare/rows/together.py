"""Compares many pairs of rows of two recorded runs at once, with the results of comparing them one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.compare.numbers.differences import Deviation, deviation
from runner.compare.numbers.stacked import deviations, root_mean_squares, same_bits
from runner.compare.numbers.tolerances import root_mean_square
from runner.compare.numbers.ulp import same_bits as is_same
from runner.compare.rows.results import AnyRow, Place, Verdict
from runner.compare.rows.verdict import Series, Tolerate, Watch, align
from runner.record.reading import Run
from runner.record.rows.part_reading import Span

CELLS = 1 << 21
"""The most values that are compared at once, of all columns."""

LARGEST_TOGETHER = 1 << 10
"""The most elements of a tensor that is compared together with those of other rows."""


def compare_together(found: Run, expected: Run, tolerate: Tolerate, cut: int | None) -> Verdict:
    """The verdict on the rows of two runs, or on the first `cut` of each; the tolerance is that of `compare`.

    Rows are compared together as long as both runs have the same steps, then one by one.
    """
    watch = Watch(found.columns, expected.columns, tolerate)
    sides = [_Side(run, cut, max(1, CELLS // max(1, len(run.columns)))) for run in (found, expected)]
    ahead: list[Iterable[AnyRow]] = [(), ()]  # rows that were taken, after the last that were compared
    while not any(ahead) and all(side.rows for side in sides):
        count = min(side.rows for side in sides)
        spans = [side.take(count) for side in sides]
        same = spans[0].steps_as(spans[1])
        _compare(watch, *(span.between(0, same) for span in spans))
        ahead = [span.between(same, count) for span in spans]
    left, right = (itertools.chain(*both) for both in zip(ahead, sides, strict=True))
    for pair in align(left, right):
        watch(*pair)
    return watch.verdict()


class _Side:
    """The rows of a run that are still to be compared, in spans of limited size."""

    def __init__(self, run: Run, cut: int | None, at_most: int) -> None:
        self._spans = run.spans()
        self._left = len(run) if cut is None else cut
        self._at_most = at_most
        self._span: Span | None = None

    @property
    def rows(self) -> int:
        """How many rows the next span has; 0 at the end."""
        if self._span is None or not len(self._span):
            self._span = next(self._spans, None)
        return min(self._left, self._at_most, 0 if self._span is None else len(self._span))

    def take(self, count: int) -> Span:
        span = self._span
        assert span is not None
        self._span, self._left = span.between(count, len(span)), self._left - count
        return span.between(0, count)

    def __iter__(self) -> Iterator[AnyRow]:
        while self.rows:
            yield from self.take(self.rows)


@dataclass(frozen=True, slots=True)
class _Compared:
    """One column of pairs of rows; arrays by pair."""

    series: Series
    either: Tensor  # bool: whether one side has a value
    same: Tensor  # bool: whether both have the same bits
    beyond: Tensor  # bool: whether they differ by more than the tolerance
    error: Tensor  # float64, as of `Deviation`
    sizes: Tensor | None  # float64: of a scaled tolerance, the largest root mean square so far


def _compare(watch: Watch, found: Span, expected: Span) -> None:
    if not len(found):
        return
    columns = [_column(series, found, expected) for series in watch.series.values()]
    start, end = 0, len(found)
    while watch.first_difference is None and start < end:
        stop = min((start + _first(each.beyond[start:], end - start) for each in columns), default=end)
        _add(watch, columns, expected, start, stop)
        if stop < end:
            watch(found.row(stop), expected.row(stop))
        start = stop + 1
    _add(watch, columns, expected, start, end)


def _column(series: Series, found: Span, expected: Span) -> _Compared:
    name = series.column.name
    (left, found_in), (right, expected_in) = found.column(name), expected.column(name)
    if isinstance(left, Tensor) and isinstance(right, Tensor) and _are_small(left, right):
        return _stacked(series, left, right, found_in, expected_in)
    return _one_by_one(series, _split(left, found_in), _split(right, expected_in))


def _are_small(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left[0].numel() <= LARGEST_TOGETHER


def _stacked(
    series: Series, found: Tensor, expected: Tensor, found_in: Tensor | None, expected_in: Tensor | None
) -> _Compared:
    rows = len(found)
    same, everywhere = same_bits(found, expected), torch.ones(rows, dtype=torch.bool)
    left, right = (everywhere if present is None else present for present in (found_in, expected_in))
    either, both = left | right, left & right
    same &= both
    beyond, error = either & ~both, torch.zeros(rows, dtype=torch.float64)
    error[beyond] = math.inf
    sizes = None
    if series.tolerance.scaled:
        squares = root_mean_squares(expected.reshape(rows, -1)).masked_fill_(~right, 0.0)
        sizes = squares.clamp_(min=series.size).cummax(0).values
    differing = both & ~same
    if series.column.is_digest:
        beyond, error[differing] = beyond | differing, math.nan
    elif bool(differing.any()):
        pairs = [side[differing].reshape(int(differing.sum()), -1) for side in (found, expected)]
        largest = None if sizes is None else sizes[differing]
        beyond[differing], error[differing] = deviations(pairs[0], pairs[1], series.tolerance, largest)
    return _Compared(series, either, same, beyond, error, sizes)


def _one_by_one(series: Series, found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> _Compared:
    """The same for tensors that are large, or differ in shape."""
    size, tolerance = series.size, series.tolerance.of_row(None)
    compared: list[tuple[bool, bool, bool, float, float]] = []
    for left, right in zip(found, expected, strict=True):
        same = left is not None and right is not None and is_same(left, right)
        if series.tolerance.scaled and right is not None:
            size = max(size, root_mean_square(right))
        deviates = _SAME if same else deviation(left, right, tolerance, size)
        compared.append((left is not None or right is not None, same, deviates.beyond, deviates.error, size))
    either, same_ones, beyond, error, sizes = zip(*compared, strict=True)
    masks = [torch.tensor(mask) for mask in (either, same_ones, beyond)]
    numbers = [torch.tensor(numbers, dtype=torch.float64) for numbers in (error, sizes)]
    return _Compared(series, masks[0], masks[1], masks[2], numbers[0], numbers[1] if tolerance.scaled else None)


_SAME = Deviation(False, 0.0)


def _split(values: Tensor | list[Tensor | None], present: Tensor | None) -> Sequence[Tensor | None]:
    there = itertools.repeat(True, len(values)) if present is None else present.tolist()
    return [value if exists else None for value, exists in zip(values, there, strict=True)]


def _first(mask: Tensor, otherwise: int) -> int:
    return int(mask.to(torch.uint8).argmax()) if bool(mask.any()) else otherwise


def _add(watch: Watch, columns: Sequence[_Compared], expected: Span, start: int, stop: int) -> None:
    """Add the pairs from `start` to before `stop`, which are not the first difference."""
    if start >= stop:
        return
    part = slice(start, stop)
    numbers = torch.tensor(expected.between(start, stop).numbers())
    unequal = stop
    for each in columns:
        series, either = each.series, each.either[part]
        if each.sizes is not None:
            series.size = float(each.sizes[stop - 1])
        found = [
            values[part] if bool(either.all()) else values[part][either]
            for values in (each.same, each.beyond, each.error)
        ]
        series.add_many(numbers if bool(either.all()) else numbers[either], *found)
        first = start + _first(either & ~each.same[part], stop - start)
        if first < unequal:
            unequal, born = first, series.column
    if unequal < stop and watch.unequal_since is None:
        watch.unequal_since = Place.of(expected.row(unequal)), born
    watch.compared += stop - start
    watch.before = expected.row(stop - 1)
