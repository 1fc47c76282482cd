"""Data files as tensors: shape and dtype from the header, values on request."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.language.dtypes import dtype_name
from runner.language.inference.inference import readable_bytes
from runner.plan.data.arrays import open_npy, open_npz, open_safetensors, read_values
from runner.plan.data.casting import first_misfit
from runner.plan.data.dtypes import WIDENED
from runner.plan.data.sandbox import FileFault, locate
from runner.plan.data.tables import Columns, describe_parquet, names_in_parquet, read_parquet, row_groups
from runner.plan.memory import machine_memory

__all__ = [
    "ArrayFile",
    "CastFault",
    "Columns",
    "FileFault",
    "cast",
    "check_cast",
    "describe",
    "groups_of",
    "open_array",
    "read",
    "read_group",
    "text_read_once",
    "widened",
]

_OPENERS = {".npy": open_npy, ".npz": open_npz, ".safetensors": open_safetensors}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_OPENERS, *_DELIMITERS, ".parquet")
_KEYED = re.compile(r"(?P<file>.*\.(?:npz|safetensors))#(?P<key>.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """One array of a data file that the config may read."""

    path: Path  # with links resolved
    key: str | None  # the array in a `.npz` or `.safetensors` file
    columns: Columns  # the columns of a table

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def name(self) -> str:
        return self.path.name if self.key is None else f"{self.path.name}#{self.key}"


def open_array(text: str, folder: Path, allowed: Iterable[Path] = (), columns: Columns = None) -> ArrayFile:
    """The array that a config names, without reading it.

    Args:
        text: for example `data/points.csv` or `weights.npz#w1`, relative to `folder` or absolute.
        folder: the folder of the config file with the path.
        allowed: additional folders from which reading is allowed.
        columns: the columns of a table: one name, several, or None for all.
    Raises:
        FileFault: the file is outside the allowed folders, missing, not an ordinary file, of an unknown type, or of a
            type without a key or columns.
    """
    keyed = _KEYED.fullmatch(text)
    written, key = (keyed["file"], keyed["key"]) if keyed else (text, None)
    suffix = Path(written).suffix.lower()
    if suffix.partition("#")[0] in _SUFFIXES and "#" in suffix:
        raise FileFault(f"a `{suffix.partition('#')[0]}` file has no `#key`", "`columns:` names the columns of a table")
    if suffix not in _SUFFIXES:
        hint = did_you_mean(suffix, _SUFFIXES, f"data files are {listing(_SUFFIXES)}")
        raise FileFault(f"`{text}` is not a supported file type", hint)
    if columns is not None and suffix in _OPENERS:
        hint = "write `#key` after the file's name" if suffix != ".npy" else "remove `columns`"
        raise FileFault(f"a `{suffix}` file has no columns", hint, about_columns=True)
    return ArrayFile(locate(written, folder, allowed), key, columns)


def describe(array: ArrayFile, limit: int | None = None) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of an array, from the file's header; a `.csv` or `.tsv` file is read completely.

    Args:
        limit: maximum bytes of the array; the memory of the machine by default.
    Raises:
        FileFault: the file is malformed, truncated, without that key or column, or larger than the limit.
    """
    limit = machine_memory() if limit is None else limit
    if array.suffix in _OPENERS:
        with _OPENERS[array.suffix](array.path, array.key) as (header, _):
            shape, dtype = header.shape, header.dtype
    elif array.suffix in _DELIMITERS:
        table = _read_text(array, limit)
        shape, dtype = tuple(table.shape), table.dtype
    else:
        shape, dtype = describe_parquet(array.path, array.columns)
    _check_size(array, math.prod(shape) * dtype.itemsize, limit)
    return shape, WIDENED.get(dtype, dtype)


def read(array: ArrayFile, limit: int | None = None) -> Tensor:
    """The values of an array, contiguous, on the CPU, with the dtype that `describe` returns.

    Raises:
        FileFault: as `describe`, or if values cannot be read.
    """
    limit = machine_memory() if limit is None else limit
    if array.suffix in _OPENERS:
        with _OPENERS[array.suffix](array.path, array.key) as (header, stream):
            _check_size(array, header.bytes, limit)
            tensor = read_values(header, stream, array.name)
    elif array.suffix in _DELIMITERS:
        tensor = _read_text(array, limit)
    else:
        shape, dtype = describe_parquet(array.path, array.columns)
        _check_size(array, math.prod(shape) * dtype.itemsize, limit)
        tensor = read_parquet(array.path, array.columns)
    return widened(tensor, array.name)


def groups_of(array: ArrayFile) -> tuple[int, ...]:
    """The number of rows of each row group of a Parquet file; empty for other files."""
    return row_groups(array.path) if array.suffix == ".parquet" else ()


def read_group(array: ArrayFile, group: int) -> Tensor:
    """The values of one row group of a Parquet file. Returns and raises as `read`."""
    return widened(read_parquet(array.path, array.columns, group), array.name)


class CastFault(FileFault):
    """A file has a value that the requested dtype cannot represent."""


def cast(
    values: Tensor, dtype: torch.dtype, array: ArrayFile, rows: Sequence[int] | NDArray[numpy.int64] | None = None
) -> Tensor:
    """Cast values of an array to another dtype, preserving each up to rounding.

    Args:
        values: the values that `read` returns, or some rows of them.
        rows: the numbers of those rows; all rows by default.
    Raises:
        CastFault: the dtype cannot represent a value; the message has its row and column.
    """
    found = first_misfit(values, dtype)
    if found is None:
        return values.to(dtype)
    index, value, reason = found
    if rows is not None:
        index = (rows[index[0]], *index[1:])
    message = f"{_located(array, index, str(value))}, which does not fit {dtype_name(dtype)}: it {reason}"
    raise CastFault(message, "write a `dtype` that holds it, or correct the value")


def _located(array: ArrayFile, index: Sequence[int], shown: str) -> str:
    """A value and its place in a file: "points.csv:3 holds 1.5 in the column `y`"."""
    if array.suffix in _DELIMITERS:
        from runner.plan.data.text_tables import place_in_text

        line, column = place_in_text(array.path, _DELIMITERS[array.suffix], array.columns, index)
        return f"{array.name}:{line} holds {shown} in the column `{column}`"
    if not index:
        return f"{array.name} holds {shown}"
    inner = index[1:]
    if array.suffix == ".parquet":
        names = names_in_parquet(array.path, array.columns)
        column, inner = (names[0], inner) if isinstance(array.columns, str) else (names[inner[0]], inner[1:])
        at = f" at {list(inner)}" if inner else ""
        return f"{array.name} holds {shown} in row {index[0]}{at} of the column `{column}`"
    at = f", column {inner[0]}" if len(inner) == 1 else f" at {list(inner)}" if inner else ""
    return f"{array.name} holds {shown} in row {index[0]}{at}"


def check_cast(array: ArrayFile, dtype: torch.dtype, limit: int | None = None) -> None:
    """Check the values of a text table before a run. Planning has read them already; other files are not checked.

    Raises:
        FileFault: as `cast`.
    """
    if array.suffix in _DELIMITERS:
        cast(read(array, limit), dtype, array)


_Cache = dict[tuple[Path, int, int], dict[Columns, Tensor | FileFault]]
_cache: _Cache | None = None
_specs: tuple[Columns, ...] = ()

CACHE_BYTES = 256 << 20
"""Maximum bytes of all cached text tables together."""


@contextmanager
def text_read_once(specs: Iterable[Columns]) -> Iterator[None]:
    """Context manager that reads each text table only once, and caches its values until the end.

    Args:
        specs: all selections of columns that may be read from any file.
    """
    global _cache, _specs
    before = _cache, _specs
    _cache, _specs = {}, tuple(dict.fromkeys(specs))
    try:
        yield
    finally:
        _cache, _specs = before


def _read_text(array: ArrayFile, limit: int) -> Tensor:
    status = array.path.stat()
    _check_size(array, status.st_size, limit)
    key = (array.path, status.st_mtime_ns, status.st_size)
    found = {} if _cache is None else _cache.get(key, {})
    if array.columns not in found:
        from runner.plan.data.text_tables import read_text  # only for configs that read one

        found = read_text(array.path, _DELIMITERS[array.suffix], (array.columns, *_others(array)), limit)
        if _cache is not None and _bytes_of(found) + sum(map(_bytes_of, _cache.values())) <= CACHE_BYTES:
            _cache.setdefault(key, {}).update(found)
    result = found[array.columns]
    if isinstance(result, FileFault):
        raise result
    return result


def _others(array: ArrayFile) -> list[Columns]:
    """The other columns that may be read from a table; none if it is too large to cache."""
    if _cache is None or array.path.stat().st_size > CACHE_BYTES // 8:
        return []
    return [columns for columns in _specs if columns is not None and columns != array.columns]


def _bytes_of(found: dict[Columns, Tensor | FileFault]) -> int:
    return sum(value.nbytes for value in found.values() if isinstance(value, Tensor))


def _check_size(array: ArrayFile, size: int, limit: int) -> None:
    if size > limit:
        message = f"{array.name} needs {readable_bytes(size)}, and the limit is {readable_bytes(limit)}"
        raise FileFault(message, "use a smaller file, or a machine with more memory")


def widened(tensor: Tensor, name: str) -> Tensor:
    """Make a tensor contiguous, and convert unsigned integers of 16 bits or more to int64.

    Raises:
        FileFault: one of the integers is 2^63 or more.
    """
    wide = WIDENED.get(tensor.dtype)
    if wide is None:
        return tensor.contiguous()
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise FileFault(f"{name} holds unsigned integers beyond 2^63", "save them as int64")
    return tensor.to(wide)
