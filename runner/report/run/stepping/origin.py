"""Finds the operation that the first number that is not finite comes from, in a row that was computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from runner.report.run.replayed import Replayed
from runner.report.run.stepping.graph import Node

ORIGIN, CAUSE = "origin", "cause"

Texts = Sequence[tuple[Any, Tensor | None]]
"""The value and the gradient of each node of a graph."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where numbers stop being finite."""

    place: int  # the node whose value, or whose derivative, is the first that is not finite
    causes: tuple[int, ...]  # the operations and weights that it is computed from
    chain: tuple[int, ...]  # the nodes from there to the objective, along values that are not finite

    def marks(self) -> dict[str, str]:
        """The class of each node that the graph marks, by its place."""
        return {str(self.place): ORIGIN, **{str(place): CAUSE for place in self.causes}}


def origin_of(nodes: Sequence[Node], flow: Texts) -> Origin | None:
    """The origin in one row; None if all of its numbers are finite, or an input is not."""
    broken = [_broken(value) for value, _ in flow]
    for place, node in enumerate(nodes):
        if broken[place]:
            if not node.sources:
                return None
            return Origin(place, node.sources, tuple(_chain(nodes, broken, place)))
    gradients = [_broken(gradient) for _, gradient in flow]
    for place in reversed(range(len(nodes))):
        if gradients[place]:
            users = [user for user in range(place + 1, len(nodes)) if place in nodes[user].sources]
            return Origin(users[0], nodes[users[0]].sources, ()) if users else None
    return None


def _chain(nodes: Sequence[Node], broken: Sequence[bool], start: int) -> list[int]:
    found = [start]
    for place in range(start + 1, len(nodes)):
        if broken[place] and found[-1] in nodes[place].sources:
            found.append(place)
    return found


def _broken(value: Any) -> bool:
    if not isinstance(value, Tensor):
        return False
    return (value.is_floating_point() or value.is_complex()) and not bool(value.isfinite().all())


def flow_of(
    nodes: Sequence[Node], end: Any, objective: str, found: Replayed | None
) -> list[tuple[Any, Tensor | None]] | None:
    """The value and the gradient of each node in one row; None if the row computes another objective, or none.

    A batch of another length has a graph of its own; its nodes are paired with these from the objective backwards.

    Args:
        end: the node of the objective.
    """
    if found is None or objective != found.objective:
        return None
    own = {id(node.meta): pair for node, pair in found.flow.items()}
    pairs = _paired(nodes, end, found.computation.results[found.computation.names.index(objective)])
    return [own.get(id(pairs.get(place, node.node).meta), (None, None)) for place, node in enumerate(nodes)]


def _paired(nodes: Sequence[Node], end: Any, other: Any) -> dict[int, fx.Node]:
    """For each node, by its place, the one that computes the same in another graph."""
    places = {node.node: place for place, node in enumerate(nodes)}
    found: dict[int, fx.Node] = {}
    left = [(end, other)] if isinstance(end, fx.Node) and isinstance(other, fx.Node) else []
    while left:
        one, its = left.pop()
        same = one.op == its.op and len(one.all_input_nodes) == len(its.all_input_nodes)
        if one in places and places[one] not in found and same:
            found[places[one]] = its
            left += zip(one.all_input_nodes, its.all_input_nodes, strict=True)
    return found
