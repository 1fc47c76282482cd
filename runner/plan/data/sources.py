"""Plans batched data sources: the array of each batch column, the number of samples, and how they are drawn."""

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
from runner.text import counted

STREAMED_FROM = 1 / 4
"""A source larger than this fraction of the memory is streamed if its files can be read in parts."""

_KEYED = (".npz", ".safetensors")
_IN_PARTS = (".npy", ".safetensors", ".parquet")
_TEXT = (".csv", ".tsv")
_ANY_SIZE = 1 << 62
_INDEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class BatchColumn:
    """One column of a batch, and the array that it comes from."""

    name: str
    array: ArrayFile
    shape: tuple[int, ...]  # the shape of one sample
    dtype: torch.dtype  # the dtype of the batch; the file may have another
    path: ConfigPath
    dtype_path: ConfigPath  # the path of the declared dtype, or `path`
    read_bytes: int  # additional bytes of one sample during reading

    @property
    def bytes(self) -> int:
        """Bytes of one sample."""
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
    groups: tuple[int, ...]  # lengths of the row groups if all columns are in one Parquet file, otherwise empty
    streams: bool  # whether it is read in parts during the run, rather than completely before

    @property
    def path(self) -> ConfigPath:
        return ("data", self.name)

    @property
    def batches(self) -> int:
        """Number of batches in one pass."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The possible lengths of a batch: the full length, and the length of a shorter last batch."""
        return self.all_lengths[:1] if self.drop_last else self.all_lengths

    @property
    def all_lengths(self) -> tuple[int, ...]:
        """The same for `evaluate`, which ignores `drop_last`."""
        rest = self.samples % self.batch_size
        return (self.batch_size, rest) if rest else (self.batch_size,)

    @property
    def bytes(self) -> int:
        """Bytes in memory: of all samples, or if streamed of a batch or the largest row group of a Parquet file."""
        return self._samples_in_memory * sum(column.bytes for column in self.columns)

    @property
    def reading_bytes(self) -> int:
        """Additional bytes during reading, which reads one column at a time."""
        return self._samples_in_memory * max(column.read_bytes for column in self.columns)

    @property
    def order_bytes(self) -> int:
        """Bytes of a shuffled order: an int64 per sample, twice if it is assembled from row groups."""
        copies = 2 if len(self.groups) > 1 else 1
        return copies * _INDEX_BYTES * self.samples if self.shuffle else 0

    @property
    def _samples_in_memory(self) -> int:
        return max((self.batch_size, *self.groups)) if self.streams else self.samples

    def __getitem__(self, name: str) -> BatchColumn:
        return next(column for column in self.columns if column.name == name)

    def __contains__(self, name: str) -> bool:
        return any(column.name == name for column in self.columns)


@dataclass(frozen=True, slots=True)
class SourceContext:
    """The context of source declarations."""

    scalars: Mapping[str, Scalar]
    default_dtype: torch.dtype
    faults: Faults
    allowed: tuple[Path, ...]
    memory: int  # bytes


def columns_read(config: Config) -> list[Columns]:
    """Every selection of columns in a config, from any table."""
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
    """Every valid data source, in the order of the file. Reads only headers, except for text files.

    Args:
        memory: available bytes; a source larger than a quarter of them is streamed.
    """
    folders = (*map(Path, faults.document.sandbox.folders), *allowed)
    context = SourceContext(scalars, default_dtype, faults, folders, memory)
    sources: dict[str, SourcePlan] = {}
    for name, declared in declarations.items():
        try:
            source = _plan(name, declared, context)
        except PlacedFault as fault:
            faults.problems.append(fault.problem(faults.document))
            continue
        if source is not None:
            sources[name] = source
    return sources


def _plan(name: str, declared: DataDeclaration, context: SourceContext) -> SourcePlan | None:
    path: ConfigPath = ("data", name)
    columns: list[BatchColumn] = []
    samples: dict[str, int] = {}
    for batch_name, spec in declared.columns.items():
        column, length = _column(batch_name, spec, declared, path, context)
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
        raise PlacedFault(path, f"the source `{name}` has no samples", "use a file with samples", key=True)
    where = (*path, "batch_size")
    written = count if declared.batch_size is None else declared.batch_size
    batch_size = integer(written, where, context.scalars, context.faults, 1)
    if batch_size is None:
        return None
    if batch_size > count:
        message = f"a batch of {batch_size} is larger than the source, which has {counted(count, 'sample')}"
        raise PlacedFault(where, message, f"write at most {count}")
    return _read_in_parts(
        SourcePlan(name, tuple(columns), count, batch_size, declared.shuffle, declared.drop_last, (), False), context
    )


def _read_in_parts(source: SourcePlan, context: SourceContext) -> SourcePlan:
    """The source with its row groups, streamed if it is large."""
    arrays = [column.array for column in source.columns]
    one_table = len({array.path for array in arrays}) == 1 and arrays[0].suffix == ".parquet"
    groups = groups_of(arrays[0]) if one_table else ()
    large = source.bytes > STREAMED_FROM * context.memory
    streams = large and (bool(groups) or all(map(has_rows, arrays)))
    source = replace(source, groups=groups, streams=streams)
    if source.order_bytes > context.memory:
        size, available = readable_bytes(source.order_bytes), readable_bytes(context.memory)
        message = f"the order of {source.samples:,} shuffled samples needs {size}, but only {available} are available"
        hint = "draw them in the order of the file, which you can shuffle once, or raise the limit with --max-memory"
        raise PlacedFault((*source.path, "shuffle"), message, hint, key=True)
    needed = source.bytes + source.reading_bytes
    if not streams and needed > context.memory:
        size, available = readable_bytes(needed), readable_bytes(context.memory)
        message = f"the source `{source.name}` needs {size}, but only {available} are available"
        hint = "save it as `.npy` files in C order or as one `.parquet` file, which are read in parts"
        raise PlacedFault(source.path, message, hint, key=True)
    return source


def _column(
    batch_name: str, spec: str | tuple[str, ...], declared: DataDeclaration, path: ConfigPath, context: SourceContext
) -> tuple[BatchColumn, int]:
    at: ConfigPath = (*path, "columns", batch_name)
    where: ConfigPath = at if declared.file is None else (*path, "file")
    folder = context.faults.document.folder(where)
    try:
        array = _open(spec, declared.file, folder, context.allowed)
        shape, kind = describe(array, _ANY_SIZE if array.suffix in _IN_PARTS else context.memory)
    except FileFault as fault:
        about_column = fault.about_columns or f"no array `{spec}`" in fault.message
        raise PlacedFault(at if about_column else where, fault.message, fault.hint) from fault
    if not shape:
        message = f"{array.name} is one number, and a batch column has an entry for each sample"
        raise PlacedFault(at, message, "use an array, or declare a constant")
    dtype = default_of_kind(kind, context.default_dtype)
    if batch_name in declared.dtype:
        dtype = getattr(torch, declared.dtype[batch_name])
        if kind.is_complex and not dtype.is_complex:
            message = f"{array.name} is {dtype_name(kind)}, and {dtype_name(dtype)} would lose its imaginary part"
            raise PlacedFault((*path, "dtype", batch_name), message, "write a complex dtype")
    dtype_path = (*path, "dtype", batch_name) if batch_name in declared.dtype else at
    try:
        check_cast(array, dtype, context.memory)
    except FileFault as fault:
        raise PlacedFault(dtype_path, fault.message, fault.hint) from fault
    read_bytes = math.prod(shape[1:]) * _reading_bytes(array, kind, dtype)
    return BatchColumn(batch_name, array, shape[1:], dtype, at, dtype_path, read_bytes), shape[0]


def _reading_bytes(array: ArrayFile, kind: torch.dtype, dtype: torch.dtype) -> int:
    """Additional bytes of one element during reading."""
    if array.suffix in _TEXT:
        return 2 * kind.itemsize  # the parts, and the whole
    return kind.itemsize if kind != dtype else 1  # the values before the cast; otherwise a mask for NaN


def _open(spec: str | tuple[str, ...], file: str | None, folder: Path, allowed: tuple[Path, ...]) -> ArrayFile:
    if file is None:
        if not isinstance(spec, str):
            raise FileFault("these columns name no file", "write `file:` next to `columns:`")
        return open_array(spec, folder, allowed)
    suffix = Path(file).suffix.lower()
    if suffix in _KEYED:
        if not isinstance(spec, str):
            raise FileFault(f"a `{suffix}` file has arrays, not columns to stack", "name one array", about_columns=True)
        return open_array(f"{file}#{spec}", folder, allowed)
    if suffix == ".npy":
        raise FileFault("a `.npy` file has no columns", f"leave `file` out, and write `x: {file}` under `columns:`")
    return open_array(file, folder, allowed, spec)
