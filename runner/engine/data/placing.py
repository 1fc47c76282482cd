"""Samples and batches on the run's device, without waiting for it in any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from runner.engine.data.samples import Batch, HeldSamples, Samples
from runner.plan.data.sources import SourcePlan

RESIDENT_BYTES = 1 << 28
"""Bytes of a source up to which it is kept on the device whole; batches of a larger one are sent one by one."""

Send = Callable[[Tensor], Tensor]
"""Brings a tensor from the CPU to the device."""


def sender(device: str) -> Send:
    """The way to a device that does not wait for it, where there is one.

    To CUDA a copy goes through pinned memory, which torch's allocator keeps until the device has read it.
    """
    kind = device.partition(":")[0]
    if kind == "cpu":
        return lambda tensor: tensor
    if kind == "cuda":
        return lambda tensor: tensor.pin_memory().to(device, non_blocking=True)
    return lambda tensor: tensor.to(device)


def placed(samples: Samples, plan: SourcePlan, device: str) -> Samples:
    """The samples of a source with their batches on the device, as `open_samples` gives them on the CPU."""
    if device == "cpu":
        return samples
    if isinstance(samples, HeldSamples) and plan.bytes <= RESIDENT_BYTES:
        return ResidentSamples(samples.between(0, plan.samples), sender(device))
    return SentSamples(samples, sender(device))


class ResidentSamples:
    """Columns that are on the device whole: of a batch, only the numbers of its samples are sent."""

    __slots__ = ("_columns", "_send")

    def __init__(self, columns: Batch, send: Send) -> None:
        self._send = send
        self._columns = {name: send(column) for name, column in columns.items()}

    def between(self, start: int, end: int) -> Batch:
        """Copies, not views: libraries choose their kernels by how a tensor is aligned too."""
        return {name: column[start:end].clone() for name, column in self._columns.items()}

    def at(self, chosen: Tensor) -> Batch:
        there = self._send(chosen)
        return {name: column[there] for name, column in self._columns.items()}

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())  # they were looked at on the CPU


class SentSamples:
    """Samples of a source that stays where it is; each batch is sent when it is drawn."""

    __slots__ = ("_samples", "_send")

    def __init__(self, samples: Samples, send: Send) -> None:
        self._samples = samples
        self._send = send

    def between(self, start: int, end: int) -> Batch:
        return self._sent(self._samples.between(start, end))

    def at(self, chosen: Tensor) -> Batch:
        return self._sent(self._samples.at(chosen))

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())  # they were looked at on the CPU

    def _sent(self, batch: Batch) -> Batch:
        return {name: self._send(column) for name, column in batch.items()}
