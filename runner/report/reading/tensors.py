"""Measures tensors over rows: norms, updates, quantiles, and small pictures of chosen rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy
import numpy.typing
import torch
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.rows.tensors import stacked_of
from runner.report.reading.columns import Tensors
from runner.report.reading.rows import Positions, Rows

SIDE = 64
"""The most cells of a picture along each side."""

MOST_BANDS = 120
"""The most rows whose quantiles are computed."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SAMPLE = 4096
"""The most elements that inner quantiles are computed from; the least and the largest are those of all elements."""

KEPT_BYTES = 1 << 20
"""The size of the largest tensor that is kept for the chosen rows, for the values of the graph."""

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
    changes: dict[int, Tensor | None] = field(default_factory=dict)  # position → difference; None: equal bits

    @property
    def broken(self) -> int | None:
        """The first position that was read where an element is not finite."""
        return next((place for place, count in zip(self.positions, self.nonfinite, strict=True) if count), None)


def measure(rows: Rows, of: Tensors, wanted: Positions | None, chosen: Positions) -> Measured:
    """Read a tensor in some rows, and measure it.

    Args:
        wanted: the positions to read; None: all.
        chosen: the positions whose pictures and values to keep.
    """
    found = Measured(of)
    if of.column is None:
        _from_statistics(rows, of, found)
        return found
    shown = frozenset(chosen.tolist())
    stride = max(1, (len(rows) if wanted is None else len(wanted)) // MOST_BANDS)
    keeps = of.bytes <= KEPT_BYTES
    last: tuple[int, Tensor] | None = None
    for places, values in _blocks(rows, of.column, wanted):
        if not len(places):
            continue
        real = values.abs() if values.dtype.is_complex else values
        flat = real.reshape(len(values), -1)
        flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.double()
        norms = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
        broken = (~norms.isfinite()).nonzero().flatten().tolist()
        counts = dict.fromkeys(range(len(places)), 0) | {
            place: int((~flat[place].isfinite()).sum()) for place in broken
        }
        if of.role == "weight":
            found.ratios += _ratios(places, flat, norms, last)
        first = len(found.positions)
        found.positions += places
        found.norms += norms.tolist()
        found.nonfinite += counts.values()
        banded = [place for place in range(len(places)) if (first + place) % stride == 0]
        if banded:
            found.band_positions += [places[place] for place in banded]
            found.bands += _quantiles(flat[banded]).tolist()
        for place, position in enumerate(places):
            if position in shown:
                found.pictures[position] = picture(real[place])
                before = (place - 1, values) if place else None
                previous = _previous(position, places, before, last)
                if previous is not None:
                    found.changes[position] = _change(values[place], previous)
                if keeps:
                    found.values[position] = values[place].clone()
            elif keeps and position + 1 in shown:
                found.values[position] = values[place].clone()
        last = (places[-1], values[-1].clone())
    return found


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


def _blocks(rows: Rows, column: Column, wanted: Positions | None) -> Iterator[tuple[list[int], Tensor]]:
    """Yields the positions that have a value and their values `(k, *shape)`, part by part."""
    for part, start in zip(rows.parts, rows.starts, strict=True):
        if wanted is None:
            values, present = part.read(partial(stacked_of, column=column), [column.name])
            there = present.nonzero().flatten()
            yield (there + start).tolist(), values if len(there) == len(values) else values[there]
            continue
        local = wanted[(wanted >= start) & (wanted < start + part.rows)] - start
        if len(local):
            for found, table in part.pieces(local.tolist(), [column.name]):
                values, present = stacked_of(table, column)
                there = present.nonzero().flatten()
                yield [found[place] + start for place in there.tolist()], values[there]


def _previous(
    position: int, places: list[int], before: tuple[int, Tensor] | None, last: tuple[int, Tensor] | None
) -> Tensor | None:
    """The value one row earlier, if it was read."""
    if before is not None:
        place, values = before
        return values[place] if places[place] == position - 1 else None
    return last[1] if last is not None and last[0] == position - 1 else None


def _change(now: Tensor, before: Tensor) -> Tensor | None:
    if torch.equal(now, before) or bool(((now == before) | (now.isnan() & before.isnan())).all()):
        return None
    return now - before if now.numel() == 1 and now.dtype != torch.bool else now


def _ratios(places: list[int], flat: Tensor, norms: Tensor, last: tuple[int, Tensor] | None) -> list[float]:
    found = torch.full((len(places),), torch.nan, dtype=torch.float64)
    if last is not None and last[0] == places[0] - 1:
        before = last[1].abs() if last[1].dtype.is_complex else last[1]
        before = before.reshape(-1).to(flat.dtype)
        found[0] = torch.linalg.vector_norm(flat[0] - before, dtype=torch.float64) / torch.linalg.vector_norm(
            before, dtype=torch.float64
        )
    if len(places) > 1:
        follows = torch.tensor(places[1:]) - torch.tensor(places[:-1]) == 1
        change = torch.linalg.vector_norm(flat[1:] - flat[:-1], dim=1, dtype=torch.float64) / norms[:-1]
        found[1:] = torch.where(follows, change, torch.nan)
    return [float(value) for value in found.tolist()]


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
    stride = max(1, len(positions) // MOST_BANDS)
    low, mean, high, std = (columns[name] for name in ("min", "mean", "max", "std"))
    found.band_positions = positions[::stride].tolist()
    found.bands = numpy.stack([low, mean - std, mean, mean + std, high], 1)[::stride].tolist()


def _scalars(rows: Rows, column: Column) -> tuple[Positions, Numbers]:
    blocks = list(_blocks(rows, column, None))
    positions = numpy.asarray([place for places, _ in blocks for place in places], dtype=numpy.int64)
    values = [values.double().reshape(-1).numpy() for _, values in blocks]
    return positions, numpy.concatenate([numpy.zeros(0), *values])
