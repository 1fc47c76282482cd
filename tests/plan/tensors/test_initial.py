# ruff: noqa: E501 — configs in one line
"""Initial values: in the order in which tensors read one another, each drawn from a stream of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch

from runner.engine import execute, initial_state
from runner.plan.streams import stream_seed
from tests.engine.running import compiled, numbers, rows_of, same


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


DRAWN = """\
parameters: {a: {shape: [30, 5], init: normal}, b: {init: {expression: "a[0] * 2"}}}
constants: {c: {shape: [30], init: {uniform: {a: 1, b: 2}}}}
expression: |
  h = tanh(a @ b)
  loss = (h * c).square().sum()
metrics: {mean: h.mean()}
optimizer: {adam: {lr: 0.1}}
steps: [{repeat: {times: 3, steps: [train, {assign: {b: b * 0.5}}, {expect: {loss > 0: true}}]}}]
"""


def storages(tensors: Iterable[torch.Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_the_first_run_takes_over_what_planning_has_drawn_and_the_next_draws_the_same() -> None:
    plan = compiled(DRAWN)
    drawn = storages(value for value, _ in plan.drawings._drawn.values())
    first, second = initial_state(plan), initial_state(plan)
    assert storages([first.parameters["a"], first.constants["c"]]) == drawn
    assert not drawn & storages([second.parameters["a"], second.constants["c"]])
    assert plan.drawings.take() == {}
    rows = [[numbers(row) for row in execute(plan, state)] for state in (first, second, initial_state(plan))]
    for one, other, another in zip(*rows, strict=True):
        for name, value in one.items():
            assert same(value, other[name])
            assert same(value, another[name])


def test_a_drawn_value_that_was_written_is_drawn_again() -> None:
    plan, untouched = compiled(DRAWN), initial_state(compiled(DRAWN))
    plan.drawings._drawn["a"][0].mul_(2)
    assert same(initial_state(plan).parameters["a"].detach(), untouched.parameters["a"].detach())


def test_a_given_initial_value_goes_before_one_that_is_drawn() -> None:
    state = initial_state(compiled(DRAWN), {"a": torch.ones(30, 5)})
    assert same(state.parameters["a"].detach(), torch.ones(30, 5))
    assert same(state.parameters["b"].detach(), torch.full((5,), 2.0))


def test_a_plan_keeps_no_examples_of_its_tensors() -> None:
    gc.freeze()  # so that only what is made from here on is looked through
    plan = compiled(DRAWN)
    gc.collect()
    made = [held for held in gc.get_objects() if type(held) is torch.fx.Node]
    examples = [node.meta["example"] for node in made if isinstance(node.meta.get("example"), torch.Tensor)]
    assert len(examples) > len(plan.tensors)
    assert {example.device.type for example in examples} == {"meta"}
