"""Numbers in expressions that differ between lanes: the literals of graphs that are otherwise equal become inputs."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from torch import fx

from runner.engine.lanes.operations.tensor import number_of
from runner.language.graph.codegen import compile_nodes
from runner.language.graph.computation import Computation
from runner.plan import Plan

_SIDES: Mapping[Any, tuple[int, ...]] = {operator.add: (0, 1), operator.sub: (0, 1), operator.mul: (0, 1)} | {
    operator.truediv: (1,)  # torch divides a number by a tensor in another way
}
"""Operators with a tensor, and the operands that may be a number of each lane."""

LARGEST = 1 << 53
"""The largest integer up to which each has its own float64."""

_NUMBER = object()
"""Stands for a number in the description of a graph."""


@dataclass(slots=True)
class Literals:
    """The numbers in the expressions of plans that are otherwise equal.

    Args:
        plan: one of them.
    """

    plan: Plan
    _graphs: list[Any] = field(init=False)
    _values: list[list[float]] = field(init=False)  # of each plan, in the order of the graphs

    def __post_init__(self) -> None:
        self._graphs, _ = _described(self.plan)
        self._values = []

    def add(self, plan: Plan) -> bool:
        """Add the numbers of a plan; returns whether its graphs are otherwise equal."""
        graphs, values = _described(plan)
        if graphs != self._graphs:
            return False
        self._values.append(values)
        return True

    def inputs(self) -> tuple[Plan, Mapping[str, Sequence[float]]]:
        """The plan with the numbers that differ as inputs, and these inputs: a number of each added plan by name."""
        columns = list(zip(*self._values, strict=True))
        names = {
            place: f"number {place}" for place, column in enumerate(columns) if len({repr(each) for each in column}) > 1
        }
        example = number_of(1.0, self.plan.dtype) if self.plan.config.engine == "xla" else 1.0
        numbered = _numbered(self.plan, names, example)
        return numbered, {name: columns[place] for place, name in names.items()}


def _described(plan: Plan) -> tuple[list[Any], list[float]]:
    """The graphs of a plan without their numbers, and the numbers."""
    graphs: list[Any] = []
    values: list[float] = []
    for computation in _computations(plan.program):
        places = {node: place for place, node in enumerate(computation.nodes)}
        for node in computation.nodes:
            numbers = _places(node)
            found: list[Any] = [node.args[side] for side in numbers]
            values += map(float, found)
            args = [_NUMBER if side in numbers else _plain(each, places) for side, each in enumerate(node.args)]
            graphs.append((node.op, node.target, args, _plain(dict(node.kwargs), places), "sides" in node.meta))
        graphs.append((computation.inputs, computation.outputs, _plain(computation.results, places)))
    return graphs, values


def _places(node: fx.Node) -> list[int]:
    """The operands of a node that may be a number of each lane."""
    if len(node.args) != 2 or "sides" in node.meta:
        return []
    return [
        side
        for side in _SIDES.get(node.target, ())
        if isinstance(node.args[1 - side], fx.Node)
        and isinstance(number := node.args[side], int | float)
        and not isinstance(number, bool)
        and abs(number) <= LARGEST
    ]


def _plain(value: Any, places: Mapping[fx.Node, int]) -> Any:
    """A value of a graph that compares equal with that of an equal graph."""
    if isinstance(value, fx.Node):
        return ("node", places.get(value))
    if isinstance(value, list | tuple):
        return [type(value).__name__, *[_plain(each, places) for each in value]]
    if isinstance(value, dict):
        return {key: _plain(each, places) for key, each in value.items()}
    if isinstance(value, slice):
        return ("slice", _plain((value.start, value.stop, value.step), places))
    return repr(value) if isinstance(value, int | float | complex) else value


def _computations(value: Any) -> Iterator[Computation]:
    """Every computation of a value, in a fixed order."""
    if isinstance(value, Computation):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _computations(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _computations(getattr(value, each.name))


def _numbered(plan: Plan, names: Mapping[int, str], example: Any) -> Plan:
    count = 0

    def made(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Computation):
            own: dict[tuple[fx.Node, int], str] = {}
            for node in value.nodes:
                for side in _places(node):
                    if count in names:
                        own[node, side] = names[count]
                    count += 1
            return _with_inputs(value, own, example) if own else value
        if isinstance(value, list | tuple):
            return type(value)([made(each) for each in value])
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{each.name: made(getattr(value, each.name)) for each in fields(value)})
        return value

    return replace(plan, program=made(plan.program))


def _with_inputs(computation: Computation, own: Mapping[tuple[fx.Node, int], str], example: Any) -> Computation:
    """A computation some of whose numbers are inputs."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    given: dict[str, fx.Node] = {}

    def add(node: fx.Node) -> None:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
        copies[node].meta = node.meta

    waiting = [node for node in computation.nodes if node.op != "placeholder"]
    for node in computation.nodes:
        if node.op == "placeholder":
            add(node)
    for name in own.values():
        given[name] = graph.placeholder(name.replace(" ", "_"))
        given[name].meta = {"input": name, "example": example}
    for node in waiting:
        add(node)
        args = list(copies[node].args)
        for (owner, side), name in own.items():
            if owner is node:
                args[side] = given[name]
        copies[node].args = tuple(args)
    results = fx.node.map_arg(computation.results, lambda node: copies[node])
    nodes = tuple(graph.nodes)
    return replace(
        computation,
        function=compile_nodes(nodes, results, computation.origin),
        inputs=tuple(node.meta["input"] for node in nodes if node.op == "placeholder"),
        nodes=nodes,
        results=results,
    )
