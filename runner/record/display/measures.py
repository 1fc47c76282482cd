"""What a table shows of a row: numbers, and norms of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.rows import Row
from runner.plan.rows.columns import Column

GRADIENTS = "|grad|"
NARROWEST = 9
"""The fewest characters of a column of numbers."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of a table: a single number of each row, or the Euclidean norm of one or more tensors."""

    heading: str
    positions: tuple[int, ...]
    is_norm: bool = False
    decides: bool = True  # whether a step computes it, so that a row with it has a line; weights and gradients last

    @property
    def width(self) -> int:
        return max(len(self.heading), NARROWEST)

    def is_in(self, row: Row) -> bool:
        """Whether a row has a value of it."""
        return any(map(row.has, self.positions))

    def text(self, row: Row) -> str:
        """The number as text; empty if the row has none."""
        values = row.values
        found = [value for position in self.positions if (value := values[position]) is not None]
        if not found:
            return ""
        return number_text(norm(found) if self.is_norm else found[0].item())


def measure_of(position: int, column: Column) -> Measure:
    """A column as it is if it is one number, or else its norm, `|w|`."""
    decides = column.role in ("value", "norm")
    if column.elements == 1:
        return Measure(column.name, (position,), decides=decides)
    return Measure(f"|{column.name}|", (position,), is_norm=True, decides=decides)


def measures_of(columns: Sequence[Column], objectives: Sequence[str]) -> list[Measure]:
    """What a table shows unless columns are named, the most important first.

    These are the objectives, the results of `evaluate`, the other single numbers, the norm of all gradients together,
    and weights of one number.
    """
    single = [(position, column) for position, column in enumerate(columns) if column.elements == 1]
    values = [(position, column) for position, column in single if column.role in ("value", "norm")]

    def rank(entry: tuple[int, Column]) -> tuple[int, int]:
        name = entry[1].name
        if name in objectives:
            return 0, objectives.index(name)
        return (1 if "." in name else 2), entry[0]

    found = [measure_of(*entry) for entry in sorted(values, key=rank)]
    gradients = tuple(position for position, column in enumerate(columns) if column.role == "gradient")
    if gradients:
        found.append(Measure(GRADIENTS, gradients, is_norm=True, decides=False))
    return found + [measure_of(*entry) for entry in single if entry[1].role == "weight"]


def fitting(measures: Sequence[Measure], room: int) -> list[Measure]:
    """The measures that fit into one line; the norm of the gradients keeps its place if the first leaves room."""
    first = measures[0].width + 2 if measures else 0
    kept = [each for each in measures if each.heading == GRADIENTS and first + each.width + 2 <= room]
    room -= sum(measure.width + 2 for measure in kept)
    shown = []
    for number, measure in enumerate(measures):
        if measure in kept:
            shown.append(measure)
        elif room >= measure.width + 2 or not number:  # the first is shown always
            shown.append(measure)
            room -= measure.width + 2
    return shown


def norm(tensors: Sequence[Tensor]) -> float:
    """The Euclidean norm of all elements of some tensors."""
    wide = [_wide(tensor.detach()) for tensor in tensors]
    return float(torch.nn.utils.get_total_norm(wide))


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in a dtype in which squares do not overflow early."""
    if tensor.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        return tensor
    if tensor.is_complex():
        return tensor.to(torch.complex64)
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)


def number_text(value: complex | bool) -> str:
    """A number in at most about ten characters."""
    return str(value) if isinstance(value, bool | int) else f"{value:.5g}"
