"""The values of expressions during lowering.

Python numbers, strings, tuples and lists are *fixed*. An `fx.Node` is computed by the graph; its `meta["example"]` is
its value on the example tensors. A node whose example is a number is a *running* scalar.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from runner.catalogue import Operation
from runner.language.dtypes import dtype_name
from runner.language.inference.runtime import number_as, power
from runner.language.lowering.scope import Scope
from runner.language.text.arithmetic import COMPARE

MAX_DISPLAY = 10_000  # elements of a list or tuple
MAX_NESTED = 32  # lists within lists
MAX_SIZE = 1_000_000  # values in a list or tuple, nested ones included; more than any expression can visit


TENSOR_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
TENSOR_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}

ELEMENTWISE = frozenset((power, *TENSOR_BINARY.values(), *TENSOR_UNARY.values(), *COMPARE.values()))
"""Operations whose result shape does not depend on the values of numbers."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """An element of a 1-d constant: a scalar, but a tensor if an operation needs one."""

    name: str
    index: Any  # an int, or a running scalar's node
    element: Any  # the number, or None for a running index
    node: ast.AST  # its place


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Scalar arithmetic with an element of a 1-d constant: a scalar, but a tensor if an operation takes no number."""

    number: Any  # the number, or a running scalar's node
    operands: tuple[Any, ...]
    compute: Callable[[Any, Sequence[Any]], Any]  # (lowering, operands) -> the same of tensors
    node: ast.AST  # its place


Element = Lookup | Arithmetic


def example_of(value: Any) -> Any:
    """Returns `value` with every node replaced by its example."""
    return fx.node.map_arg(value, lambda node: node.meta["example"])


def widest(*kinds: type) -> type[int] | type[float]:
    """Returns the type of number that represents numbers of all these types: bool, int or float."""
    return max(kinds, key=(bool, int, float).index)


def worst_of(value: Any) -> Any:
    """Like `example_of`, but with -1 for running integers, which may take any value."""
    return fx.node.map_arg(value, lambda node: -1 if type(node.meta["example"]) is int else node.meta["example"])


def extent(value: Any) -> tuple[int, int]:
    """Returns how many values a tuple or list contains, itself included (at most `MAX_SIZE`), and its nesting depth."""
    count, deepest, pending = 0, 0, [(value, 0)]
    while pending and count < MAX_SIZE:
        item, depth = pending.pop()
        count += 1
        if isinstance(item, (tuple, list)):
            deepest = max(deepest, depth + 1)
            pending.extend((inner, depth + 1) for inner in item)
    return count, deepest


def nodes_of(value: Any) -> list[fx.Node]:
    """Returns every node in a value, also inside tuples and lists."""
    found: list[fx.Node] = []
    fx.node.map_arg(value, lambda node: found.append(node) or node)  # type: ignore[func-returns-value]
    return found


def is_mask(node: fx.Node) -> bool:
    """Whether indexing with `node` results in a data-dependent shape."""
    example = node.meta["example"]
    return isinstance(example, Tensor) and example.dtype in (torch.bool, torch.uint8)


def differ(left: Any, right: Any) -> bool:
    """Whether two values are tensors of different shapes."""
    one, other = example_of(left), example_of(right)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape != other.shape


def describe(value: Any) -> str:
    """Returns a description of a value for a message."""
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor):
        return f"a tensor of shape {tuple(example.shape)}, {dtype_name(example.dtype)}"
    if isinstance(example, bool):
        return "a boolean"
    if isinstance(example, (int, float, complex)):
        return "a number"
    if isinstance(example, str):
        return f"the string {example!r}"
    if isinstance(example, torch.dtype):
        return f"the dtype {dtype_name(example)}"
    if example is None or example is Ellipsis:
        return f"`{'None' if example is None else '...'}`"
    if isinstance(example, (tuple, list)):
        return f"{'a tuple' if isinstance(example, tuple) else 'a list'} of {len(example)} values"
    return f"a {type(example).__name__}"


class Emitting(Protocol):
    """What adds operations to a graph: a `Lowering`."""

    scope: Scope
    made: dict[int, tuple[Element, Any]]

    def plain(self, value: Any) -> Any: ...
    def lift(self, value: Any) -> Any: ...
    def input(self, name: str, example: Any, node: ast.AST | None = None) -> fx.Node: ...
    def emit(self, node: ast.AST | None, kind: str, target: Any, args: tuple[Any, ...]) -> fx.Node: ...


def tensor_of(lowering: Emitting, value: Any) -> Any:
    """Returns an element of a constant, or arithmetic with one, as a tensor; any other value as a plain one.

    Each element becomes a tensor once in a graph.
    """
    if not isinstance(value, Element):
        return lowering.plain(lowering.lift(value))
    if id(value) not in lowering.made:
        lowering.made[id(value)] = value, _made(lowering, lowering.lift(value))
    return lowering.made[id(value)][1]


def _made(lowering: Emitting, value: Element) -> Any:
    if isinstance(value, Lookup) and value.name in lowering.scope.by_element:
        dtype = lowering.scope.tensors[value.name].dtype
        number = lowering.plain(value)
        return lowering.emit(value.node, "call_function", number_as, (number, dtype, lowering.scope.device))
    if isinstance(value, Lookup):
        found = lowering.input(value.name, lowering.scope.tensors[value.name], value.node)
        return lowering.emit(value.node, "call_function", operator.getitem, (found, value.index))
    return value.compute(lowering, [tensor_of(lowering, operand) for operand in value.operands])


def scalar(node: ast.AST, number: Any, operands: Sequence[Any], compute: Callable[[Any, Sequence[Any]], Any]) -> Any:
    """Returns the result of scalar arithmetic, with its way to a tensor if an operand is an element of a constant.

    Args:
        operands: as they were before `plain`.
        compute: the same arithmetic with tensors.
    """
    if any(isinstance(operand, Element) for operand in operands):
        return Arithmetic(number, tuple(operands), compute, node)
    return number


def handed_on(lowering: Emitting, node: ast.AST, value: Any) -> Any:
    """Returns a value of `lowering` for another text, which computes it with the places of its own."""
    number = lowering.plain(value)
    if not isinstance(value, Element):
        return number
    return Arithmetic(number, (), lambda other, _: other.lift(tensor_of(lowering, value)), node)


def operand(lowering: Emitting, operation: Operation, key: int | str, value: Any) -> Any:
    """Returns a value as an argument: an element of a constant becomes a tensor if the operation takes one.

    Arithmetic with an element does if the operation takes no number.
    """
    if isinstance(value, (tuple, list)):
        return type(value)(operand(lowering, operation, key, item) for item in value)
    if not isinstance(value, Element):
        return value
    taken = []
    for overload in operation.overloads:
        if isinstance(key, int):
            arguments = list(overload[key : key + 1]) or [argument for argument in overload if argument.variadic]
        else:
            arguments = [argument for argument in overload if argument.name == key]
        taken += [argument.type.startswith("Tensor") or not argument.type for argument in arguments]
    is_tensor = any(taken) if isinstance(value, Lookup) else all(taken)
    return tensor_of(lowering, value) if is_tensor else lowering.plain(value)
