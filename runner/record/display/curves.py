"""Curves of a recorded run: numbers over its rows, and norms of tensors, with few enough points to draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from runner.errors import Problem, UsageError, listing
from runner.plan.rows.columns import Column, column_hint
from runner.plan.rows.matching import matches
from runner.record.rows.part_reading import Part
from runner.record.rows.tensors import stacked_of, tensors_of
from runner.text import printable_line

if TYPE_CHECKING:
    import pyarrow

    Floats = numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]

_ROW = "row"
_NORM = ".norm"


@dataclass(frozen=True, slots=True)
class Curve:
    """A number of each row that has one."""

    name: str  # "loss", "|w.grad|"
    rows: Floats
    values: Floats  # may have nan and inf


def curves_of(columns: Sequence[Column], parts: Sequence[Part], patterns: Sequence[str]) -> list[Curve]:
    """The curves of the columns that names and globs match, in their order; by default of all single values.

    A column of several elements becomes its Euclidean norm, and a complex number its magnitude.

    Raises:
        UsageError: a pattern matches no column, or the run has no single values.
        RunError: a part is damaged.
    """
    chosen = [column for pattern in patterns for column in _matching(columns, pattern)]
    if not patterns:
        chosen = [column for column in columns if column.role == "value" and column.elements == 1]
        if not chosen:
            hint = f"name a column: {listing(column.name for column in columns)}" if columns else None
            raise UsageError(Problem("the run has no value of one number", hint))
    unique = list({column.name: column for column in chosen}.values())
    return [_curve(column, parts) for column in unique]


def _matching(columns: Sequence[Column], pattern: str) -> list[Column]:
    """The columns that a pattern matches; of a tensor that the log keeps as statistics, its norm."""
    found = [column for column in columns if matches(column.name, pattern) and not column.is_digest]
    kept = {column.name for column in found}
    for column in columns:
        is_norm = column.of is not None and column.name == column.of.name + _NORM
        if is_norm and column.name not in kept and matches(column.of.name, pattern):  # type: ignore[union-attr]
            found.append(column)
    if found:
        return found
    if any(column.is_digest and matches(column.name.removesuffix(".digest"), pattern) for column in columns):
        message = f"the log kept only digests of `{pattern}`"
        raise UsageError(Problem(message, "`log: {tensors: stats}` keeps norms"))
    raise UsageError(Problem(f"`{pattern}` matches no column", column_hint(pattern, columns)))


def _curve(column: Column, parts: Sequence[Part]) -> Curve:
    read = _stacked if column.shape is not None else _varying
    found = [part.read(partial(read, column=column), _names(column)) for part in parts]
    rows = numpy.concatenate([each[0] for each in found]) if found else numpy.zeros(0)
    values = numpy.concatenate([each[1] for each in found]) if found else numpy.zeros(0)
    single = column.elements == 1 and not column.dtype.is_complex
    return Curve(printable_line(column.name if single else f"|{column.name}|"), rows, values)


def _names(column: Column) -> list[str]:
    from runner.record.rows.arrow import SHAPE_SUFFIX

    return [_ROW, column.name] if column.shape is not None else [_ROW, column.name, column.name + SHAPE_SUFFIX]


def _stacked(table: pyarrow.Table, column: Column) -> tuple[Floats, Floats]:
    values, present = stacked_of(table, column)
    return _numbers(table)[present.numpy()], _norms(values[present], column)


def _varying(table: pyarrow.Table, column: Column) -> tuple[Floats, Floats]:
    values = tensors_of(table, column)
    present = numpy.array([value is not None for value in values], dtype=bool)
    norms = [_norms(value.reshape(1, -1), column)[0] for value in values if value is not None]
    return _numbers(table)[present], numpy.array(norms, dtype=numpy.float64)


def _numbers(table: pyarrow.Table) -> Floats:
    numbers: Floats = table.column(_ROW).to_numpy().astype(numpy.float64)
    return numbers


def _norms(values: Tensor, column: Column) -> Floats:
    """The number, or the norm, of each of the stacked values `(rows, *shape)`: float64 `(rows,)`."""
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64)
    wide = wide.reshape(len(values), math.prod(values.shape[1:]))
    if column.elements == 1 and not wide.is_complex():
        numbers: Floats = wide[:, 0].numpy()
        return numbers
    norms: Floats = torch.linalg.vector_norm(wide, dim=1).numpy()
    return norms


def decimated(curve: Curve, buckets: int) -> Curve:
    """The curve with at most six points in each of some equal stretches, and each extreme among them.

    A stretch keeps its first and last point, its smallest and largest finite value, and one value that is not finite.
    """
    if len(curve.rows) <= 4 * buckets:
        return curve
    edges = numpy.linspace(0, len(curve.rows), buckets + 1).astype(int)
    kept = sorted({place for start, end in itertools.pairwise(edges) for place in _kept(curve, start, end)})
    return Curve(curve.name, curve.rows[kept], curve.values[kept])


def _kept(curve: Curve, start: int, end: int) -> Iterator[int]:
    values = curve.values[start:end]
    finite = numpy.isfinite(values)
    yield from (start, end - 1)
    if finite.any():
        for find, blank in ((numpy.argmin, numpy.inf), (numpy.argmax, -numpy.inf)):
            yield start + int(find(numpy.where(finite, values, blank)))
    if not finite.all():
        yield start + int(numpy.argmin(finite))


def pieces(curve: Curve, *, log: bool) -> list[tuple[list[float], list[float]]]:
    """The parts of a curve between gaps, each as rows and values; values that cannot be drawn are gaps."""
    drawn = numpy.isfinite(curve.values)
    if log:
        drawn &= curve.values > 0
    ends = numpy.flatnonzero(numpy.diff(numpy.concatenate([[False], drawn, [False]]).astype(numpy.int8)))
    return [
        (curve.rows[start:end].tolist(), curve.values[start:end].tolist())
        for start, end in zip(ends[::2], ends[1::2], strict=True)
    ]


def undrawn(curve: Curve, *, log: bool) -> str | None:
    """Why a curve has no point to draw; None if it has one."""
    if not len(curve.values):
        return f"`{curve.name}` has no value in any row"
    if not numpy.isfinite(curve.values).any():
        return f"`{curve.name}` has no finite value"
    if log and not pieces(curve, log=True):
        return f"`{curve.name}` has no value above 0 for a logarithmic scale"
    return None


def drawable(curves: Sequence[Curve], *, log: bool) -> tuple[list[Curve], list[str]]:
    """The curves that have a point to draw, and why the others have none.

    Raises:
        UsageError: no curve has one.
    """
    reasons = [undrawn(curve, log=log) for curve in curves]
    found = [curve for curve, reason in zip(curves, reasons, strict=True) if reason is None]
    others = [reason for reason in reasons if reason is not None]
    if not found:
        raise UsageError([Problem(reason) for reason in others])
    return found, others
