"""The samples of a new data source for a trained run: in the order of the file, in blocks, only what values need."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config import Config, DataDeclaration
from runner.engine.data.samples import ColumnFault, open_samples
from runner.errors import ConfigError, Problem, RunError, UsageError, did_you_mean, listing
from runner.faults import Faults, PlacedFault
from runner.language.dtypes import DTYPES, dtype_name
from runner.plan.data.files import CastFault, FileFault, cast, table_names
from runner.plan.data.row_files import has_rows
from runner.plan.data.selection.selection import all_rows
from runner.plan.data.sources import BatchColumn, SourcePlan, plan_sources
from runner.plan.data.tables.columns import chosen_of, names_in
from runner.plan.data.tables.parquet import parquet_blocks
from runner.record.apply.columns import SourcesOfRun
from runner.record.apply.hints import for_a_file
from runner.record.apply.text_samples import rows_about, text_columns_of, text_sample_blocks

BLOCK_ROWS = 1 << 16
"""The most rows in a block."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a source, in the order of the file."""

    columns: Mapping[str, Tensor]
    others: Any  # an Arrow record batch of the columns to copy, or None

    @property
    def length(self) -> int:
        return len(next(iter(self.columns.values())))

    def between(self, start: int, end: int) -> Block:
        """Rows `start` to `end - 1`, without a copy."""
        others = None if self.others is None else self.others.slice(start, end - start)
        return Block({name: column[start:end] for name, column in self.columns.items()}, others)


@dataclass(frozen=True, slots=True)
class DataOption:
    """The data source that `--data` names, with what changes of it."""

    source: str | None  # None: the first source that has the columns
    overrides: tuple[str, ...]  # of the config
    folders: tuple[Path, ...]  # of the files that it names


_WITHOUT_EFFECT: Mapping[str, str] = {
    "select": "remove it: every row of the file is a sample",
    "shuffle": "remove it: samples are in the order of the file",
    "drop_last": "remove it: every row of the file is a sample",
    "batch_size": "write --batch-size",
    "dtype": "remove it: columns have the dtype of the run",
}
"""Keys of a source that do not apply to new samples, and what to write instead."""


def data_option(texts: Sequence[str], config: Config) -> DataOption:
    """What `--data train.file=new.csv` means; paths in it are relative to the working directory.

    Args:
        texts: `SOURCE`, or `SOURCE.KEY=VALUE` with a key of a data source, all of one source.
    Raises:
        UsageError: the run has no such source, there are several, or a key has no effect.
    """
    names: dict[str, None] = {}
    overrides: list[str] = []
    folders: list[Path] = []
    for text in texts:
        key, equals, value = text.partition("=")
        name, _, field = key.strip().partition(".")
        if name not in config.data:
            known = f"its sources are {listing(config.data)}" if config.data else "it has none"
            if not equals and config.data and Path(text).is_file():
                hint = f"write --data {next(iter(config.data))}.file={text}"
                raise UsageError(Problem(f"--data {text} names a file, but no data source", hint))
            raise UsageError(Problem(f"the run has no data source `{name}`", did_you_mean(name, config.data, known)))
        names[name] = None
        if not equals and not field:
            continue
        _check_key(text, name, field, value if equals else None)
        if field == "file" or (field.startswith("columns.") and config.data[name].file is None):
            path, hash_sign, array = value.partition("#")
            absolute = Path(path).resolve()
            folders.append(absolute.parent)
            value = json.dumps(f"{absolute}{hash_sign}{array}", ensure_ascii=False)
        overrides.append(f"data.{key}={value}")
    if len(names) > 1:
        raise UsageError(Problem(f"--data names {listing(names)}", "name one source"))
    return DataOption(next(iter(names), None), tuple(overrides), tuple(folders))


def _check_key(text: str, source: str, field: str, value: str | None) -> None:
    """Raise UsageError unless an option gives a value to a key that has an effect."""
    if value is None:
        raise UsageError(Problem(f"--data {text} has no value", f"write --data {source}.{field}=VALUE"))
    if not field:
        raise UsageError(Problem(f"--data {text} names no key of `{source}`", f"write --data {source}.file={value}"))
    key = field.partition(".")[0]
    if key in _WITHOUT_EFFECT:
        raise UsageError(Problem(f"`{key}` of `{source}` has no effect here", _WITHOUT_EFFECT[key]))


def plan_samples(
    config: Config, source: str, names: Iterable[str], run: SourcesOfRun, folders: Sequence[Path], memory: int
) -> SourcePlan:
    """The plan of a source with only some of its columns, without `select`, `shuffle` and `drop_last`.

    Raises:
        ConfigError: its file cannot be read, or a column is missing or has another shape than that of the run.
    """
    declared = config.data[source]
    wanted = [name for name in declared.columns if name in set(names)]
    changes: dict[str, Any] = {
        "columns": {name: run.of_file.get((source, name), declared.columns[name]) for name in wanted},
        "dtype": {
            name: dtype_name(run.columns[name].dtype) if name in run.columns else declared.dtype[name]
            for name in wanted
            if name in run.columns or name in declared.dtype
        },
        "batch_size": None,
        "shuffle": False,
        "drop_last": False,
        "select": None,
        **{key: _kept(entries, declared.columns, wanted) for key in _OF_COLUMNS if (entries := getattr(declared, key))},
    }
    faults = Faults(config.document)
    found = _planned(source, declared.model_copy(update=changes), run, config, faults, folders, memory)
    for column in found.columns:
        known = run.columns.get(column.name)
        if known is not None and known.shape != column.shape:
            message = f"a sample of `{column.name}` in {column.array.name} has shape {list(column.shape)}"
            faults.add(column.path, f"{message}, and the run's has {list(known.shape)}", "select columns of that shape")
    faults.stop()
    arrays = [column.array for column in found.columns]
    return replace(found, streams=bool(found.row_groups) or all(map(has_rows, arrays)))


def _planned(
    source: str,
    declared: DataDeclaration,
    run: SourcesOfRun,
    config: Config,
    faults: Faults,
    folders: Sequence[Path],
    memory: int,
) -> SourcePlan:
    allowed = [*map(Path, config.document.sandbox.folders), *folders]
    try:
        columns = text_columns_of(source, declared, run.columns, config.document, allowed)
    except PlacedFault as fault:
        hint = for_a_file(fault.hint, source)
        raise ConfigError(config.document.problem(fault.path, fault.message, hint, key=fault.key)) from fault
    if columns is not None:
        rows = rows_about(columns[0].array)
        return SourcePlan(source, columns, all_rows(rows), rows, False, False, (), False)
    scalars: dict[str, Any] = {}
    planned = plan_sources({source: declared}, scalars, DTYPES[config.dtype], faults, folders, memory)
    faults.problems[:] = [replace(each, hint=for_a_file(each.hint, source)) for each in faults.problems]
    faults.stop()
    return planned[source]


_OF_COLUMNS = ("classes", "one_hot", "fill", "dates")
"""The keys of a source that map batch columns, or columns of its file."""


def _kept(entries: Mapping[str, Any], columns: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """The entries of such a key that are about the wanted batch columns."""
    left = {name for name in columns if name not in wanted}
    inside = {each for name in left for each in names_in(columns[name])}
    read = {each for name in wanted for each in names_in(columns[name])}
    return {key: value for key, value in entries.items() if key not in left and (key not in inside or key in read)}


def check_copies(source: SourcePlan, others: Sequence[str]) -> None:
    """Raise UsageError unless the file of a source has the columns to copy."""
    array = source.columns[0].array
    try:
        if others and not _is_one_table(source):
            raise FileFault(f"{array.name} is not a table", "copy columns of a .csv, .tsv or .parquet file")
        if others:
            chosen_of(tuple(others), table_names(array, sys.maxsize), array.path.name)
    except FileFault as fault:
        raise UsageError(Problem(fault.message, fault.hint)) from fault


def _is_one_table(source: SourcePlan) -> bool:
    return source.columns[0].array.is_table and len({column.array.paths for column in source.columns}) == 1


def blocks_of(config: Config, source: SourcePlan, others: Sequence[str]) -> Iterator[Block]:
    """Yield the samples of a source in blocks of at most `BLOCK_ROWS` rows.

    Args:
        others: columns of the file to copy.
    Raises:
        RunError: a file cannot be read, or has a value that the dtype of a column cannot represent.
    """
    try:
        yield from _blocks(source, others)
    except FileFault as fault:
        path = fault.path if isinstance(fault, ColumnFault) else source.path
        hint = for_a_file(fault.hint, source.name)
        raise RunError(config.document.problem(path, fault.message, hint, key=path == source.path)) from fault


def whole_batches(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Cut blocks anew, so that each but the last is a number of whole batches of `size` samples."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += block.length
        if count >= size:
            joined = _joined(waiting)
            rest = count % size
            yield joined.between(0, count - rest)
            waiting, count = ([joined.between(count - rest, count)] if rest else []), rest
    if waiting:
        yield _joined(waiting)


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    import pyarrow

    columns = {name: torch.cat([block.columns[name] for block in blocks]) for name in blocks[0].columns}
    others = None
    if blocks[0].others is not None:
        table = pyarrow.Table.from_batches([block.others for block in blocks]).combine_chunks()
        others = pyarrow.RecordBatch.from_arrays([_one(column) for column in table.columns], table.schema.names)
    return Block(columns, others)


def _one(column: Any) -> Any:
    """The only chunk of an Arrow column."""
    return column.chunk(0)


def _blocks(source: SourcePlan, others: Sequence[str]) -> Iterator[Block]:
    array = source.columns[0].array
    if array.suffix == ".parquet" and _is_one_table(source):
        start = 0
        selections = [(column.array.columns, column.array.reading) for column in source.columns]
        for tensors, copied in parquet_blocks(array.paths, selections, others):
            pairs = zip(source.columns, tensors, strict=True)
            columns = {column.name: _cast(value, column, start) for column, value in pairs}
            yield Block(columns, copied if others else None)
            start += len(tensors[0])
        return
    if array.is_text:
        for block in text_sample_blocks(source.columns, others):
            pairs = zip(source.columns, block.values, strict=True)
            yield Block({column.name: _cast(value, column, block.start) for column, value in pairs}, block.others)
        return
    samples = open_samples(source)
    for start in range(0, source.samples, BLOCK_ROWS):
        yield Block(samples.between(start, min(start + BLOCK_ROWS, source.samples)), None)


def _cast(values: Tensor, column: BatchColumn, start: int) -> Tensor:
    try:
        return cast(values, column.dtype, column.array, range(start, start + len(values)))
    except CastFault as fault:
        raise ColumnFault(fault, column) from fault


def first_nan(values: Tensor) -> int | None:
    """The first row of a floating or complex tensor with a NaN; None if there is none."""
    if not (values.is_floating_point() or values.is_complex()) or not bool(torch.isnan(values.sum())):
        return None
    found = values.isnan().reshape(len(values), -1).any(1)
    return int(found.nonzero()[0]) if bool(found.any()) else None  # infinities of both signs also sum to NaN
