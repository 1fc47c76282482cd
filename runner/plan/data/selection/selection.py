"""The selected rows of a file: a range, or a bit for each row with an index over the bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from runner.plan.data.selection.order import Integers

Mask = NDArray[numpy.bool_]

_BLOCK_BYTES = 64
"""Bytes of bits that one entry of the index covers."""

_ONES = numpy.array([bin(byte).count("1") for byte in range(256)], dtype=numpy.uint8)
"""How many bits of a byte are set."""

_PLACES = numpy.array(
    [(*[bit for bit in range(8) if byte >> bit & 1], *[0] * (8 - bin(byte).count("1"))) for byte in range(256)],
    dtype=numpy.uint8,
)
"""The places of the set bits of a byte, in ascending order: `(256, 8)`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a file that are the samples of a source, in file order.

    It is a range of rows from `start`, or with `bits` any rows. Bits take about 0.14 bytes for each row of the file.
    """

    rows: int  # rows of the file
    samples: int  # selected rows
    start: int = 0
    bits: bytes = field(default=b"", repr=False)  # a bit for each row, in little order, in whole blocks; empty: a range
    before: Integers | None = field(default=None, repr=False, compare=False)  # selected rows before each block

    @property
    def bytes(self) -> int:
        return len(self.bits) + (0 if self.before is None else self.before.nbytes)

    @property
    def is_range(self) -> bool:
        return not self.bits

    def between(self, start: int, end: int) -> Integers:
        """The rows of samples `start` to `end - 1`: int64, ascending."""
        if self.is_range:
            return numpy.arange(self.start + start, self.start + end)
        if start >= end:
            return numpy.empty(0, dtype=numpy.int64)
        first, last = self.of(numpy.array([start, end - 1])).tolist()
        rows: Integers = first + numpy.flatnonzero(self.mask(first, last + 1))
        return rows

    def of(self, samples: Integers) -> Integers:
        """The rows of samples in any order: int64 `(n,)`."""
        if self.before is None:
            return samples + self.start
        blocks = numpy.searchsorted(self.before, samples, side="right") - 1
        rest = samples - self.before[blocks]
        content = numpy.frombuffer(self.bits, dtype=numpy.uint8).reshape(-1, _BLOCK_BYTES)[blocks]
        ends = numpy.cumsum(_ONES[content], axis=1, dtype=numpy.int64)
        byte = (ends <= rest[:, None]).sum(axis=1)
        found = content[numpy.arange(len(byte)), byte]
        inside = rest - (ends[numpy.arange(len(byte)), byte] - _ONES[found])
        rows: Integers = (blocks * _BLOCK_BYTES + byte) * 8 + _PLACES[found, inside]
        return rows

    def row(self, sample: int) -> int:
        """The row of one sample."""
        return int(self.of(numpy.array([sample]))[0])

    def mask(self, start: int, end: int) -> Mask:
        """Which of the rows `start` to `end - 1` are selected: bool."""
        if self.is_range:
            rows = numpy.arange(start, end)
            return (rows >= self.start) & (rows < self.start + self.samples)
        whole = numpy.frombuffer(self.bits, dtype=numpy.uint8, count=-(-end // 8) - start // 8, offset=start // 8)
        return numpy.unpackbits(whole, bitorder="little")[start % 8 :][: end - start].astype(bool)

    def counts(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """How many rows are selected in each of consecutive parts of the file, given the parts' lengths."""
        found, start = [], 0
        for length in lengths:
            found.append(self._count_before(start + length) - self._count_before(start))
            start += length
        return tuple(found)

    def _count_before(self, row: int) -> int:
        if self.before is None:
            return min(max(row - self.start, 0), self.samples)
        block = min(row // (_BLOCK_BYTES * 8), len(self.before) - 1)
        return int(self.before[block]) + int(self.mask(block * _BLOCK_BYTES * 8, row).sum())


def all_rows(count: int) -> Selection:
    """The selection of every row of a file."""
    return Selection(count, count)


def selected_range(rows: int, start: int, end: int) -> Selection:
    """The selection of the rows `start` to `end - 1` of a file."""
    return Selection(rows, end - start, start)


def packed(mask: Mask) -> NDArray[numpy.uint8]:
    """A mask as bits, in little order."""
    return numpy.packbits(mask, bitorder="little")


def selection_of(bits: NDArray[numpy.uint8], rows: int) -> Selection:
    """The selection of the rows whose bit is set.

    Args:
        bits: uint8 `(ceil(rows / 8),)`, as `packed` returns them.
    """
    padded = numpy.zeros(-(-len(bits) // _BLOCK_BYTES) * _BLOCK_BYTES, dtype=numpy.uint8)
    padded[: len(bits)] = bits
    ones = _ONES[padded].reshape(-1, _BLOCK_BYTES).sum(axis=1, dtype=numpy.int64)
    samples = int(ones.sum())
    found = Selection(rows, samples, 0, padded.tobytes(), numpy.cumsum(ones) - ones)
    if samples:
        first, last = found.row(0), found.row(samples - 1)
        if last - first + 1 == samples:
            return selected_range(rows, first, last + 1)
    return found
