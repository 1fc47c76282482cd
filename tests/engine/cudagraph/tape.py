"""A recording on the CPU that is as strict as a CUDA graph: Python runs once, and tensors stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")


class Tape:
    """Records the operations of a function, and does them on the same tensors, into the same tensors.

    To record them here is to do them, too; what they have written is put back, so that nothing is done before the
    first replay, and what is left of the recording is garbage until then.
    """

    def __init__(self) -> None:
        self.warmed = 0
        self.recorded: list[_Recorder] = []
        self.replays = 0

    def warm(self, run: Callable[[], T]) -> T:
        self.warmed += 1
        return run()

    def record(self, function: Callable[[], object]) -> Callable[[], object]:
        generator = torch.get_rng_state()
        recorder = _Recorder()
        with recorder:
            function()
        recorder.undo()
        torch.set_rng_state(generator)
        self.recorded.append(recorder)

        def replay() -> None:
            self.replays += 1
            recorder.replay()

        return replay


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.made: dict[int, torch.UntypedStorage] = {}  # within the recording
        self.given: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # from outside, with its copy

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in storages((args, kwargs)):
            if storage.data_ptr() not in self.made and storage.data_ptr() not in self.given:
                self.given[storage.data_ptr()] = storage, storage.clone()
        given = tree_map(_as_it_is, (args, kwargs))
        result = func(*args, **kwargs)
        for storage in storages(result):
            if storage.data_ptr() not in self.given:
                self.made[storage.data_ptr()] = storage
        self.calls.append((func, *given, [_as_it_is(tensor) for tensor in tensors(result)]))
        return result

    def undo(self) -> None:
        for storage, before in self.given.values():
            storage.copy_(before)
        for storage in self.made.values():
            storage.fill_(255)

    def replay(self) -> None:
        with torch.no_grad():
            for target, args, kwargs, results in self.calls:
                inside = {storage.data_ptr() for storage in storages((args, kwargs))}
                for new, old in zip(tensors(target(*args, **kwargs)), results, strict=True):
                    if old._is_zerotensor():
                        continue
                    if old.untyped_storage().data_ptr() not in inside:  # else it is a view, or was written in place
                        old.copy_(new)


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def storages(value: Any) -> list[torch.UntypedStorage]:
    """The memory of all tensors; zeros of a derivative have none."""
    return [tensor.untyped_storage() for tensor in tensors(value) if not tensor._is_zerotensor()]


def _as_it_is(value: Any) -> Any:
    """A tensor in its present shape and strides, which `squeeze_` and the like change in place."""
    return value.detach() if isinstance(value, Tensor) else value
