"""Data files as tensors: shape and dtype from the header, values when asked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.language.inference import readable_bytes
from runner.plan.arrays import open_npy, open_npz, open_safetensors, read_values
from runner.plan.memory import machine_memory
from runner.plan.sandbox import FileFault, locate
from runner.plan.tables import Columns, describe_parquet, read_parquet, read_text, row_groups

__all__ = ["ArrayFile", "Columns", "FileFault", "describe", "groups_of", "open_array", "read", "read_group", "widened"]

_OPENERS = {".npy": open_npy, ".npz": open_npz, ".safetensors": open_safetensors}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_OPENERS, *_DELIMITERS, ".parquet")
_KEYED = re.compile(r"(?P<file>.*\.(?:npz|safetensors))#(?P<key>.*)", re.IGNORECASE | re.DOTALL)
_WIDENED: Mapping[torch.dtype, torch.dtype] = dict.fromkeys((torch.uint16, torch.uint32, torch.uint64), torch.int64)
"""Unsigned integers that torch can hardly compute with, read as int64."""


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """One array of a data file that may be read."""

    path: Path  # with every link followed
    key: str | None  # of `.npz` and `.safetensors`
    columns: Columns  # of tables

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def name(self) -> str:
        return self.path.name if self.key is None else f"{self.path.name}#{self.key}"


def open_array(text: str, folder: Path, allowed: Iterable[Path] = (), columns: Columns = None) -> ArrayFile:
    """The array that a config names; nothing of it is read yet.

    Args:
        text: for instance `data/points.csv` or `weights.npz#w1`, relative to `folder` or absolute.
        folder: of the config that writes it.
        allowed: folders from which reading is allowed besides.
        columns: of a table; one name, several, or None for all.
    Raises:
        FileFault: outside the allowed folders, missing, not an ordinary file, an unknown kind, or a key or
            columns that this kind does not have.
    """
    keyed = _KEYED.fullmatch(text)
    written, key = (keyed["file"], keyed["key"]) if keyed else (text, None)
    suffix = Path(written).suffix.lower()
    if suffix.partition("#")[0] in _SUFFIXES and "#" in suffix:
        raise FileFault(f"a `{suffix.partition('#')[0]}` file has no `#key`", "`columns:` names the columns of a table")
    if suffix not in _SUFFIXES:
        hint = did_you_mean(suffix, _SUFFIXES, f"data files are {listing(_SUFFIXES)}")
        raise FileFault(f"`{text}` is not a kind of file that is read", hint)
    if columns is not None and suffix in _OPENERS:
        hint = "write `#key` after the file's name" if suffix != ".npy" else "take `columns` out"
        raise FileFault(f"a `{suffix}` file has no columns", hint, about_columns=True)
    return ArrayFile(locate(written, folder, allowed), key, columns)


def describe(array: ArrayFile, limit: int | None = None) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an array, from the file's header; a `.csv` or `.tsv` is read through.

    Args:
        limit: the largest array in bytes; what the machine has unless given.
    Raises:
        FileFault: malformed, truncated, no such key or column, or larger than the limit.
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
    return shape, _WIDENED.get(dtype, dtype)


def read(array: ArrayFile, limit: int | None = None) -> Tensor:
    """The values of an array, contiguous, on the CPU, of the dtype that `describe` tells.

    Raises:
        FileFault: as `describe`, and for values that cannot be read.
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
    """The rows of each row group of a Parquet file; none for any other."""
    return row_groups(array.path) if array.suffix == ".parquet" else ()


def read_group(array: ArrayFile, group: int) -> Tensor:
    """The values of one row group of a Parquet file, as `read` gives those of all. Raises as `read` does."""
    return widened(read_parquet(array.path, array.columns, group), array.name)


def _read_text(array: ArrayFile, limit: int) -> Tensor:
    _check_size(array, array.path.stat().st_size, limit // 4)  # a cell of two characters becomes eight bytes
    return read_text(array.path, array.columns, _DELIMITERS[array.suffix])


def _check_size(array: ArrayFile, size: int, limit: int) -> None:
    if size > limit:
        message = f"{array.name} takes {readable_bytes(size)}, and at most {readable_bytes(limit)} are read"
        raise FileFault(message, "use a smaller file, or a machine with more memory")


def widened(tensor: Tensor, name: str) -> Tensor:
    """A contiguous tensor, its unsigned integers as int64.

    Raises:
        FileFault: one of them is beyond 2^63.
    """
    wide = _WIDENED.get(tensor.dtype)
    if wide is None:
        return tensor.contiguous()
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise FileFault(f"{name} holds unsigned integers beyond 2^63", "save them as int64")
    return tensor.to(wide)
