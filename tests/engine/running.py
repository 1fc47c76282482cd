"""Running a config given as text, and comparing its rows with what torch gives by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

import runner

Numbers = Mapping[str, Tensor | None]


def compiled(text: str, base: str | Path = ".") -> runner.Plan:
    return runner.compile(runner.loads(text, base=str(base)))


def rows_of(text: str, base: str | Path = ".") -> list[runner.Row]:
    return list(runner.execute(compiled(text, base)))


def numbers(row: runner.Row) -> dict[str, Tensor | None]:
    """Every column of a row by name."""
    return {column.name: value for column, value in zip(row.columns, row.values, strict=True)}


def same(left: Tensor | None, right: Tensor | None) -> bool:
    """Whether two values are bit-identical; None stands for a value that does not exist."""
    if left is None or right is None:
        return left is right
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.is_complex:
        left, right = torch.view_as_real(left), torch.view_as_real(right)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[left.dtype.itemsize]
    left, right = (side.detach().contiguous().reshape(-1).view(bits) for side in (left, right))
    return torch.equal(left, right)


def assert_rows(rows: Sequence[runner.Row], expected: Sequence[tuple[str, Numbers]]) -> None:
    """Hold the steps and the named columns of all rows but the first against what was computed by hand."""
    assert [row.step for row in rows[1:]] == [step for step, _ in expected]
    for row, (_, wanted) in zip(rows[1:], expected, strict=True):
        found = numbers(row)
        wrong = [name for name, value in wanted.items() if not same(found[name], value)]
        assert not wrong, f"row {row.number} ({row.path}): {[(name, found[name], wanted[name]) for name in wrong]}"


def copied(value: Tensor | None) -> Tensor | None:
    """A value as it is now."""
    return None if value is None else value.detach().clone()
