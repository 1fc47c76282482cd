"""The rules of products: matrices, `einsum`, distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from runner.language.pooling.rules import (
    Constant,
    Rows,
    Rule,
    State,
    States,
    Term,
    argument_of,
    broadcast,
    elementwise,
    operands_of,
    shape_of,
    single_operand,
)


def matmul(states: States, node: fx.Node) -> State | None:
    operands = operands_of(node, "input A", "other mat2 vec tensor B")
    return None if operands is None else product(states, node, *operands)


def product(states: States, node: fx.Node, left: Any, right: Any) -> State | None:
    """Returns the state of the matrix product of two of a node's operands."""
    if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)):
        return None
    one, two = states.of(left), states.of(right)
    ranks = len(shape_of(left)), len(shape_of(right))
    rank = len(shape_of(node))
    contracted = isinstance(one, Rows) and one.dim == ranks[0] - 1
    contracted_right = isinstance(two, Rows) and two.dim == max(ranks[1] - 2, 0)
    if isinstance(one, Rows) and isinstance(two, Rows):
        if contracted and contracted_right:
            return Term("sum")
        places = one.dim - ranks[0], two.dim - ranks[1]
        return Rows(rank + places[0]) if places[0] == places[1] <= -3 else None
    if isinstance(one, Rows):
        if contracted:
            return None
        return Rows(one.dim if ranks[1] == 1 else rank + one.dim - ranks[0])
    if not isinstance(two, Rows) or contracted_right:
        return None
    if ranks[0] == 1:
        return Rows(two.dim if two.dim < ranks[1] - 2 else two.dim - 1)
    return Rows(rank + two.dim - ranks[1])


def added_matmul(states: States, node: fx.Node) -> State | None:
    """The rule of `addmm`, `addmv` and `baddbmm`: a product is added to a constant that is the same for each sample."""
    operands = operands_of(node, "input", "mat1 mat batch1", "mat2 vec batch2")
    if operands is None:
        return None
    added, left, right = operands
    found = product(states, node, left, right)
    if not isinstance(found, Rows) or not isinstance(states.of(added), Constant) or not isinstance(added, fx.Node):
        return None
    shape, place = shape_of(added), found.dim - len(shape_of(node))
    return found if len(shape) < -place or shape[place] == 1 else None


def inner(states: States, node: fx.Node) -> State | None:
    """The rule of `inner`: the last dimensions are contracted."""
    operands = operands_of(node, "input", "other")
    if operands is None:
        return None
    left, right = operands
    one, two, rank = states.of(left), states.of(right), len(shape_of(left))
    if isinstance(one, Rows) and isinstance(two, Rows):
        return Term("sum") if one.dim == rank - 1 and two.dim == len(shape_of(right)) - 1 else None
    if isinstance(one, Rows):
        return None if one.dim == rank - 1 else one
    assert isinstance(two, Rows)
    return None if two.dim == len(shape_of(right)) - 1 else Rows(max(rank - 1, 0) + two.dim)


def outer(states: States, node: fx.Node) -> State | None:
    operands = operands_of(node, "input", "vec2")
    rows = [isinstance(states.of(operand), Rows) for operand in operands or ()]
    return Rows(rows.index(True)) if rows.count(True) == 1 else None


def distances(states: States, node: fx.Node) -> State | None:
    """The rule of `cdist` of the samples and fixed points."""
    operands = operands_of(node, "x1", "x2")
    if operands is None or any(len(shape_of(operand)) != 2 for operand in operands):
        return None
    one, two = map(states.of, operands)
    if {type(one), type(two)} != {Rows, Constant}:
        return None
    found, place = (one, 0) if isinstance(one, Rows) else (two, 1)
    return Rows(place) if found == Rows(0) else None


def contracted(default: int | None, place: int) -> Rule:
    """The rule of an operation that broadcasts two operands and reduces one dimension, as `cosine_similarity`."""

    def rule(states: States, node: fx.Node) -> State | None:
        operands = node.all_input_nodes
        right, rank = broadcast(states, operands), max(len(shape_of(operand)) for operand in operands)
        dim = argument_of(node, place, "dim", default)
        if right is None or type(dim) is not int:
            return None
        over, sample = dim % rank - rank, right
        kept = len(shape_of(node)) == rank
        return None if over == sample else Rows(rank + sample - (over < sample and not kept))

    return rule


def cross(states: States, node: fx.Node) -> State | None:
    """The rule of `cross` with a dimension: without one, `torch.cross` takes the first of three entries."""
    dim = argument_of(node, 2, "dim", -1 if node.target is torch.linalg.cross else None)
    found = elementwise(states, node)
    rank = len(shape_of(node))
    return found if isinstance(found, Rows) and type(dim) is int and dim % rank != found.dim else None


def bilinear(states: States, node: fx.Node) -> State | None:
    operands = operands_of(node, "input1", "input2", "weight")
    if operands is None:
        return None
    left, right, weight = operands
    one, two = states.of(left), states.of(right)
    separate = isinstance(one, Rows) and one == two and isinstance(states.of(weight), Constant)
    return one if separate and isinstance(one, Rows) and one.dim < len(shape_of(left)) - 1 else None


def linear(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    return None if found is None or found[1] == len(found[2]) - 1 else Rows(found[1])


def einsum(states: States, node: fx.Node) -> State | None:
    if not node.args:
        return None
    equation, *operands = node.args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, _, output = equation.replace(" ", "").partition("->")
    labels = set()
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        state = states.of(operand)
        if isinstance(state, Rows):
            labels.add(letters[state.dim])
    if len(labels) != 1:
        return None
    (label,) = labels
    for letters, operand in zip(inputs.split(","), operands, strict=True):
        if label in letters and (not isinstance(states.of(operand), Rows) or letters.count(label) > 1):
            return None
    return Rows(output.index(label)) if label in output else Term("sum")
