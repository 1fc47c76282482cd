"""What expressions compute with while they are lowered.

Python numbers, strings, tuples and lists are *fixed*; an `fx.Node` is computed by the graph, and its `meta["example"]`
is what it gives on the example tensors. A node whose example is a number is a *running* scalar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

MAX_DISPLAY = 10_000  # elements of a list or tuple


@dataclass(frozen=True, slots=True)
class Lookup:
    """An element of a 1-d constant: a scalar, but a tensor where an operation wants one."""

    name: str
    index: Any  # an int, or a running scalar's node
    element: Any  # the number, or None for a running index


def example_of(value: Any) -> Any:
    """`value` with every node replaced by its example."""
    return fx.node.map_arg(value, lambda node: node.meta["example"])


def is_mask(node: fx.Node) -> bool:
    """Whether indexing with `node` gives a shape that depends on data."""
    example = node.meta["example"]
    return isinstance(example, Tensor) and example.dtype in (torch.bool, torch.uint8)


def differ(left: Any, right: Any) -> bool:
    """Whether two values are tensors of different shapes."""
    one, other = example_of(left), example_of(right)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape != other.shape


def describe(value: Any) -> str:
    """What a value is, for a message."""
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    if isinstance(example, Tensor):
        return f"a tensor of shape {tuple(example.shape)}, {str(example.dtype).removeprefix('torch.')}"
    if isinstance(example, bool):
        return "a boolean"
    if isinstance(example, (int, float, complex)):
        return "a number"
    if isinstance(example, str):
        return f"the string {example!r}"
    if isinstance(example, torch.dtype):
        return f"the dtype {str(example).removeprefix('torch.')}"
    if example is None:
        return "`None`"
    if isinstance(example, (tuple, list)):
        return f"{'a tuple' if isinstance(example, tuple) else 'a list'} of {len(example)} values"
    return f"a {type(example).__name__}"
