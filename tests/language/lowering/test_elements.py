"""An element of a 1-d constant, and arithmetic with one, is a tensor where an operation takes no number."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.language.graph.computation import extract
from tests.engine.running import numbers, rows_of
from tests.language.lowering import compute, fault_of, lower, same, tensors, value_of
from tests.tables import over

C, K, B = tensors()["c"], tensors()["k"], tensors()["b"]


@over(
    ("text", "expected"),
    [
        ("torch.sin(c[0] * 3)", torch.sin(C[0] * 3)),
        ("c[0].sin()", C[0].sin()),
        ("(c[0] / 3 - c[1]).exp()", (C[0] / 3 - C[1]).exp()),
        ("torch.stack([c[0] * 3, c[1], b[0]])", torch.stack([C[0] * 3, C[1], B[0]])),
        ("maximum(-c[0] ** 2, b[1])", torch.maximum(-(C[0] ** 2), B[1])),
        ("where(c[0] > 0.3, b, -b)", torch.where(C[0] > 0.3, B, -B)),
        ("where(c[0] > c[2], 1.0, 2.0) * b[0]", torch.where(C[0] > C[2], 1.0, 2.0) * B[0]),
        ("logical_and(c[0] > 0, 1 > c[2])", torch.logical_and(C[0] > 0, C[2] < 1)),
        ("(c[0] > 0).float()", (C[0] > 0).float()),
        ("(c[0] * c[1]).reshape(1)", (C[0] * C[1]).reshape(1)),
        ("sigmoid(exp(c[1]) * 2)", torch.sigmoid(torch.exp(C[1]) * 2)),
        ("relu(min(c[0], c[1]) - 0.2)", F.relu(torch.min(C[0], C[1]) - 0.2)),
        ("torch.lgamma(rate * c[2])", torch.lgamma(0.1 * C[2])),
        ("mse_loss(c[0] * n, b[0])", F.mse_loss(C[0] * 3, B[0])),
        ("(k[0] // 2 + k[2]).to(float64)", (K[0] // 2 + K[2]).double()),
        ("half = c[2] / 3\nhalf = half * half\ntorch.erf(half)", torch.erf(C[2] / 3 * (C[2] / 3))),
        ("scaled(c[2] / 3).tanh()", (2 * (C[2] / 3) + 1).tanh()),
        ("squashed(c[2] / 3, bias=c[1])", torch.sigmoid(C[2] / 3 + C[1])),
        ("sigmoid(c[0]) if n > 2 else relu(c[1])", torch.sigmoid(C[0])),
    ],
)
def test_arithmetic_with_elements_has_the_bits_of_torch(text: str, expected: Tensor) -> None:
    declared = {"scaled(a)": "2 * a + 1", "squashed(a, bias)": "sigmoid(a + bias)"}
    assert same(value_of(text, declared), expected)


def test_it_stays_a_number_where_an_operation_takes_one() -> None:
    assert same(value_of("b * (c[0] * 3)"), B * 1.5)
    assert same(value_of("full((k[0] * 2,), c[0] * 3)"), torch.full((4,), 1.5))
    assert same(value_of("b ** (c[2] / 2)"), B**2.0)
    assert same(value_of("roll(b, k[2] * 2)"), torch.roll(B, 2))


def test_a_name_that_is_given_again_is_what_it_is_now() -> None:
    assert same(value_of("a = c[0] * 2\na = 3 * rate\nb * a"), B * (3 * 0.1))
    assert "must be Tensor, not float" in fault_of("a = c[0] * 2\na = 3 * rate\nsigmoid(b) + torch.sin(a)").message


@pytest.mark.parametrize("iteration", [1, 2])
def test_an_index_by_the_iteration_is_followed(iteration: int) -> None:
    text = "half = c[iteration - 1] / 3\nsigmoid(half * n) * (tanh(half) if iteration > 1 else torch.erf(half))"
    computation = extract(lower(text, {}), ["value"])
    half = C[iteration - 1] / 3
    expected = torch.sigmoid(half * 3) * (torch.tanh(half) if iteration > 1 else torch.erf(half))
    assert same(compute(computation, tensors(), iteration)[0], expected)


def test_long_arithmetic_with_elements_is_lowered_once() -> None:
    doubled = "a = c[0]\n" + "a = a * a\n" * 17
    assert same(value_of(doubled + "b * a if n > 1 else b"), B * float(C[0].double() ** 2**17))
    by_hand = C[0]
    for _ in range(17):
        by_hand = by_hand * by_hand
    graph = lower(doubled + "sigmoid(a)", {}).values["value"].graph
    assert len(graph.nodes) < 50  # two nodes for each line, and not 2 ** 17
    assert same(value_of(doubled + "sigmoid(a)"), torch.sigmoid(by_hand))
    deep = "a = c[0]\nfor i in range(1000):\n  a = a + 1\n"
    assert value_of(deep + "(b * a if n > 1 else b).sum()").item() == pytest.approx((B * (C[0] + 1000)).sum().item())


def test_a_number_beside_an_element_is_no_tensor() -> None:
    assert fault_of("sigmoid(max(c[0], 0.1))").hint == "make a tensor of the number: `tensor(…)`"


def test_a_number_without_an_element_says_how_it_becomes_a_tensor() -> None:
    for text in ("torch.sin(rate * 2)", "stack([rate * 2, b[0]])", "maximum(rate * 2, b)", "sigmoid(n * 2)"):
        assert fault_of(text).hint == "make a tensor of the number: `tensor(…)`"


def test_a_rule_reads_elements_as_tensors_of_their_dtype() -> None:
    text = """\
parameters: {w: [1.0, 2.0]}
constants: {floor: {init: [0.5, 0.75, 1.0], dtype: float64}}
expression: loss = (w ** 2).sum()
optimizer: {rule: {update: "param = maximum(param - 0.3 * grad, sigmoid(2 * floor[t - 1]))"}}
steps: [{repeat: {times: 2, steps: [train]}}]
"""
    w = torch.tensor([1.0, 2.0])
    for row, floor in zip(rows_of(text)[1:], (0.5, 0.75), strict=True):
        w = torch.maximum(w - 0.3 * (2 * w), torch.sigmoid(2 * torch.tensor(floor, dtype=torch.float64)))
        assert same(numbers(row)["w"], w)
