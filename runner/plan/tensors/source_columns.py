"""Whole columns of data sources, which initial expressions read: in blocks, or in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.config import Config, InitExpression, TensorDeclaration
from runner.faults import PlacedFault
from runner.plan.data.files import CastFault, FileFault
from runner.plan.data.selection.selected_rows import selected_blocks
from runner.plan.data.sources import BatchColumn, SourcePlan
from runner.plan.memory import unbounded_memory
from runner.plan.tensors.reductions import Reduction, block_rows, reduce, reduction_of

CACHE_BYTES = 256 << 20
"""Maximum bytes of whole columns that planning keeps, because it evaluates an expression more than once."""


@dataclass(slots=True)
class Readings:
    """What initial expressions have read of the data sources, and the results that were computed."""

    limit: int  # the most bytes of a column in memory
    held: set[tuple[str, str]] = field(default_factory=set)  # (source, column) that were in memory as a whole
    results: dict[tuple[str, str, Reduction], tuple[Tensor, ...]] = field(default_factory=dict)
    columns: dict[tuple[str, str], Tensor] = field(default_factory=dict)


class SourceColumn:
    """One column of a data source: a `StoredColumn`."""

    __slots__ = ("_column", "_key", "_readings", "_source", "bytes", "example", "limit", "name")

    def __init__(self, source: SourcePlan, column: BatchColumn, readings: Readings) -> None:
        self._source = source
        self._column = column
        self._readings = readings
        self._key = (source.name, column.name)
        self.name = f"{source.name}.{column.name}"
        self.example = torch.empty((source.samples, *column.shape), dtype=column.dtype, device="meta")
        self.bytes = source.samples * (column.bytes + column.read_bytes)
        self.limit = readings.limit

    def few(self) -> Tensor:
        """Two samples of ones."""
        return torch.ones((2, *self._column.shape), dtype=self._column.dtype)

    def whole(self) -> Tensor:
        """All values, on the CPU.

        Raises:
            PlacedFault: they cannot be read.
        """
        readings = self._readings
        readings.held.add(self._key)
        found = readings.columns.get(self._key)
        if found is None:
            with unbounded_memory():
                found = torch.cat(list(column_blocks(self._source, self._column)))
            if found.nbytes + sum(kept.nbytes for kept in readings.columns.values()) <= CACHE_BYTES:
                readings.columns[self._key] = found
        return found

    def reduced(self, operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], like: Any) -> Any:
        """A reduction over the samples in the shape and dtype of `like`; None if it needs the whole column.

        Raises:
            PlacedFault: the values cannot be read.
        """
        if self._column.dtype.is_complex:
            return None
        reduction = reduction_of(operation, self.example.dim(), args, kwargs)
        if reduction is None:
            return None
        readings, key = self._readings, (*self._key, reduction)
        if key not in readings.results:
            blocks = column_blocks(self._source, self._column)
            with unbounded_memory():
                readings.results[key] = reduce(reduction, _of_rows(blocks, block_rows(self._column.shape)))
        found = readings.results[key]
        if isinstance(like, Tensor):
            return _like(found[0], like)
        return type(like)([_like(value, each) for value, each in zip(found, like, strict=True)])


def source_columns(sources: Mapping[str, SourcePlan], readings: Readings) -> dict[str, SourceColumn]:
    """Every column of every source by name: `SOURCE.COLUMN`."""
    return {
        f"{name}.{column.name}": SourceColumn(source, column, readings)
        for name, source in sources.items()
        for column in source.columns
    }


def columns_named(config: Config) -> frozenset[tuple[str, str]]:
    """The columns that the shapes, initial expressions and functions of a config name, as (source, column)."""
    declared = (*config.parameters.values(), *config.constants.values())
    tensors = [tensor for tensor in declared if isinstance(tensor, TensorDeclaration)]
    texts = [tensor.init.expression for tensor in tensors if isinstance(tensor.init, InitExpression)]
    texts += [str(length) for tensor in tensors for length in tensor.shape or ()]
    texts += config.functions.values()
    return frozenset(
        (source, column)
        for source, data in config.data.items()
        for column in data.columns
        if any(re.search(rf"(?<![\w.]){re.escape(source)}\.{re.escape(column)}(?!\w)", text) for text in texts)
    )


def column_blocks(source: SourcePlan, column: BatchColumn) -> Iterator[Tensor]:
    """Yield the samples of a column in the order of the file, in the dtype of its batches.

    Raises:
        PlacedFault: a file cannot be read, has changed, or has a value that the dtype cannot represent.
    """
    found = 0
    try:
        for values in selected_blocks(column.array, column.dtype, source.selection):
            found += len(values)
            if tuple(values.shape[1:]) != column.shape or found > source.samples:
                raise _changed(column)
            yield values
        if found != source.samples:
            raise _changed(column)
    except CastFault as fault:
        raise PlacedFault(column.dtype_path, fault.message, fault.hint) from fault
    except FileFault as fault:
        raise PlacedFault(column.path, fault.message, fault.hint) from fault


def _changed(column: BatchColumn) -> FileFault:
    return FileFault(
        f"{column.array.name} has changed since the run was planned", "do not change data files during a run"
    )


def _of_rows(blocks: Iterable[Tensor], rows: int) -> Iterator[Tensor]:
    """Cut blocks of any lengths anew, into blocks of `rows` rows and a shorter last one."""
    waiting: list[Tensor] = []
    count = 0
    for block in blocks:
        while len(block):
            taken = block[: rows - count]
            waiting.append(taken)
            block = block[len(taken) :]
            count += len(taken)
            if count == rows:
                yield waiting[0] if len(waiting) == 1 else torch.cat(waiting)
                waiting, count = [], 0
    if waiting:
        yield torch.cat(waiting)


def _like(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.dtype).reshape(like.shape)
