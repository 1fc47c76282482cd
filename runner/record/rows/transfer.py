"""Tensors on their way from the device to the host, so that the thread that computes waits for none of them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes at whose multiples tensors begin in a buffer: enough for every dtype, and for vectorised copies."""

LEAST_BUFFER = 1 << 16
"""Bytes of the smallest buffer."""

KEPT_BUFFERS = 4
"""Buffers that are kept for later; the rest are let go of once they are empty."""


class Handle(Protocol):
    """Tensors on their way."""

    def result(self) -> Sequence[Tensor]:
        """The same tensors on the CPU, in memory of their own; waits until they are there. To be called once."""
        ...


class Transfer(Protocol):
    """A way to the host, for one thread that begins and one that takes results in the same order."""

    def attach(self) -> None:
        """Called once on the thread that takes results, before the first: what it computes is ordered as well."""
        ...

    def begin(self, tensors: Sequence[Tensor]) -> Handle:
        """Send tensors that nobody will write any more; those on the CPU stay what they are."""
        ...


class Arrived:
    """A handle of tensors that are there."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def result(self) -> Sequence[Tensor]:
        return self._tensors


class Direct:
    """The transfer where nothing is gained by waiting elsewhere: at once, and not at all from the CPU."""

    def attach(self) -> None:
        pass

    def begin(self, tensors: Sequence[Tensor]) -> Arrived:
        return Arrived([tensor.cpu() for tensor in tensors])


class Lane(Protocol):
    """What `Staged` needs of a device."""

    kind: str  # "cuda": of the tensors that it copies

    def attach(self) -> None:
        """As in `Transfer`."""
        ...

    def allocate(self, size: int) -> Tensor:
        """uint8 `(size,)` on the host, which the device can write by itself."""
        ...

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Begin to copy into the first of each pair what the second holds once all that was begun before is computed.

        Returns what waits until it is copied.
        """
        ...


class Staged:
    """A transfer through buffers on the host, which are used again once what they held has been taken out.

    There are as many buffers in flight as there are handles without a result, which is for the caller to bound.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._buffers = _Buffers(lane.allocate)

    def attach(self) -> None:
        self._lane.attach()

    def begin(self, tensors: Sequence[Tensor]) -> Handle:
        moving = [place for place, tensor in enumerate(tensors) if tensor.device.type == self._lane.kind]
        return self._send(tensors, moving) if moving else Arrived(tensors)

    def _send(self, tensors: Sequence[Tensor], moving: Sequence[int]) -> Handle:
        sizes = [-(-tensors[place].nbytes // ALIGNMENT) * ALIGNMENT for place in moving]
        *starts, size = itertools.accumulate(sizes, initial=0)
        buffer = self._buffers.take(size)
        targets = {place: _part(buffer, start, tensors[place]) for place, start in zip(moving, starts, strict=True)}
        arrived = self._lane.copy([(target, tensors[place]) for place, target in targets.items()])

        def release() -> None:
            self._buffers.give_back(buffer)

        return _Flight(tensors, targets, arrived, release)


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)


class _Flight:
    """A handle of `Staged`. It holds the tensors until they are copied, so that their memory is not used again."""

    __slots__ = ("_arrived", "_release", "_targets", "_tensors")

    def __init__(
        self,
        tensors: Sequence[Tensor],
        targets: dict[int, Tensor],
        arrived: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._tensors = tensors
        self._targets = targets
        self._arrived = arrived
        self._release = release

    def result(self) -> Sequence[Tensor]:
        self._arrived()  # a buffer whose copy failed is never used again
        targets = self._targets
        found = [targets[place].clone() if place in targets else tensor for place, tensor in enumerate(self._tensors)]
        self._tensors, self._targets = (), {}
        self._release()
        return found


class _Buffers:
    """Buffers that are free; taken by one thread and given back by another."""

    def __init__(self, allocate: Callable[[int], Tensor]) -> None:
        self._allocate = allocate
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Tensor:
        """The smallest free buffer of at least so many bytes, else a new one in place of the smallest."""
        with self._lock:
            fitting = [buffer for buffer in self._free if buffer.nbytes >= size]
            chosen = min(fitting or self._free, key=lambda buffer: buffer.nbytes, default=None)
            if chosen is not None:
                self._free = [buffer for buffer in self._free if buffer is not chosen]
        if chosen is not None and fitting:
            return chosen
        return self._allocate(max(LEAST_BUFFER, size))

    def give_back(self, buffer: Tensor) -> None:
        with self._lock:
            if len(self._free) < KEPT_BUFFERS:
                self._free.append(buffer)


class CudaLane:
    """Pinned memory, and a stream of its own beside the one that was current when it was made."""

    kind = "cuda"

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._computing = torch.cuda.current_stream(self._device)
        self._copying = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def attach(self) -> None:
        torch.cuda.set_stream(self._computing)

    def allocate(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        self._copying.wait_stream(self._computing)
        with torch.cuda.stream(self._copying), torch.no_grad():
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # the waiting thread sleeps
        arrived.record(self._copying)
        return arrived.synchronize


def transfer_from(device: str) -> Transfer:
    """The transfer for rows of a run on a device."""
    return Staged(CudaLane(device)) if device.partition(":")[0] == "cuda" else Direct()
