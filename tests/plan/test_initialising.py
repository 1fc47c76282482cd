# ruff: noqa: E501 — configs in one line
"""Initial values: in the order in which tensors read one another, each drawn from a stream of its own."""

from __future__ import annotations

import torch

from runner.plan.streams import stream_seed
from tests.engine.running import numbers, rows_of, same


def start(text: str) -> dict[str, torch.Tensor | None]:
    return numbers(rows_of(text)[0])


def drawn(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    torch.manual_seed(stream_seed(seed, "init", name))
    return torch.randn(shape)


def test_an_initial_expression_draws_from_the_tensors_own_stream() -> None:
    found = start("""\
seed: 4
parameters:
  a: {init: {expression: "randn(3)"}}
  b: {init: {expression: "randn(3)"}}
expression: (a * b).sum()
""")
    assert same(found["a"], drawn(4, "a", (3,)))
    assert same(found["b"], drawn(4, "b", (3,)))


def test_an_initial_expression_reads_other_initial_values_in_any_order() -> None:
    found = start("""\
parameters:
  target: {init: {expression: w}, requires_grad: false}
  scaled: {init: {expression: "target * k + table[1]"}}
  w: {shape: [3], init: normal}
constants: {k: 3, table: [10.0, 20.0]}
functions: {}
expression: ((w + scaled) * target).sum()
""")
    assert found["w"] is not None
    assert same(found["target"], found["w"])
    assert same(found["scaled"], found["w"] * 3 + 20.0)


def test_a_copy_of_an_initial_value_has_memory_of_its_own() -> None:
    rows = rows_of("""\
parameters:
  w: [1.0, 2.0]
  target: {init: {expression: w}, requires_grad: false}
expression: ((w - target) ** 2).sum() + w.sum()
optimizer: {sgd: {lr: 1.0}}
steps: 1
""")
    assert same(rows[1]["target"], torch.tensor([1.0, 2.0]))
    assert same(rows[1]["w"], torch.tensor([0.0, 1.0]))


def test_initial_expressions_may_call_functions_and_broadcast_to_the_shape() -> None:
    found = start("""\
parameters:
  w: {shape: [2, 3], init: {expression: "twice(arange(3))"}}
functions: {twice(v): v * 2}
expression: w.sum()
""")
    assert same(found["w"], torch.tensor([[0.0, 2.0, 4.0]] * 2))


def test_planning_draws_from_no_stream_of_the_caller() -> None:
    before = torch.get_rng_state()
    start(
        "{parameters: {a: {init: {expression: 'randn(3)'}}, b: {shape: [2], init: normal}}, expression: 'dropout(a.sum() * b, 0.5).sum()'}"
    )
    assert torch.equal(before, torch.get_rng_state())


def test_an_initial_expression_may_differentiate() -> None:
    text = "{parameters: {u: [2.0], s: {init: {expression: 'grad((u ** 3).sum(), u)'}}}, expression: (u * s).sum()}"
    assert same(start(text)["s"], torch.tensor([12.0]))
