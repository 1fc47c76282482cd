"""Rows for the tests of comparison, written out by hand or executed from a config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

import runner
from runner.compare.numbers.tolerances import Tolerances
from runner.compare.rows.results import Verdict
from runner.compare.rows.verdict import align, compare
from runner.engine.rows import Row
from runner.plan.rows.columns import Column, Role
from runner.plan.rows.layout import Columns

COLUMNS: tuple[Column, ...] = tuple(
    Column(name, role, torch.float32, (2,))
    for name, role in [
        ("h", "value"),
        ("loss", "value"),
        ("w", "weight"),
        ("w.grad", "gradient"),
        ("w.exp_avg", "state"),
        ("v", "weight"),
        ("v.grad", "gradient"),
    ]
)
ROLES: dict[str, Role] = {column.name: column.role for column in COLUMNS}


def row(number: int, values: Mapping[str, Tensor | None], path: str = "", columns: Sequence[Column] = COLUMNS) -> Row:
    """A row whose step is the last part of its path; by default `train` in an iteration of its own."""
    path = path or ("start" if number == 0 else f"repeat[{number}].1.train")
    layout = Columns(tuple(columns))
    kept = tuple(values.get(column.name) for column in columns)
    return Row(number, path.rpartition(".")[2], path, 1, layout, kept)


def rows(count: int, **changes: Mapping[str, Tensor | None]) -> list[Row]:
    """`count` rows with numbers of their own in every column; `r3={"w": …}` changes row 3."""
    found = []
    for number in range(count):
        values: dict[str, Tensor | None] = {
            column.name: torch.tensor([1.0, 2.0]) * (1 + place) + number
            for place, column in enumerate(COLUMNS)
            if number or column.role == "weight"
        }
        values.update(changes.get(f"r{number}", {}))
        found.append(row(number, values))
    return found


def verdict_of(found: Iterable[Row], expected: Iterable[Row], tolerances: Tolerances | None = None) -> Verdict:
    return compare(align(found, expected), COLUMNS, COLUMNS, tolerances or Tolerances())


def verdict_of_texts(found: str, expected: str, tolerances: Tolerances | None = None) -> Verdict:
    """The verdict on the run of a config, `found`, when that of another was expected."""
    plans = [runner.compile(runner.loads(text)) for text in (found, expected)]
    left, right = (runner.execute(plan) for plan in plans)
    return compare(align(left, right), plans[0].columns, plans[1].columns, tolerances or Tolerances())
