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
from runner.plan.data.files import ArrayFile, FileFault, describe, groups_of
from runner.plan.data.reading.checking import Scan, check_values
from runner.plan.data.reading.fits import check_classes
from runner.plan.data.reading.source_tables import SourceTable, open_column, source_table
from runner.plan.data.row_files import has_rows
from runner.plan.data.selection.of_source import select_source
from runner.plan.data.selection.planning import ClassCount, columns_named
from runner.plan.data.selection.selection import Selection
from runner.plan.data.tables.columns import names_in
from runner.plan.data.text_arrays import TextFault
from runner.plan.scalars import integer
from runner.text import counted

STREAMED_FROM = 1 / 4
"""A source larger than this fraction of the memory is streamed if its files can be read in parts."""

MOST_STORED = 1 << 17
"""A streamed source of `.npy` or `.safetensors` files with more samples computes its shuffled order."""

_IN_PARTS = (".npy", ".safetensors", ".parquet")
_TEXT = (".csv", ".tsv")
_READ_WHOLE = (*_TEXT, ".npz")
_ANY_SIZE = 1 << 62
_INDEX_BYTES = 8
_CODE_BYTES = 4


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
    taken: tuple[str, ...] = ()  # the columns of the file that its globs took

    @property
    def bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """One data source of a run."""

    name: str
    columns: tuple[BatchColumn, ...]
    selection: Selection  # the rows of the files that are its samples
    batch_size: int
    shuffle: bool
    drop_last: bool
    row_groups: tuple[int, ...]  # lengths of the row groups if all columns are in one Parquet file, otherwise empty
    streams: bool  # whether it is read in parts during the run, rather than completely before
    spread: tuple[ClassCount, ...] = ()  # over the classes of `stratify`

    @property
    def path(self) -> ConfigPath:
        return ("data", self.name)

    @property
    def samples(self) -> int:
        return self.selection.samples

    @property
    def rows(self) -> int:
        """Number of rows of its files."""
        return self.selection.rows

    @property
    def is_whole(self) -> bool:
        """Whether every row is a sample."""
        return self.samples == self.rows

    @property
    def groups(self) -> tuple[int, ...]:
        """Number of samples in each row group."""
        return self.row_groups if self.is_whole else self.selection.counts(self.row_groups)

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
        return max(
            self._samples_in_memory * column.read_bytes
            + (self.rows * column.bytes if not self.is_whole and column.array.suffix in _READ_WHOLE else 0)
            for column in self.columns
        )

    @property
    def order_bytes(self) -> int:
        """Bytes of the selection and of a shuffled order.

        A stored order has an int64 for each sample, twice if it is assembled from row groups. A streamed Parquet file
        has them for its largest row group only.
        """
        if not self.shuffle or self.computes_order:
            return self.selection.bytes
        copies = 2 if len(self.row_groups) > 1 else 1
        ordered = max(self.groups) if self.streams and self.row_groups else self.samples
        return self.selection.bytes + copies * _INDEX_BYTES * ordered

    @property
    def computes_order(self) -> bool:
        """Whether its shuffled order is computed during the run, rather than stored."""
        return self.shuffle and self.streams and not self.row_groups and self.samples > MOST_STORED

    @property
    def _samples_in_memory(self) -> int:
        return max((self.batch_size, *self.row_groups)) if self.streams else self.samples

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
    scan: Scan


def columns_read(config: Config) -> list[tuple[str, bool]]:
    """Every column that a config reads of any table: a name or a glob, and whether it is read as text."""
    tensors = (*config.parameters.values(), *config.constants.values())
    listed = [tensor.columns for tensor in tensors if isinstance(tensor, TensorDeclaration)]
    found = [(name, False) for columns in listed for name in names_in(columns)]
    for declared in config.data.values():
        texts = {*declared.classes, *declared.one_hot, *declared.dates}
        for batch_name, columns in declared.columns.items():
            found += [(name, batch_name in texts or name in texts) for name in names_in(columns)]
    return found


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
    context = SourceContext(scalars, default_dtype, faults, folders, memory, Scan())
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
    rows: dict[str, int] = {}
    table = source_table(
        name, declared, context.faults.document, context.allowed, context.memory, columns_named(declared.select)
    )
    for batch_name in declared.columns:
        column, length = _column(batch_name, declared, table, path, context)
        columns.append(column)
        rows[batch_name] = length
        if "" in column.taken:
            message = f"a glob takes a column of {column.array.path.name} without a name, which is often a row number"
            context.faults.warn(column.path, message, 'write `"?*"` to leave it out')
    for batch_name in declared.dtype:
        if batch_name not in declared.columns:
            hint = did_you_mean(batch_name, declared.columns, f"it has {listing(list(declared.columns))}")
            message = f"`{name}` has no column `{batch_name}`"
            raise PlacedFault((*path, "dtype", batch_name), message, hint or "name a column", key=True)
    first, count = next(iter(rows.items()))
    for batch_name, length in rows.items():
        if length != count:
            message = f"`{batch_name}` has {length} samples, and `{first}` has {count}"
            raise PlacedFault((*path, "columns", batch_name), message, "give the columns of a source equal lengths")
    if count == 0:
        raise PlacedFault(path, f"the source `{name}` has no samples", "use a file with samples", key=True)
    arrays = {column.name: column.array for column in columns}
    scalars, faults, memory = context.scalars, context.faults, context.memory
    selected = select_source(declared, path, arrays, count, scalars, faults, memory)
    if selected is None:
        return None
    samples = selected.selection.samples
    if declared.select is not None:
        _check_selected(columns, selected.selection, context)
    where = (*path, "batch_size")
    written = samples if declared.batch_size is None else declared.batch_size
    batch_size = integer(written, where, context.scalars, context.faults, 1)
    if batch_size is None:
        return None
    if batch_size > samples:
        whole = f"the source, which has {counted(samples, 'sample')}"
        there = whole if samples == count else f"the {counted(samples, 'selected sample')}"
        raise PlacedFault(where, f"a batch of {batch_size} is larger than {there}", f"write at most {samples}")
    source = SourcePlan(
        name,
        tuple(columns),
        selected.selection,
        batch_size,
        declared.shuffle,
        declared.drop_last,
        (),
        False,
        selected.spread,
    )
    return _read_in_parts(source, context)


def _check_selected(columns: Iterable[BatchColumn], selection: Selection, context: SourceContext) -> None:
    for column in columns:
        try:
            check_classes(column.array, selection, context.memory)
            check_values(column.array, column.dtype, context.scan, context.memory, selection)
        except FileFault as fault:
            at = column.path if fault.about_columns else column.dtype_path
            raise PlacedFault(at, fault.message, fault.hint) from fault


def _read_in_parts(source: SourcePlan, context: SourceContext) -> SourcePlan:
    """The source with its row groups, streamed if it is large."""
    arrays = [column.array for column in source.columns]
    one_table = len({array.paths for array in arrays}) == 1 and arrays[0].suffix == ".parquet"
    groups = groups_of(arrays[0]) if one_table else ()
    large = source.bytes > STREAMED_FROM * context.memory
    streams = large and (bool(groups) or all(map(has_rows, arrays)))
    source = replace(source, row_groups=groups, streams=streams)
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
    batch_name: str, declared: DataDeclaration, table: SourceTable | None, path: ConfigPath, context: SourceContext
) -> tuple[BatchColumn, int]:
    spec = declared.columns[batch_name]
    at: ConfigPath = (*path, "columns", batch_name)
    where: ConfigPath = at if declared.file is None else (*path, "file")
    folder = context.faults.document.folder(where)
    try:
        array = _open(batch_name, declared, table, folder, context.allowed)
        shape, kind = describe(array, _ANY_SIZE if array.suffix in _IN_PARTS else context.memory)
    except FileFault as fault:
        of_text = isinstance(fault, TextFault)
        about_column = of_text or fault.about_columns or f"no array `{spec}`" in fault.message
        hint = f"write `classes: {{{batch_name}: sorted}}` to number its texts" if of_text else None
        raise PlacedFault(at if about_column else where, fault.message, hint or fault.hint) from fault
    if not shape:
        message = f"{array.name} is one number, and a batch column has an entry for each sample"
        raise PlacedFault(at, message, "use an array, or declare a constant")
    dtype = default_of_kind(kind, context.default_dtype)
    if batch_name in declared.dtype:
        dtype = getattr(torch, declared.dtype[batch_name])
        if kind.is_complex and not dtype.is_complex:
            message = f"{array.name} is {dtype_name(kind)}, and {dtype_name(dtype)} would lose its imaginary part"
            raise PlacedFault((*path, "dtype", batch_name), message, "write a complex dtype")
    written: ConfigPath = (*path, "dtype", batch_name)  # `apply` declares the dtypes of the run, which no file writes
    dtype_path = at if context.faults.document.node(written) is None else written
    if declared.select is None:
        try:
            check_values(array, dtype, context.scan, context.memory)
        except FileFault as fault:
            raise PlacedFault(at if fault.about_columns else dtype_path, fault.message, fault.hint) from fault
    read_bytes = _reading_bytes(array, shape[1:], kind, dtype)
    taken = () if table is None else table.taken.get(batch_name, ())
    return BatchColumn(batch_name, array, shape[1:], dtype, at, dtype_path, read_bytes, taken), shape[0]


def _reading_bytes(array: ArrayFile, shape: tuple[int, ...], kind: torch.dtype, dtype: torch.dtype) -> int:
    """Additional bytes of one sample of this shape during reading."""
    elements = math.prod(shape)
    if array.suffix in _TEXT:
        return 2 * kind.itemsize * elements  # the parts, and the whole
    codes = 0
    if array.has_classes:
        one_hot = array.reading.of(array.column).one_hot
        codes = _CODE_BYTES + (_INDEX_BYTES + elements if one_hot else 0)  # numbers of texts; of classes, and booleans
    return codes + (kind.itemsize if kind != dtype else 1) * elements  # before the cast; otherwise a mask for NaN


def _open(
    batch_name: str, declared: DataDeclaration, table: SourceTable | None, folder: Path, allowed: tuple[Path, ...]
) -> ArrayFile:
    if table is not None:
        return table.array_of(batch_name, table.reading(batch_name, declared.dtype.get(batch_name)))
    return open_column(batch_name, declared, folder, allowed)
