"""The rules of operations that choose, repeat, join or rearrange entries."""

from __future__ import annotations

from torch import fx

from runner.language.pooling.recurrent import result
from runner.language.pooling.rules import (
    Constant,
    Rows,
    Rule,
    State,
    States,
    argument_of,
    dims_of,
    getitem,
    is_tensor,
    name_of,
    shape_of,
    single_operand,
)


def item(states: States, node: fx.Node) -> State | None:
    operand, place = node.args
    if isinstance(operand, fx.Node) and not is_tensor(operand):
        return result(operand, place, states.of(operand))
    return getitem(states, node)


def joined(states: States, node: fx.Node) -> State | None:
    operands, place = argument_of(node, 0, "tensors"), argument_of(node, 1, "dim", 0)
    if not isinstance(operands, (tuple, list)) or type(place) is not int:
        return None
    dims = {state.dim if isinstance(state, Rows) else -1 for state in map(states.of, operands)}
    if len(dims) != 1:
        return None
    (dim,) = dims
    rank = len(shape_of(node))
    place %= rank
    if name_of(node) == "stack":
        return Rows(dim + (place <= dim))
    return None if place == dim else Rows(dim)


def stacked_columns(states: States, node: fx.Node) -> State | None:
    """The rule of `hstack`, `column_stack` and `dstack` of operands that all have the samples in dimension 0."""
    operands, name = argument_of(node, 0, "tensors"), name_of(node)
    if not isinstance(operands, (tuple, list)) or any(states.of(operand) != Rows(0) for operand in operands):
        return None
    ranks = {len(shape_of(operand)) for operand in operands}
    if 1 in ranks and name != "column_stack":
        return Rows(1) if name == "dstack" and ranks == {1} else None
    return Rows(0)


def gathered(states: States, node: fx.Node) -> State | None:
    """The rule of `gather`, `scatter` and their kind: all operands have the samples in one dimension, not in `dim`."""
    dim = argument_of(node, 2 if name_of(node) == "take_along_dim" else 1, "dim")
    operands = [operand for operand in node.all_input_nodes if is_tensor(operand) and shape_of(operand)]
    found = {states.of(operand) for operand in operands}
    ranks = {len(shape_of(operand)) for operand in operands}
    if type(dim) is not int or len(found) != 1 or len(ranks) != 1:
        return None
    (state,), (rank,) = found, ranks
    if not isinstance(state, Rows) or dim % rank == state.dim:
        return None
    return state if len({shape_of(operand)[state.dim] for operand in operands}) == 1 else None


def index_select(states: States, node: fx.Node) -> State | None:
    """The rule of `index_select`: the same entries of each sample, or an entry of a table for each sample."""
    table, dim, index = (argument_of(node, place, name) for place, name in enumerate(("input", "dim", "index")))
    if isinstance(states.of(table), Constant) and states.of(index) == Rows(0) and type(dim) is int:
        return Rows(dim % len(shape_of(table)))
    found, over = single_operand(states, node), dims_of(dim, len(shape_of(table)))
    return Rows(found[1]) if found is not None and over is not None and found[1] not in over else None


def without(default: int | None, place: int = 1) -> Rule:
    """The rule of an operation that removes a dimension, as `select` and `unbind` do."""

    def rule(states: States, node: fx.Node) -> State | None:
        return _left_without(states, node, argument_of(node, place, "dim", default))

    return rule


def _left_without(states: States, node: fx.Node, dims: object) -> Rows | None:
    """Returns the sample dimension of the first operand without some others; None if it is one of them."""
    found = single_operand(states, node)
    over = None if found is None else dims_of(dims, len(found[2]))
    if found is None or over is None or found[1] in over:
        return None
    return Rows(found[1] - sum(other < found[1] for other in over))


def repeated(states: States, node: fx.Node) -> State | None:
    """The rule of `repeat`, `tile`, `expand` and `broadcast_to`, which leave the number of samples as it is."""
    found = single_operand(states, node)
    if found is None or len(node.all_input_nodes) != 1:
        return None
    _, dim, before = found
    after = shape_of(node)
    place = dim + len(after) - len(before)
    return Rows(place) if place >= 0 and after[place] == before[dim] else None


def diagonal(first: int, second: int) -> Rule:
    """The rule of an operation that takes the diagonal of two dimensions, and appends it as the last one."""

    def rule(states: States, node: fx.Node) -> State | None:
        ends = [argument_of(node, 2, "dim1", first), argument_of(node, 3, "dim2", second)]
        return _left_without(states, node, ends)

    return rule


def rearranged(states: States, node: fx.Node) -> State | None:
    """The rule of `flip` and `roll`, whose dimensions may be given one by one or as a list."""
    found, place = single_operand(states, node), 2 if name_of(node) == "roll" else 1
    if found is None:
        return None
    given = node.args[place:] if len(node.args) > place + 1 else argument_of(node, place, "dims")
    over = dims_of(given or None, len(found[2])) if not isinstance(given, int) else dims_of(given, len(found[2]))
    return None if over is None or found[1] in over else Rows(found[1])


def columns_of(dim: int) -> Rule:
    """The rule of `hsplit` and `dsplit`, which split one dimension, for operands that have it."""

    def rule(states: States, node: fx.Node) -> State | None:
        found = single_operand(states, node)
        return Rows(found[1]) if found is not None and len(found[2]) > dim and found[1] != dim else None

    return rule


def movedim(states: States, node: fx.Node) -> State | None:
    found = single_operand(states, node)
    if found is None:
        return None
    _, dim, shape = found
    source, to = (dims_of(argument_of(node, 1 + place, name), len(shape)) for place, name in enumerate(_ENDS))
    if source is None or to is None:
        return None
    order = [place for place in range(len(shape)) if place not in source]
    for end, start in sorted(zip(to, source, strict=True)):
        order.insert(end, start)
    return Rows(order.index(dim))


_ENDS = ("source", "destination")


def unfold(states: States, node: fx.Node) -> State | None:
    """The rule of the method `unfold`, of one dimension, and of the function, of the patches of images."""
    found = single_operand(states, node)
    if found is None:
        return None
    if node.op == "call_method":
        over = dims_of(argument_of(node, 1, "dimension"), len(found[2]))
        return Rows(found[1]) if over is not None and found[1] not in over else None
    return Rows(0) if found[1] == 0 and len(found[2]) == 4 else None


def quantile(states: States, node: fx.Node) -> State | None:
    """The rule of `quantile` over other dimensions than that of the samples; several quantiles add a dimension."""
    found, q = single_operand(states, node), argument_of(node, 1, "q")
    over = argument_of(node, 2, "dim")
    if found is None or type(over) is not int or over % len(found[2]) == found[1]:
        return None
    several = bool(isinstance(q, fx.Node) and shape_of(q))
    kept = argument_of(node, 3, "keepdim", False) is True
    return Rows(found[1] + several - (not kept and over % len(found[2]) < found[1]))
