"""The rules of layers: convolutions, pooling, normalisation, attention, embeddings."""

from __future__ import annotations

from torch import fx

from runner.language.pooling.rules import (
    Constant,
    Rows,
    Rule,
    State,
    States,
    argument_of,
    broadcast,
    only_operand,
    operands_of,
    shape_of,
    single_operand,
)


def batched(rank: int) -> Rule:
    """The rule of an operation that treats each entry of dimension 0 separately, for an operand of this rank."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = single_operand(states, node)
        return Rows(0) if found is not None and found[1] == 0 and len(found[2]) == rank else None

    return rule


def at_least(rank: int) -> Rule:
    """The rule of an operation that mixes the last `rank` dimensions, and treats each leading entry separately."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = single_operand(states, node)
        return Rows(found[1]) if found is not None and found[1] < len(found[2]) - rank else None

    return rule


def each_matrix(states: States, node: fx.Node) -> State | None:
    """The rule of an operation on the matrices in the last two dimensions of its only operand."""
    found = only_operand(states, node)
    return Rows(found[1]) if found is not None and found[1] < len(found[2]) - 2 else None


def attention(states: States, node: fx.Node) -> State | None:
    right = broadcast(states, node.all_input_nodes[:3])
    return Rows(len(shape_of(node)) + right) if right is not None and right <= -3 else None


def layer_norm(states: States, node: fx.Node) -> State | None:
    found, shape = single_operand(states, node), argument_of(node, 1, "normalized_shape")
    if found is None:
        return None
    rank = len(shape) if isinstance(shape, (tuple, list)) else 1
    return Rows(found[1]) if found[1] < len(found[2]) - rank else None


def batch_norm(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    evaluates = argument_of(node, 5, "training", False) is False
    return Rows(0) if found is not None and found[1] == 0 and evaluates else None


def separate(states: States, node: fx.Node) -> State | None:
    """The rule of an operation that treats each entry of its first operand separately, whatever its others are."""
    found = single_operand(states, node)
    return None if found is None else Rows(found[1])


def in_first(states: States, node: fx.Node) -> State | None:
    """The rule of an operation that treats dimension 0 as the batch, for operands of at least two dimensions."""
    found = single_operand(states, node)
    return Rows(0) if found is not None and found[1] == 0 and len(found[2]) > 1 else None


def instance_norm(states: States, node: fx.Node) -> State | None:
    found = in_first(states, node)
    return found if argument_of(node, 5, "use_input_stats", True) is True else None


def prelu(states: States, node: fx.Node) -> State | None:
    """The rule of `prelu`, with a weight for all or one for each channel in dimension 1."""
    found, weight = single_operand(states, node), argument_of(node, 1, "weight")
    if found is None or not isinstance(weight, fx.Node):
        return None
    shared = all(size == 1 for size in shape_of(weight))
    return Rows(found[1]) if shared or found[1] != 1 else None


def sampled(states: States, node: fx.Node) -> State | None:
    """The rule of `grid_sample`, with a grid for each image."""
    operands = operands_of(node, "input", "grid")
    return Rows(0) if operands and all(states.of(operand) == Rows(0) for operand in operands) else None


def pad(states: States, node: fx.Node) -> State | None:
    """The rule of `pad`, which pads as many of the last dimensions as it is given pairs."""
    found, pairs = single_operand(states, node), argument_of(node, 1, "pad")
    if found is None or not isinstance(pairs, (tuple, list)):
        return None
    return Rows(found[1]) if found[1] < len(found[2]) - len(pairs) // 2 else None


def solve(states: States, node: fx.Node) -> State | None:
    """The rule of `linalg.solve` of batches of matrices."""
    operands = operands_of(node, "A", "B")
    if operands is None or any(len(shape_of(operand)) != 3 for operand in operands):
        return None
    dims = {states.of(operand) for operand in operands if not isinstance(states.of(operand), Constant)}
    constants = [operand for operand in operands if isinstance(states.of(operand), Constant)]
    return Rows(0) if dims == {Rows(0)} and all(shape_of(operand)[0] == 1 for operand in constants) else None
