"""Measures tensors over rows: norms, updates, quantiles, and small pictures of chosen rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy
import numpy.typing
import torch
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.rows.part_reading import Part
from runner.record.rows.tensors import stacked_of
from runner.report.reading.budget import Reading
from runner.report.reading.columns import Tensors
from runner.report.reading.rows import Positions, Rows

if TYPE_CHECKING:
    import pyarrow

SIDE = 64
"""The most cells of a picture along each side."""

MOST_BANDS = 120
"""The most rows whose quantiles are computed."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SAMPLE = 4096
"""The most elements that inner quantiles are computed from; the least and the largest are those of all elements."""

CAME, WENT = "new", "gone"

KEPT_BYTES = 1 << 20
"""The size of the largest tensor that is kept for the chosen rows, for the values of the graph."""

PIECE_BYTES = 256 << 10
LEAST_AT_A_TIME = 8
"""How much of a tensor that is not read in every row is decoded at a time: so many bytes, but at least so many rows."""

Numbers = numpy.typing.NDArray[Any]


@dataclass(slots=True)
class Measured:
    """One tensor over the rows that were read and have it."""

    of: Tensors
    positions: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # aligned; infinite where elements are not finite
    nonfinite: list[int] = field(default_factory=list)  # aligned: how many elements are not finite
    ratios: list[float] = field(default_factory=list)  # aligned: ‖w - before‖ / ‖before‖; NaN if unknown
    band_positions: list[int] = field(default_factory=list)
    bands: list[list[float]] = field(default_factory=list)
    pictures: dict[int, Tensor] = field(default_factory=dict)  # position → float32 `(h, w)`
    values: dict[int, Tensor] = field(default_factory=dict)  # position → the tensor, if it is small
    changes: dict[int, Tensor | str | None] = field(default_factory=dict)  # position → difference; None: equal bits

    @property
    def broken(self) -> int | None:
        """The first position that was read where an element is not finite."""
        return next((place for place, count in zip(self.positions, self.nonfinite, strict=True) if count), None)


def measure(rows: Rows, tensors: Sequence[Tensors], reading: Reading, chosen: Positions) -> list[Measured]:
    """Read tensors in the rows that `reading` has, part by part, and measure them.

    Args:
        chosen: the positions whose pictures and values to keep.
    """
    shown = frozenset(chosen.tolist())
    measurers: dict[str, _Measurer] = {}
    groups: dict[bytes | None, list[_Measurer]] = {}  # those that are read in the same rows
    found = []
    for of in tensors:
        wanted = reading.positions.get(of.name)
        made = Measured(of)
        found.append(made)
        if of.column is None:
            _from_statistics(rows, of, made)
        elif wanted is None or len(wanted):
            count = len(rows) if wanted is None else len(wanted)
            measurers[of.name] = _Measurer(made, of.column, wanted, shown, _stride(count))
            groups.setdefault(None if wanted is None else wanted.tobytes(), []).append(measurers[of.name])
    for part, start in zip(rows.parts, rows.starts, strict=True):
        for group in groups.values():
            for places, values in _blocks(part, start, [each.column for each in group], group[0].wanted):
                for each, (tensor, present) in zip(group, values, strict=True):
                    each.add(places, tensor, present)
    for each in measurers.values():
        each.note_arrivals()
    return found


@dataclass(slots=True)
class _Measurer:
    """Measures one tensor as its rows come in."""

    found: Measured
    column: Column
    wanted: Positions | None
    shown: frozenset[int]
    stride: int  # of the rows whose quantiles are computed
    last: tuple[int, Tensor] | None = None  # the last position, and its value

    def add(self, positions: Sequence[int], values: Tensor, present: Tensor) -> None:
        """Measure more rows: values `(k, *shape)` at their positions; those without a value are passed over."""
        if not bool(present.all()):
            there = present.nonzero().flatten()
            positions, values = [positions[place] for place in there.tolist()], values[there]
        if not len(positions):
            return
        found, of = self.found, self.found.of
        real = values.abs() if values.dtype.is_complex else values
        flat = _floats(real.reshape(len(values), -1))
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        counts = [0] * len(positions)
        for place in (~norms.isfinite()).nonzero().flatten().tolist():
            counts[place] = int((~flat[place].isfinite()).sum())
        if of.role == "weight":
            numbers = flat if real is values else _floats(torch.view_as_real(values).reshape(len(values), -1))
            found.ratios += _ratios(positions, numbers, norms, self.last)
        banded = list(range(-len(found.positions) % self.stride, len(positions), self.stride))
        if banded:
            found.band_positions += [positions[place] for place in banded]
            found.bands += _quantiles(flat[banded]).tolist()
        found.positions += positions
        found.norms += norms.tolist()
        found.nonfinite += counts
        self._keep(positions, values, real)
        self.last = (positions[-1], values[-1].clone())

    def _keep(self, positions: Sequence[int], values: Tensor, real: Tensor) -> None:
        """Keep pictures, values and changes of chosen rows, and the values just before them."""
        found = self.found
        keeps = found.of.bytes <= KEPT_BYTES
        for place, position in enumerate(positions):
            if position in self.shown:
                found.pictures[position] = picture(real[place])
                before = (positions[place - 1], values[place - 1]) if place else self.last
                if before is not None and before[0] == position - 1:
                    found.changes[position] = _change(values[place], before[1])
            elif position + 1 not in self.shown:
                continue
            if keeps:
                found.values[position] = values[place].clone()

    def note_arrivals(self) -> None:
        """Note where a gradient came or went: at the row before, or at this one, it does not exist."""
        if self.found.of.role != "gradient":
            return
        there = frozenset(self.found.positions)
        read = None if self.wanted is None else frozenset(self.wanted.tolist())
        for position in self.shown:
            if position == 0 or (read is not None and not {position - 1, position} <= read):
                continue
            if (position in there) != (position - 1 in there):
                self.found.changes[position] = CAME if position in there else WENT


def picture(value: Tensor) -> Tensor:
    """A real tensor `(*s)` as float32 `(h, w)` of at most 64 × 64 cells; a cell is the mean of its elements.

    A vector is one line; further dimensions lie side by side.
    """
    matrix = value.float()
    matrix = matrix.reshape(1, -1) if matrix.dim() < 2 else matrix.flatten(1)
    height, width = matrix.shape
    if height <= SIDE and width <= SIDE:
        return matrix.clone()
    return torch.nn.functional.adaptive_avg_pool2d(matrix[None, None], (min(height, SIDE), min(width, SIDE)))[0, 0]


def _blocks(
    part: Part, start: int, columns: Sequence[Column], wanted: Positions | None
) -> Iterator[tuple[Sequence[int], list[tuple[Tensor, Tensor]]]]:
    """Yields positions, and for each column the values `(k, *shape)` there and which of them exist."""
    names = [column.name for column in columns]

    def read(table: pyarrow.Table) -> list[tuple[Tensor, Tensor]]:
        return [stacked_of(table, column) for column in columns]

    if wanted is None:
        yield range(start, start + part.rows), part.read(read, names)
        return
    local = wanted[(wanted >= start) & (wanted < start + part.rows)] - start
    widest = max(_bytes(column) for column in columns)
    for places, table in part.pieces(local.tolist(), names, max(LEAST_AT_A_TIME, PIECE_BYTES // widest)):
        yield [place + start for place in places], read(table)


def _stride(count: int) -> int:
    """The stride at which at most `MOST_BANDS` of some rows are taken."""
    return max(1, -(-count // MOST_BANDS))


def _change(now: Tensor, before: Tensor) -> Tensor | None:
    if torch.equal(now, before) or bool(((now == before) | (now.isnan() & before.isnan())).all()):
        return None
    return now - before if now.numel() == 1 and now.dtype != torch.bool else now


def _bytes(column: Column) -> int:
    return (column.elements or 1) * max(4, column.dtype.itemsize)


def _floats(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.double()


def _ratios(places: Sequence[int], flat: Tensor, norms: Tensor, last: tuple[int, Tensor] | None) -> list[float]:
    """‖w - before‖ / ‖before‖ of each value; NaN without the row before, and where that is zero.

    Args:
        flat: the values, `(k, n)`; of complex ones, the real and the imaginary parts.
    """
    change = torch.full((len(places),), torch.nan, dtype=torch.float64)
    size = torch.ones(len(places), dtype=torch.float64)
    if last is not None and last[0] == places[0] - 1:
        before = torch.view_as_real(last[1]) if last[1].dtype.is_complex else last[1]
        before = before.reshape(-1).to(flat.dtype)
        change[0] = torch.linalg.vector_norm(flat[0] - before, dtype=torch.float64)
        size[0] = torch.linalg.vector_norm(before, dtype=torch.float64)
    if len(places) > 1:
        follows = torch.tensor(list(places)).diff() == 1
        moved = torch.linalg.vector_norm(flat[1:] - flat[:-1], dim=1, dtype=torch.float64)
        change[1:] = torch.where(follows, moved, torch.nan)
        size[1:] = norms[:-1]
    return list(torch.where(size > 0, change / size, torch.nan).tolist())


def _quantiles(flat: Tensor) -> Tensor:
    """The quantiles of each row of `(k, n)` among its finite elements, float64 `(k, 7)`; NaN where there are none."""
    low, high = flat.amin(1), flat.amax(1)
    if flat.shape[1] > SAMPLE:
        flat = flat[:, :: -(-flat.shape[1] // SAMPLE)]
    if bool(low.isfinite().all()) and bool(high.isfinite().all()):
        inner = flat.sort(1).values
        places = [round(q * (flat.shape[1] - 1)) for q in QUANTILES]
        found = inner[:, places].double()
        found[:, 0], found[:, -1] = low.double(), high.double()
        return found
    return torch.stack([_finite_quantiles(row) for row in flat])


def _finite_quantiles(row: Tensor) -> Tensor:
    finite = row[row.isfinite()].sort().values.double()
    if not len(finite):
        return torch.full((len(QUANTILES),), torch.nan, dtype=torch.float64)
    return finite[[round(q * (len(finite) - 1)) for q in QUANTILES]]


def _from_statistics(rows: Rows, of: Tensors, found: Measured) -> None:
    """Fill the measures of a tensor from the statistics that the log kept; where no element is finite, some miss."""
    read = {name: _scalars(rows, column) for name, column in of.statistics}
    positions = numpy.unique(numpy.concatenate([places for places, _ in read.values()]))
    columns: dict[str, Numbers] = {}
    for name, (places, values) in read.items():
        columns[name] = numpy.full(len(positions), numpy.nan)
        columns[name][numpy.searchsorted(positions, places)] = values
    unknown = numpy.full(len(positions), numpy.nan)
    nonfinite = numpy.nan_to_num(columns.get("nonfinite", unknown))
    found.positions = positions.tolist()
    found.nonfinite = nonfinite.astype(int).tolist()
    found.norms = numpy.where(nonfinite > 0, numpy.inf, columns.get("norm", unknown)).tolist()
    if not {"min", "mean", "max", "std"} <= columns.keys():
        return
    stride = _stride(len(positions))
    low, mean, high, std = (columns[name] for name in ("min", "mean", "max", "std"))
    found.band_positions = positions[::stride].tolist()
    found.bands = numpy.stack([low, mean - std, mean, mean + std, high], 1)[::stride].tolist()


def _scalars(rows: Rows, column: Column) -> tuple[Positions, Numbers]:
    positions, values = [numpy.zeros(0, numpy.int64)], [numpy.zeros(0)]
    for part, start in zip(rows.parts, rows.starts, strict=True):
        found, present = part.read(partial(stacked_of, column=column), [column.name])
        there = present.numpy()
        positions.append(numpy.flatnonzero(there) + start)
        values.append(found.double().reshape(-1).numpy()[there])
    return numpy.concatenate(positions), numpy.concatenate(values)
