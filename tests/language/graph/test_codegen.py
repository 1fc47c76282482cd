"""A fault while it runs is told at the part of the expression that it happened in."""

from __future__ import annotations

import gc
import math
import operator
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx

from runner.language.graph.codegen import _OPERATORS, _given, compile_graph, fault_place
from runner.language.graph.computation import extract
from tests.language.lowering import compute, lower, tensors
from tests.tables import over


@over(
    ("text", "declarations", "place", "origin"),
    [
        ("y = x * 2\ny * (1 / (iteration - 3))", {}, (2, 5, 19), None),
        ("x * c[iteration]", {}, (1, 4, 12), None),
        ("x[0].sum() + stack([x[0]] * 3)[iteration]", {}, (1, 13, 28), None),
        ("f(x)", {"f(a)": "u = a * 2\nu * (1 / (iteration - 3))"}, (2, 5, 19), ("functions", "f(a)")),
        ("g(x)", {"g(a)": "f(a) + 1", "f(a)": "a * sqrt(2.5 - iteration)"}, (1, 4, 21), ("functions", "f(a)")),
        ("x if iteration < 2 else x * (1 / (iteration - 3))", {}, (1, 29, 19), None),
        ("x if iteration < 2 else (x if iteration > 5 else x * (1 / (iteration - 3)))", {}, (1, 54, 19), None),
        ("f(x)", {"f(a)": "a if iteration < 2 else a * (1 / (iteration - 3))"}, (1, 29, 19), ("functions", "f(a)")),
        ("f(x) if iteration > 1 else x", {"f(a)": "a * (1 / (iteration - 3))"}, (1, 5, 19), ("functions", "f(a)")),
        ("y = x\nfor i in range(2):\n  y = y / i if i > 3 else y * (1 / (3 - iteration))\ny", {}, (3, 31, 19), None),
    ],
)
def test_a_fault_while_running_stands_at_its_place(
    text: str, declarations: dict[str, str], place: tuple[int, int, int], origin: Any
) -> None:
    given = tensors()
    lowered = lower(text, declarations, given)
    computation = extract(lowered, [lowered.result])
    compute(computation, given, 1)
    with pytest.raises((ArithmeticError, ValueError, IndexError), match=r"zero|domain|outside|out of bounds") as caught:
        compute(computation, given, 3)
    found = fault_place(caught.value.__traceback__)
    assert found is not None
    assert (found[0].as_tuple(), found[1]) == (place, origin)


def test_a_fault_elsewhere_has_no_place() -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        _ = 1 / 0
    assert fault_place(caught.value.__traceback__) is None


@over(
    "value",
    [
        *(None, ..., True, 3, -(2**70), 0.1, -0.0, 5e-324, math.inf, -math.inf, 1 - 2j, "it's\n\\", torch.float64),
        *(torch.device("cpu"), (), (1,), [], [1, (2.5, None)], slice(1, None, -2), (slice(None), ..., None)),
    ],
)
def test_an_argument_reaches_its_operation_as_it_is(value: Any) -> None:
    graph = fx.Graph()
    received: list[Any] = []
    graph.output(graph.call_function(received.append, (value,)))
    compile_graph(graph)(None)
    assert repr(received) == repr([value])  # tells -0.0 from 0.0, 1 from True, a tuple from a list
    assert [type(item) for item in received] == [type(value)]


def test_nan_reaches_its_operation() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(math.isnan, (math.nan,)))
    assert compile_graph(graph)(None) is True


@over("target", list(_OPERATORS))
def test_what_is_written_as_an_operator_is_that_operator(target: Callable[..., Any]) -> None:
    operands = (torch.tensor([[-7, 3], [2, 5]]), torch.tensor([[2, 1], [-4, 2]]))[: _OPERATORS[target].count("{}")]
    if target is operator.getitem:
        operands = (operands[0], 1)  # type: ignore[assignment]
    graph = fx.Graph()
    inputs = [graph.placeholder(f"v_{number}") for number in range(len(operands))]
    graph.output(graph.call_function(target, tuple(inputs)))
    assert torch.equal(compile_graph(graph)(None, *operands), target(*operands))


def test_a_value_that_nothing_further_reads_is_let_go() -> None:
    alive: list[weakref.ref[Any]] = []

    def make(x: Any) -> torch.Tensor:
        made = torch.ones(3)
        alive.append(weakref.ref(made))
        return made

    graph = fx.Graph()
    first = graph.call_function(make, (None,))
    second = graph.call_function(make, (first,))
    kept = graph.call_function(make, (second,))
    count = graph.call_function(lambda *_: [reference() is not None for reference in alive], (second,))
    last = graph.call_function(lambda *_: [reference() is not None for reference in alive], ())
    graph.output((kept, count, last))
    assert compile_graph(graph)(None)[1:] == ([False, True, True], [False, False, True])


def test_names_alone_need_no_text_of_their_own() -> None:
    lowered = lower("x", {}, tensors())
    computation = extract(lowered, [lowered.result])
    assert computation.function.__code__.co_filename == _given.__code__.co_filename
    assert computation.function(None, 5) == (5,)


@pytest.mark.slow
def test_an_expression_that_nobody_holds_is_let_go_of() -> None:
    given = tensors()
    lowered = lower("y = x * 2\ny + 1", {}, given)
    computation = extract(lowered, [lowered.result])
    function, graph = weakref.ref(computation.function), weakref.ref(lowered.graph)
    del lowered, computation
    gc.collect()
    assert function() is None
    assert graph() is None
