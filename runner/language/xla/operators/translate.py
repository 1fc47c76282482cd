"""Translates a traced graph: each node becomes a call of its rule."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import Tensor, fx

from runner.language.xla.operators.facts import DTYPES, Facts, Rule, as_array
from runner.language.xla.operators.rewriting import Literals
from runner.language.xla.operators.table import REASONS, REFUSALS, RULES

IGNORED = frozenset(("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "generator"))
"""Arguments that no rule takes: a result has its dtype, and XLA chooses its layout and device."""

NO_RULE = "it has no rule"

Translated = Callable[..., tuple[Any, ...]]
"""Maps the inputs of a graph to its outputs."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A node that cannot be translated, and why."""

    node: fx.Node
    operator: str  # its name in torch, such as `aten.nonzero.default`
    reason: str


class Unsupported(Exception):
    """Nodes of a graph cannot be translated: `missing` lists all of them; `node` and `operator` are the first."""

    def __init__(self, missing: Sequence[Missing]) -> None:
        self.missing = tuple(missing)
        self.node, self.operator = missing[0].node, missing[0].operator
        super().__init__("; ".join(dict.fromkeys(f"{each.operator}: {each.reason}" for each in missing)))


@dataclass(frozen=True, slots=True)
class _Call:
    node: fx.Node
    rule: Rule
    facts: Facts
    arguments: tuple[Any, ...]  # nodes where the values of nodes go


def supported(target: torch._ops.OpOverload) -> bool:
    """Returns whether an operator has a rule. The rule may still refuse some arguments."""
    return str(target) in RULES


def translate(graph: fx.GraphModule) -> Translated:
    """Translates a graph of core ATen operators into a function of JAX arrays.

    Args:
        graph: what `aten_graph(functionalize(...), ..., core_aten_decompositions())` returns. Its shapes and dtypes are
            those of the trace.
    Returns:
        A function from the inputs to the outputs, flat, in the order of the graph. An output that is None stays None.
        It needs `jax_enable_x64`.
    Raises:
        Unsupported: the table lacks a node, or the rule of a node refuses its arguments.
    """
    run = _checked(graph)

    def outputs(*inputs: Any) -> tuple[Any, ...]:
        return run(*inputs)[0]

    return outputs


def translate_checked(
    graph: fx.GraphModule, literals: Literals | None = None
) -> tuple[Callable[..., tuple[tuple[Any, ...], Any]], Sequence[fx.Node]]:
    """Translates a graph as `translate` does, with the checks that torch makes while it computes.

    XLA clamps an index that is out of range, where torch raises an error. So do divisions of integers by zero and
    factorisations of singular matrices.

    Args:
        literals: collects the numbers of the graph.
    Returns:
        A function that returns the outputs and a boolean vector, true where a check failed; and the node of each check.
    """
    run = _checked(graph)
    nodes: list[fx.Node] = []
    with jax.enable_x64(True), (Literals() if literals is None else literals).collected():
        jax.eval_shape(lambda *inputs: run(*inputs, nodes=nodes)[1], *map(_described, _placeholders(graph)))
    return run, tuple(nodes)


def _checked(graph: fx.GraphModule) -> Callable[..., tuple[tuple[Any, ...], Any]]:
    missing: list[Missing] = []
    calls: list[_Call] = []
    constants: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            with jax.enable_x64(True):
                constants[node] = as_array(_attribute(graph, node.target))
        elif node.op == "call_function" and node.target is not operator.getitem:
            call = _call(node)
            if isinstance(call, Missing) and _is_fixed(node):
                with jax.enable_x64(True):
                    constants[node] = as_array(node.target(*node.args, **node.kwargs))
            elif isinstance(call, Missing):
                missing.append(call)
            else:
                calls.append(call)
        elif node.op == "call_function":
            calls.append(_Call(node, _item, Facts((), ()), node.args))
    if missing:
        raise Unsupported(missing)
    placeholders = _placeholders(graph)
    returned = graph.graph.output_node().args[0]
    flat = returned if isinstance(returned, (tuple, list)) else (returned,)

    def run(*inputs: Any, nodes: list[fx.Node] | None = None) -> tuple[tuple[Any, ...], Any]:
        values = constants | dict(zip(placeholders, inputs, strict=True))
        failures: list[Any] = []
        for call in calls:
            facts = Facts(call.facts.results, call.facts.arguments)
            values[call.node] = call.rule(facts, *fx.map_arg(call.arguments, values.__getitem__))
            failures += facts.failures
            if nodes is not None:
                nodes += [call.node] * len(facts.failures)
        failed = jnp.stack(failures) if failures else jnp.zeros(0, bool)
        return tuple(values[each] if isinstance(each, fx.Node) else each for each in flat), failed

    return run


def _call(node: fx.Node) -> _Call | Missing:
    """Returns the call of a node's rule, or why there is none."""
    name = str(node.target)
    if name not in RULES:
        return Missing(node, name, REASONS.get(name, NO_RULE))
    assert isinstance(node.target, torch._ops.OpOverload)
    arguments = tuple(_in_order(node, node.target))
    results = node.meta.get("val")
    flat = tuple(results) if isinstance(results, (tuple, list)) else (results,)
    facts = Facts(
        tuple(value if isinstance(value, Tensor) else None for value in flat),
        fx.map_arg(arguments, lambda each: each.meta["val"]),
    )
    for value in (*flat, *facts.arguments):
        if isinstance(value, Tensor) and value.dtype not in DTYPES:
            return Missing(node, name, f"XLA has no dtype {str(value.dtype).removeprefix('torch.')} here")
    refusal = REFUSALS.get(name)
    reason = refusal(facts) if refusal else None
    return _Call(node, RULES[name], facts, arguments) if reason is None else Missing(node, name, reason)


def _is_fixed(node: fx.Node) -> bool:
    """Whether torch can compute a node once and for all: it reads no tensor, and draws no random numbers."""
    assert isinstance(node.target, torch._ops.OpOverload)
    value = node.meta.get("val")
    if node.all_input_nodes or torch.Tag.nondeterministic_seeded in node.target.tags:
        return False
    return isinstance(value, Tensor) and value.dtype in DTYPES


def _in_order(node: fx.Node, target: torch._ops.OpOverload) -> Iterator[Any]:
    for place, argument in enumerate(target._schema.arguments):
        if argument.name in IGNORED:
            continue
        if place < len(node.args):
            yield node.args[place]
        else:
            yield node.kwargs.get(argument.name, argument.default_value)


def _item(_facts: Facts, values: Any, place: int) -> Any:
    return values[place]


def _placeholders(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def _described(node: fx.Node) -> jax.ShapeDtypeStruct:
    value = node.meta["val"]
    make: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct
    return make(tuple(value.shape), DTYPES[value.dtype])


def _attribute(graph: fx.GraphModule, path: str) -> Any:
    found: Any = graph
    for name in path.split("."):
        found = getattr(found, name)
    return found
