"""Reads some rows of an array in a file: single rows, for sources larger than memory, or all of them in blocks.

Consecutive rows are read at their offset. Scattered rows are copied out of a mapping of the file, because a system call
for each row would take ten times as long. Reading a mapping beyond the end of a truncated file would abort the process,
so the size of the file is checked before each copy. Pages that were read are released after `MAPPED_BYTES`.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import NoReturn

import numpy
from numpy.typing import NDArray
from torch import Tensor

from runner.plan.data.arrays import Header, read_values, values_of
from runner.plan.data.files import ArrayFile, FileFault, header_of, open_stream, read, widened

_MAPPED = (".npy", ".safetensors")


MAPPED_BYTES = 64 << 20
"""Bytes of pages that scattered reading may touch before it releases them."""


def has_rows(array: ArrayFile) -> bool:
    """Whether any rows of an array can be read from its file."""
    return array.suffix in _MAPPED and in_order(array)


def in_order(array: ArrayFile) -> bool:
    """Whether the rows of an array that is no table follow one another in its file, and are read as they are."""
    if array.is_table or array.has_classes:
        return False
    header = header_of(array)
    return header.bytes > 0 and header.text is None and not (header.fortran_order and len(header.shape) > 1)


_BLOCK_BYTES = 16 << 20


def row_blocks(array: ArrayFile, limit: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Yields the rows of an array in a file that is no table, in blocks of at most 16 MiB or one row.

    Arrays with classes, and those in Fortran order, are read as a whole.

    Args:
        limit: maximum bytes of an array that is read as a whole; the memory of the machine by default.
    Yields:
        The number of the first row, and the rows with the dtype that `describe` returns.
    Raises:
        FileFault: as `read`.
    """
    if not in_order(array):
        yield 0, read(array, limit)
        return
    with open_stream(array) as (header, stream):
        rows = header.shape[0] if header.shape else 1
        at_once = max(1, _BLOCK_BYTES * rows // header.bytes)
        for start in range(0, rows, at_once):
            shape = (min(at_once, rows - start), *header.shape[1:]) if header.shape else ()
            block = Header(shape, header.dtype, header.big_endian)
            yield start, widened(read_values(block, stream, array.name), array.name)


class Rows:
    """An array `(rows, *shape)` in a `.npy` or `.safetensors` file, read row by row.

    Raises:
        FileFault: the file cannot be opened or is malformed.
    """

    __slots__ = ("__weakref__", "_descriptor", "_header", "_map", "_name", "_offset", "_touched", "_width")

    def __init__(self, array: ArrayFile) -> None:
        with open_stream(array) as (header, stream):
            self._offset = stream.tell()
            self._descriptor = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._header: Header = header
        self._name = array.name
        self._width = header.bytes // max(header.shape[0], 1)
        self._map: mmap.mmap | None = None
        self._touched = 0  # bytes of pages, at most

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header.shape

    @property
    def width(self) -> int:
        """Bytes of one row."""
        return self._width

    def between(self, start: int, end: int) -> Tensor:
        """Rows `start` to `end - 1`, with the dtype that `describe` returns."""
        buffer = bytearray((end - start) * self._width)
        self._fill(memoryview(buffer), start)
        return self._tensor(buffer)

    def at(self, positions: NDArray[numpy.int64]) -> Tensor:
        """The rows at the given positions, in that order."""
        rows, width, end = self._header.shape[0], self._width, self._offset + self._header.bytes
        self._check_size(end)
        if self._map is None:
            self._map = mmap.mmap(self._descriptor, end, prot=mmap.PROT_READ)
        mapped = numpy.frombuffer(self._map, dtype=numpy.uint8, count=rows * width, offset=self._offset)
        buffer = bytearray(len(positions) * width)
        target = numpy.frombuffer(buffer, dtype=numpy.uint8).reshape(-1, width)
        numpy.take(mapped.reshape(rows, width), positions, axis=0, out=target, mode="clip")
        self._release(len(positions))
        return self._tensor(buffer)

    def _check_size(self, end: int) -> None:
        size = os.fstat(self._descriptor).st_size
        if size < end:
            self._truncated((size - self._offset) // self._width)

    def _truncated(self, row: int) -> NoReturn:
        raise FileFault(f"{self._name} ends within row {row}: it is truncated", "write the file again")

    def _release(self, rows: int) -> None:
        """Releases the pages of the mapping if the rows that were read have touched many."""
        self._touched += rows * (self._width + mmap.PAGESIZE)
        if self._touched > MAPPED_BYTES and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def _fill(self, view: memoryview, row: int) -> None:
        offset = self._offset + row * self._width
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            if not count:
                self._truncated((offset - self._offset) // self._width)
            view, offset = view[count:], offset + count

    def _tensor(self, buffer: bytearray) -> Tensor:
        shape = (len(buffer) // self._width, *self._header.shape[1:])
        return widened(values_of(Header(shape, self._header.dtype, self._header.big_endian), buffer), self._name)
