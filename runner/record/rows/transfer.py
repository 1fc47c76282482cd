"""Copies tensors from the device to the host without blocking the computing thread."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

ALIGNMENT = 64
"""Alignment in bytes of tensors in a buffer: enough for every dtype, and for vectorised copies."""

LEAST_BUFFER = 1 << 16
"""Size of the smallest buffer, in bytes."""

KEPT_BUFFERS = 4
"""The most free buffers to keep; further ones are released."""


class Handle(Protocol):
    """A transfer in progress."""

    def result(self) -> Sequence[Tensor]:
        """Wait for the tensors, and return them on the CPU, in memory of their own. Call it once."""
        ...


class Transfer(Protocol):
    """Copies tensors to the host; one thread begins copies, and another takes the results in the same order."""

    def attach(self) -> None:
        """Make the calling thread compute on the run's stream. The thread that takes results calls this once, first."""
        ...

    def begin(self, tensors: Sequence[Tensor]) -> Handle:
        """Start copying tensors that are never written again; tensors on the CPU are not copied."""
        ...


class Arrived:
    """A finished transfer."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors

    def result(self) -> Sequence[Tensor]:
        return self._tensors


class Direct:
    """Copies tensors at once, and does not copy those on the CPU."""

    def attach(self) -> None:
        pass

    def begin(self, tensors: Sequence[Tensor]) -> Arrived:
        return Arrived([tensor.cpu() for tensor in tensors])


class Lane(Protocol):
    """The functions of a device that `Staged` uses."""

    kind: str  # device type of the tensors that it copies: "cuda"

    def attach(self) -> None:
        """As `Transfer.attach`."""
        ...

    def allocate(self, size: int) -> Tensor:
        """Allocate uint8 `(size,)` on the host, in memory that the device can write directly."""
        ...

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Callable[[], None]:
        """Start copying the second tensor of each pair into the first, after all computations queued so far.

        Returns:
            a function that waits for the copies.
        """
        ...


class Staged:
    """Copies tensors through buffers on the host, which are reused once their content has been taken out.

    Each handle without a result occupies a buffer; the caller limits their number.
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
    """A handle of `Staged`. It references the tensors until they are copied, so that their memory is not reused."""

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
        self._arrived()  # if the copy failed this raises, and the buffer is never reused
        targets = self._targets
        found = [targets[place].clone() if place in targets else tensor for place, tensor in enumerate(self._tensors)]
        self._tensors, self._targets = (), {}
        self._release()
        return found


class _Buffers:
    """The free buffers; one thread takes them and another gives them back."""

    def __init__(self, allocate: Callable[[int], Tensor]) -> None:
        self._allocate = allocate
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Tensor:
        """The smallest free buffer of at least `size` bytes; if there is none, a new one in place of the smallest."""
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
    """Copies into pinned memory on a stream of its own, which waits for the stream that is current at construction."""

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
    """The transfer for the rows of a run on `device`."""
    return Staged(CudaLane(device)) if device.partition(":")[0] == "cuda" else Direct()
