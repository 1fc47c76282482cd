"""At which iteration a condition holds: what a branch is inferred on, so that it is only tried where it is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx

from runner.language.text.arithmetic import FAULTS, ScalarError

COUNTERS = ("iteration", "t")
_FIRST: tuple[int, ...] = (*range(1, 101), 1_000, 10_000, 100_000, 1_000_000)


def example_at(node: fx.Node, iteration: int | None) -> Any:
    """The example of `node`, with its scalars as they are at an iteration; its own for None and for tensors."""
    if iteration is None:
        return node.meta["example"]
    try:
        return _scalar_at(node, iteration, {})
    except (*FAULTS, RecursionError):
        return node.meta["example"]


def examples_at(value: Any, iteration: int) -> Any:
    """`value` with every node replaced by its example at an iteration."""
    return fx.node.map_arg(value, lambda node: example_at(node, iteration))


def iteration_where(condition: fx.Node, wanted: bool, near: int | None) -> int | None:
    """An iteration at which `condition` is `wanted`, looked for at `near` first; None where none is found.

    Numbers that the condition itself is made of are tried too, so that `iteration > 2500` finds 2501.
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
    """The integers that a condition is computed from."""
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
