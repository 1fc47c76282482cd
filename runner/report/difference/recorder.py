"""Sees the rows of both sides as they are compared: the error of each tensor, and pictures of some rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import numpy.typing
import torch
from torch import Tensor

from runner.compare.numbers.differences import other_shape
from runner.compare.numbers.digested import Condensed
from runner.compare.numbers.numerals import to_text
from runner.compare.numbers.ulp import FARTHEST, ulp_distance
from runner.compare.rows.results import AnyRow
from runner.compare.rows.verdict import Watch
from runner.plan.rows.columns import Column
from runner.record.rows.digest import digest_of
from runner.report.reading.curves import decimated, points_of_each
from runner.report.reading.tensors import picture
from runner.report.run.numbers import MOST_WRITTEN, kind_text, written
from runner.report.run.pictures import quantised

MOST_ROWS = 32
"""The most rows that a page shows one by one."""

FIRST_ROWS = 8
"""The first rows that differ are all shown, and then some."""

MOST_STEPS = 8
"""The most kinds of steps whose last row is shown."""

MOST_TENSORS = 64
"""The most tensors that differ whose values a page shows."""

MOST_BYTES = 900 << 10
"""The most cells of all pictures of a page, a byte each."""

MOST_ALONE = 64
"""The most tensors of one side that are looked for under another name."""

Cells = numpy.typing.NDArray[numpy.uint8]


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor of one row that differs, on both sides, for a page."""

    expected: str
    found: str
    error: str
    ulps: str
    cells: tuple[Cells | None, Cells | None, Cells | None] = (None, None, None)  # expected, found, their difference
    ranges: tuple[tuple[str, str], tuple[str, str]] = (("", ""), ("", ""))  # of both sides, of their difference
    own: tuple[tuple[str, str], tuple[str, str]] = (("", ""), ("", ""))  # of each side
    whole: tuple[str, str] = ("", "")  # both sides as text, where `expected` and `found` are one element

    @property
    def bytes(self) -> int:
        return sum(each.size for each in self.cells if each is not None)


@dataclass(frozen=True, slots=True)
class Kept:
    """One row in which something differs."""

    number: int
    step: str
    path: str
    pairs: dict[str, Pair]  # of the tensors that differ
    equal: Mapping[str, str] = field(default_factory=dict)  # of the others, their values, or "" of large ones


@dataclass(frozen=True, slots=True)
class Curve:
    """The difference of one tensor in the rows where it differs."""

    name: str
    kind: str
    rows: Any  # uint32 `(n,)`
    errors: Any  # float64 `(n,)`: relative; infinite if a side has none or is not finite
    ulps: Any  # float64 `(n,)`: the largest of its elements; NaN where it is not defined
    count: int  # how many rows differ
    most: float  # the largest of all distances in units in the last place; NaN without one


@dataclass(frozen=True, slots=True)
class Observed:
    """What a page shows of two sequences of rows."""

    curves: tuple[Curve, ...]
    rows: tuple[Kept, ...]
    renamed: tuple[tuple[str, str], ...]  # of tensors with the same bits in all rows, both names: expected, found
    left_out: tuple[str, ...] = ()  # sentences
    same: tuple[str, ...] = ()  # the tensors that are equal in all rows
    ends: tuple[End, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The last value of a named number, on both sides."""

    name: str
    row: int
    expected: float
    found: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """A row that differs, before it is made into texts and pictures."""

    place: int  # among the rows that differ
    apart: dict[str, tuple[float, float]]  # of each tensor that differs: its error, and its largest ULP
    equal: tuple[str, ...]
    found: AnyRow
    expected: AnyRow


@dataclass(slots=True)
class _Series:
    rows: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    ulps: list[float] = field(default_factory=list)


class Recorder:
    """Keeps what a page shows of pairs of rows, in bounded memory however many there are."""

    def __init__(self, found_columns: Sequence[Column], expected_columns: Sequence[Column]) -> None:
        self._series: dict[str, _Series] = {}
        self._columns = {column.name: column for column in expected_columns}
        self._others: set[str] = set()  # that differ, and are not shown
        self._kept: dict[int, Kept] = {}  # by the number of rows that differ before it
        self._stride = 1
        self._differing = 0
        self._special: dict[str, _Seen] = {}  # the last row of each step, and the one that differs most
        self._worst = -1.0
        self._names: list[str] = []
        both = {column.name for column in found_columns}
        numbers = [each for each in expected_columns if each.elements == 1 and each.role == "value"]
        self._numbers = [each.name for each in numbers if each.name in both]
        self._ends: dict[str, End] = {}
        names = [{column.name for column in columns} for columns in (expected_columns, found_columns)]
        alone = [sorted(names[0] - names[1])[:MOST_ALONE], sorted(names[1] - names[0])[:MOST_ALONE]]
        self._alone = alone if all(alone) else [[], []]
        self._digests = [{name: hashlib.sha256() for name in side} for side in self._alone]

    def __call__(self, watch: Watch, found: AnyRow | None, expected: AnyRow | None) -> None:
        if found is None or expected is None:
            return
        for row, names, digests in zip((expected, found), self._alone, self._digests, strict=True):
            for name in names:
                value = row[name]
                said = digest_of(value) if isinstance(value, Tensor) else "none"
                digests[name].update(f"{said} {getattr(value, 'shape', '')}\n".encode())
        self._names = list(watch.series)
        self._note_ends(found, expected)
        differing, equal = [], []
        for name, series in watch.series.items():
            if series.last_number != expected.number or expected[name] is None:
                continue
            if series.error == 0:
                equal.append(name)
                continue
            if name in self._series or len(self._series) < MOST_TENSORS:
                differing.append(name)
                mine = self._series.setdefault(name, _Series())
                mine.rows.append(expected.number)
                mine.errors.append(series.error)
                mine.ulps.append(_largest_ulps(found[name], expected[name]))
            else:
                self._others.add(name)
        if not differing:
            return
        apart = {name: (self._series[name].errors[-1], self._series[name].ulps[-1]) for name in differing}
        seen = _Seen(self._differing, apart, tuple(equal[:MOST_TENSORS]), found, expected)
        if self._is_kept(self._differing):
            self._keep(seen)
            if len(self._kept) > MOST_ROWS - 1 - len(self._special):
                self._stride *= 2
                self._kept = {place: row for place, row in self._kept.items() if self._is_kept(place)}
        if len(self._special) < MOST_STEPS or expected.step in self._special:
            self._special[expected.step] = seen
        worst = apart.get(next(iter(self._series)), (0.0, 0.0))[0]
        if math.isfinite(worst) and worst > self._worst:
            self._worst, self._special[""] = worst, seen
        self._differing += 1

    def _note_ends(self, found: AnyRow, expected: AnyRow) -> None:
        """Note the values of numbers; the last ones stay."""
        for name in self._numbers:
            one, other = expected[name], found[name]
            if isinstance(one, Tensor) and isinstance(other, Tensor) and not (one.is_complex() or other.is_complex()):
                self._ends[name] = End(name, expected.number, float(one), float(other))

    def _is_kept(self, place: int) -> bool:
        return place < FIRST_ROWS or place % self._stride == 0

    def result(self) -> Observed:
        """What was seen so far."""
        for seen in self._special.values():
            if seen.place not in self._kept:
                self._keep(seen)
        rows, left = _within(tuple(self._kept[place] for place in sorted(self._kept)))
        points = points_of_each(2 * len(self._series))
        curves = tuple(self._curve(name, series, points) for name, series in self._series.items())
        left_out = [f"without pictures, so that the page stays small: {', '.join(sorted(left)[:10])}"] if left else []
        if self._differing > len(rows):
            which = "the first, the last of each step, the one that differs most, and others between them"
            left_out.append(f"of {self._differing:,} rows that differ, {len(rows)} are shown one by one: {which}")
        if self._others:
            count = len(self._series) + len(self._others)
            left_out.append(f"of {count:,} tensors that differ, the first {MOST_TENSORS} are shown")
        same = tuple(name for name in self._names if name not in self._series and name not in self._others)
        return Observed(curves, rows, tuple(self._renamed()), tuple(left_out), same, tuple(self._ends.values()))

    def _keep(self, seen: _Seen) -> None:
        expected, found = seen.expected, seen.found
        pairs = {name: _pair(expected[name], found[name], *apart) for name, apart in seen.apart.items()}
        equal = {name: _small(expected[name]) for name in seen.equal}
        self._kept[seen.place] = Kept(expected.number, expected.step, expected.path, pairs, equal)

    def _curve(self, name: str, series: _Series, points: int) -> Curve:
        errors = numpy.asarray(series.errors)
        kept = decimated(errors, points)
        rows = numpy.asarray(series.rows, dtype=numpy.int64)[kept].astype(numpy.uint32)
        column = self._columns[name]
        kind = kind_text(column.shape, column.dtype)
        ulps = numpy.asarray(series.ulps)
        most = float(numpy.nanmax(ulps)) if numpy.isfinite(ulps).any() else math.nan
        return Curve(name, kind, rows, errors[kept], ulps[kept], len(errors), most)

    def _renamed(self) -> Iterator[tuple[str, str]]:
        """Names of either side whose tensors have the same bits in every row, if no other has them."""
        sides = [{name: digest.hexdigest() for name, digest in side.items()} for side in self._digests]
        counts = [list(side.values()) for side in sides]
        for name, digest in sides[0].items():
            partners = [other for other, theirs in sides[1].items() if theirs == digest]
            if len(partners) == 1 and counts[0].count(digest) == 1:
                yield name, partners[0]


def _largest_ulps(found: object, expected: object) -> float:
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor) or not found.numel():
        return math.nan
    if found.shape != expected.shape or found.dtype != expected.dtype or not found.dtype.is_floating_point:
        return math.nan
    distance = int(ulp_distance(found.detach().cpu(), expected.detach().cpu()).max())
    return math.nan if distance == FARTHEST else float(distance)


def _pair(expected: object, found: object, error: float, ulps: float) -> Pair:
    """One tensor of both sides as text and as pictures."""
    said = _error(expected, found, error)
    apart = "" if math.isnan(ulps) else f"{ulps:,.0f}"
    pair = Pair(_text(expected), _text(found), said, apart)
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor) or max(expected.numel(), found.numel()) < 2:
        return pair
    sides = [_real(expected), _real(found)]
    pictures = [picture(side) if side.numel() else None for side in sides]
    own = [("", "") if each is None else quantised(each)[1:] for each in pictures]
    (one, other), both = _together(pictures)
    if sides[0].shape != sides[1].shape:
        return replace(pair, cells=(one, other, None), ranges=(both, ("", "")), own=(own[0], own[1]))
    text = _farthest(expected, found)
    difference, least, most = quantised(picture(sides[1].double() - sides[0].double()))
    ranges = (both, (least, most))
    return Pair(*text, said, apart, (one, other, difference), ranges, (own[0], own[1]), (pair.expected, pair.found))


def _error(expected: object, found: object, error: float) -> str:
    """The error of a tensor as text, or why it has none."""
    if isinstance(expected, Tensor | Condensed) and isinstance(found, Tensor) and expected.shape != found.shape:
        return other_shape(expected.shape, found.shape)
    return "no number" if math.isinf(error) else "unknown" if math.isnan(error) else f"{error:.3g}"


def _together(pictures: Sequence[Tensor | None]) -> tuple[list[Cells | None], tuple[str, str]]:
    """Two pictures as bytes, and the range of both together; None for a side without elements."""
    flat = [torch.zeros(0) if each is None else each.reshape(-1) for each in pictures]
    whole, low, high = quantised(torch.cat(flat)[None])
    parts = numpy.split(whole[0], [flat[0].numel()])
    cells = [
        None if each is None else part.reshape(tuple(each.shape)) for part, each in zip(parts, pictures, strict=True)
    ]
    return cells, (low, high)


def _farthest(expected: Tensor, found: Tensor) -> tuple[str, str]:
    """The element with the largest difference, on both sides, with as many digits as show it."""
    expected, found = expected.detach().cpu(), found.detach().cpu()
    wide = torch.complex128 if expected.dtype.is_complex or found.dtype.is_complex else torch.float64
    apart = (found.to(wide) - expected.to(wide)).abs().reshape(-1)
    place = int(torch.where(apart.isnan(), torch.inf, apart).argmax())
    index = [int(each) for each in numpy.unravel_index(place, tuple(expected.shape))]
    texts = [to_text(side.reshape(-1)[place]) for side in (expected, found)]
    return f"{texts[0]} at {index}", texts[1]


def _small(value: object) -> str:
    """A small tensor as text; nothing of a larger one."""
    return _text(value) if isinstance(value, Tensor) and value.numel() <= MOST_WRITTEN else ""


def _real(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    return value.abs() if value.dtype.is_complex else value


def _text(value: object) -> str:
    if value is None:
        return "none"
    if not isinstance(value, Tensor):
        return "stored as a digest"
    return to_text(value) if 0 < value.numel() <= MOST_WRITTEN else written(value)


def _within(rows: tuple[Kept, ...]) -> tuple[tuple[Kept, ...], set[str]]:
    """The rows with pictures of as many tensors as fit, and the names of those that do not."""
    sizes: dict[str, int] = {}
    for row in rows:
        for name, pair in row.pairs.items():
            sizes[name] = sizes.get(name, 0) + pair.bytes
    used, left = 0, set()
    for name, size in sorted(sizes.items(), key=lambda each: each[1]):
        if used + size > MOST_BYTES:
            left.add(name)
        else:
            used += size
    if not left:
        return rows, left
    return tuple(replace(row, pairs=dict(_without(row.pairs, left))) for row in rows), left


def _without(pairs: dict[str, Pair], left: set[str]) -> Iterator[tuple[str, Pair]]:
    for name, pair in pairs.items():
        yield name, replace(pair, cells=(None, None, None)) if name in left else pair
