"""Finds how to compute the values over a whole source from those of its batches, by analysing the expression.

Each node of a graph gets one state. A constant depends on no batch. Rows have an entry for each sample, computed from
that sample alone. A term is a mean, a sum or an extreme over all samples; the terms of several batches combine exactly.
A derived value is computed from terms and constants, so it is computed from the combined terms. Any other operation
mixes samples, and its value cannot be computed exactly from batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from torch import fx

from runner.language.graph.draws import draws
from runner.language.pooling.rules import (
    CONSTANT,
    DERIVED,
    LINEAR,
    Constant,
    Derived,
    Mixed,
    Pool,
    Rows,
    State,
    Term,
    differ,
    keeps_fractions,
    name_of,
    operation,
    shape_of,
)
from runner.language.pooling.table import FACTORIES, RULES, SEPARATE_DRAWS, TAKE_LENGTHS, UNARY_LINEAR

__all__ = ["Constant", "Derived", "Mixed", "Pool", "Pooling", "Rows", "State", "Term", "operation", "twins"]


class Pooling:
    """Computes the states of all nodes of a graph.

    Args:
        nodes: the nodes in execution order.
        columns: the inputs that have an entry for each sample in dimension 0.
        other: maps each node to its twin in the graph for another batch length. Numbers that differ depend on the
            length. None if no number does.
    """

    def __init__(
        self, nodes: Iterable[fx.Node], columns: Iterable[str], other: Mapping[fx.Node, fx.Node] | None = None
    ) -> None:
        self._columns = frozenset(columns)
        self._other = other or {}
        self._states: dict[fx.Node, State] = {}
        for node in nodes:
            self._states[node] = self._state(node)

    def of(self, value: Any) -> State:
        """Returns the state of a node; a number is constant."""
        return self._states[value] if isinstance(value, fx.Node) else CONSTANT

    def parts(self, node: fx.Node) -> list[fx.Node]:
        """Returns the terms that a derived value is computed from."""
        found: dict[fx.Node, None] = {}
        pending, seen = [node], {node}
        while pending:
            for operand in pending.pop().all_input_nodes:
                if operand in seen:
                    continue
                seen.add(operand)
                if isinstance(self.of(operand), Term):
                    found[operand] = None
                elif isinstance(self.of(operand), Derived):
                    pending.append(operand)
        return list(found)

    def _state(self, node: fx.Node) -> State:
        if node.op == "placeholder":
            return Rows(0) if node.meta["input"] in self._columns else CONSTANT
        if "pool" in node.meta:  # the config says how
            return Term(node.meta["pool"])
        states = [self._states[operand] for operand in node.all_input_nodes]
        for state in states:
            if isinstance(state, Mixed):
                return state
        name, length = name_of(node), self.length_scale(node)
        if all(isinstance(state, Constant) for state in states):
            return self._constant(node, name)
        if node.meta.get("dynamic") or (draws(node) and name not in SEPARATE_DRAWS):
            return Mixed(node)
        if not any(isinstance(state, Rows) for state in states):
            return self._of_terms(node, name, states, length)
        if not all(isinstance(state, (Rows, Constant)) for state in states):
            return Mixed(node)
        if length is not None and name not in TAKE_LENGTHS:
            return Mixed(node)
        if self._loses_samples(node):
            return Mixed(node)
        rule = RULES.get(name)
        return Mixed(node) if rule is None else rule(self, node) or Mixed(node)

    def _constant(self, node: fx.Node, name: str) -> State:
        """Returns the state of a node that reads no batch; its length may still depend on the batch length."""
        twin = self._other.get(node)
        if draws(node):
            return Mixed(node) if self._other and shape_of(node) != shape_of(twin) else CONSTANT
        if twin is None or (shape_of(node) == shape_of(twin) and not differ(node, twin)):
            return CONSTANT
        places = [
            place for place, (one, two) in enumerate(zip(shape_of(node), shape_of(twin), strict=False)) if one != two
        ]
        return Rows(places[0]) if name in FACTORIES and len(places) == 1 else Mixed(node)

    def length_scale(self, node: fx.Node) -> bool | None:
        """Returns True if an argument depends on the length of the batch, else None."""
        twin = self._other.get(node)
        return True if twin is not None and differ(node, twin) else None

    def _loses_samples(self, node: fx.Node) -> bool:
        """Whether the result for another batch length has other dimensions, as `squeeze` of a batch of one has."""
        twin = self._other.get(node)
        return twin is not None and len(shape_of(twin)) != len(shape_of(node))

    def _of_terms(self, node: fx.Node, name: str, states: Sequence[State], length: bool | None) -> State:
        terms = [state for state in states if isinstance(state, Term)]
        if length is not None:
            return self._scaled(node, name, terms)
        if name == "gradient":  # the gradient of a mean is the mean of gradients; derived values are detached
            y = self.of(node.args[0])
            return y if len(terms) == 1 and isinstance(y, Term) and y.pool in LINEAR else Mixed(node)
        if len(terms) == len(states) - sum(isinstance(state, Constant) for state in states) and terms:
            first, alike = terms[0], len(set(terms)) == 1
            if name in UNARY_LINEAR and len(terms) == 1 and node.args[:1] == tuple(node.all_input_nodes[:1]):
                if first.pool in LINEAR and keeps_fractions(node):
                    return first
            elif name in ("add", "sub") and not node.kwargs and alike and first.pool in LINEAR:
                if len(terms) == len(node.args) or first.pool != "sum":
                    return first
            elif self._is_kept(node, name, first) and not node.kwargs:
                return first
        return DERIVED

    def _is_kept(self, node: fx.Node, name: str, term: Term) -> bool:
        """Whether the result of an operation on one term and constants combines by the same rule as the term."""
        if sum(isinstance(self.of(operand), Term) for operand in node.args) != 1:
            return False
        if name == "add":
            return term.pool in ("max", "min")
        if name in ("truediv", "div"):
            return term.pool in LINEAR and isinstance(self.of(node.args[1]), Constant)
        return name in ("mul", "matmul") and term.pool in LINEAR

    def _scaled(self, node: fx.Node, name: str, terms: Sequence[Term]) -> State:
        """Returns the state of an operation with the batch length: a sum divided by the length is a mean."""
        if name in ("truediv", "div") and len(terms) == 1 and len(node.args) == 2 and isinstance(node.args[0], fx.Node):
            twin = self._other[node]
            one, two = cast(tuple[object, object], (node.args[1], twin.args[1]))
            lengths = self._lengths()
            if lengths and terms[0].pool == "sum" and isinstance(one, (int, float)) and isinstance(two, (int, float)):
                return Term("mean") if one * lengths[1] == two * lengths[0] else Mixed(node)
        return Mixed(node)

    def _lengths(self) -> tuple[int, int] | None:
        """Returns the length of the batch in this graph and in the other."""
        for node, twin in self._other.items():
            if node.op == "placeholder" and node.meta["input"] in self._columns:
                return shape_of(node)[0], shape_of(twin)[0]
        return None


def twins(nodes: Sequence[fx.Node], others: Sequence[fx.Node]) -> dict[fx.Node, fx.Node] | None:
    """Maps the nodes of one graph to those of another from the same text; None if they do not match."""
    if len(nodes) != len(others):
        return None
    if any(name_of(one) != name_of(two) for one, two in zip(nodes, others, strict=True)):
        return None
    return dict(zip(nodes, others, strict=True))
