"""The part of a lowered expression that computes some of its values, as one function."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from runner.language.graph.codegen import compile_nodes
from runner.language.graph.lowered import Lowered
from runner.language.inference.autocast import KEY
from runner.language.inference.runtime import gradient


@dataclass(frozen=True, slots=True)
class Output:
    """One value of a computation."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...] | None  # None: depends on data
    aliases: bool  # may share memory with an input, so a later write to that may change it
    scalar: bool  # a Python number, not a tensor


@dataclass(frozen=True, slots=True)
class Computation:
    """Computes some values of an expression: `function(None, *inputs)` returns a tuple aligned with `outputs`."""

    function: Callable[..., tuple[Any, ...]]
    inputs: tuple[str, ...]  # names: tensors, "x1.grad", "iteration"
    outputs: tuple[Output, ...]
    random: bool  # draws random numbers
    gradients: bool  # contains `grad(y, x)`, so it needs autograd even if no gradient is requested
    nodes: tuple[fx.Node, ...]  # of the expression, in execution order
    results: tuple[Any, ...]  # the value of each output: a node, a number, or a tuple of them
    origin: Hashable | None = None  # of its places, if not the caller's text

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.outputs)

    @property
    def graph(self) -> fx.Graph:
        """The computation as a new graph."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            copies[node] = graph.node_copy(node, lambda old: copies[old])
            copies[node].meta = node.meta
        graph.output(fx.node.map_arg(self.results, lambda node: copies[node]))
        return graph


def loggable(value: Any) -> bool:
    """Whether a step computes a named value: it is a tensor or a running scalar."""
    return isinstance(value, fx.Node) and isinstance(value.meta["example"], (Tensor, bool, int, float))


def computed_with(lowered: Lowered, wanted: Iterable[str]) -> list[str]:
    """Returns `wanted` and the named values that they depend on, in text order."""
    needed = _ancestors([lowered[name] for name in wanted])
    return [name for name, value in lowered.values.items() if loggable(value) and value in needed]


def inputs_of(lowered: Lowered, wanted: Iterable[str]) -> list[str]:
    """Returns the names of the inputs that `wanted` depend on."""
    needed = _ancestors([lowered[name] for name in wanted])
    return [node.meta["input"] for node in lowered.graph.nodes if node.op == "placeholder" and node in needed]


def undefined_at_times(lowered: Lowered) -> frozenset[str]:
    """Returns the metrics that may have no value: those with `over`, and those that call a function of steprun."""
    found = {name for name in lowered.metrics if f"{name}.over" in lowered.parts}
    for name, value in lowered.metrics.items():
        if any(node.meta.get("measure") for node in _ancestors([value])):
            found.add(name)
    return frozenset(found)


def differentiable_inputs(lowered: Lowered, wanted: str) -> list[str]:
    """Returns the inputs that gradients of `wanted` reach: none flow through `detach`, integers or booleans."""
    needed = _ancestors([lowered[wanted]], stop=_has_no_derivative)
    return [node.meta["input"] for node in lowered.graph.nodes if node.op == "placeholder" and node in needed]


def _has_no_derivative(node: fx.Node) -> bool:
    if node.target in ("detach", torch.detach) or node.meta.get("measure"):
        return True
    example = node.meta["example"]
    if isinstance(example, Tensor):
        return not (example.is_floating_point() or example.is_complex())
    return isinstance(example, (bool, int, float))


def extract(
    lowered: Lowered, wanted: Iterable[str], origin: Hashable | None = None, *, first: str | None = None
) -> Computation:
    """Extracts the computation of the named values and metrics `wanted`, and nothing else.

    Args:
        origin: the text of the config that its places belong to, if not the caller's.
        first: the value to compute before the others, so that they do not change its random numbers.
    """
    names = list(wanted)
    return extract_values(lowered, names, [lowered[name] for name in names], origin, first=first)


def extract_values(
    lowered: Lowered,
    names: Sequence[str],
    values: Sequence[Any],
    origin: Hashable | None = None,
    *,
    first: str | None = None,
) -> Computation:
    """Like `extract`, for any values of the graph: nodes, numbers, or tuples of them, with the given names."""
    values = tuple(values)
    needed = _ancestors(values)
    early = needed if first is None else _ancestors([lowered[first]])
    ordered = [node for node in lowered.graph.nodes if node in needed]
    ordered.sort(key=lambda node: (node.op != "placeholder", node not in early))
    inputs = [node for node in ordered if node.op == "placeholder"]
    return Computation(
        function=compile_nodes(ordered, values, origin),
        inputs=tuple(node.meta["input"] for node in inputs),
        outputs=tuple(_output(name, value, inputs) for name, value in zip(names, values, strict=True)),
        random=any(node.meta.get("random") for node in ordered),
        gradients=any(node.meta.get("gradients") or node.target is gradient for node in ordered),
        nodes=tuple(ordered),
        results=values,
        origin=origin,
    )


def given(name: str, example: Any, graph: fx.Graph, *, varies: bool) -> Computation:
    """Returns the computation of one input alone, which becomes a new placeholder of `graph`.

    Args:
        varies: whether its shape may differ from that of its example.
    """
    node = graph.placeholder(f"v_{name.replace('.', '_')}")
    node.meta = {"example": example, "input": name, "dynamic": varies}
    output = _output("value", node, [node])
    return Computation(compile_nodes([node], (node,)), (name,), (output,), False, False, (node,), (node,))


def computed_from(parts: Mapping[fx.Node, str], names: Sequence[str], values: Sequence[fx.Node]) -> Computation:
    """Returns the computation of values from some intermediate nodes, which become its inputs with the given names."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copied(node: fx.Node) -> fx.Node:
        pending = [node]
        while pending:
            last = pending[-1]
            waiting = [] if last in parts else [operand for operand in last.all_input_nodes if operand not in copies]
            if last not in copies and not waiting:
                copies[last] = _copy(last)
            pending = [*pending, *waiting] if waiting else pending[:-1]
        return copies[node]

    def _copy(node: fx.Node) -> fx.Node:
        if node in parts:
            made = graph.placeholder(f"part_{len(copies)}")
            made.meta = {**node.meta, "input": parts[node]}
        else:
            made = graph.node_copy(node, lambda operand: copies[operand])
            made.meta = node.meta
        return made

    results = tuple(copied(node) for node in values)
    ordered = sorted(graph.nodes, key=lambda node: (node.op != "placeholder", KEY not in node.meta))
    inputs = [node for node in ordered if node.op == "placeholder"]
    return Computation(
        function=compile_nodes(ordered, results),
        inputs=tuple(node.meta["input"] for node in inputs),
        outputs=tuple(_output(name, node, inputs) for name, node in zip(names, results, strict=True)),
        random=False,
        gradients=any(node.meta.get("gradients") or node.target is gradient for node in ordered),
        nodes=tuple(ordered),
        results=results,
    )


def forget_examples(lowered: Lowered) -> None:
    """Frees the memory of all example tensors. Their shapes and dtypes stay."""
    _forget(lowered.graph)


def _forget(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if "example" in node.meta:
            node.meta["example"] = _without_memory(node.meta["example"])
        for side in node.meta.get("sides", ())[:2]:
            _forget(side)


def _without_memory(example: Any) -> Any:
    if isinstance(example, Tensor):
        return torch.empty(example.shape, dtype=example.dtype, device="meta")
    if isinstance(example, (tuple, list)):
        return tuple(_without_memory(item) for item in example)
    return example


def _ancestors(values: Iterable[Any], stop: Callable[[fx.Node], bool] = lambda node: False) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    pending: list[fx.Node] = []
    for value in values:
        fx.node.map_arg(value, pending.append)
    while pending:
        node = pending.pop()
        if node not in needed and not stop(node):
            needed.add(node)
            pending.extend(node.all_input_nodes)
    return needed


def _output(name: str, value: Any, inputs: list[fx.Node]) -> Output:
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor):
        shape = None if value.meta.get("dynamic") else tuple(example.shape)
        storages = {
            node.meta["example"].untyped_storage()._cdata for node in inputs if isinstance(node.meta["example"], Tensor)
        }
        aliases = example.untyped_storage()._cdata in storages or bool(value.meta.get("branch"))
        return Output(name, example.dtype, shape, aliases, False)
    return Output(name, scalar_dtype(example), (), False, True)


def scalar_dtype(number: object) -> torch.dtype:
    """Returns the dtype in which a Python number is logged."""
    return {bool: torch.bool, int: torch.int64}.get(type(number), torch.float64)
