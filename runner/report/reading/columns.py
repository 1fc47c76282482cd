"""Sorts the columns of a run into those that a report shows as curves and those that it shows as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from runner.plan.rows.columns import Column

MOST_CURVES = 40
MOST_TENSORS = 64
"""The most columns of a kind that a page shows; those after them are counted."""

LARGEST_ELEMENTS = 1 << 24
"""The most elements of one value that a page reads."""

_SUMMARY = ("min", "mean", "max", "std", "norm", "nonfinite")


@dataclass(frozen=True, slots=True)
class Tensors:
    """One quantity that is not a curve: a column with all elements, or the columns of its statistics."""

    name: str
    role: str
    dtype: torch.dtype
    shape: tuple[int, ...] | None
    column: Column | None  # with all elements
    statistics: tuple[tuple[str, Column], ...] = ()  # by statistic: "norm"

    @property
    def bytes(self) -> int:
        """Bytes of one row in memory."""
        return 0 if self.column is None else (self.column.elements or 0) * max(4, self.dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Shown:
    """The columns that a page shows, and how many it leaves out."""

    curves: tuple[Column, ...]
    tensors: tuple[Tensors, ...]
    left_out: tuple[str, ...]  # sentences


def shown_columns(columns: Sequence[Column]) -> Shown:
    """Sort columns: named numbers are curves; weights, gradients, state and other values are tensors."""
    curves = [column for column in columns if _is_curve(column)]
    tensors = [*_whole(columns), *_summaries(columns)]
    tensors.sort(key=lambda each: ("weight", "gradient", "state", "norm", "value").index(each.role) > 1)
    left_out = [
        f"{len(found):,} columns are {kind}; the first {most} are shown"
        for kind, found, most in (("numbers", curves, MOST_CURVES), ("tensors", tensors, MOST_TENSORS))
        if len(found) > most
    ]
    left_out += _not_shown(columns)
    return Shown(tuple(curves[:MOST_CURVES]), tuple(tensors[:MOST_TENSORS]), tuple(left_out))


def _is_curve(column: Column) -> bool:
    return column.role in ("value", "norm") and column.elements == 1 and column.of is None and not _is_complex(column)


def _is_complex(column: Column) -> bool:
    return column.dtype.is_complex


def _whole(columns: Iterable[Column]) -> Iterable[Tensors]:
    for column in columns:
        elements = column.elements
        if column.of is None and elements and elements <= LARGEST_ELEMENTS and not _is_curve(column):
            yield Tensors(column.name, column.role, column.dtype, column.shape, column)


def _summaries(columns: Iterable[Column]) -> Iterable[Tensors]:
    found: dict[str, list[Column]] = {}
    for column in columns:
        if column.of is not None and column.of.kept == "stats":
            found.setdefault(column.of.name, []).append(column)
    for name, parts in found.items():
        of = parts[0].of
        assert of is not None
        named = {part.name.removeprefix(f"{name}."): part for part in parts}
        statistics = tuple((each, named[each]) for each in _SUMMARY if each in named)
        yield Tensors(name, of.role, of.dtype, of.shape, None, statistics)


def _not_shown(columns: Sequence[Column]) -> Iterable[str]:
    reasons = (
        ("the log kept a digest only", [each for each in columns if each.is_digest]),
        ("the shape varies from row to row", [each for each in columns if each.of is None and each.shape is None]),
        ("they have no elements", [each for each in columns if each.of is None and each.elements == 0]),
        (
            f"they have more than {LARGEST_ELEMENTS:,} elements",
            [each for each in columns if each.of is None and (each.elements or 0) > LARGEST_ELEMENTS],
        ),
    )
    for reason, found in reasons:
        if found:
            names = ", ".join(column.name for column in found[:5]) + (", …" if len(found) > 5 else "")
            yield f"without curve, picture and distribution, because {reason}: {names}"
