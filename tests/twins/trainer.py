"""What a hand-written twin is made of, and how it is held against a run."""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

import runner
from tests.engine.running import same

FOLDER = Path(__file__).parents[2] / "configs"

Snapshot = tuple[str, dict[str, Tensor | None]]
"""The kind of a step, and every column of the row it leaves."""

Start = Mapping[str, Tensor]
"""The initial weights, for examples that draw them."""

Twin = Callable[[Start], Iterator[Snapshot]]
"""An example written by hand."""


class Trainer:
    """Weights by name, and what a row shows of them."""

    def __init__(self, **weights: Tensor) -> None:
        self.weights = {name: torch.nn.Parameter(value.clone()) for name, value in weights.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def held(self, *names: str) -> list[Tensor]:
        return [self.weights[name] for name in names or self.weights]

    def zero_grad(self, *names: str) -> None:
        for weight in self.held(*names):
            weight.grad = None

    def minimised(
        self, optimizer: torch.optim.LBFGS, forward: Callable[[], dict[str, Tensor]], objective: str
    ) -> Snapshot:
        """One step of L-BFGS: the row of its first evaluation, with the weights after the step."""
        rows: list[dict[str, Tensor | None]] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            values = forward()
            values[objective].backward()
            rows.append(self.shows("train", **values)[1])
            return values[objective]

        optimizer.step(closure)
        return "train", rows[0] | {name: weight.detach().clone() for name, weight in self.weights.items()}

    def shows(self, step: str, *unseen: str, **values: Tensor) -> Snapshot:
        """The row of a step: every weight and gradient, the values it computed, None for the `unseen`."""
        row: dict[str, Tensor | None] = dict.fromkeys(unseen)
        row |= {name: value.detach().clone() for name, value in values.items()}
        for name, weight in self.weights.items():
            row[name] = weight.detach().clone()
            row[f"{name}.grad"] = None if weight.grad is None else weight.grad.detach().clone()
        return step, row


def assert_bit_identical(path: Path, twin: Twin) -> None:
    """Hold every row of a run, with nothing left out of its log, against those of its twin."""
    for number, found, expected in _rows(path, twin):
        assert [key for key in found if not same(found[key], expected[key])] == [], f"row {number}"


def assert_close(path: Path, twin: Twin, within: float) -> None:
    """The same with a tolerance, where the twin computes a value in another order: relative, and absolute too."""
    for number, found, expected in _rows(path, twin):
        for name, value in found.items():
            torch.testing.assert_close(
                value,
                expected[name],
                rtol=within,
                atol=within,
                msg=lambda text, place=f"row {number}, {name}": f"{place}: {text}",
            )


def _rows(path: Path, twin: Twin) -> Iterator[tuple[int, dict[str, Tensor | None], dict[str, Tensor | None]]]:
    """The number of each row, its columns in the run, and those in the twin."""
    overrides = ["~log"] if "\nlog:" in path.read_text(encoding="utf-8") else []
    rows = list(runner.execute(runner.compile(runner.load(path, overrides=overrides))))
    start = {
        column.name: value
        for column, value in zip(rows[0].columns, rows[0].values, strict=True)
        if column.role == "weight" and value is not None
    }
    for row, (step, expected) in zip(rows, twin(start), strict=True):
        assert row.step == step
        found = {column.name: value for column, value in zip(row.columns, row.values, strict=True)}
        assert sorted(found) == sorted(expected)
        yield row.number, found, expected
