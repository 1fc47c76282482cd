"""A recording on the CPU that is as strict as a CUDA graph: Python runs once, and tensors stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")
Call = tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]


class Tape:
    """Records the operations of a function, and does them again on the same tensors, into the same tensors."""

    def __init__(self) -> None:
        self.warmed = 0
        self.recorded: list[list[Call]] = []
        self.replays = 0

    def warm(self, run: Callable[[], T]) -> T:
        self.warmed += 1
        return run()

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        calls: list[Call] = []
        with _Recorder(calls):
            function()
        self.recorded.append(calls)
        first = True

        def replay() -> None:
            nonlocal first
            self.replays += 1
            if first:  # recording it here has done it already
                first = False
                return
            with torch.no_grad():
                for target, args, kwargs, results in calls:
                    _again(target, args, kwargs, results)

        return replay


class _Recorder(TorchDispatchMode):
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_map(_as_it_is, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, *given, [_as_it_is(tensor) for tensor in tensors(result)]))
        return result


def _as_it_is(value: Any) -> Any:
    """A tensor in its present shape and strides, which `squeeze_` and the like change in place."""
    return value.detach() if isinstance(value, Tensor) else value


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _again(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Tensor]) -> None:
    given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
    found = tensors(target(*args, **kwargs))
    for new, old in zip(found, results, strict=True):
        if old.untyped_storage().data_ptr() not in given:  # else it is a view, or was written in place
            old.copy_(new)
