"""Tracks the error of each tensor over the rows of two variants."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from runner.compare.numbers.growth import Growth
from runner.compare.numbers.tolerances import Tolerance, Tolerances
from runner.compare.numbers.ulp import FARTHEST, ulp_distance
from runner.compare.rows.causes import BATCH, RANDOM
from runner.compare.rows.results import Place, Verdict
from runner.compare.rows.verdict import Observe, Series, Watch
from runner.compare.variants.lockstep import RowPair, common_columns
from runner.plan.plan import Plan
from runner.text import Shown, Table

SAME_NUMBERS = Tolerance("ulp", ulp=0)
"""The tolerance between variants: 0 and -0 are equal, and so are all NaN."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One tensor of one row: the norm of the difference relative to this side's norm, and the distance in ULP."""

    error: float = 0.0
    ulp: int | None = 0  # in the dtype of the comparison; None if the distance is undefined
    local: float | None = None  # the error if the other side had started this step from this side's state


@dataclass(frozen=True, slots=True)
class Line:
    """One row of both sides."""

    place: Place
    cells: Mapping[str, Cell]  # of the tensors that at least one side has in this row

    @property
    def worst(self) -> float:
        return max((max(cell.error, cell.local or 0.0) for cell in self.cells.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class Trend:
    """One tensor that differs in some row."""

    growth: Growth | None  # None: it differs only in steps from reinjected state, or has another shape
    name: str
    born: int | None  # the row in which it first differs
    rows: int  # number of rows in which it differs
    ulp: int | None  # the largest distance
    local: float  # the largest error of one step
    local_number: int | None  # the row with that error
    shapes: str | None = None  # both shapes as text, if they differ in every row: then no row has an error


@dataclass(frozen=True, slots=True)
class ErrorTable(Shown):
    """Two variants compared."""

    rows: int  # number of rows that both have
    tensors: int  # number of compared tensors
    lines: tuple[Line, ...]  # in row order; a selection if `most` is set
    trends: tuple[Trend, ...]  # in causal order
    verdict: Verdict  # counts any difference
    within: Verdict | None  # counts differences beyond the requested tolerance
    reinjected: bool
    draws: tuple[str, ...]  # which of `BATCH` and `RANDOM` the steps draw

    def _tables(self) -> Iterator[Table]:
        yield from (self.verdict if self.within is None else self.within)._tables()
        rows = [(each.name, each.born, each.rows, "" if each.ulp is None else each.ulp) for each in self.trends]
        if rows:
            yield Table(rows, ("tensor", "born in row", "rows that differ", "largest ULP"))


def tabulate_errors(
    pairs: Iterable[RowPair],
    this: Plan,
    other: Plan,
    *,
    reinjected: bool = False,
    tolerances: Tolerances | None = None,
    most: int | None = None,
    observe: Observe | None = None,
) -> ErrorTable:
    """Compare the rows of two variants, one pair at a time.

    Args:
        pairs: the pairs that `lockstep` yields.
        tolerances: for the verdict `within`; None for no such verdict.
        most: the number of lines to keep; None for all. They are the first rows, the last rows, and the worst row of
            each stretch between.
        observe: sees each pair after it was compared.
    """
    mine, theirs = common_columns(this, other)
    watch = Watch(theirs, mine, Tolerances(SAME_NUMBERS))
    local_watch = Watch(theirs, mine, Tolerances(SAME_NUMBERS))
    within_watch = None if tolerances is None else Watch(theirs, mine, tolerances)
    selection = _LineSelection(most, max(this.estimates.rows, 1))
    extremes: dict[str, _Extreme] = {name: _Extreme() for name in watch.series}
    for pair in pairs:
        watch(pair.other, pair.this)
        if observe is not None:
            observe(watch, pair.other, pair.this)
        if within_watch is not None:
            within_watch(pair.other, pair.this)
        if pair.this is None or pair.other is None:
            continue
        if pair.local is not None:
            local_watch(pair.local, pair.this)
        cells = {}
        for name, series in watch.series.items():
            found, expected = pair.other[name], pair.this[name]
            if found is None and expected is None:
                continue
            local = None if pair.local is None else _error(local_watch.series[name], pair.this.number)
            cells[name] = cell = Cell(series.error, _ulp(found, expected) if series.error else 0, local)
            extremes[name].add(pair.this.number, cell)
        selection.add(Line(Place.of(pair.this), cells))
    verdict = watch.verdict()
    shapes = verdict.other_shapes
    trends = [_trend(name, watch, extreme, shapes) for name, extreme in extremes.items() if extreme.differs]
    return ErrorTable(
        watch.compared,
        len(watch.series),
        selection.lines(),
        tuple(trends),
        verdict,
        None if within_watch is None else within_watch.verdict(),
        reinjected,
        tuple(name for name, drawn in ((BATCH, this.sources), (RANDOM, this.random)) if drawn),
    )


def _error(series: Series, number: int) -> float:
    """The error in row `number`, the last one; 0 if neither side has a value there."""
    return series.error if series.last_number == number else 0.0


def _ulp(found: object, expected: object) -> int | None:
    """The largest distance of two elements; None if it is undefined or exactly one of the two is NaN."""
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        return None
    if found.shape != expected.shape or not expected.dtype.is_floating_point:
        return None
    distance = int(ulp_distance(found, expected).max())
    return None if distance == FARTHEST else distance


def _trend(name: str, watch: Watch, extreme: _Extreme, shapes: Mapping[str, str]) -> Trend:
    series = watch.series[name]
    differs = series.differing > 0
    return Trend(
        series.growth() if differs and name not in shapes else None,
        name,
        series.first_number if differs else None,
        series.differing,
        extreme.ulp,
        extreme.local,
        extreme.local_number,
        shapes.get(name),
    )


@dataclass(slots=True)
class _Extreme:
    """The largest error and distance of one tensor."""

    differs: bool = False
    ulp: int | None = 0
    local: float = 0.0
    local_number: int | None = None

    def add(self, number: int, cell: Cell) -> None:
        local = cell.local or 0.0
        self.differs = self.differs or cell.error > 0 or local > 0
        self.ulp = None if self.ulp is None or cell.ulp is None else max(self.ulp, cell.ulp)
        if local > self.local:
            self.local, self.local_number = local, number


@dataclass(slots=True)
class _LineSelection:
    """Keeps the first and the last lines, and the worst of each stretch between; all lines if `most` is None."""

    most: int | None
    expected: int  # an upper limit of the number of rows, which determines the stretches
    first: list[Line] = field(default_factory=list)
    last: deque[Line] = field(default_factory=deque)
    worst: dict[int, Line] = field(default_factory=dict)  # by stretch

    def add(self, line: Line) -> None:
        if self.most is None:
            self.first.append(line)
            return
        share = self.most // 3
        if len(self.first) < self.most - 2 * share:
            self.first.append(line)
            return
        self.last.append(line)
        if len(self.last) > share:
            passed = self.last.popleft()
            stretch = min(passed.place.number * share // self.expected, share - 1)
            if stretch not in self.worst or passed.worst > self.worst[stretch].worst:
                self.worst[stretch] = passed

    def lines(self) -> tuple[Line, ...]:
        return (*self.first, *self.worst.values(), *self.last)
