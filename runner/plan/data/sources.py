"""Batched data sources: the array that each batch column comes from, how many samples there are, how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from runner.config import Config, DataDeclaration, TensorDeclaration
from runner.errors import did_you_mean, listing
from runner.faults import ConfigPath, Faults, PlacedFault
from runner.language.dtypes import dtype_name
from runner.language.inference.inference import readable_bytes
from runner.language.text.arithmetic import Scalar
from runner.plan.data.dtypes import default_of_kind
from runner.plan.data.files import ArrayFile, Columns, FileFault, check_cast, describe, groups_of, open_array
from runner.plan.data.row_files import has_rows
from runner.plan.scalars import integer

STREAMED_FROM = 1 / 4
"""Share of the memory from which on a source is streamed from its files, where they can be read in parts."""

_KEYED = (".npz", ".safetensors")
_IN_PARTS = (".npy", ".safetensors", ".parquet")
_TEXT = (".csv", ".tsv")
_ANY_SIZE = 1 << 62
_INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class BatchColumn:
    """One name of a batch, and the array it is cut from."""

    name: str
    array: ArrayFile
    shape: tuple[int, ...]  # of one sample
    dtype: torch.dtype  # of the batch; the file's own may be another
    path: ConfigPath
    dtype_path: ConfigPath  # where its dtype is written, else its own
    read_bytes: int  # of one sample while it is read, besides `bytes`

    @property
    def bytes(self) -> int:
        """Of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One data source of a run."""

    name: str
    columns: tuple[BatchColumn, ...]
    samples: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    groups: tuple[int, ...]  # lengths of the row groups, where all columns are of one Parquet file; else empty
    streams: bool  # read in parts while it is drawn, rather than whole before

    @property
    def path(self) -> ConfigPath:
        return ("data", self.name)

    @property
    def batches(self) -> int:
        """In one pass."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that a batch can have: the full one, and that of a last one which is shorter."""
        return self.all_lengths[:1] if self.drop_last else self.all_lengths

    @property
    def all_lengths(self) -> tuple[int, ...]:
        """The same for `evaluate`, which leaves nothing out."""
        rest = self.samples % self.batch_size
        return (self.batch_size, rest) if rest else (self.batch_size,)

    @property
    def bytes(self) -> int:
        """What it takes in memory: all of it, or of a streamed one the batch and, of Parquet, its largest row group."""
        return self._samples_held * sum(column.bytes for column in self.columns)

    @property
    def reading_bytes(self) -> int:
        """What it takes besides while it is read: one column at a time as it lies in its file."""
        return self._samples_held * max(column.read_bytes for column in self.columns)

    @property
    def order_bytes(self) -> int:
        """What the order of a shuffled pass takes: an int64 a sample, twice while it is put together of row groups."""
        copies = 2 if len(self.groups) > 1 else 1
        return copies * _INDEX_BYTES * self.samples if self.shuffle else 0

    @property
    def _samples_held(self) -> int:
        return max((self.batch_size, *self.groups)) if self.streams else self.samples

    def __getitem__(self, name: str) -> BatchColumn:
        return next(column for column in self.columns if column.name == name)

    def __contains__(self, name: str) -> bool:
        return any(column.name == name for column in self.columns)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What declarations of sources may refer to."""

    scalars: Mapping[str, Scalar]
    default_dtype: torch.dtype
    faults: Faults
    allowed: tuple[Path, ...]
    memory: int  # bytes


def columns_read(config: Config) -> list[Columns]:
    """Every choice of columns that a config makes, of whichever table."""
    tensors = (*config.parameters.values(), *config.constants.values())
    found: list[Columns] = [tensor.columns for tensor in tensors if isinstance(tensor, TensorDeclaration)]
    return found + [spec for declared in config.data.values() for spec in declared.columns.values()]


def plan_sources(
    declarations: Mapping[str, DataDeclaration],
    scalars: Mapping[str, Scalar],
    default_dtype: torch.dtype,
    faults: Faults,
    allowed: Iterable[Path],
    memory: int,
) -> dict[str, SourcePlan]:
    """Every data source that is valid, in the order of the file; nothing but headers is read, save of text files.

    Args:
        memory: bytes that there are; a source of more than a quarter is streamed.
    """
    folders = (*map(Path, faults.document.sandbox.folders), *allowed)
    around = Surroundings(scalars, default_dtype, faults, folders, memory)
    sources: dict[str, SourcePlan] = {}
    for name, declared in declarations.items():
        try:
            source = _plan(name, declared, around)
        except PlacedFault as fault:
            faults.problems.append(fault.problem(faults.document))
            continue
        if source is not None:
            sources[name] = source
    return sources


def _plan(name: str, declared: DataDeclaration, around: Surroundings) -> SourcePlan | None:
    path: ConfigPath = ("data", name)
    columns: list[BatchColumn] = []
    samples: dict[str, int] = {}
    for batch_name, spec in declared.columns.items():
        column, length = _column(batch_name, spec, declared, path, around)
        columns.append(column)
        samples[batch_name] = length
    for batch_name in declared.dtype:
        if batch_name not in declared.columns:
            hint = did_you_mean(batch_name, declared.columns, f"it has {listing(list(declared.columns))}")
            message = f"`{name}` has no column `{batch_name}`"
            raise PlacedFault((*path, "dtype", batch_name), message, hint or "name a column", key=True)
    first, count = next(iter(samples.items()))
    for batch_name, length in samples.items():
        if length != count:
            message = f"`{batch_name}` has {length} samples, and `{first}` has {count}"
            raise PlacedFault((*path, "columns", batch_name), message, "give the columns of a source equal lengths")
    if count == 0:
        raise PlacedFault(path, f"the source `{name}` has no samples", "use a file that holds some", key=True)
    where = (*path, "batch_size")
    written = count if declared.batch_size is None else declared.batch_size
    batch_size = integer(written, where, around.scalars, around.faults, 1)
    if batch_size is None:
        return None
    if batch_size > count:
        message = f"a batch of {batch_size} is larger than the source, which has {count} samples"
        raise PlacedFault(where, message, f"write at most {count}")
    return _read_in_parts(
        SourcePlan(name, tuple(columns), count, batch_size, declared.shuffle, declared.drop_last, (), False), around
    )


def _read_in_parts(source: SourcePlan, around: Surroundings) -> SourcePlan:
    """The source with its row groups, streamed where it is large."""
    arrays = [column.array for column in source.columns]
    one_table = len({array.path for array in arrays}) == 1 and arrays[0].suffix == ".parquet"
    groups = groups_of(arrays[0]) if one_table else ()
    large = source.bytes > STREAMED_FROM * around.memory
    streams = large and (bool(groups) or all(map(has_rows, arrays)))
    source = replace(source, groups=groups, streams=streams)
    if source.order_bytes > around.memory:
        size, there = readable_bytes(source.order_bytes), readable_bytes(around.memory)
        message = f"the order of {source.samples:,} shuffled samples takes {size}, and there are {there}"
        hint = "draw them in the order of the file, which may be shuffled once, or raise the limit with --max-memory"
        raise PlacedFault((*source.path, "shuffle"), message, hint, key=True)
    needed = source.bytes + source.reading_bytes
    if not streams and needed > around.memory:
        size, there = readable_bytes(needed), readable_bytes(around.memory)
        message = f"the source `{source.name}` takes {size}, and there are {there}"
        hint = "save it as `.npy` files in C order or as one `.parquet` file, which are read in parts"
        raise PlacedFault(source.path, message, hint, key=True)
    return source


def _column(
    batch_name: str, spec: str | tuple[str, ...], declared: DataDeclaration, path: ConfigPath, around: Surroundings
) -> tuple[BatchColumn, int]:
    at: ConfigPath = (*path, "columns", batch_name)
    where: ConfigPath = at if declared.file is None else (*path, "file")
    folder = around.faults.document.folder(where)
    try:
        array = _open(spec, declared.file, folder, around.allowed)
        shape, kind = describe(array, _ANY_SIZE if array.suffix in _IN_PARTS else around.memory)
    except FileFault as fault:
        about_column = fault.about_columns or f"no array `{spec}`" in fault.message
        raise PlacedFault(at if about_column else where, fault.message, fault.hint) from fault
    if not shape:
        message = f"{array.name} is one number, and a batch column has an entry for each sample"
        raise PlacedFault(at, message, "use an array, or declare a constant")
    dtype = default_of_kind(kind, around.default_dtype)
    if batch_name in declared.dtype:
        dtype = getattr(torch, declared.dtype[batch_name])
        if kind.is_complex and not dtype.is_complex:
            message = f"{array.name} is {dtype_name(kind)}, and {dtype_name(dtype)} would lose its imaginary part"
            raise PlacedFault((*path, "dtype", batch_name), message, "write a complex dtype")
    dtype_path = (*path, "dtype", batch_name) if batch_name in declared.dtype else at
    try:
        check_cast(array, dtype, around.memory)
    except FileFault as fault:
        raise PlacedFault(dtype_path, fault.message, fault.hint) from fault
    read_bytes = math.prod(shape[1:]) * _reading_bytes(array, kind, dtype)
    return BatchColumn(batch_name, array, shape[1:], dtype, at, dtype_path, read_bytes), shape[0]


def _reading_bytes(array: ArrayFile, kind: torch.dtype, dtype: torch.dtype) -> int:
    """What an element takes while it is read, besides what it takes then."""
    if array.suffix in _TEXT:
        return 2 * kind.itemsize  # in parts, and put together
    return kind.itemsize if kind != dtype else 1  # the values before their cast; else a look for NaN


def _open(spec: str | tuple[str, ...], file: str | None, folder: Path, allowed: tuple[Path, ...]) -> ArrayFile:
    if file is None:
        if not isinstance(spec, str):
            raise FileFault("these columns name no file", "write `file:` beside `columns:`")
        return open_array(spec, folder, allowed)
    suffix = Path(file).suffix.lower()
    if suffix in _KEYED:
        if not isinstance(spec, str):
            raise FileFault(f"a `{suffix}` file has arrays, not columns to stack", "name one array", about_columns=True)
        return open_array(f"{file}#{spec}", folder, allowed)
    if suffix == ".npy":
        raise FileFault("a `.npy` file has no columns", f"leave `file` out, and write `x: {file}` under `columns:`")
    return open_array(file, folder, allowed, spec)
