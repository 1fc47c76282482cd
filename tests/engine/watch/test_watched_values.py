"""Values and gradients that are not finite are reported with the operation that made them so."""

from __future__ import annotations

import math

import pytest
import torch

import runner
from runner.engine.watch.watch import HANDING_ON
from runner.plan.streams import stream_seed
from tests.engine.running import compiled, numbers
from tests.engine.watch.stopping import stopped
from tests.tables import over

# values: the operation, and the first name that holds what came of it

VALUES = {
    "log of a negative number": (
        "h = log(x - 2)\n  f = h.sum()",
        "log(x - 2)",
        "`h` is nan at [0], from `log(x - 2)`: 1 nan, 1 inf of 3 elements",
    ),
    "a division by zero": ("f = (1 / (x - 1)).sum()", "1 / (x - 1)", "`f` is inf, from `1 / (x - 1)`"),
    "an overflow": (
        "a = exp(100 * x)\n  f = a.mean()",
        "exp(100 * x)",
        "`a` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "an infinity over an infinity comes from the overflow": (
        "a = exp(100 * x)\n  p = a / a.sum()\n  f = p.mean()",
        "exp(100 * x)",
        "`a` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "a method": ("f = (x - 2).sqrt().sum()", "(x - 2).sqrt()", "`f` is nan, from `(x - 2).sqrt()`"),
    "a slice that is masked whole": (
        "s = x.masked_fill(x > 0, -inf)\n  p = softmax(s, dim=0)\n  f = p.sum()",
        "softmax(s, dim=0)",
        "`p` is nan at [0], from `softmax(s, dim=0)`: 3 nan of 3 elements",
    ),
    "an infinity that is written": (
        "s = x.masked_fill(x > 2, inf)\n  f = s.sum()",
        "x.masked_fill(x > 2, inf)",
        "`s` is inf at [2], from `x.masked_fill(x > 2, inf)`: 1 inf of 3 elements",
    ),
    "beside a mask that does no harm": (
        "s = x.masked_fill(x > 2, -inf)\n  p = softmax(s, dim=0)\n  f = -log(p).sum()",
        "log(p)",
        "`f` is inf, from `log(p)`",
    ),
    "an overflow beside an infinity that is written": (
        "s = x.masked_fill(x > 2, inf)\n  e = exp(100 * x)\n  f = s.max() + e.max()",
        "exp(100 * x)",
        "`e` is inf at [0], from `exp(100 * x)`: 3 inf of 3 elements",
    ),
    "within a loop": (
        "h = x\n  for i in range(3):\n    h = h / (h - 3)\n  f = h.sum()",
        "h / (h - 3)",
        "`h` is nan at [2], from `h / (h - 3)`: 1 nan of 3 elements",
    ),
    "one of several values": (
        "a, b = topk(x, 2)\n  c = log(-a)\n  f = c.sum() + b.sum()",
        "log(-a)",
        "`c` is nan at [0], from `log(-a)`: 2 nan of 2 elements",
    ),
    "in a branch": (
        "h = log(-x) if iteration > 1 else x\n  f = h.sum()",
        "log(-x)",
        "`h` is nan at [0], from `log(-x)`: 3 nan of 3 elements",
    ),
    "in the other branch": (
        "h = x if iteration > 2 else (log(-x) if iteration == 2 else x)\n  f = h.sum()",
        "log(-x)",
        "`h` is nan at [0], from `log(-x)`: 3 nan of 3 elements",
    ),
    "in a function": (
        "h = ratio(x, x - 1)\n  f = h.sum()",
        "a / b",
        "`h` is inf at [0], from `a / b`: 1 inf of 3 elements",
    ),
    "in a derivative": (
        "y = sqrt(x - 1).sum()\n  d = grad(y, x)\n  f = d.sum()",
        "grad(y, x)",
        "`d` is inf at [0], from `grad(y, x)`: 1 inf of 3 elements",
    ),
    "with random numbers": (
        "u = rand(64)\n  h = log(u - 0.5)\n  f = h.sum() + x.sum()",
        "log(u - 0.5)",
        "`h` is nan at ",
    ),
}  # fmt: skip


@over("name", VALUES)
def test_a_value_is_told_with_the_operation_that_made_it_so(name: str) -> None:
    statements, operation, message = VALUES[name]
    text = f"""\
parameters: {{x: [1.0, 2.0, 3.0]}}
functions:
  ratio(a, b): a / b
expression: |
  {statements}
steps: [repeat: {{times: 3, steps: [forward]}}]
"""
    found = stopped(text)
    assert found.marked == operation
    assert found.problem.message.startswith(message)
    path = f"repeat[{found.last.iteration}].forward"
    assert found.problem.message.endswith(f" (row {found.last.number}, {path})")
    assert found.problem.path == ("functions.ratio(a, b)" if "function" in name else "expression")


def test_what_is_told_counts_as_torch_does_at_the_draws_of_the_step() -> None:
    text = """\
parameters: {x: 1.0}
expression: |
  u = rand(8, 8)
  h = log(u - 0.5)
  f = h.sum() * x
steps: [forward: u, backward]
"""
    found = stopped(text)
    h = numbers(found.last)["h"]
    assert h is not None
    spoilt = (~torch.isfinite(h)).nonzero()
    count = f"{int(h.isnan().sum())} nan of 64 elements"
    assert (
        found.problem.message == f"`h` is nan at {spoilt[0].tolist()}, from `log(u - 0.5)`: {count} (row 2, 2.backward)"
    )
    assert found.marked == "log(u - 0.5)"


def seed_whose_draws(*wanted: bool) -> int:
    """A seed for which `rand(1) < 0.5` is true, or not, in the first evaluations of a run."""

    def draws(seed: int) -> list[bool]:
        generators = (
            torch.Generator().manual_seed(stream_seed(seed, "expression", "", n + 1)) for n in range(len(wanted))
        )
        return [bool(torch.rand(1, generator=generator) < 0.5) for generator in generators]

    return next(seed for seed in range(100) if draws(seed) == list(wanted))


@pytest.mark.parametrize(
    "steps",
    [
        '{backward: {gradient: "rand(1)"}}',
        '{assign: {x: "log(rand(1) - 0.5)", y: "rand(1)"}}, {backward: {gradient: "rand(1)"}}',
    ],
)
def test_what_a_step_draws_later_does_not_mislead(steps: str) -> None:
    text = f"""\
seed: {seed_whose_draws(True, False)}
parameters: {{x: [1.0], y: [1.0]}}
expression: f = x * y * log(rand(1) - 0.5)
steps: [{steps}]
"""
    found = stopped(text)
    assert found.last.number == 1
    assert found.marked == "log(rand(1) - 0.5)"


def test_masks_of_infinities_and_values_that_nothing_needs_are_fine() -> None:
    text = """\
parameters: {x: [1.0, 2.0, 3.0]}
constants: {never: {init: -.inf}}
expression: |
  mask = where(x > 1, x, -inf)
  p = softmax(mask + where(x > 2, never, 0.0), dim=0)
  aside = log(-x)
  f = p.max() + aside.nansum()
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""
    assert len(list(runner.execute(compiled(text)))) == 4


def test_a_finite_value_whose_norm_overflows_is_fine() -> None:
    text = """\
parameters: {x: {shape: [4], init: 3e38}, y: {shape: [], init: 3e38}, z: {shape: [], init: 3e38}}
expression: f = (x * 1e-38).sum() + y * 1e-38 + z * 1e-38
metrics: {m: x * 1, n: y * 1, o: z * 1}
optimizer: {sgd: {lr: 0.1}}
steps: 3
"""
    assert len(list(runner.execute(compiled(text)))) == 4


def test_a_metric_is_looked_at_and_placed_in_its_own_text() -> None:
    text = """\
parameters: {x: [1.0, 2.0]}
expression: f = x.sum()
metrics: {fine: x.max(), m: log(x - 1)}
steps: [forward]
"""
    found = stopped(text)
    assert (found.marked, found.problem.path) == ("log(x - 1)", "metrics.m")
    assert found.problem.message == "`m` is -inf at [0], from `log(x - 1)`: 1 inf of 2 elements (row 1, forward)"


# gradients, where the objective is finite

GRADIENTS = {
    "the square root at zero": ("f = sqrt(x).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "behind where": ("f = where(x > 0, sqrt(x), 0.0).sum()", "sqrt(x)", "nan at [0]", "1 nan"),
    "a power": ("h = x ** 0.5\n  f = h.sum()", "x ** 0.5", "inf at [0]", "1 inf"),
    "a norm by hand": ("f = (x[:1] ** 2).sum().sqrt() + x.sum()", "(x[:1] ** 2).sum().sqrt()", "nan at [0]", "1 nan"),
    "an overflow on the way back": ("f = (x[:1] * 1e30 * 1e30).sum()", "x[:1] * 1e30", "inf at [0]", "1 inf"),
    "an innocent consumer beside it": ("h = sqrt(x)\n  f = h.sum() + (x * 3).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "in a function": ("f = root(x).sum()", "sqrt(a)", "inf at [0]", "1 inf"),
    "in a branch": ("f = (sqrt(x) if iteration > 1 else x).sum()", "sqrt(x)", "inf at [0]", "1 inf"),
    "of several values": (
        "values, vectors = linalg.eigh(diag(x * 0))\n  f = (vectors * tensor([[1.0, 2.0], [3.0, 4.0]])).sum()",
        "linalg.eigh(diag(x * 0))",
        "nan at [0]",
        "2 nan",
    ),
    "of one of several values": ("a, b = chunk(x, 2)\n  f = sqrt(a).sum() + b.sum()", "sqrt(a)", "inf at [0]", "1 inf"),
}  # fmt: skip


@over("name", GRADIENTS)
def test_a_gradient_is_told_with_the_operation_whose_derivative_made_it_so(name: str) -> None:
    statements, operation, kind, count = GRADIENTS[name]
    text = f"""\
parameters: {{x: [0.0, 2.0]}}
functions:
  root(a): sqrt(a)
expression: |
  {statements}
steps: [repeat: {{times: 3, steps: [zero_grad, backward]}}]
"""
    found = stopped(text)
    assert found.marked == operation
    assert found.problem.message.startswith(f"`x.grad` is {kind}")
    assert f", from the derivative of `{operation}`" in found.problem.message
    assert count in found.problem.message
    gradient = numbers(found.last)["x.grad"]
    assert gradient is not None
    assert not torch.isfinite(gradient).all()


def test_the_gradient_that_an_objective_is_given_is_part_of_what_is_told() -> None:
    text = """\
parameters: {x: [0.0, 4.0]}
constants: {weights: [0.0, 1.0]}
expression: h = sqrt(x)
steps:
  - backward: {gradient: "weights * rand(2)"}
"""
    found = stopped(text)
    assert (found.marked, found.problem.path) == ("sqrt(x)", "expression")
    assert found.problem.message.startswith("`x.grad` is nan at [0], from the derivative of `sqrt(x)`: 1 nan of 2")


@over("spoilt", [math.nan, math.inf, -math.inf])
@over("steps_before", [0, 3])
@over("kind", sorted(HANDING_ON))
def test_a_gradient_that_is_not_finite_makes_its_weight_so(kind: str, steps_before: int, spoilt: float) -> None:
    make = next(getattr(torch.optim, name) for name in dir(torch.optim) if name.lower() == kind)
    momenta = ({"momentum": 0.9}, {"momentum": 0.9, "dampening": 1.0}) if kind == "sgd" else ({"lr": 0.0},)
    for options in ({}, *momenta):
        x = torch.nn.Parameter(torch.ones(2))
        optimizer = make([x], **options)
        for gradient in (*[1.0] * steps_before, spoilt):
            x.grad = torch.tensor([gradient, 1.0])
            optimizer.step()
        assert x.isfinite().tolist() == [False, True]


@over("optimizer", ["{sgd: {lr: 0.1, momentum: 0.9}}", "{adam: {}}", "{rprop: {}}"])
@over("log", ["", "log: {include: [f]}"])
def test_a_gradient_is_told_whether_its_weight_shows_it_or_not(optimizer: str, log: str) -> None:
    text = f"""\
parameters: {{x: [0.5, 1.0], y: 2.0}}
expression: |
  u = rand(2)
  f = sqrt(x * (iteration < 3) * u).sum() + y
optimizer: {optimizer}
steps: [{{repeat: {{times: 4, steps: [train]}}}}]
{log}
"""
    found = stopped(text)
    assert found.marked == "sqrt(x * (iteration < 3) * u)"
    assert found.problem.message == (
        f"`x.grad` is nan at [0], from the derivative of `{found.marked}`: 2 nan of 2 elements (row 3, repeat[3].train)"
    )
