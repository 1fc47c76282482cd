"""Operations whose derivative is known to differ from finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from runner.compare.gradients.objectives import Objective
from runner.errors import Mark
from runner.faults import place
from runner.language.dtypes import dtype_name
from runner.language.text.faults import LanguageError
from runner.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an operation changes a derivative, and its place in the config."""

    message: str
    mark: Mark | None


def causes(plan: Plan, objective: Objective, parameter: str) -> Iterator[Cause]:
    """Yields a cause for each operation between a parameter and an objective that is known to change the derivative."""
    nodes = objective.computation.graph.nodes
    output = next(node for node in nodes if node.op == "output")
    needed = _reached([output.args[0][objective.computation.names.index(objective.name)]], _inputs)
    inputs = [node for node in nodes if node.op == "placeholder" and node.meta["input"] == parameter]
    between = needed & _reached(inputs, _users)
    for node in nodes:
        message = _cause(node) if node in between and "place" in node.meta else None
        if message is not None:
            error = LanguageError(message, None, node.meta["place"], node.meta.get("origin"))
            yield Cause(message, place(plan.config.document, ("expression",), error).mark)


def _reached(start: list[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    reached: set[fx.Node] = set()
    pending = list(start)
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(following(node))
    return reached


def _inputs(node: fx.Node) -> Iterable[fx.Node]:
    return node.all_input_nodes


def _users(node: fx.Node) -> Iterable[fx.Node]:
    return node.users


def _cause(node: fx.Node) -> str | None:
    if node.target in ("detach", torch.detach):
        return "`detach` cuts the derivative"
    example = node.meta.get("example")
    if isinstance(example, Tensor) and (example.is_floating_point() or example.is_complex()):
        real = example.dtype.to_real()
        if real != torch.float64:
            return f"this is {dtype_name(example.dtype)}, too coarse for finite differences"
    return None
