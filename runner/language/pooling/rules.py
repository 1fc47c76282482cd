"""The states of nodes, and rules for operations on values with an entry for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, fx

Pool = Literal["mean", "sum", "max", "min", "weighted", "rows", "same", "last"]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a mean over class indices: the class weights of the targets that are not ignored."""

    target: fx.Node
    weight: fx.Node | None
    ignore_index: int


@dataclass(frozen=True, slots=True)
class Constant:
    """The value depends on no batch."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The value has one or more entries for each sample along one dimension, each computed from that sample alone."""

    dim: int


@dataclass(frozen=True, slots=True)
class Term:
    """The value over several batches is the mean (by length), sum, extreme or weighted mean of the batches' values."""

    pool: Pool
    weights: Weights | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """The value is computed from terms and constants alone."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """The value mixes samples, and cannot be computed exactly from the values of batches."""

    node: fx.Node  # the first node that mixes samples


State = Constant | Rows | Term | Derived | Mixed

CONSTANT, DERIVED = Constant(), Derived()
LINEAR: frozenset[Pool] = frozenset({"mean", "sum", "weighted"})


class States(Protocol):
    """The states of the preceding nodes."""

    def of(self, value: Any) -> State:
        """Returns the state of a node; a number is constant."""
        ...


Rule = Callable[[States, fx.Node], State | None]
"""Returns the state of a node with a `Rows` operand; None if the node mixes samples."""


def broadcast(states: States, operands: Iterable[Any]) -> int | None:
    """Returns the sample dimension, from the right, of an element-wise result; None if the operands disagree on it."""
    rights: set[int] = set()
    sizes: dict[int, set[int]] = {}
    nodes = [operand for operand in operands if isinstance(operand, fx.Node) and is_tensor(operand)]
    for operand in nodes:
        state, shape = states.of(operand), shape_of(operand)
        if isinstance(state, Rows):
            rights.add(state.dim - len(shape))
            sizes.setdefault(state.dim - len(shape), set()).add(shape[state.dim])
    if len(rights) != 1:
        return None
    right = rights.pop()
    if len(sizes[right]) != 1:
        return None
    for operand in nodes:
        shape = shape_of(operand)
        if isinstance(states.of(operand), Constant) and len(shape) >= -right and shape[right] != 1:
            return None
    return right


def operation(node: fx.Node) -> str:
    """Returns the name of an operation for a message."""
    symbol = _SYMBOLS.get(name_of(node))
    return symbol if symbol is not None else name_of(node).strip("_")


_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "power": "**",
    "matmul": "@",
    "getitem": "[…]",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "gradient": "grad",
    "choose": "if",
    "input": "batch column",
}


def name_of(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "input"
    if node.target is getattr:
        return f".{node.args[1]}"
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta["example"], Tensor)


def shape_of(node: Any) -> tuple[int, ...]:
    """Returns the shape of a node, of the first of several results; `()` for a number."""
    example = node.meta["example"] if isinstance(node, fx.Node) else None
    if isinstance(example, (tuple, list)) and example and isinstance(example[0], Tensor):
        example = example[0]
    return tuple(example.shape) if isinstance(example, Tensor) else ()


def differ(node: fx.Node, twin: fx.Node) -> bool:
    return _literals(node) != _literals(twin)


def _literals(node: fx.Node) -> str:
    return repr(fx.node.map_arg((node.args, node.kwargs), lambda operand: None))


def keeps_fractions(node: fx.Node) -> bool:
    """Whether an operation keeps the fractional part of a mean: it does not convert to integers."""
    before, after = node.all_input_nodes[0].meta["example"], node.meta["example"]
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return True
    return after.dtype.is_floating_point or after.dtype.is_complex or after.dtype == before.dtype


def argument_of(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def operands_of(node: fx.Node, *names: str) -> list[Any] | None:
    """Returns the first arguments, by position or by name; None if one is missing.

    Args:
        names: for each argument its names in the functions that have a rule, separated by blanks.
    """
    found = list(node.args[: len(names)])
    for alternatives in names[len(found) :]:
        given = [node.kwargs[name] for name in alternatives.split() if name in node.kwargs]
        if not given:
            return None
        found.append(given[0])
    return found


def elementwise(states: States, node: fx.Node) -> State | None:
    right = broadcast(states, node.all_input_nodes)
    return None if right is None else Rows(len(shape_of(node)) + right)


def single_operand(states: States, node: fx.Node) -> tuple[fx.Node, int, tuple[int, ...]] | None:
    """Returns the first operand, its sample dimension and its shape, if it is the only operand with samples."""
    operand = argument_of(node, 0, "input")
    state = states.of(operand)
    if not isinstance(state, Rows) or not is_tensor(operand):
        return None
    if any(isinstance(states.of(other), Rows) for other in node.all_input_nodes if other is not operand):
        return None
    return operand, state.dim, shape_of(operand)


def only_operand(states: States, node: fx.Node) -> tuple[fx.Node, int, tuple[int, ...]] | None:
    """Returns what `single_operand` does, if no other operand has a dimension either."""
    others = node.all_input_nodes
    found = single_operand(states, node)
    return None if found is None or any(shape_of(other) for other in others if other is not found[0]) else found


def dims_of(value: Any, rank: int) -> list[int] | None:
    if value is None:
        return list(range(rank))
    values = value if isinstance(value, (tuple, list)) else [value]
    if not all(type(item) is int for item in values):
        return None
    return [item % rank for item in values] if rank else []


def reduction(
    pool: Pool | None, place: int = 1, *, whole_only: bool = False, default: int | tuple[int, ...] | None = None
) -> Rule:
    """The rule of an operation that reduces the dimensions that it is given, all without one.

    Args:
        pool: how its values over several batches combine. None if they do not.
        place: the position of the argument that names the dimensions.
        whole_only: combine values only if all dimensions are reduced.
        default: the dimensions if none is given.
    """

    def rule(states: States, node: fx.Node) -> State | None:
        found = only_operand(states, node)
        if found is None:
            return None
        _, dim, shape = found
        written = argument_of(node, place, "dim", node.kwargs.get("axis", default))
        if written == () or written == []:
            written = None
        if isinstance(written, (bool, float, torch.dtype)):
            return None
        over = dims_of(written, len(shape))
        if over is None:
            return None
        if dim in over:
            if whole_only and written is not None:
                return None
            return None if pool is None else Term(pool)
        return _left(node, dim, over)

    return rule


def _left(node: fx.Node, dim: int, over: Sequence[int]) -> Rows:
    """Returns the sample dimension after a reduction over other dimensions, with or without `keepdim`."""
    example = node.meta["example"]
    rank = len(shape_of(node))
    operand = argument_of(node, 0, "input")
    kept = isinstance(example, (Tensor, tuple)) and rank == len(shape_of(operand))
    return Rows(dim if kept else dim - sum(other < dim for other in over))


def along(default: int | tuple[int, ...] | None, place: int = 1, key: str = "dim") -> Rule:
    """The rule of an operation that mixes the entries of the dimensions that it is given, and keeps the others."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = only_operand(states, node)
        if found is None:
            return None
        over = dims_of(argument_of(node, place, key, default), len(found[2]))
        return None if over is None or found[1] in over else Rows(found[1])

    return rule


def reshape(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    if found is None:
        return None
    _, dim, before = found
    after = shape_of(node)
    if before == after:
        return Rows(dim)
    if any(length != 1 for length in before[:dim]):
        inner_before, inner_after = before[dim + 1 :], after[len(after) - (len(before) - dim - 1) :]
        lead = before[: dim + 1]
        if inner_before == inner_after and after[: dim + 1] == lead:
            return Rows(dim)
        return Rows(dim) if after[: dim + 1] == lead else None
    start = 0
    while start < len(after) and after[start] == 1 and before[dim] != 1:
        start += 1
    if before[dim] == 1:  # in a batch of one, any reshape may move the dimension
        return None
    return Rows(start) if start < len(after) and after[start] % before[dim] == 0 else None


def moved(states: States, node: fx.Node) -> State | None:
    """The rule of `transpose`, `permute`, `unsqueeze`, `squeeze` and the attributes `T` and `mT`."""
    found = single_operand(states, node)
    if found is None:
        return None
    _, dim, shape = found
    rank, name = len(shape), name_of(node)
    if name in (".T", ".mT", ".H", ".mH", "t", "adjoint"):
        order = list(range(rank))[::-1] if name in (".T", "t") else [*range(rank - 2), rank - 1, rank - 2]
        return Rows(order.index(dim))
    if name in ("transpose", "swapaxes", "swapdims"):
        ends = dims_of([argument_of(node, 1, "dim0"), argument_of(node, 2, "dim1")], rank)
        if ends is None:
            return None
        return Rows(ends[1] if dim == ends[0] else ends[0] if dim == ends[1] else dim)
    if name == "permute":
        given = node.args[1:] if len(node.args) > 2 else argument_of(node, 1, "dims")
        dims = None if given is None else dims_of(given, rank)
        return None if dims is None else Rows(dims.index(dim))
    if name == "unsqueeze":
        place = argument_of(node, 1, "dim")
        if type(place) is not int:
            return None
        place %= rank + 1
        return Rows(dim + (place <= dim))
    over = dims_of(argument_of(node, 1, "dim"), rank) if name == "squeeze" else None
    if over is None or shape[dim] == 1:
        return None
    return Rows(dim - sum(other < dim and shape[other] == 1 for other in over))


def getitem(states: States, node: fx.Node) -> State | None:
    operand, index = node.args
    state = states.of(operand)
    parts = index if isinstance(index, tuple) else (index,)
    assert isinstance(operand, fx.Node)
    if isinstance(state, Constant):  # a table indexed by each sample
        return states.of(parts[0]) if len(parts) == 1 and isinstance(parts[0], fx.Node) else None
    if not isinstance(state, Rows):
        return None
    explicit = sum(part is not None and part is not Ellipsis for part in parts)
    axis, after = 0, 0
    for part in parts:
        if part is Ellipsis:
            skipped = len(shape_of(operand)) - explicit
            if axis <= state.dim < axis + skipped:
                return Rows(after + state.dim - axis)
            axis, after = axis + skipped, after + skipped
        elif part is None:
            after += 1
        elif isinstance(part, slice):
            if axis == state.dim:
                return Rows(after) if part == slice(None, None, None) else None
            axis, after = axis + 1, after + 1
        elif type(part) is int:
            if axis == state.dim:
                return None
            axis += 1
        else:
            return None
    return Rows(after + state.dim - axis)
