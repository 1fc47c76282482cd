"""Computes named values of a trained run over the samples of a data source, and writes them to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.config import Config, overridden
from runner.errors import Problem, UsageError, listing
from runner.language.inference.generators import manual_seed
from runner.plan.data.files import text_read_once
from runner.plan.data.sources import SourcePlan
from runner.plan.memory import machine_memory
from runner.plan.streams import stream_seed
from runner.record.apply.classes import classes_of, named
from runner.record.apply.columns import sources_of
from runner.record.apply.loading import folders_of, model_of
from runner.record.apply.model import Model
from runner.record.apply.output import arrow_of, check_is_not_read, check_target, writing
from runner.record.apply.per_sample import check_per_sample
from runner.record.apply.samples import (
    Block,
    blocks_of,
    check_copies,
    data_option,
    first_nan,
    plan_samples,
    whole_batches,
)
from runner.record.reading import open_run

MOST_SAMPLES = 8192
BATCH_BYTES = 16 << 20
"""Without `batch_size`, a batch has at most `MOST_SAMPLES` samples and this many bytes in its columns."""

Warn = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute, over which samples, and where to write it."""

    values: tuple[str, ...]
    to: str  # a .parquet, .csv or .tsv file, or `-` for standard output
    data: tuple[str, ...] = ()  # `SOURCE` or `SOURCE.KEY=VALUE`
    columns: tuple[str, ...] = ()  # columns of the file to copy
    classes: tuple[str, ...] = ()  # `VALUE=COLUMN`: values to write as the classes of a column
    at: str = "last"
    device: str | None = None
    batch_size: int | None = None
    memory: int | None = None  # bytes
    force: bool = False  # whether to replace a file
    allow: tuple[str, ...] = ()


def apply(run: str | Path, request: Request, *, warn: Warn, progress: Callable[[int, int], None] | None = None) -> int:
    """Compute named values for each sample of a source, in the order of its file, and write them.

    Args:
        warn: receives each warning.
        progress: called with the number of finished samples and of all samples.
    Returns:
        the number of samples.
    Raises:
        UsageError: a name is not one of the run, or the file exists.
        ConfigError: the source cannot be read.
        RunError: an operation fails, or a file cannot be read or written.
    """
    check_target(request.to, request.force)
    _check_names(request)
    found = open_run(run)
    folders = folders_of(found, request.allow)
    recorded = found.load_config(folders)
    option = data_option(request.data, recorded)
    config = overridden(recorded, option.overrides) if option.overrides else recorded
    model = model_of(found, config, request.at, request.device, folders)
    model.check_values(request.values)
    classes = classes_of(request.classes, request.values, config)
    name, columns = _chosen(config, model, request, option.source)
    memory = request.memory or machine_memory()
    with text_read_once([(column, True) for column in request.columns]):
        folders = [*folders, *option.folders]
        sources = sources_of(found.manifest).redeclared(recorded.data, config.data)
        source = plan_samples(config, name, columns, sources, folders, memory)
        check_copies(source, request.columns)
        check_is_not_read(request.to, [path for column in source.columns for path in column.array.paths])
        return _write(config, model, source, request, classes, warn, progress)


def _check_names(request: Request) -> None:
    if not request.values:
        raise UsageError(Problem("--values names no value", "name the values to compute, with commas"))
    names = (*request.columns, *request.values)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(Problem(f"`{name}` is named twice", "name each column and value once"))


def _chosen(config: Config, model: Model, request: Request, name: str | None) -> tuple[str, set[str]]:
    """The name of the source, and the columns of it that the values need."""
    columns = model.columns_of(request.values)
    if not columns:
        shown = listing(f"`{value}`" for value in request.values)
        raise UsageError(Problem(f"{shown} reads no data, and has no value for each sample", "name another value"))
    having = [each for each, declared in config.data.items() if columns <= declared.columns.keys()]
    if name is None:
        name = having[0] if having else next(iter(config.data))
    lacking = sorted(columns - config.data[name].columns.keys())
    if lacking:
        message = f"the values need the column `{lacking[0]}`, which the source `{name}` does not have"
        hint = f"name a source that has it: {listing(having)}" if having else "name values that need one source"
        raise UsageError(Problem(message, hint))
    return name, columns


def _write(
    config: Config,
    model: Model,
    source: SourcePlan,
    request: Request,
    classes: Mapping[str, tuple[Any, ...]],
    warn: Warn,
    progress: Callable[[int, int], None] | None,
) -> int:
    import pyarrow

    size = request.batch_size or _batch_size(source)
    seen: set[str] = set()
    done = 0
    with writing(request.to) as write:
        for block in whole_batches(blocks_of(config, source, request.columns), size):
            _warn_of_nan(block, source, done, seen, warn)
            if done == 0:
                first = {name: column[:size] for name, column in block.columns.items()}
                check_per_sample(model, request.values, _on(first, model.device), warn)
            values = _values(config.seed, model, request.values, block, size, done)
            copied = [] if block.others is None else list(block.others.columns)
            written = [
                named(name, value, classes) if name in classes else arrow_of(value)
                for name, value in zip(request.values, values, strict=True)
            ]
            arrays = [*copied, *written]
            write(pyarrow.RecordBatch.from_arrays(arrays, [*request.columns, *request.values]))
            done += len(values[0])
            if progress is not None:
                progress(done, source.samples)
    return done


def _batch_size(source: SourcePlan) -> int:
    sample = sum(column.bytes for column in source.columns)
    return max(1, min(MOST_SAMPLES, BATCH_BYTES // max(1, sample)))


def _values(seed: int, model: Model, names: tuple[str, ...], block: Block, size: int, start: int) -> list[Tensor]:
    """The values of all rows of a block, in batches of `size`."""
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, block.length, size):
        batch = _on({name: column[first : first + size] for name, column in block.columns.items()}, model.device)
        if model.compiled(names, batch).computation.random:
            manual_seed(stream_seed(seed, "apply", "batch", start + first), model.device)
        parts.append(model.compute(names, batch))
    return [columns[0] if len(columns) == 1 else torch.cat(columns) for columns in zip(*parts, strict=True)]


def _on(batch: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: column.to(device) for name, column in batch.items()}


def _warn_of_nan(block: Block, source: SourcePlan, start: int, seen: set[str], warn: Warn) -> None:
    for name, values in block.columns.items():
        row = None if name in seen else first_nan(values)
        if row is not None:
            seen.add(name)
            message = f"nan-in-data: sample {start + row} of `{name}` in `{source.name}` is NaN"
            warn(Problem(message, "its values may be NaN too: clean the file, or fill the cell"))
