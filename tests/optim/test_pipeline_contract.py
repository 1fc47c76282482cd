"""The same contract through whole configs: every row of seven training steps has the bits of plain `torch.optim`.

Weights, gradients and optimizer state, as the rows record them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from runner.catalogue import optimizers
from tests.effort import thinned
from tests.tables import over

from .test_optimizers_contract import STEPS, assert_same_value, inputs

SHAPES: dict[str, tuple[int, ...]] = {"w": (4, 3), "b": (3,), "s": (), "k": (2, 3, 2)}


def starting_values(kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {name: shape for name, shape in SHAPES.items() if kind != "muon" or len(shape) == 2}
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def written(value: Any) -> str:
    """A value as YAML in flow style."""
    if isinstance(value, tuple):
        return "[" + ", ".join(written(part) for part in value) + "]"
    return (
        {None: "null", True: "true", False: "false"}.get(value, repr(value))
        if value is None or isinstance(value, bool)
        else repr(value)
    )


def config_of(kind: str, options: dict[str, Any], start: dict[str, Tensor], dtype: torch.dtype) -> str:
    parameters = "".join(f"  {name}: {value.tolist()}\n" for name, value in start.items())
    terms = " + ".join(f"((sin({name}) * {number}) ** 2).sum()" for number, name in enumerate(start, 1))
    arguments = ", ".join(f"{name}: {written(value)}" for name, value in options.items())
    return (
        f"dtype: {str(dtype).removeprefix('torch.')}\nparameters:\n{parameters}"
        f"expression: loss = {terms}\noptimizer: {{{kind}: {{{arguments}}}}}\nsteps: {STEPS}\nlog: {{state: true}}\n"
    )


def loss_of(parameters: dict[str, Parameter]) -> Tensor:
    total = None
    for number, parameter in enumerate(parameters.values(), 1):
        term = ((torch.sin(parameter) * number) ** 2).sum()
        total = term if total is None else total + term
    return total


@over(("kind", "options", "dtype"), thinned(inputs(), lambda row: row.values[0], every=5), split=lambda kind, *_: kind)
def test_promise_1_what_you_read_is_what_ran(kind, options, dtype):
    start = starting_values(kind, dtype)
    theirs = {name: Parameter(value.clone()) for name, value in start.items()}
    plain = getattr(torch.optim, optimizers()[kind].class_name)(list(theirs.values()), **options)
    first: list[Tensor] = []

    def closure() -> Tensor:
        plain.zero_grad()
        loss = loss_of(theirs)
        loss.backward()
        first.append(loss.detach())
        return loss

    rows = iter(runner.execute(runner.compile(runner.loads(config_of(kind, options, start, dtype)))))
    row = next(rows)
    assert row.step == "start"
    for name, value in start.items():
        assert_same_value(row[name], value)
    for row in rows:
        first.clear()
        if kind == "lbfgs":
            plain.step(closure)
        else:
            closure()
            plain.step()
        assert_same_value(row["loss"], first[0])
        for name, parameter in theirs.items():
            assert_same_value(row[name], parameter.detach())
            if kind == "lbfgs":
                continue
            assert_same_value(row[f"{name}.grad"], parameter.grad)
            state = plain.state.get(parameter, {})
            assert {
                column.name for column in row.columns if column.role == "state" and column.name.startswith(f"{name}.")
            } == {f"{name}.{key}" for key in state}
            for key, value in state.items():
                assert_same_value(row[f"{name}.{key}"], value)
    assert row.iteration == STEPS
