"""What a step computes is cut out of the expression: nothing that its objective does not need."""

from __future__ import annotations

import torch
from torch import fx

from runner.language.graph.computation import computed_with, extract, forget_examples, inputs_of, scalar_dtype
from tests.language.lowering import compute, lower, same, tensors
from tests.tables import over

TEXT = "h = x @ w\nside = b.sin().sum()\nloss = (h ** 2).sum()\nother = loss * side"


def test_what_an_objective_does_not_need_is_not_computed() -> None:
    computation = extract(lower(TEXT), ["loss"])
    assert computation.inputs == ("x", "w")
    names = {node.target for node in computation.graph.nodes if node.op == "call_method"}
    assert names == {"sum"}
    assert sum(node.op == "call_function" for node in computation.graph.nodes) == 2


def test_named_values_on_the_way_are_computed_with_it_in_the_order_of_the_text() -> None:
    lowered = lower(TEXT)
    assert computed_with(lowered, ["loss"]) == ["h", "loss"]
    assert computed_with(lowered, ["other"]) == ["h", "side", "loss", "other"]
    assert computed_with(lowered, ["side", "h"]) == ["h", "side"]


def test_inputs_are_told_by_objective() -> None:
    lowered = lower(TEXT)
    assert set(inputs_of(lowered, ["loss"])) == {"x", "w"}
    assert set(inputs_of(lowered, ["other"])) == {"x", "w", "b"}


def test_outputs_come_in_the_order_asked_for() -> None:
    given = tensors()
    computation = extract(lower(TEXT, given=given), ["other", "h"])
    other, h = compute(computation, given)
    assert computation.names == ("other", "h")
    assert same(h, given["x"] @ given["w"])
    assert same(other, ((given["x"] @ given["w"]) ** 2).sum() * given["b"].sin().sum())


@over(
    ("text", "aliases"),
    [
        ("y = x", True),
        ("y = x.T", True),
        ("y = x[0]", True),
        ("y = x.reshape(6)", True),
        ("y = x.detach()", True),
        ("y = x.to(float32)", True),
        ("y = x * 1", False),
        ("y = x.clone()", False),
        ("y = x.sum()", False),
        ("y = (x * 2).T", False),
        ("y = x[[0]]", False),
        ("y = x if iteration > 1 else x * 2", True),
        ("y = (x if iteration > 1 else x * 2).T", True),
        ("p, y = (x, w) if iteration > 1 else (x * 2, w * 2)", True),
        ("y = dropout(x, 0.5, False)", True),
    ],
)
def test_a_value_that_may_share_memory_with_a_weight_is_known(text: str, aliases: bool) -> None:
    (output,) = extract(lower(text), ["y"]).outputs
    assert output.aliases is aliases


@over(
    ("text", "random"),
    [
        ("y = randn(2)", True),
        ("y = dropout(x, 0.5)", True),
        ("y = x.sigmoid().bernoulli()", True),
        ("r = randn(2)\ny = x * 2", False),
        ("r = randn(2)\ny = r * 2", True),
        ("y = f(x)", True),
    ],
)
def test_a_computation_that_draws_numbers_is_known(text: str, random: bool) -> None:
    assert extract(lower(text, {"f(a)": "a + rand_like(a)"}), ["y"]).random is random


def test_shapes_and_dtypes_of_outputs_are_known() -> None:
    text = "p = x.to(float64)\nq = k.argmax()\nr = iteration * 2\ns = iteration / 2\nt = iteration > 1"
    outputs = extract(lower(text), ["p", "q", "r", "s", "t"]).outputs
    assert [(output.dtype, output.shape, output.scalar) for output in outputs] == [
        (torch.float64, (2, 3), False),
        (torch.int64, (), False),
        (torch.int64, (), True),
        (torch.float64, (), True),
        (torch.bool, (), True),
    ]
    assert [scalar_dtype(number) for number in (True, 1, 1.5)] == [torch.bool, torch.int64, torch.float64]


def test_a_computation_is_the_same_function_each_time() -> None:
    given = tensors()
    computation = extract(lower("loss = (x @ w).sum()", given=given), ["loss"])
    before = {name: tensor.clone() for name, tensor in given.items()}
    results = [compute(computation, given)[0] for _ in range(3)]
    assert same(results[0], results[2])
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_forgotten_examples_keep_shape_and_dtype() -> None:
    lowered = lower("h = x @ w\nloss = h.sum()")
    forget_examples(lowered)
    example = lowered.values["h"].meta["example"]
    assert (example.shape, example.dtype, example.device.type) == ((2, 2), torch.float32, "meta")
    assert all(isinstance(node, fx.Node) for node in lowered.values.values())
