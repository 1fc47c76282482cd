"""Puts samples and batches on the run's device without synchronizing in any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from runner.engine.data.samples import Batch, MemorySamples, Samples
from runner.plan.data.sources import SourcePlan

RESIDENT_BYTES = 1 << 28
"""The largest source, in bytes, that stays on the device as a whole. Larger ones are copied batch by batch."""

Send = Callable[[Tensor], Tensor]
"""Copies a tensor from the CPU to the device."""


def sender(device: str) -> Send:
    """Returns a function that copies to a device, asynchronously if the device supports it.

    Copies to CUDA go through pinned memory, which torch's allocator keeps until the device has read it.
    """
    kind = device.partition(":")[0]
    if kind == "cpu":
        return lambda tensor: tensor
    if kind == "cuda":
        return lambda tensor: tensor.pin_memory().to(device, non_blocking=True)
    return lambda tensor: tensor.to(device)


def placed(samples: Samples, plan: SourcePlan, device: str) -> Samples:
    """Wraps CPU samples from `open_samples` so that their batches are on the device."""
    if device == "cpu":
        return samples
    if isinstance(samples, MemorySamples) and plan.bytes <= RESIDENT_BYTES:
        return ResidentSamples(samples.between(0, plan.samples), sender(device))
    return SentSamples(samples, sender(device))


class ResidentSamples:
    """Columns that are entirely on the device. For a batch, only its sample indices are copied."""

    __slots__ = ("_columns", "_send")

    def __init__(self, columns: Batch, send: Send) -> None:
        self._send = send
        self._columns = {name: send(column) for name, column in columns.items()}

    def between(self, start: int, end: int) -> Batch:
        """Returns copies, not views: libraries also choose kernels by the alignment of a tensor."""
        return {name: column[start:end].clone() for name, column in self._columns.items()}

    def at(self, chosen: Tensor) -> Batch:
        there = self._send(chosen)
        return {name: column[there] for name, column in self._columns.items()}

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())  # checked on the CPU before


class SentSamples:
    """Samples of a source that stays on the CPU. Each batch is copied when it is drawn."""

    __slots__ = ("_samples", "_send")

    def __init__(self, samples: Samples, send: Send) -> None:
        self._samples = samples
        self._send = send

    def between(self, start: int, end: int) -> Batch:
        return self._sent(self._samples.between(start, end))

    def at(self, chosen: Tensor) -> Batch:
        return self._sent(self._samples.at(chosen))

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())  # checked on the CPU before

    def _sent(self, batch: Batch) -> Batch:
        return {name: self._send(column) for name, column in batch.items()}
