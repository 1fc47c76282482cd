"""The graph of an objective: its operations, their shapes, and what flows between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Computation
from runner.language.inference.runtime import gradient
from runner.plan import Plan
from runner.report.run.numbers import nested, shape_text
from runner.text import shortened

MOST_NODES = 120
"""The most operations and inputs of a graph that is drawn."""

_LONGEST = 24
_INPUTS = {"parameter": "weight", "constant": "constant"}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation or input."""

    node: fx.Node
    label: str  # "relu", or the name of an input
    kind: str  # "weight", "constant", "data" or "operation"
    name: str | None  # of its value
    shape: str
    sources: tuple[int, ...]  # the nodes in its arguments

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "kind": self.kind,
            "name": self.name,
            "shape": self.shape,
            "from": list(self.sources),
        }


def nodes_of(plan: Plan, computation: Computation) -> tuple[Node, ...]:
    """The operations and inputs of a computation, in order; one that nothing connects is left out."""
    names = {id(node.meta): name for name, node in plan.lowered.values.items() if isinstance(node, fx.Node)}
    places: dict[fx.Node, int] = {}
    found: list[Node] = []
    for node in computation.nodes:
        places[node] = len(found)
        sources = tuple(places[each] for each in node.all_input_nodes)
        label, kind = _label(plan, node)
        found.append(Node(node, label, kind, names.get(id(node.meta)), _shape(node), sources))
    return tuple(found)


def _label(plan: Plan, node: fx.Node) -> tuple[str, str]:
    if node.op == "placeholder":
        name = str(node.meta["input"])
        tensor = plan.tensors.get(name)
        return name, _INPUTS[tensor.role] if tensor is not None else "data"
    if "sides" in node.meta:
        return "if", "operation"
    target = node.target
    name = "grad" if target is gradient else str(getattr(target, "__name__", target))
    numbers = [nested(argument) for argument in node.args if isinstance(argument, (bool, int, float))]
    if name in _SIGNS:
        first = name in _REVERSED or not isinstance(next(iter(node.args), node), fx.Node)
        words = [*numbers, _SIGNS[name]] if first else [_SIGNS[name], *numbers]  # `1 −` or `− 1`
        written = " ".join(words)
    else:
        written = f"{name}(·, {', '.join(numbers)})" if numbers else name
    return shortened(written, _LONGEST), "operation"


_SIGNS: Mapping[str, str] = {
    **dict.fromkeys(("add", "radd"), "+"),
    **dict.fromkeys(("sub", "rsub"), "−"),
    **dict.fromkeys(("mul", "rmul"), "×"),
    **dict.fromkeys(("truediv", "rtruediv", "div"), "÷"),
    **dict.fromkeys(("pow", "rpow"), "power"),
    "matmul": "@",
}

_REVERSED = frozenset({"rsub", "rtruediv", "rpow"})
"""Operations whose number is on the left."""


def _shape(node: fx.Node) -> str:
    example = node.meta.get("example")
    if isinstance(example, Tensor):
        shape = None if node.meta.get("dynamic") else tuple(example.shape)
        return f"{shape_text(shape)} {dtype_name(example.dtype)}"
    return type(example).__name__
