"""Branches on a running number, as both sides and a choice between their elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from runner.language.graph.codegen import compile_graph
from runner.language.graph.elements import traceable


def is_choice(node: fx.Node) -> bool:
    """Whether a node is a branch between tensors of one shape, whose sides read tensors only.

    Both sides are computed, so neither may draw random numbers.
    """
    if "sides" not in node.meta or node.meta.get("random") or node.meta.get("dynamic"):
        return False
    values = [node.meta["example"], *(_example(value) for value in node.args[1:])]
    sides: tuple[fx.Graph, ...] = node.meta["sides"][:2]
    return all(isinstance(value, Tensor) for value in values) and all(map(_is_plain, sides))


def both_sides(node: fx.Node) -> Callable[..., Tensor]:
    """The function of a branch that takes its condition as a tensor `()`, and computes both its sides."""
    *sides, count = node.meta["sides"]
    chosen, otherwise = map(compile_graph, sides)

    def choice(condition: Tensor, *captured: Tensor) -> Tensor:
        return torch.where(condition, chosen(None, *captured[:count]), otherwise(None, *captured[count:]))

    return choice


def _is_plain(side: fx.Graph) -> bool:
    """Whether a trace can follow one side: it has no further branch, and reads no index back."""
    nodes = [node for node in side.nodes if node.op != "output"]
    return all("sides" not in node.meta and traceable(node) is node.target for node in nodes)


def _example(value: Any) -> Any:
    return value.meta["example"] if isinstance(value, fx.Node) else value
