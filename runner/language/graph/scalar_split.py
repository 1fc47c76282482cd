"""Splits a computation into its running scalars, which change with every step, and the tensors that read them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from runner.language.graph.choices import both_sides, is_choice
from runner.language.graph.codegen import compile_graph
from runner.language.graph.computation import Computation
from runner.language.graph.elements import at, is_index, traceable
from runner.language.inference.autocast import KEY
from runner.language.inference.guards import is_guarded_division
from runner.language.text.faults import START, LanguageError

Number = bool | int | float

_READERS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
        *(operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
        *(torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.where),
    }
)
"""Operations with the same meaning for a number and for a 0-d tensor."""


@dataclass(frozen=True, slots=True)
class SplitComputation:
    """A computation in two parts: its running scalars, and its tensors.

    `numbers(None, *running)` returns Python numbers. The first `read` of them, as 0-d tensors, are the last arguments
    of `function(None, *tensors, *read)`, which returns the outputs that are tensors.
    """

    running: tuple[str, ...]  # inputs of `numbers`: "iteration", "t"
    numbers: Callable[..., tuple[Number, ...]]
    count: int  # how many numbers there are
    read: int
    inputs: tuple[str, ...]  # of `function`, before the numbers
    function: Callable[..., tuple[Any, ...]]
    tensors: tuple[int, ...]  # the output of the computation that each result of `function` is
    scalars: tuple[tuple[int, int], ...]  # (output, number) of each output that is a number


def split_scalars(computation: Computation, *, rule: bool = False) -> SplitComputation:
    """Splits a computation into its two parts.

    Args:
        rule: whether it is an update of a rule: no gradient flows through it, so a branch may compute both its sides.
    Raises:
        LanguageError: a running scalar controls what is computed, instead of being only an operand.
    """
    nodes = list(computation.graph.nodes)
    results: Any = next(node for node in nodes if node.op == "output").args[0]
    found = {node: _is_number(node) for node in nodes if node.op != "output"}
    kept = [node for node, is_number in found.items() if is_number]
    read = [node for node in kept if any(not found.get(user, True) for user in node.users)]
    for node in read:
        for user in node.users:
            if not found.get(user, True) and not (_is_readable(node, user) or (rule and is_choice(user))):
                raise _unreadable(node, user)
    scalars = [(output, node) for output, node in enumerate(results) if found.get(node)]
    wanted = list(dict.fromkeys([*read, *(node for _, node in scalars)]))
    tensors = [output for output, node in enumerate(results) if not found.get(node)]
    inputs = [node for node in nodes if node.op == "placeholder" and not found[node]]
    running = [node for node in nodes if node.op == "placeholder" and found[node]]
    if not kept and all(traceable(node) is node.target for node in found):
        function = computation.function
    else:
        function = _tensor_part(computation, results, found, read, tensors)
    return SplitComputation(
        running=tuple(node.meta["input"] for node in running),
        numbers=_number_part(computation, kept, wanted),
        count=len(wanted),
        read=len(read),
        inputs=tuple(node.meta["input"] for node in inputs),
        function=function,
        tensors=tuple(tensors),
        scalars=tuple((output, wanted.index(node)) for output, node in scalars),
    )


def _is_number(node: fx.Node) -> bool:
    return isinstance(node.meta["example"], (bool, int, float))


def _is_readable(number: fx.Node, user: fx.Node) -> bool:
    """Whether an operation means the same with a 0-d tensor in place of a number."""
    if user.op != "call_function":
        return False
    return user.target in _READERS or is_guarded_division(user.target) or is_index(user, number)


def _unreadable(number: fx.Node, user: fx.Node) -> LanguageError:
    name = next(node.meta["input"] for node in _ancestors(number) if node.op == "placeholder")
    if user.target is not None and getattr(user.target, "__name__", "") == "choose":
        message, hint = f"`{name}` decides which branch is computed", "use the condition as a factor"
    else:
        message, hint = f"`{name}` can only be an operand or an index here", "use it in `+ - * / **` or comparisons"
    return LanguageError(message, hint, user.meta.get("place", START), user.meta.get("origin"))


def _ancestors(node: fx.Node) -> list[fx.Node]:
    found, pending = [], [node]
    while pending:
        current = pending.pop()
        found.append(current)
        pending.extend(current.all_input_nodes)
    return found


def _number_part(computation: Computation, kept: list[fx.Node], wanted: list[fx.Node]) -> Callable[..., Any]:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in kept:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
    graph.output(tuple(copies[node] for node in wanted))
    return compile_graph(graph, computation.origin)


def _tensor_part(
    computation: Computation,
    results: Sequence[Any],
    found: Mapping[fx.Node, bool],
    read: Sequence[fx.Node],
    tensors: Sequence[int],
) -> Callable[..., Any]:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node, is_number in found.items():
        if node.op == "placeholder" and not is_number:
            copies[node] = graph.node_copy(node)
    for position, node in enumerate(read):
        copies[node] = graph.placeholder(f"number_{position}")
    for node, is_number in found.items():
        if node.op == "placeholder" or is_number:
            continue
        cast = {
            number: graph.call_method("to", (copies[number], _dtype_as_tensor(number, node)))
            for number in node.all_input_nodes
            if found[number]
        }
        for made in cast.values():
            made.meta.update({key: node.meta[key] for key in (KEY,) if key in node.meta})
        copies[node] = graph.node_copy(node, lambda old, cast=cast: cast.get(old) or copies[old])  # type: ignore[misc]
        target = both_sides(node) if is_choice(node) else traceable(node)
        if target is not node.target:
            copies[node].op, copies[node].target = "call_function", target
        copies[node].meta = node.meta
    graph.output(tuple(fx.node.map_arg(results[output], lambda node: copies[node]) for output in tensors))
    return compile_graph(graph, computation.origin)


def _dtype_as_tensor(number: fx.Node, user: fx.Node) -> torch.dtype:
    """Returns the dtype for a number as a 0-d tensor, so that the result has the same dtype as with a number."""
    example, result = number.meta["example"], user.meta["example"]
    if traceable(user) is at:
        return torch.int64
    if isinstance(example, bool) or is_choice(user):  # a number that decides a branch is its condition
        return torch.bool
    dtypes = [node.meta["example"].dtype for node in user.all_input_nodes if isinstance(node.meta["example"], Tensor)]
    dtype = dtypes[-1] if dtypes else torch.float64
    if isinstance(example, float) and not (dtype.is_floating_point or dtype.is_complex):
        return result.dtype if isinstance(result, Tensor) and result.is_floating_point() else torch.float64
    return torch.int64 if dtype == torch.bool else dtype
