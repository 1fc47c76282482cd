"""Arrays of text, or of integers, as classes: numpy's arrays of equally long texts, which need no pickle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.data.arrays import Header, read_values
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import Words
from runner.plan.data.tables.conversions import CellFault, Conversion, Reading, converted

_BLOCK_BYTES = 1 << 20
_LONGEST = 1 << 20


class TextFault(FileFault):
    """An array holds text, and nothing says which classes it has."""


def shape_of_classes(header: Header, conversion: Conversion, name: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of an array after its classes became numbers.

    Raises:
        TextFault: it holds text, and has no classes.
        FileFault: it has more than one dimension, or its values have no classes.
    """
    if not conversion.classes:
        assert header.text is not None
        hint = "number its texts with `classes` in a data source, or name another array"
        raise TextFault(f"{name} holds text ({header.text.code}), not numbers", hint)
    _check(header, name)
    rows = header.shape[0]
    return ((rows, len(conversion.classes)), torch.float32) if conversion.one_hot else ((rows,), torch.int64)


def class_numbers(header: Header, stream: IO[bytes], name: str, reading: Reading, column: str) -> Tensor:
    """The number of the class of each entry of an array: int64 `(rows)`, or float32 `(rows, classes)` if one-hot.

    Raises:
        FileFault: as `shape_of_classes`, or an entry is not one of the classes.
    """
    (_, dtype), cells = shape_of_classes(header, reading.of(column), name), words_of_array(header, stream, name)
    try:
        return torch.from_numpy(converted(cells, column, reading).values).to(dtype)
    except CellFault as fault:
        raise entry_fault(fault, cells.words[cells.codes[fault.row]], name) from fault


def entry_fault(fault: CellFault, word: str, name: str) -> FileFault:
    """The fault of an entry that is not one of the classes."""
    shown = f"`{word[:40]}`" if word else "nothing"
    message = f"{name} holds {shown} in row {fault.row}"
    return FileFault(f"{message}, {fault.reason}" if fault.reason else message, fault.hint, about_columns=True)


def words_of_array(header: Header, stream: IO[bytes], name: str) -> Words:
    """The entries of an array as texts, without the blanks around them.

    Raises:
        FileFault: as `shape_of_classes`, or its bytes are not text.
    """
    _check(header, name)
    places: dict[str, int] = {}
    found = numpy.empty(header.shape[0], dtype=numpy.int32)
    start = 0
    for block in _blocks(header, stream, name):
        distinct, codes = numpy.unique(block, return_inverse=True)
        try:
            words = [_word(value) for value in distinct.tolist()]
        except UnicodeDecodeError as error:
            raise FileFault(f"{name} holds bytes that are not UTF-8", "save it with `array.astype(str)`") from error
        known = [places.setdefault(word, len(places)) for word in words]
        found[start : start + len(block)] = numpy.array(known, dtype=numpy.int32)[codes]
        start += len(block)
    return Words(found, tuple(places))


def _word(value: bytes | str | int | bool) -> str:
    text = str(value, "utf-8") if isinstance(value, bytes) else value
    return text.strip() if isinstance(text, str) else str(value).lower()


def _check(header: Header, name: str) -> None:
    if len(header.shape) != 1:
        message = f"{name} has the shape {header.shape}, and classes need one entry for each sample"
        raise FileFault(message, "save an array of one dimension", about_columns=True)
    if header.text is None and (header.dtype.is_floating_point or header.dtype.is_complex):
        message = f"{name} holds {dtype_name(header.dtype)}, which has no classes"
        raise FileFault(message, "save integers or text, or leave out its classes", about_columns=True)
    if header.text is not None and header.text.itemsize > _LONGEST:
        message = f"{name} has {header.text.itemsize:,} bytes for each text, and at most {_LONGEST:,} are read"
        raise FileFault(message, "save shorter texts")
    if header.text is not None and header.text.itemsize == 0 and header.shape[0]:  # a few bytes may claim many rows
        raise FileFault(f"{name} holds nothing in row 0", "save text", about_columns=True)


def _blocks(header: Header, stream: IO[bytes], name: str) -> Iterator[NDArray[numpy.generic]]:
    """Yields the entries of an array, some at a time."""
    rows, width = header.shape[0], header.bytes // max(1, header.shape[0])
    at_once = max(1, _BLOCK_BYTES // max(1, width))
    for start in range(0, rows, at_once):
        count = min(at_once, rows - start)
        if header.text is None:
            some = Header((count,), header.dtype, header.big_endian)
            yield read_values(some, stream, name).numpy()
            continue
        content = _read(stream, count * width)
        if len(content) < count * width:
            raise FileFault(f"{name} is truncated in row {start + len(content) // width}", "write the file again")
        block = numpy.frombuffer(content, dtype=header.text.code)
        if header.text.code[1] == "U" and (block.view("<u4" if not header.big_endian else ">u4") > 0x10FFFF).any():
            raise FileFault(f"{name} holds characters that are not Unicode", "write the file again")
        yield block


def _read(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
