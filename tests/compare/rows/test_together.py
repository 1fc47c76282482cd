"""Rows that are compared together have the verdict of rows compared one by one."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow
import pytest
import torch
from torch import Tensor

from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE, Tolerance, Tolerances
from runner.compare.rows import together
from runner.compare.rows.results import FirstDifference, Verdict
from runner.compare.rows.together import compare_together
from runner.compare.rows.verdict import align, compare
from runner.engine.rows import Read, Row
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns
from runner.record.rows.part_reading import LABELS, Span

COLUMNS = (
    Column("loss", "value", torch.float32, ()),
    Column("count", "value", torch.int64, ()),
    Column("flag", "value", torch.bool, ()),
    Column("phase", "value", torch.complex64, (2,)),
    Column("any", "value", torch.float32, None),
    Column("large", "value", torch.float64, (1025,)),
    Column("w.grad", "gradient", torch.float32, (3,)),
    Column("b.grad", "gradient", torch.float64, ()),
    Column("w", "weight", torch.bfloat16, (2, 2)),
)
TOLERANCES = (
    Tolerances(BITWISE),
    Tolerances(BY_DTYPE),
    Tolerances(Tolerance("ulp", ulp=4)),
    Tolerances(Tolerance("explicit", rtol=1e-3, atol=1e-2)),
    Tolerances(Tolerance("explicit", rtol=0.0, atol=0.0)),
    Tolerances(Tolerance("explicit", rtol=1e-6), [("w*", Tolerance("explicit", atol=0.5))]),
)
ODD = (0.0, -0.0, 1e-30, 1e30, math.inf, -math.inf, math.nan)


@dataclass
class Rows:
    """The rows of a run as it reads them: in parts, each by column."""

    rows: Sequence[tuple[str, str, tuple[Tensor | None, ...]]]
    part: int
    columns: tuple[Column, ...] = COLUMNS

    def __len__(self) -> int:
        return len(self.rows)

    def spans(self) -> Iterator[Span]:
        layout = Columns(self.columns)
        for start in range(0, len(self), self.part):
            chosen = self.rows[start : start + self.part]
            steps, paths, values = zip(*chosen, strict=True)
            numbers = list(range(start, start + len(chosen)))
            labels = dict(zip(LABELS, (numbers, list(steps), list(paths), numbers), strict=True))
            by_column = list(map(list, zip(*values, strict=True)))
            present = [None if None not in column else _present(column) for column in by_column]
            read = [_stacked(each, column) for each, column in zip(self.columns, by_column, strict=True)]
            present = [there if isinstance(one, Tensor) else None for one, there in zip(read, present, strict=True)]
            yield Span(pyarrow.table(labels), Read(read, present), layout, 0)

    def one_by_one(self) -> Iterator[Row]:
        layout = Columns(self.columns)
        for number, (step, path, values) in enumerate(self.rows):
            yield Row(number, step, path, number, layout, values)


def _present(column: list[Tensor | None]) -> Tensor:
    return torch.tensor([value is not None for value in column])


def _stacked(column: Column, values: list[Tensor | None]) -> Tensor | list[Tensor | None]:
    if column.shape is None:
        return values
    blank = torch.zeros(column.shape, dtype=column.dtype)
    return torch.stack([blank if value is None else value for value in values])


def _value(column: Column, chance: random.Random) -> Tensor | None:
    if chance.random() < 0.1:
        return None
    shape = (chance.randrange(3),) if column.shape is None else column.shape
    values = [chance.choice(ODD) if chance.random() < 0.05 else chance.gauss(0, 10) for _ in range(math.prod(shape))]
    if not (column.dtype.is_floating_point or column.dtype.is_complex):
        values = [value if math.isfinite(value) else 2**53 for value in values]
    return torch.tensor(values, dtype=torch.float64).reshape(shape).to(column.dtype)


def _changed(value: Tensor | None, chance: random.Random) -> Tensor | None:
    if value is None or chance.random() < 0.02:
        return None
    if not (value.is_floating_point() or value.is_complex()) or chance.random() < 0.1:
        return value + value.new_ones(()) if value.dtype != torch.bool else ~value
    return value * (1 + chance.choice([0.0, 1e-7, 1e-4, 1e-2]))


def _sides(seed: int, differing: float) -> tuple[Rows, Rows]:
    chance = random.Random(seed)
    rows = [
        ("train", f"repeat[{number}].train", tuple(_value(column, chance) for column in COLUMNS))
        for number in range(60)
    ]
    other = [
        (step, path, tuple(_changed(value, chance) if chance.random() < differing else value for value in values))
        for step, path, values in rows
    ]
    if seed % 4 == 3:  # a step more, and one less
        other.insert(41, ("evaluate", "repeat[41].evaluate", rows[41][2]))
        del other[50]
    return Rows(other, 23), Rows(rows, 17)


def _shown(value: Any) -> Any:
    """A verdict as values that can be compared: rows by their number, NaN by its name."""
    if isinstance(value, Row):
        return value.number
    if isinstance(value, Verdict | FirstDifference):
        return [_shown(getattr(value, field.name)) for field in fields(value)]
    return repr(value)


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 64, 1 << 21])
@pytest.mark.parametrize("differing", [0.0, 0.03, 0.6])
def test_rows_compared_together_have_the_verdict_of_rows_one_by_one(
    monkeypatch: pytest.MonkeyPatch, cells: int, differing: float
) -> None:
    monkeypatch.setattr(together, "CELLS", cells)
    for seed, tolerances in enumerate(TOLERANCES):
        found, expected = _sides(seed, differing)
        cut = (None, 33, 0)[seed % 3]
        pairs = align(list(found.one_by_one())[:cut], list(expected.one_by_one())[:cut])
        wanted = compare(pairs, COLUMNS, COLUMNS, tolerances)
        assert _shown(compare_together(found, expected, tolerances, cut)) == _shown(wanted), (seed, cut)  # type: ignore[arg-type]


def test_tensors_of_another_shape_and_columns_of_one_side_are_compared_as_one_by_one() -> None:
    found, expected = _sides(1, 0.1)
    other = (*COLUMNS[:1], Column("count", "value", torch.int32, ()), *COLUMNS[2:6], *COLUMNS[7:])
    values = [
        (
            step,
            path,
            tuple(None if v is None else v.to(c.dtype) for c, v in zip(other, (*row[:6], *row[7:]), strict=True)),
        )
        for step, path, row in found.rows
    ]
    sides = Rows(values, 23, other), expected
    wanted = compare(align(*(side.one_by_one() for side in sides)), other, COLUMNS, Tolerances(BITWISE))
    assert _shown(compare_together(*sides, Tolerances(BITWISE), None)) == _shown(wanted)  # type: ignore[arg-type]


def test_a_row_that_is_within_the_tolerance_when_compared_alone_is_not_the_end_of_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two ways round their norms differently, so they may disagree at the very border of a tolerance."""
    column = Column("w", "weight", torch.float64, ())
    numbers = [(1.0, 1.0), (1.0, 1.0001), (1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]
    found, expected = (
        Rows([("train", "train", (torch.tensor(pair[side], dtype=torch.float64),)) for pair in numbers], 5, (column,))
        for side in (0, 1)
    )
    everything = torch.ones(3, dtype=torch.bool), torch.tensor([1e-4, 0.5, 2 / 3], dtype=torch.float64)
    monkeypatch.setattr(together, "deviations", lambda *given: everything)
    verdict = compare_together(found, expected, Tolerances(Tolerance("explicit", rtol=1e-2)), None)  # type: ignore[arg-type]
    assert verdict.first_difference is not None
    assert (verdict.first_difference.place.number, verdict.compared, verdict.holds) == (3, 5, False)
