"""Array files: `.npy`, `.npz` and `.safetensors`. Headers are limited in size, and pickle is never used."""

from __future__ import annotations

import json
import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.language.inference.inference import readable_bytes
from runner.plan.data.sandbox import FileFault, open_ordinary

_LARGEST_HEADER = 16 * 2**20
_LARGEST_NPY_HEADER = 10_000
_LARGEST_LENGTH = 2**63
_MOST_DIMENSIONS = 64  # torch's own bound
_WIDEST = 16  # bytes of the widest element
_REWRITE = "write the file again"
_SAVE = "write it with `numpy.save`"
_NUMBERS = "bool, int8 to int64, uint8 to uint64, float16 to float64, complex64 or complex128"
_NPY_HEADER = (
    re.compile(r"""['"]descr['"]:['"]([^'"]{2,20})['"]"""),
    re.compile(r"""['"]fortran_order['"]:(True|False)"""),
    re.compile(r"""['"]shape['"]:\(((?:[0-9]{1,18}L?,)*(?:[0-9]{1,18}L?)?)\)"""),
)
"""Patterns for the three entries of a header without spaces; numpy evaluates the header as Python code."""

_TEXT_CODE = re.compile(r"[<>|=](?P<kind>[US])(?P<width>[0-9]{1,9})")
_BYTES = {"U": 4, "S": 1}

_NUMPY: Mapping[str, torch.dtype] = {
    "b1": torch.bool,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "c8": torch.complex64,
    "c16": torch.complex128,
}
SAFETENSORS: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


TRUE_DTYPES = "steprun.dtypes"
"""The key of a `.safetensors` file's metadata for tensors of dtypes that the format lacks: a JSON mapping."""

_TRUE = {"complex128": torch.complex128, "float8_e8m0fnu": torch.float8_e8m0fnu}


@dataclass(frozen=True, slots=True)
class TextCode:
    """How an array of text is stored: each text has the same number of bytes, filled up with zeros."""

    code: str  # numpy's, such as `<U5` or `|S5`
    itemsize: int


@dataclass(frozen=True, slots=True)
class Header:
    """The description of one array in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    big_endian: bool = False
    fortran_order: bool = False
    text: TextCode | None = None  # of an array of text, whose `dtype` means nothing

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * (self.dtype.itemsize if self.text is None else self.text.itemsize)


def true_dtypes(metadata: Mapping[str, str]) -> dict[str, torch.dtype]:
    """The tensors of a `.safetensors` file that steprun stored in another dtype, and the dtype of each."""
    try:
        found = json.loads(metadata.get(TRUE_DTYPES, "{}"))
    except (ValueError, RecursionError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {name: _TRUE[dtype] for name, dtype in items if isinstance(dtype, str) and dtype in _TRUE}


def true_header(header: Header, dtype: torch.dtype | None) -> Header:
    """The header of a tensor as it was before steprun stored it in another dtype; unchanged if it cannot be that."""
    if dtype is None:
        return header
    if dtype.is_complex:
        pairs = header.dtype == torch.float64 and header.shape[-1:] == (2,)
        return Header(header.shape[:-1], dtype) if pairs else header
    return Header(header.shape, dtype) if header.dtype == torch.uint8 else header


@contextmanager
def open_npy(path: Path, key: str | None) -> Iterator[tuple[Header, IO[bytes]]]:
    """Provides the header of a `.npy` file, and the stream at its first value."""
    with open_ordinary(path) as file:
        header = _npy_header(file, path.name)
        _check_length(header.bytes, os.fstat(file.fileno()).st_size - file.tell(), path.name)
        yield header, file


@contextmanager
def open_npz(path: Path, key: str | None) -> Iterator[tuple[Header, IO[bytes]]]:
    """Provides the header of one array of a `.npz` file, and the stream at its first value."""
    with open_ordinary(path) as file, _archive_faults(path.name):
        archive = zipfile.ZipFile(file)
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        key = _chosen(key, entries, path.name)
        with archive.open(entries[key]) as stream:
            header = _npy_header(stream, f"{path.name}#{key}")
            _check_length(header.bytes, entries[key].file_size - stream.tell(), f"{path.name}#{key}")
            yield header, stream


@contextmanager
def open_safetensors(path: Path, key: str | None) -> Iterator[tuple[Header, IO[bytes]]]:
    """Provides the header of one tensor of a `.safetensors` file, and the stream at its first value."""
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        start, entries, metadata = safetensors_contents(file, size, path.name)
        key = _chosen(key, entries, path.name)
        header, begin, end = safetensors_header(entries[key], f"{path.name}#{key}")
        header = true_header(header, true_dtypes(metadata).get(key))
        _check_length(header.bytes, end - begin, f"{path.name}#{key}")
        if begin < 0 or start + end > size:
            raise FileFault(f"{path.name}#{key} ends beyond the file: it is truncated", _REWRITE)
        file.seek(start + begin)
        yield header, file


def array_names(path: Path) -> list[str | None]:
    """The keys of the arrays in a file; None for the array of a `.npy` file.

    Raises:
        FileFault: the file is malformed.
    """
    suffix = path.suffix.lower()
    with open_ordinary(path) as file:
        if suffix == ".safetensors":
            return [*safetensors_entries(file, os.fstat(file.fileno()).st_size, path.name)[1]]
        if suffix == ".npz":
            with _archive_faults(path.name):
                return [entry.filename.removesuffix(".npy") for entry in zipfile.ZipFile(file).infolist()]
    return [None]


def read_values(header: Header, stream: IO[bytes], name: str) -> Tensor:
    """Read the values of an array from a stream after its header.

    Raises:
        FileFault: the stream ends early.
    """
    buffer = numpy.empty(header.bytes, dtype=numpy.uint8)  # zeros, as of a bytearray, would be written first
    view, filled = buffer.data, 0
    while filled < len(buffer):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]  # all streams used here have it
        if not count:
            raise FileFault(f"{name} is truncated: {filled:,} of {len(buffer):,} bytes are there", _REWRITE)
        filled += count
    return values_of(header, buffer)


def values_of(header: Header, buffer: bytearray | NDArray[numpy.uint8]) -> Tensor:
    """The array of a header and its bytes; shares their memory if torch can use the layout."""
    if header.big_endian:
        width = header.dtype.itemsize // (2 if header.dtype.is_complex else 1)
        numpy.frombuffer(buffer, dtype=f"u{width}").byteswap(inplace=True)
    if not len(buffer):
        return torch.zeros(header.shape, dtype=header.dtype)
    if header.dtype == torch.bool:  # a file may have any byte, and torch needs 0 or 1
        return torch.frombuffer(buffer, dtype=torch.uint8).ne(0).reshape(header.shape)
    flat = torch.frombuffer(buffer, dtype=header.dtype)
    if header.fortran_order:
        backwards = flat.reshape(header.shape[::-1])
        return backwards.permute(*reversed(range(backwards.dim()))).contiguous()
    return flat.reshape(header.shape)


def _npy_header(stream: IO[bytes], name: str) -> Header:
    prefix = stream.read(8)
    if len(prefix) < 8 or not prefix.startswith(b"\x93NUMPY"):
        raise FileFault(f"{name} is not a `.npy` array", _SAVE)
    size = 2 if prefix[6] == 1 else 4
    length = int.from_bytes(stream.read(size), "little")
    if length > _LARGEST_NPY_HEADER:
        raise FileFault(f"{name} has a header of {length:,} bytes", "save a plain array; named fields are not read")
    text = stream.read(length).decode("latin-1")
    kind, order, lengths = (pattern.search("".join(text.split())) for pattern in _NPY_HEADER)
    if kind is None or order is None or lengths is None:
        raise FileFault(f"{name} has named fields or a malformed header: {text.strip()[:80]}", "save a plain array")
    code = kind[1]
    if code.endswith("O"):
        message = f"{name} holds Python objects, which would need pickle"
        raise FileFault(message, "save numbers with `array.astype(float)`, or text with `array.astype(str)`")
    of_text = _TEXT_CODE.fullmatch(code)
    dtype = torch.uint8 if of_text else _NUMPY.get(code[1:])
    if dtype is None or code[0] not in "<>|=":
        raise FileFault(f"{name} holds values of the type {code}, which torch does not support", f"save {_NUMBERS}")
    shape = tuple(int(part) for part in lengths[1].replace("L", "").split(",") if part)
    _check_shape(shape, name)
    words = None if of_text is None else TextCode(code, int(of_text["width"]) * _BYTES[of_text["kind"]])
    return Header(shape, dtype, code[0] == ">", order[1] == "True", words)


def _check_shape(shape: Sequence[int], name: str) -> None:
    """Reject shapes that torch does not support; an empty array may claim any other lengths."""
    strides = math.prod(max(length, 1) for length in shape[:_MOST_DIMENSIONS])
    if len(shape) > _MOST_DIMENSIONS or strides * _WIDEST >= _LARGEST_LENGTH:
        shown = listing([str(length) for length in shape], 6)
        raise FileFault(f"{name} claims the shape ({shown}), which torch does not support", _REWRITE)


def _check_length(needed: int, available: int, name: str) -> None:
    if needed > available:
        raise FileFault(f"{name} is truncated: {max(available, 0):,} of {needed:,} bytes are there", _REWRITE)
    if needed < available:
        raise FileFault(
            f"{name} has {available - needed:,} bytes more than its header says", "keep one array in it, or use `.npz`"
        )


def names_of(path: Path) -> tuple[str, ...]:
    """The names of the arrays in a `.npz` or `.safetensors` file.

    Raises:
        FileFault: the file is malformed.
    """
    with open_ordinary(path) as file:
        if path.suffix.lower() == ".safetensors":
            _, tensors = safetensors_entries(file, os.fstat(file.fileno()).st_size, path.name)
            return tuple(tensors)
        with _archive_faults(path.name):
            return tuple(entry.filename.removesuffix(".npy") for entry in zipfile.ZipFile(file).infolist())


def _chosen(key: str | None, entries: Mapping[str, Any], name: str) -> str:
    contents = f"it holds {listing(sorted(entries))}" if entries else "it is empty"
    if key is None:
        if len(entries) == 1:
            return next(iter(entries))
        raise FileFault(f"{name} holds {len(entries)} arrays, and none is named", f"write `{name}#key`; {contents}")
    if key not in entries:
        raise FileFault(f"{name} holds no array `{key}`", did_you_mean(key, entries, contents))
    return key


@contextmanager
def _archive_faults(name: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error) as error:
        raise FileFault(f"{name} is not a valid `.npz` archive: {error}", "write it with `numpy.savez`") from error
    except (NotImplementedError, RuntimeError) as error:
        raise FileFault(f"{name} cannot be unpacked: {error}", "write it with `numpy.savez`") from error


def safetensors_entries(file: IO[bytes], size: int, name: str) -> tuple[int, dict[str, Any]]:
    """The offset of the values of a `.safetensors` file of `size` bytes, and the header's entry of each tensor.

    Raises:
        FileFault: the file has no valid header.
    """
    start, entries, _ = safetensors_contents(file, size, name)
    return start, entries


def safetensors_contents(file: IO[bytes], size: int, name: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """As `safetensors_entries`, and the texts of the header's metadata. Raises the same."""
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= size - 8:
        raise FileFault(f"{name} is not a valid `.safetensors` file: its header claims {length:,} bytes", _REWRITE)
    if length > _LARGEST_HEADER:
        raise FileFault(
            f"{name} has a header of {readable_bytes(length)}", f"at most {readable_bytes(_LARGEST_HEADER)} are read"
        )
    try:
        entries = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise FileFault(f"{name} is not a `.safetensors` file: its header is not JSON", _REWRITE) from error
    if not isinstance(entries, dict):
        raise FileFault(f"{name} is not a `.safetensors` file: its header is not a mapping", _REWRITE)
    metadata = entries.pop("__metadata__", None)
    texts = metadata.items() if isinstance(metadata, dict) else ()
    return 8 + length, entries, {key: text for key, text in texts if isinstance(text, str)}


def safetensors_header(entry: Any, name: str) -> tuple[Header, int, int]:
    """The shape and dtype of one entry of a header, and where its values begin and end after the header.

    Raises:
        FileFault: the entry is malformed.
    """
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if all(
            type(number) is int and 0 <= number < _LARGEST_LENGTH for number in (*shape, begin, end)
        ):
            known = SAFETENSORS.get(dtype)
            if known is None:
                raise FileFault(
                    f"{name} holds values of the type {dtype}, which is not supported",
                    f"save one of {listing(SAFETENSORS, 20)}",
                )
            _check_shape(shape, name)
            return Header(tuple(shape), known), begin, end
    raise FileFault(f"{name} has a malformed entry in the file's header", _REWRITE)
