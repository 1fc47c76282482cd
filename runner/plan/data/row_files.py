"""Reads single rows of an array in a file, for sources larger than memory.

Rows are read at their offsets rather than mapped into memory. So reading leaves no pages behind, and a file that was
truncated raises an error; with a mapping, it would abort the process.
"""

from __future__ import annotations

import os
import weakref

from torch import Tensor

from runner.plan.data.arrays import Header, open_npy, open_safetensors, values_of
from runner.plan.data.files import ArrayFile, FileFault, widened

_OPENERS = {".npy": open_npy, ".safetensors": open_safetensors}


def has_rows(array: ArrayFile) -> bool:
    """Whether the rows of an array are contiguous in its file."""
    if array.suffix not in _OPENERS:
        return False
    with _OPENERS[array.suffix](array.path, array.key) as (header, _):
        return header.bytes > 0 and not (header.fortran_order and len(header.shape) > 1)


class Rows:
    """An array `(rows, *shape)` in a `.npy` or `.safetensors` file, read row by row.

    Raises:
        FileFault: the file cannot be opened or is malformed.
    """

    __slots__ = ("__weakref__", "_descriptor", "_header", "_name", "_offset", "_width")

    def __init__(self, array: ArrayFile) -> None:
        with _OPENERS[array.suffix](array.path, array.key) as (header, stream):
            self._offset = stream.tell()
            self._descriptor = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._header: Header = header
        self._name = array.name
        self._width = header.bytes // max(header.shape[0], 1)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._header.shape

    def between(self, start: int, end: int) -> Tensor:
        """Rows `start` to `end - 1`, with the dtype that `describe` returns."""
        buffer = bytearray((end - start) * self._width)
        self._fill(memoryview(buffer), start)
        return self._tensor(buffer)

    def at(self, positions: list[int]) -> Tensor:
        """The rows at the given positions, in that order."""
        buffer, width = bytearray(len(positions) * self._width), self._width
        view = memoryview(buffer)
        for place, position in enumerate(positions):
            self._fill(view[place * width : (place + 1) * width], position)
        return self._tensor(buffer)

    def _fill(self, view: memoryview, row: int) -> None:
        offset = self._offset + row * self._width
        while view:
            count = os.preadv(self._descriptor, [view], offset)
            if not count:
                end = (offset - self._offset) // self._width
                raise FileFault(f"{self._name} ends within row {end}: it is truncated", "write the file again")
            view, offset = view[count:], offset + count

    def _tensor(self, buffer: bytearray) -> Tensor:
        shape = (len(buffer) // self._width, *self._header.shape[1:])
        return widened(values_of(Header(shape, self._header.dtype, self._header.big_endian), buffer), self._name)
