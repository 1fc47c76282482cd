"""Computes an operation lane by lane, exactly as a run alone does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.operations.tensor import LaneTensor, NotStackable, lane_count, stacked
from runner.optim.updates import ALIGNMENT


def each(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The results of an operation, computed for one lane after another.

    Raises:
        NotStackable: they are not tensors of equal shapes.
    """
    found = []
    for lane in range(lane_count((*args, *kwargs.values()))):
        own = {name: lane_of(value, lane) for name, value in kwargs.items()}
        found.append(operation(*[lane_of(value, lane) for value in args], **own))
    return joined(found, str(operation))


def joined(found: list[Any], operation: str) -> Any:
    """The results of all lanes as one result with tensors of lanes."""
    first = found[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return LaneTensor(stacked(found, operation))
    if isinstance(first, list | tuple):
        if any(len(each) != len(first) for each in found):
            raise NotStackable(f"{operation} gives other shapes in each run")
        return type(first)(joined(list(parts), operation) for parts in zip(*found, strict=True))
    raise NotStackable(f"{operation} reads a number back from a tensor")


def lane_of(value: Any, lane: int) -> Any:
    """One lane's part of an argument."""
    if isinstance(value, LaneTensor):
        part = value.lanes[lane]
        # a run alone has tensors of its own, aligned; the bits of some operations depend on that
        return part if part.data_ptr() % ALIGNMENT == 0 else part.clone(memory_format=torch.preserve_format)
    if isinstance(value, list | tuple):
        return type(value)(lane_of(each, lane) for each in value)
    return value
