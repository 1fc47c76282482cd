"""Lowers operators and comparisons: to scalar arithmetic if both sides are scalars, else to torch's operators."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from runner.language.inference.guards import guarded_operator
from runner.language.inference.runtime import power
from runner.language.lowering.branches import FOR_TENSORS, condition
from runner.language.lowering.values import (
    MAX_DISPLAY,
    TENSOR_BINARY,
    TENSOR_UNARY,
    describe,
    nodes_of,
    scalar,
    worst_of,
)
from runner.language.text.arithmetic import BINARY, COMPARE, UNARY

if TYPE_CHECKING:
    from runner.language.lowering.context import Lowering

_NAMED: Mapping[Callable[[Any, Any], Any], str] = {operator.floordiv: "floor_divide", operator.mod: "remainder"}
"""Operators that are equivalent to an operation with a guard."""


def binary(lowering: Lowering, node: ast.BinOp) -> Any:
    spine = [node]
    while isinstance(spine[-1].left, ast.BinOp):
        spine.append(spine[-1].left)
    left = lowering.value(spine[-1].left)
    for part in reversed(spine):
        left = combine(lowering, part, [left, lowering.value(part.right)])
    return left


def combine(lowering: Lowering, node: ast.BinOp, operands: Sequence[Any]) -> Any:
    left, right = map(lowering.plain, operands)
    if lowering.is_scalar(left) and lowering.is_scalar(right):
        function = BINARY.get(type(node.op))
        if function is None:
            raise lowering.fault(node, "`@` needs tensors", "multiply numbers with `*`")
        number = lowering.scalar_call(node, function, [left, right])
        return scalar(node, number, operands, lambda inner, given: combine(inner, node, given))
    if isinstance(left, (tuple, list)) or isinstance(right, (tuple, list)):
        return join(lowering, node, left, right)
    refuse_text(lowering, node, left, right)
    target = TENSOR_BINARY[type(node.op)]
    if target is operator.pow and not isinstance(left, fx.Node):
        target = power  # torch.fx would write `-2 ** x`, which Python reads as `-(2 ** x)`
    if target in _NAMED:
        target = guarded_operator(_NAMED[target], target, worst_of(left), worst_of(right)) or target
    return lowering.emit(node, "call_function", target, (left, right))


def join(lowering: Lowering, node: ast.BinOp, left: Any, right: Any) -> Any:
    lowering.walk(node, left)
    lowering.walk(node, right)
    if isinstance(node.op, ast.Add) and type(left) is type(right) and len(left) + len(right) <= MAX_DISPLAY:
        return left + right
    if isinstance(node.op, ast.Mult):
        items, times = (left, right) if isinstance(left, (tuple, list)) else (right, left)
        if isinstance(times, int) and len(items) * times <= MAX_DISPLAY:
            return items * times
    raise lowering.fault(
        node,
        f"`{lowering.shown(node)}` is not available on lists",
        "make a tensor of it: `tensor([…])` or `stack([…])`",
    )


def refuse_text(lowering: Lowering, node: ast.AST, *values: Any) -> None:
    for value in values:
        if isinstance(value, str) or value is None or value is Ellipsis or isinstance(value, torch.dtype):
            raise lowering.fault(
                node, f"`{lowering.shown(node)}` computes with {describe(value)}", "use tensors and numbers"
            )


def unary(lowering: Lowering, node: ast.UnaryOp) -> Any:
    if isinstance(node.op, ast.Not):
        return lowering.scalar_call(node, UNARY[ast.Not], [condition(lowering, node.operand, "not")])
    return signed(lowering, node, [lowering.value(node.operand)])


def signed(lowering: Lowering, node: ast.UnaryOp, operands: Sequence[Any]) -> Any:
    value = lowering.plain(operands[0])
    if lowering.is_scalar(value):
        number = lowering.scalar_call(node, UNARY[type(node.op)], [value])
        return scalar(node, number, operands, lambda inner, given: signed(inner, node, given))
    if isinstance(value, complex) and isinstance(node.op, ast.USub):
        return -value
    refuse_text(lowering, node, value)
    return lowering.emit(node, "call_function", TENSOR_UNARY[type(node.op)], (value,))


def compare(lowering: Lowering, node: ast.Compare) -> Any:
    return compared(lowering, node, [lowering.value(part) for part in (node.left, *node.comparators)])


def compared(lowering: Lowering, node: ast.Compare, operands: Sequence[Any]) -> Any:
    values = [lowering.plain(operand) for operand in operands]
    if len(node.ops) == 1 and not all(lowering.is_scalar(value) for value in values):
        if all(isinstance(value, (str, torch.dtype, tuple, list, type(None))) for value in values):
            if nodes_of(values):
                raise lowering.fault(
                    node,
                    f"`{lowering.shown(node)}` compares lists of computed values",
                    "compare their elements one by one, or tensors made with `stack`",
                )
            return lowering.scalar_call(node, COMPARE[type(node.ops[0])], values)
        refuse_text(lowering, node, *values)
        return lowering.emit(node, "call_function", COMPARE[type(node.ops[0])], tuple(values))
    for value, part in zip(values, (node.left, *node.comparators), strict=True):
        if not lowering.is_scalar(value):
            found = f"`{lowering.shown(part)}` is {describe(value)}"
            raise lowering.fault(
                part, f"{found}; a chain of comparisons takes scalars", f"for tensors write {FOR_TENSORS['chain']}"
            )
    result: Any = True
    for op, left, right in zip(node.ops, values, values[1:], strict=False):
        test = lowering.scalar_call(node, COMPARE[type(op)], [left, right])
        result = test if result is True else lowering.scalar_call(node, operator.and_, [result, test])
    if len(node.ops) == 1:
        return scalar(node, result, operands, lambda inner, given: compared(inner, node, given))
    return result
