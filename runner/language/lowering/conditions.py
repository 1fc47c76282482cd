"""Computes scalars at other iterations than the first: where a condition holds, and of which type a result is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import fx

from runner.language.lowering.values import example_of, widest
from runner.language.text.arithmetic import FAULTS, ScalarError, power

COUNTERS = ("iteration", "t")
_FIRST: tuple[int, ...] = (*range(1, 101), 1_000, 10_000, 100_000, 1_000_000)
_EXPONENTS = (1, 2, 10, 1_000, 1_000_000)
"""Iterations at which the sign of an exponent is computed."""


def example_at(node: fx.Node, iteration: int | None) -> Any:
    """Returns the example of `node` at an iteration; its own example for None and for tensors."""
    if iteration is None:
        return node.meta["example"]
    try:
        return _scalar_at(node, iteration, {})
    except (*FAULTS, RecursionError):
        return node.meta["example"]


def examples_at(value: Any, iteration: int) -> Any:
    """Returns `value` with every node replaced by its example at an iteration."""
    return fx.node.map_arg(value, lambda node: example_at(node, iteration))


def iteration_where(condition: fx.Node, wanted: bool, near: int | None) -> int | None:
    """Finds an iteration at which `condition` is `wanted`, starting with `near`; None if there is none.

    Also tries the numbers in the condition itself, so that `iteration > 2500` finds 2501.
    """
    candidates: list[int] = [near or 1]
    for number in _numbers(condition):
        candidates += [number - 1, number, number + 1]
    candidates += _FIRST
    for candidate in dict.fromkeys(candidates):
        if candidate < 1:
            continue
        try:
            if bool(_scalar_at(condition, candidate, {})) == wanted:
                return candidate
        except (*FAULTS, RecursionError):
            continue
    return None


def kind_of(
    function: Callable[..., Any], arguments: Sequence[Any], side: tuple[fx.Node, bool] | None
) -> type[int] | type[float] | None:
    """Returns the type for all results of a function whose results would be of several; None for other functions.

    `min` and `max` return any of their arguments, and a power of integers is fractional for a negative exponent.

    Args:
        side: the condition of the branch that the call is in, and the value with which its side is taken.
    """
    kinds = [type(example_of(argument)) for argument in arguments]
    if function in (min, max):
        return widest(*kinds) if len(set(kinds)) > 1 else None
    if function is not power or float in kinds or not isinstance(arguments[1], fx.Node):
        return None
    return float if _is_negative_somewhere(arguments[1], side) else int


def _is_negative_somewhere(exponent: fx.Node, side: tuple[fx.Node, bool] | None) -> bool:
    numbers = list(islice(_numbers(exponent), 4))
    if side is not None:
        numbers += islice(_numbers(side[0]), 4)
    for iteration in dict.fromkeys((*_EXPONENTS, *(number + near for number in numbers for near in (-1, 0, 1)))):
        try:
            if iteration < 1 or (side is not None and bool(_scalar_at(side[0], iteration, {})) != side[1]):
                continue
            if _scalar_at(exponent, iteration, {}) < 0:
                return True
        except (*FAULTS, RecursionError):
            continue
    return bool(exponent.meta["example"] < 0)


def _scalar_at(node: fx.Node, iteration: int, known: dict[fx.Node, Any]) -> Any:
    example = node.meta["example"]
    if not isinstance(example, (bool, int, float)):
        return example
    if node not in known:
        known[node] = _computed_at(node, iteration, known)
    return known[node]


def _computed_at(node: fx.Node, iteration: int, known: dict[fx.Node, Any]) -> Any:
    if node.op == "placeholder":
        if "outer" in node.meta:
            return _scalar_at(node.meta["outer"], iteration, known)
        return iteration if node.meta.get("input") in COUNTERS else node.meta["example"]
    if node.op != "call_function" or not callable(node.target):
        return node.meta["example"]
    arguments = fx.node.map_arg(node.args, lambda argument: _scalar_at(argument, iteration, known))
    result = node.target(*arguments)
    if not isinstance(result, (bool, int, float)):
        raise ScalarError("not a scalar")
    return result


def _numbers(condition: fx.Node) -> Iterator[int]:
    """Yields the integers that a condition is computed from."""
    seen: set[fx.Node] = set()
    pending = [condition]
    while pending:
        node = pending.pop()
        if node in seen or not isinstance(node.meta["example"], (bool, int, float)):
            continue
        seen.add(node)
        if "outer" in node.meta:
            pending.append(node.meta["outer"])
        pending.extend(node.all_input_nodes)
        yield from (int(number) for number in node.args if isinstance(number, (int, float)) and abs(number) < 2**62)
