"""XLA computes what is written: it moves no factor and no term, and leaves out no cast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.engine.running import rows_of

pytest.importorskip("jax")

START = (1.25, 2.5, -3.75)
WRITTEN: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a term added and subtracted": ("(w + 1e8) - 1e8", lambda w: (w + 1e8) - 1e8),
    "factors whose product overflows": ("w * 1e30 * 1e30 * 1e-30", lambda w: w * 1e30 * 1e30 * 1e-30),
    "factors whose product underflows": ("w * 1e-30 * 1e-30 * 1e30", lambda w: w * 1e-30 * 1e-30 * 1e30),
    "divisors whose product overflows": ("w * 1e38 / 1e20 / 1e20", lambda w: w * 1e38 / 1e20 / 1e20),
    "a divisor whose inverse is subnormal": ("w * 8e37 / 3e38", lambda w: w * 8e37 / 3e38),
    "a truncated quotient of such a divisor": (
        "div(w * 8e37, 1.9e38, rounding_mode='trunc')",
        lambda w: torch.div(w * 8e37, 1.9e38, rounding_mode="trunc"),
    ),
    "the logarithm of an exponential": ("log(exp(w * 1e-9))", lambda w: torch.log(torch.exp(w * 1e-9))),
    "a quotient of exponentials": ("exp(w * 40) / exp(w * 40)", lambda w: torch.exp(w * 40) / torch.exp(w * 40)),
    "a quotient of a quotient": ("w * 1e30 / (w * 1e25) / (w * 1e30)", lambda w: w * 1e30 / (w * 1e25) / (w * 1e30)),
    "a quotient as a divisor": ("w * 1e30 / (w * 1e25 / (w * 1e30))", lambda w: w * 1e30 / (w * 1e25 / (w * 1e30))),
    "the logarithm of a power": ("log(w.abs() ** 200.5)", lambda w: torch.log(w.abs() ** 200.5)),
    "a cast there and back": (
        "w.to(float64) * 1.1 - (w.to(float64) * 1.1).to(float32).to(float64)",
        lambda w: w.double() * 1.1 - (w.double() * 1.1).float().double(),
    ),
    "a cast to bfloat16 and back": ("w * 1.01 - (w * 1.01).to(bfloat16)", lambda w: w * 1.01 - (w * 1.01).bfloat16()),
    "a number beyond float32": ("w + 1e39", lambda w: w + 1e39),
    "a power of two beyond float32": ("ldexp(w * 1e-9, e)", lambda w: torch.ldexp(w * 1e-9, torch.tensor(130))),
    "zero by such a power": ("ldexp(w * 0, e)", lambda w: torch.ldexp(w * 0, torch.tensor(130))),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_each_operation_is_computed_as_it_is_written() -> None:
    measured = "".join(f"  m{place}: {text}\n" for place, (text, _) in enumerate(WRITTEN.values()))
    text = (
        f"engine: xla\nparameters: {{w: {list(START)}}}\nconstants: {{e: {{shape: [], init: 130, dtype: int64}}}}\n"
        f"expression: loss = (w ** 2).sum()\nmetrics:\n{measured}"
        "optimizer: {sgd: {lr: 0}}\nsteps: 3\non_nonfinite: ignore\n"
    )
    row = rows_of(text)[-1]
    for place, (name, (_, by_hand)) in enumerate(WRITTEN.items()):
        found, expected = row[f"m{place}"], by_hand(torch.tensor(START))
        assert found is not None
        assert found.dtype == expected.dtype, name
        assert torch.allclose(found, expected, rtol=2e-7, atol=0, equal_nan=True), (name, found, expected)


@pytest.mark.slow
def test_a_gradient_does_not_vanish_because_its_factors_are_multiplied_first() -> None:
    text = (
        "engine: xla\nparameters: {w: [1e38, -1e38]}\nexpression: loss = (w * 1e-30).square().sum()\n"
        "optimizer: {sgd: {lr: 0}}\nsteps: 2\n"
    )
    row = rows_of(text)[-1]
    weights = torch.tensor([1e38, -1e38], requires_grad=True)
    (weights * 1e-30).square().sum().backward()
    torch.testing.assert_close(row["w.grad"], weights.grad, rtol=1e-6, atol=0)


BEYOND = 2**53 + 1


@pytest.mark.slow
def test_an_integer_that_float64_does_not_have_is_exact() -> None:
    text = (
        "engine: xla\nparameters: {w: [1.0, 2.0]}\nexpression: loss = (w ** 2).sum()\n"
        "metrics: {n: 'iteration + 9007199254740990', m: '1 - (iteration + 9007199254740990)'}\n"
        "optimizer: {sgd: {lr: 0.1}}\nsteps: 6\n"
    )
    rows = rows_of(text)[1:]
    assert [int(row["n"]) for row in rows] == [BEYOND - 3 + iteration for iteration in range(1, 7)]
    assert [int(row["m"]) for row in rows] == [1 - (BEYOND - 3 + iteration) for iteration in range(1, 7)]
