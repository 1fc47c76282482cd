"""Stacks rows by column on the computing thread, so that the writer thread runs little Python code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from runner.engine.rows import Block, Path, Row, Rows
from runner.plan.rows.layout import Together, split
from runner.record.rows.storage import StoredColumn, stack
from runner.record.rows.transfer import Handle, Transfer

T = TypeVar("T")

STACKED = ("scalar", "tensor")
"""Layouts with one tensor `(rows, *shape)` for all rows; other layouts have a tensor for each row."""

REDUCED = ("stats", "digest")
"""Layouts with one tensor for all rows too, if it has at most `LARGEST_REDUCED` elements."""

LARGEST_REDUCED = 1 << 10

ROW_BYTES = 200
"""Approximate bytes of a row's number, step, path and iteration as Python objects."""

LABEL_BYTES = 40
"""Approximate bytes of the same as arrays."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One column of some rows.

    Tensors of a small fixed shape `(*s)` are stacked to `(rows, *s)` in the true dtype; several columns that rows hold
    together, to `(rows, columns, *s)`. Others stay one tensor for each row, and rows may share a tensor.
    """

    values: Tensor | Sequence[Tensor | None]
    present: Sequence[bool] | None  # of stacked values: whether each exists; None: all do


@dataclass(frozen=True, slots=True)
class Labels:
    """The number, step, path and iteration of some consecutive rows."""

    numbers: Sequence[int]
    steps: Sequence[str]
    paths: Sequence[str]
    iterations: Sequence[int]


@dataclass(frozen=True, slots=True)
class LoopLabels:
    """The same for rows of one step in a loop, without a Python object for each row."""

    number: int  # of the first row
    step: str
    path: Path
    first: int  # iteration at place 0
    places: Sequence[int]


Groups = Sequence[tuple[int, ...]]
"""For each packed column the recorded columns that it has, several if rows hold them together."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows, by column."""

    rows: int
    labels: Labels | LoopLabels
    columns: Sequence[Packed]
    bytes: int  # in memory
    runs: int = 1  # the columns are of that many runs, one after another, whose other fields are these
    groups: Groups | None = None  # which recorded columns each of `columns` has; None: each has one, in their order


def pack(rows: Sequence[Row], columns: Sequence[StoredColumn], blanks: Sequence[Tensor]) -> Batch:
    """Pack at least one row by column.

    Args:
        rows: rows of one run, whose layout has every column by name.
        columns: the columns to record.
        blanks: for each column a tensor of its shape and dtype, in place of missing values.
    """
    return merge([_packed(list(run), columns, blanks) for _, run in groupby(rows, key=_block_of)])


def apart(batch: Batch) -> Batch:
    """The batch with one packed column for each recorded column."""
    if batch.groups is None:
        return batch
    found: dict[int, Packed] = {}
    for group, packed in zip(batch.groups, batch.columns, strict=True):
        if len(group) == 1:
            found[group[0]] = packed
            continue
        assert isinstance(packed.values, Tensor)
        columns = packed.values.transpose(0, 1).contiguous().unbind()
        found.update((number, Packed(values, packed.present)) for number, values in zip(group, columns, strict=True))
    return replace(batch, columns=[found[number] for number in range(len(found))], groups=None)


def pack_together(rows: Rows, columns: Sequence[StoredColumn], blanks: Sequence[Tensor]) -> Batch:
    """Pack rows of one block by column; the other arguments are those of `pack`."""
    packed = [
        _of_block(stored, rows.block, rows.layout.position(stored.column.name), rows.places, blank)
        for stored, blank in zip(columns, blanks, strict=True)
    ]
    labels = LoopLabels(rows.number, rows.step, rows.path, rows.first, rows.places)
    return Batch(len(rows), labels, packed, sum(map(_bytes, packed)) + LABEL_BYTES * len(rows))


def _block_of(row: Row) -> int | None:
    return None if row.block is None else id(row.block)


def _packed(rows: Sequence[Row], columns: Sequence[StoredColumn], blanks: Sequence[Tensor]) -> Batch:
    """Pack rows of one block, or rows without a block."""
    layout, block = rows[0].layout, rows[0].block
    if block is not None:
        places = [row.place for row in rows]
        packed = [
            _of_block(stored, block, layout.position(stored.column.name), places, blank)
            for stored, blank in zip(columns, blanks, strict=True)
        ]
        return _batch(rows, packed)
    if layout.groups:
        return _grouped(rows, columns, blanks)
    by_position = list(zip(*[row.values for row in rows], strict=True))
    packed = [
        _pack(stored, by_position[layout.position(stored.column.name)], blank)
        for stored, blank in zip(columns, blanks, strict=True)
    ]
    return _batch(rows, packed)


def _grouped(rows: Sequence[Row], columns: Sequence[StoredColumn], blanks: Sequence[Tensor]) -> Batch:
    """Pack rows that hold some columns together."""
    layout = rows[0].layout
    recorded = {layout.position(stored.column.name): number for number, stored in enumerate(columns)}
    by_place: list[tuple[Any, ...]] = list(zip(*[row.held for row in rows if row.held is not None], strict=True))
    packed: list[Packed] = []
    groups: list[tuple[int, ...]] = []

    def add(position: int, values: Sequence[Tensor | None]) -> None:
        number = recorded.get(position)
        if number is not None:
            packed.append(_pack(columns[number], values, blanks[number]))
            groups.append((number,))

    for position, values in zip(layout.apart, by_place, strict=False):
        add(position, values)
    for group, together in zip(layout.groups, by_place[len(layout.apart) :], strict=True):
        numbers = tuple(recorded[position] for position in group if position in recorded)
        if len(numbers) == len(group) and _is_stacked(columns[numbers[0]]) and not any(map(_is_split, together)):
            stored, blank = columns[numbers[0]], blanks[numbers[0]]
            stacked, present = stack(together, blank.expand(len(group), *blank.shape))
            _checked(stacked[0, 0], stored)
            packed.append(Packed(stacked, present))
            groups.append(numbers)
        else:
            by_column = zip(*[split(each, len(group)) for each in together], strict=True)
            for position, values in zip(group, by_column, strict=True):
                add(position, values)
    return replace(_batch(rows, packed), groups=groups)


def _is_split(together: Together) -> bool:
    return isinstance(together, tuple)


def _of_block(stored: StoredColumn, block: Block, position: int, places: Sequence[int], blank: Tensor) -> Packed:
    """Pack a column of some rows of a block without splitting it."""
    value = block.columns[position]
    if value is None or not block.stacked[position] or not _is_stacked(stored):
        return _pack(stored, [block.value(position, place) for place in places], blank)
    first, count = places[0], len(places)
    whole = places[-1] - first + 1 == count
    found = (value[first : first + count] if whole else value[list(places)]).detach()
    _checked(found[0], stored)
    return Packed(found, None)


def _batch(rows: Sequence[Row], packed: Sequence[Packed]) -> Batch:
    labels = Labels(
        [row.number for row in rows],
        [row.step for row in rows],
        [row.path for row in rows],
        [row.iteration for row in rows],
    )
    return Batch(len(rows), labels, packed, sum(map(_bytes, packed)) + ROW_BYTES * len(rows))


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch on its way to the CPU."""

    batch: Batch
    tensors: Sequence[int]  # by `id`: each is sent once, even if several rows share it
    handle: Handle

    def landed(self) -> Batch:
        """Wait for the tensors, and return the batch with its tensors on the CPU. Call it once."""
        arrived = dict(zip(self.tensors, self.handle.result(), strict=True))
        columns = []
        for packed in self.batch.columns:
            if isinstance(packed.values, Tensor):
                columns.append(replace(packed, values=arrived[id(packed.values)]))
            else:
                values = [None if value is None else arrived[id(value)] for value in packed.values]
                columns.append(replace(packed, values=values))
        return replace(self.batch, columns=columns)


def send(batch: Batch, transfer: Transfer) -> Sent:
    """Start copying the tensors of a batch to the CPU."""
    tensors: dict[int, Tensor] = {}
    for packed in batch.columns:
        values = [packed.values] if isinstance(packed.values, Tensor) else packed.values
        tensors.update((id(value), value) for value in values if value is not None)
    return Sent(batch, tuple(tensors), transfer.begin(list(tensors.values())))


def merge(batches: Sequence[Batch]) -> Batch:
    """Merge consecutive batches with `Labels`, at least one, of the same columns."""
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if isinstance(batch.labels, Labels)]
    if any(batch.groups != batches[0].groups for batch in batches):
        batches = list(map(apart, batches))
    return Batch(
        sum(batch.rows for batch in batches),
        Labels(
            _chained(each.numbers for each in labels),
            _chained(each.steps for each in labels),
            _chained(each.paths for each in labels),
            _chained(each.iterations for each in labels),
        ),
        [_merge(packed) for packed in zip(*[batch.columns for batch in batches], strict=True)],
        sum(batch.bytes for batch in batches),
        groups=batches[0].groups,
    )


def _merge(parts: Sequence[Packed]) -> Packed:
    stacked = [packed.values for packed in parts if isinstance(packed.values, Tensor)]
    if not stacked:
        return Packed(_chained(packed.values for packed in parts), None)
    if all(packed.present is None for packed in parts):
        return Packed(torch.cat(stacked), None)
    present = (packed.present or [True] * len(packed.values) for packed in parts)
    return Packed(torch.cat(stacked), _chained(present))


def _chained(parts: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(parts))


def _pack(stored: StoredColumn, values: Sequence[Tensor | None], blank: Tensor) -> Packed:
    if not _is_stacked(stored):
        kept = {id(value): _checked(value.detach(), stored) for value in values if value is not None}
        return Packed([None if value is None else kept[id(value)] for value in values], None)
    stacked, present = stack(values, blank)
    _checked(stacked[0], stored)
    return Packed(stacked, present)


def _is_stacked(stored: StoredColumn) -> bool:
    return stored.layout in STACKED or (stored.layout in REDUCED and 0 < stored.elements <= LARGEST_REDUCED)


def _checked(value: Tensor, stored: StoredColumn) -> Tensor:
    """Returns the value after it asserts its shape and dtype, because Arrow reads it by address and checks nothing."""
    column = stored.column
    assert column.shape is None or value.shape == column.shape, f"{column.name} is {tuple(value.shape)}"
    assert value.dtype == column.dtype, f"{column.name} is {value.dtype}"
    return value


def _bytes(packed: Packed) -> int:
    if isinstance(packed.values, Tensor):
        return packed.values.nbytes
    return sum(value.nbytes for value in packed.values if value is not None)


def blank_of(stored: StoredColumn) -> Tensor:
    """Zeros in the shape of one row of a column, for `pack`."""
    return torch.zeros(stored.column.shape or (), dtype=stored.column.dtype)
