"""Rejects counts that would keep torch busy forever, uninterruptibly, before any call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from runner.catalogue import Operation
from runner.language.lowering.values import MAX_DISPLAY, Arithmetic, Lookup, example_of

_LARGEST: Mapping[tuple[str, str], int] = {
    ("*lowrank", "niter"): 1_000,
    ("lobpcg", "niter"): 10_000,
    ("*_polynomial_*", "n"): 10_000,
    ("multigammaln", "p"): 10_000,
    ("mvlgamma", "p"): 10_000,
    ("matrix_power", "n"): 2**31,
    ("multi_dot", "tensors"): 100,
    ("combinations", "r"): 64,  # which are as many dimensions
}
"""The largest count for each operation (function or method) and argument."""

_WINDOWS = {"kernel_size", "stride", "padding", "dilation", "output_padding"}
_LARGEST_WINDOW = 2**24


def _by_size(size: int, each: int) -> int:
    return -(-size // max(each, 1))


def _as_many(size: int, count: int) -> int:
    return count


_PIECES: Mapping[str, Callable[[int, int], int]] = {
    "split": _by_size,
    "split_copy": _by_size,
    "unsafe_split": _by_size,
    "chunk": min,
    "unsafe_chunk": min,
    "tensor_split": _as_many,
    "hsplit": _as_many,
    "vsplit": _as_many,
    "dsplit": _as_many,
    "unbind": lambda size, _: size,
    "unbind_copy": lambda size, _: size,
}
"""The number of tensors that an operation returns, from the size that it splits and the requested count or size."""


def excess(operation: Operation, operands: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    """Returns a message about a count that is too large in a call; None if there is none.

    Args:
        operands: the positional arguments, with the tensor of a method first.
    """
    given = {**_by_name(operation, operands), **named}
    for (name, argument), largest in _LARGEST.items():
        if argument not in given or not fnmatchcase(operation.bare_name, name):
            continue
        value = _plain(given[argument])
        count = len(value) if isinstance(value, (tuple, list)) else value
        if isinstance(count, Tensor) and _is_number(operation, argument):
            return _unbounded(operation, argument)
        if isinstance(count, (int, float)) and abs(count) > largest:
            return f"`{argument}` of `{operation.bare_name}` is {count:,}; the maximum is {largest:,}"
    for argument in _WINDOWS & given.keys():
        value = _plain(given[argument])
        sizes = value if isinstance(value, (tuple, list)) else [value]
        if any(isinstance(size, Tensor) for size in sizes):
            return _unbounded(operation, argument)
        if any(isinstance(size, int) and abs(size) > _LARGEST_WINDOW for size in sizes):
            return f"`{argument}` of `{operation.bare_name}` is larger than 2^24"
    pieces = _pieces(operation, operands, given)
    if pieces > MAX_DISPLAY:
        return f"`{operation.bare_name}` would return {pieces:,} tensors; the maximum is {MAX_DISPLAY:,}"
    return None


def _plain(value: Any) -> Any:
    """Returns a value during planning: the example of a node, the number of an element of a constant."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Arithmetic):
        value = value.number
    return value.element if isinstance(value, Lookup) else example_of(value)


def _is_number(operation: Operation, argument: str) -> bool:
    """Whether an argument is declared as a number, although torch accepts a one-element integer tensor instead."""
    return not any(
        "Tensor" in each.type for overload in operation.overloads for each in overload if each.name == argument
    )


def _unbounded(operation: Operation, argument: str) -> str:
    return f"`{argument}` of `{operation.bare_name}` is a tensor; it must be a number"


def _by_name(operation: Operation, operands: Sequence[Any]) -> dict[str, Any]:
    names = operation.argument_names
    return dict(zip(("input", *names) if operation.name.startswith(".") else names, operands, strict=False))


def _pieces(operation: Operation, operands: Sequence[Any], given: Mapping[str, Any]) -> int:
    rule = _PIECES.get(operation.bare_name)
    divided = operands[0] if operands else given.get("input")
    tensor = example_of(divided)
    if rule is None or not isinstance(tensor, Tensor):
        return 0
    dim = _plain(given.get("dim", 0))
    counts = [_count(_plain(value)) for name, value in given.items() if name != "dim" and value is not divided]
    if not isinstance(dim, int) or not -tensor.dim() <= dim < tensor.dim():
        return 0
    return rule(tensor.shape[dim], next((count for count in counts if count is not None), 1))


def _count(value: Any) -> int | None:
    """Returns a requested count, also from a 0-d integer tensor; None if it is not one."""
    if type(value) is Tensor and value.dim() == 0 and not (value.is_floating_point() or value.is_complex()):
        return int(value)
    return value if isinstance(value, int) else None
