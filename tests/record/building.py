"""Rows made by hand, for the tests of recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from runner.engine.rows import Row
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns

LINEAR = (
    Column("f", "value", torch.float32, (1,)),
    Column("x", "weight", torch.float32, (1,)),
    Column("x.grad", "gradient", torch.float32, (1,)),
)


def linear_rows(count: int) -> Iterator[Row]:
    """Rows of `LINEAR` whose weight is the row's number; the first has neither a value nor a gradient."""
    layout = Columns(LINEAR)
    for number in range(count):
        x = torch.tensor([float(number)])
        values = (None, x, None) if number == 0 else (10 * x, x, torch.tensor([10.0]))
        step, path = ("start", "start") if number == 0 else ("train", f"repeat[{number}].1.train")
        yield Row(number, step, path, max(1, number), layout, values)


def rows_of(columns: Sequence[Column], values: Sequence[Sequence[Tensor | None]]) -> list[Row]:
    """Rows of any columns."""
    layout = Columns(tuple(columns))
    numbered = enumerate(values)
    return [Row(number, "train", f"1.repeat[{number}].train", 1, layout, tuple(row)) for number, row in numbered]


def run_directory(folder: Path) -> Path:
    (folder / "rows").mkdir(parents=True)
    return folder


def bits(tensor: Tensor) -> tuple[object, ...]:
    """What must be equal for two tensors to be the same, bit for bit."""
    contiguous = tensor.detach().resolve_conj().resolve_neg().contiguous()
    raw = contiguous.reshape(-1).view(torch.uint8) if contiguous.numel() else contiguous.reshape(-1)
    return tensor.dtype, tuple(tensor.shape), raw.tolist()
