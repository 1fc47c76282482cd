"""Data files as tensors: shape and dtype from the header, values when asked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
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
    return shape, WIDENED.get(dtype, dtype)


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


class CastFault(FileFault):
    """A value of a file that the dtype it is read in does not hold."""


def cast(values: Tensor, dtype: torch.dtype, array: ArrayFile, rows: Sequence[int] | None = None) -> Tensor:
    """Values of an array in another dtype, each of them kept, up to rounding.

    Args:
        values: as `read` gives them, or some rows.
        rows: which ones these are; all unless given.
    Raises:
        CastFault: the dtype does not hold one of them; with its row and column.
    """
    found = first_misfit(values, dtype)
    if found is None:
        return values.to(dtype)
    index, value, reason = found
    if rows is not None:
        index = (rows[index[0]], *index[1:])
    message = f"{_placed(array, index, str(value))}, which does not fit {dtype_name(dtype)}: it {reason}"
    raise CastFault(message, "write a `dtype` that holds it, or mend the value")


def _placed(array: ArrayFile, index: Sequence[int], shown: str) -> str:
    """Where in a file a value stands, and that it does: "points.csv:3 holds 1.5 in the column `y`"."""
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
    """Check before a run, where that costs no more than planning has read already: the values of a table of text.

    Raises:
        FileFault: as `cast`.
    """
    if array.suffix in _DELIMITERS:
        cast(read(array, limit), dtype, array)


_Held = dict[tuple[Path, int, int], dict[Columns, Tensor | FileFault]]
_held: _Held | None = None
_specs: tuple[Columns, ...] = ()

HELD_BYTES = 256 << 20
"""What tables of text may take together while they are held for those who read them next."""


@contextmanager
def text_read_once(specs: Iterable[Columns]) -> Iterator[None]:
    """Inside, a table of text is read once, for whichever of these columns it has; its values are held until the end.

    Args:
        specs: every choice of columns that may be read of any file.
    """
    global _held, _specs
    before = _held, _specs
    _held, _specs = {}, tuple(dict.fromkeys(specs))
    try:
        yield
    finally:
        _held, _specs = before


def _read_text(array: ArrayFile, limit: int) -> Tensor:
    status = array.path.stat()
    _check_size(array, status.st_size, limit)
    key = (array.path, status.st_mtime_ns, status.st_size)
    found = {} if _held is None else _held.get(key, {})
    if array.columns not in found:
        from runner.plan.data.text_tables import read_text  # for configs that read one

        found = read_text(array.path, _DELIMITERS[array.suffix], (array.columns, *_others(array)), limit)
        if _held is not None and _bytes_of(found) + sum(map(_bytes_of, _held.values())) <= HELD_BYTES:
            _held.setdefault(key, {}).update(found)
    result = found[array.columns]
    if isinstance(result, FileFault):
        raise result
    return result


def _others(array: ArrayFile) -> list[Columns]:
    """What else may be read of a table; of one that may not be held, nothing."""
    if _held is None or array.path.stat().st_size > HELD_BYTES // 8:
        return []
    return [columns for columns in _specs if columns is not None and columns != array.columns]


def _bytes_of(found: dict[Columns, Tensor | FileFault]) -> int:
    return sum(value.nbytes for value in found.values() if isinstance(value, Tensor))


def _check_size(array: ArrayFile, size: int, limit: int) -> None:
    if size > limit:
        message = f"{array.name} takes {readable_bytes(size)}, and at most {readable_bytes(limit)} are read"
        raise FileFault(message, "use a smaller file, or a machine with more memory")


def widened(tensor: Tensor, name: str) -> Tensor:
    """A contiguous tensor, its unsigned integers as int64.

    Raises:
        FileFault: one of them is beyond 2^63.
    """
    wide = WIDENED.get(tensor.dtype)
    if wide is None:
        return tensor.contiguous()
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise FileFault(f"{name} holds unsigned integers beyond 2^63", "save them as int64")
    return tensor.to(wide)
