"""Computes a graph again, one operation at a time, and keeps every result, so that `origin` can search them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from runner.language.inference.autocast import as_in_a_run

FINITE, INFINITE, NAN = 0, 1, 2
"""The kinds of values, from best to worst."""


@dataclass(slots=True, eq=False)
class Done:
    """One operation or input of a replay, with its arguments and its result."""

    node: fx.Node
    value: Any
    operands: Mapping[fx.Node, Any] = field(default_factory=dict)  # the results of the nodes in its arguments
    _kind: int = -1

    @property
    def inputs(self) -> tuple[Done, ...]:
        """The operations and inputs of the replay that its arguments come from."""
        return tuple(operand for operand in self.operands.values() if isinstance(operand, Done))

    @property
    def kind(self) -> int:
        """The worst kind among its elements: `NAN`, `INFINITE` or `FINITE`."""
        if self._kind < 0:
            self._kind = kind_of(self.value)
        return self._kind

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The value's tensors: itself, or those of a tuple."""
        values = self.value if isinstance(self.value, (tuple, list)) else (self.value,)
        return tuple(value for value in values if isinstance(value, Tensor))


@dataclass(slots=True)
class Replay:
    """The results of a graph for some inputs, with every intermediate result in order."""

    done: list[Done] = field(default_factory=list)
    outputs: tuple[Any, ...] = ()  # of the graph: `Done`, or numbers

    def output(self, position: int) -> Done | None:
        """An output of the graph; None if it is a number."""
        found = self.outputs[position]
        return found if isinstance(found, Done) else None


def replay(graph: fx.Graph, inputs: Sequence[Any]) -> Replay:
    """Run a graph node by node, and return every result; of a branch, only the chosen side runs.

    Args:
        inputs: the values of the graph's placeholders, in order.
    """
    made = Replay()
    placeholders = (node for node in graph.nodes if node.op == "placeholder")
    given = [Done(node, value) for node, value in zip(placeholders, inputs, strict=True)]
    made.done += given
    made.outputs = tuple(_run(graph, iter(given), made.done))
    return made


def _run(graph: fx.Graph, given: Iterator[Any], done: list[Done]) -> Any:
    """Run a graph; returns its output with a `Done` in place of each node, and appends each operation to `done`."""
    results: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            results[node] = next(given)
        elif node.op == "output":
            return fx.node.map_arg(node.args[0], results.__getitem__)
        elif "sides" in node.meta:
            results[node] = _choose(node, results, done)
        else:
            operands = {operand: results[operand] for operand in node.all_input_nodes}
            results[node] = Done(node, call(node, {key: plain(value) for key, value in operands.items()}), operands)
            done.append(results[node])
    raise AssertionError("a graph without an output")


def _choose(node: fx.Node, results: dict[fx.Node, Any], done: list[Done]) -> Any:
    """The result of a branch: that of the chosen side."""
    condition, *captured = (fx.node.map_arg(argument, results.__getitem__) for argument in node.args)
    chosen, otherwise, count = node.meta["sides"]
    if plain(condition):
        found = _run(chosen, iter(captured[:count]), done)
    else:
        found = _run(otherwise, iter(captured[count:]), done)
    if isinstance(found, Done):
        return found
    parts = found if isinstance(found, (tuple, list)) else ()
    made = Done(node, plain(found), {part.node: part for part in parts if isinstance(part, Done)})
    done.append(made)
    return made


def plain(value: Any) -> Any:
    """A value with each `Done` replaced by its result."""
    if isinstance(value, Done):
        return value.value
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return value


def call(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """Run the operation of a node, and return its result.

    Args:
        values: the values of the nodes in its arguments.
    """
    arguments = fx.node.map_arg(node.args, values.__getitem__)
    named = fx.node.map_arg(node.kwargs, values.__getitem__)
    with as_in_a_run(node):
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **named)
        assert callable(node.target)
        return node.target(*arguments, **named)


def kind_of(value: Any) -> int:
    """The worst kind among the elements of a tensor, a number or a tuple of them: `FINITE`, `INFINITE` or `NAN`."""
    if isinstance(value, Tensor):
        if not (value.is_floating_point() or value.is_complex()) or value.numel() == 0:
            return FINITE
        if bool(torch.isnan(value).any()):
            return NAN
        return INFINITE if bool(torch.isinf(value).any()) else FINITE
    if isinstance(value, float):
        return NAN if math.isnan(value) else INFINITE if math.isinf(value) else FINITE
    if isinstance(value, (tuple, list)):
        return max(map(kind_of, value), default=FINITE)
    return FINITE
