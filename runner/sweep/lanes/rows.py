"""The rows, weights and statistics of all lanes as tables, without an object for each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
import pyarrow
import torch
from torch import Tensor

from runner.engine.lanes.execute import LaneColumn, Ran
from runner.plan.plan import Plan
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import empty_table, integers_of, schema_of, table_of
from runner.record.rows.batch import STACKED, Batch, Labels, Packed
from runner.record.rows.storage import StoredColumn, stored_column, to_stored
from runner.sweep.lanes.together import Together
from runner.sweep.points.outcome import Statistics
from runner.sweep.record.part_files import with_points
from runner.sweep.record.statistics import MOST_SCALARS


def rows_table(
    ran: Ran, columns: Sequence[StoredColumn], indices: Sequence[int], lanes: Sequence[int]
) -> pyarrow.Table:
    """The rows of some lanes, lane by lane, with the column `point`.

    Args:
        indices: the point of each of `lanes`.
        lanes: the numbers of the lanes to take.
    """
    count, rows = len(lanes), len(ran.numbers)
    labels = Labels(ran.numbers, ran.steps, ran.paths, ran.iterations)
    batch = Batch(
        rows * count,
        labels,
        [_packed(stored, column, lanes) for stored, column in zip(columns, ran.columns, strict=True)],
        bytes=0,
        runs=count,
    )
    points = numpy.repeat(numpy.array(indices, dtype=numpy.int64), rows)
    return with_points(table_of(batch, columns, schema_of(columns)), points)


def parted_table(
    together: Together, columns: Sequence[StoredColumn], indices: Sequence[int], lanes: Sequence[int]
) -> pyarrow.Table:
    """The same for lanes that may have parted: each has the rows until it left, and those where it went on.

    Args:
        indices: the point of each of `lanes`.
    """
    ranks: list[Any] = []
    places = {lane: place for place, lane in enumerate(lanes)}
    tables: list[pyarrow.Table] = []
    for ran, numbers in together.parts:
        here = [(own, places[lane]) for own, lane in enumerate(numbers) if lane in places]
        if not here or not ran.numbers:
            continue
        own, found = [each for each, _ in here], numpy.array([place for _, place in here])
        tables.append(rows_table(ran, columns, [indices[place] for place in found], own))
        has = numpy.ones((len(own), len(ran.numbers)), bool) if ran.has is None else ran.has[own].numpy()
        ranks.append(numpy.where(has, found[:, None], len(lanes)).reshape(-1))  # those of no lane come last
    if not tables:
        return with_points(empty_table(columns), numpy.zeros(0))
    rank = numpy.concatenate(ranks)
    order = numpy.argsort(rank, kind="stable")[: int((rank < len(lanes)).sum())]
    table = pyarrow.concat_tables(tables).take(integers_of(order))
    counts = [together.ends[lane] - together.first[lane] for lane in lanes]
    row = [numpy.arange(together.first[lane], together.ends[lane]) for lane in lanes]
    assert sum(counts) == len(table), "each row belongs to one lane"
    place = table.schema.get_field_index("row")
    return table.set_column(place, table.schema.field(place), integers_of(numpy.concatenate(row)))


def weights_table(
    plan: Plan, together: Together, indices: Sequence[int], lanes: Sequence[int]
) -> tuple[Sequence[StoredColumn], pyarrow.Table]:
    """The weights of some lanes after the last row, one row for each, with the column `point`."""
    weights = together.weights
    declared = [Column(name, "weight", plan.tensors[name].dtype, plan.tensors[name].shape) for name in weights]
    columns = [stored_column(column) for column in declared]
    count = len(lanes)
    packed = [_packed(stored, LaneColumn(weights[stored.column.name][:, None], [True]), lanes) for stored in columns]
    labels = Labels([together.ends[lane] for lane in lanes], ["end"] * count, ["end"] * count, [0] * count)
    batch = Batch(count, labels, packed, 0)
    table = table_of(batch, columns, schema_of(columns))
    return columns, with_points(table, numpy.array(indices))


def _packed(stored: StoredColumn, column: LaneColumn, lanes: Sequence[int]) -> Packed:
    present = list(column.present)
    count, rows = len(lanes), len(present)
    if stored.layout not in STACKED:
        found: list[Tensor | None] = []
        for lane in lanes:
            values = iter(_of_lane(column, lane))
            found += [next(values) if here else None for here in present]
        return Packed(found, None)
    shape, dtype = stored.column.shape or (), stored.column.dtype
    if column.values is None:
        return Packed(torch.zeros((count * rows, *shape), dtype=dtype), [False] * (count * rows))
    assert isinstance(column.values, Tensor), "a column that is stacked has one shape"
    assert column.values.dtype == dtype, f"{stored.column.name} is {column.values.dtype}"
    taken = column.values if count == len(column.values) else column.values[list(lanes)]
    if all(present):
        return Packed(taken.reshape(count * rows, *shape), None)
    whole = torch.zeros((count, rows, *shape), dtype=dtype)
    whole[:, torch.tensor(present)] = taken
    return Packed(whole.reshape(count * rows, *shape), present * count)


def _of_lane(column: LaneColumn, lane: int) -> Iterable[Tensor]:
    """The values of one lane, row by row."""
    if column.values is None or isinstance(column.values, Tensor):
        return () if column.values is None else column.values[lane]
    return [value[lane] for value in column.values]


def statistics_of(ran: Ran, columns: Sequence[StoredColumn]) -> list[dict[str, Statistics]]:
    """The last, smallest and largest value of each column of one number, for each lane."""
    scalars = [
        (stored.column.name, column) for stored, column in zip(columns, ran.columns, strict=True) if stored.is_number
    ][:MOST_SCALARS]
    count = len(ran.sound)
    by_name: dict[str, list[Statistics]] = {}
    for name, column in scalars:
        values = _numbers(column)
        if values is None:
            by_name[name] = [(None, None, None)] * count
            continue
        last = values[:, -1].tolist()
        with numpy.errstate(invalid="ignore"):
            smallest, largest = numpy.fmin.reduce(values, 1).tolist(), numpy.fmax.reduce(values, 1).tolist()
        by_name[name] = list(zip(last, smallest, largest, strict=True))
    names = list(by_name)
    return [dict(zip(names, each, strict=True)) for each in zip(*by_name.values(), strict=True)] or [
        {} for _ in range(count)
    ]


def recent_of(ran: Ran, columns: Sequence[StoredColumn], name: str | None, most: int) -> list[tuple[float, ...]]:
    """The last values of a column, for each lane."""
    place = next((place for place, stored in enumerate(columns) if stored.column.name == name), None)
    values = None if place is None or most == 0 else _numbers(ran.columns[place])
    if values is None:
        return [()] * len(ran.sound)
    return [tuple(each) for each in values[:, -most:].tolist()]


def _numbers(column: LaneColumn) -> Any:
    """The values of a column of one number as float64 `(lanes, rows)`; None without any."""
    if not isinstance(column.values, Tensor) or column.values.shape[1] == 0:
        return None
    stored = to_stored(column.values)
    return stored.reshape(stored.shape[:2]).numpy().astype(numpy.float64)
