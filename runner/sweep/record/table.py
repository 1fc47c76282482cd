"""`points.parquet`: one row for each point of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
import pyarrow.parquet

from runner.config.text.emit import flow_text
from runner.record.directory import write_atomically
from runner.record.rows.arrow import array_of
from runner.sweep.choosing.objective import Objective
from runner.sweep.points.outcome import Outcome, from_json, to_json
from runner.sweep.points.space import Point
from runner.sweep.points.task import Task
from runner.sweep.record.seals import sealed
from runner.sweep.record.sweep_files import read_bounded, read_file

T = TypeVar("T")

POINTS_FILE = "points.parquet"
MOST_ROWS = 10_000_000
LARGEST_TABLE = 1 << 30
"""The most bytes of a table in memory."""

_OUTCOMES = b"steprun.outcomes"
_NUMBERS = (int, float)


def points_table(
    tasks: Sequence[Task], points: Sequence[Point], outcomes: Mapping[int, Outcome], objective: Objective | None
) -> pyarrow.Table:
    """The table of a sweep: the values, the status and the results of each point.

    The columns are `point`, one for each override path, `status`, `objective` if the sweep has one, `NAME.last`,
    `NAME.min` and `NAME.max` for each scalar column of the rows, `rows`, `seconds`, `failure` and `identity`.
    """
    paths = tuple(dict.fromkeys(path for point in points for path in point.values))
    ended = [outcomes.get(point.index) for point in points]
    columns: dict[str, pyarrow.Array] = {"point": array_of([point.index for point in points], pyarrow.int64())}
    for path in paths:
        columns[path] = _values([point.values.get(path) for point in points])
    columns["status"] = array_of([_STATUSES.get(each, each) for each in map(_status, ended)], pyarrow.string())
    if objective is not None:
        found = [None if each is None else objective.of(each) for each in ended]
        columns["objective"] = array_of(found, pyarrow.float64())
    names = dict.fromkeys(name for each in ended if each is not None for name in each.scalars)
    for name in names:
        statistics = [(None, None, None) if each is None else each.scalars.get(name, (None,) * 3) for each in ended]
        for place, part in enumerate(("last", "min", "max")):
            columns[f"{name}.{part}"] = array_of([each[place] for each in statistics], pyarrow.float64())
    columns["rows"] = array_of([None if each is None else each.rows for each in ended], pyarrow.int64())
    columns["seconds"] = array_of([None if each is None else each.seconds for each in ended], pyarrow.float64())
    columns["failure"] = array_of([None if each is None else each.failure for each in ended], pyarrow.string())
    columns["identity"] = array_of([task.identity for task in tasks], pyarrow.string())
    return pyarrow.Table.from_arrays(list(columns.values()), list(columns))


def write_table(
    directory: Path,
    tasks: Sequence[Task],
    points: Sequence[Point],
    outcomes: Mapping[int, Outcome],
    objective: Objective | None,
    bare: Collection[Outcome] = (),
) -> None:
    """Write the table of a sweep atomically.

    Args:
        bare: the outcomes without rows, which are in no part file, each of its rung alone. The metadata has them.
    """
    table = points_table(tasks, points, outcomes, objective).replace_schema_metadata({_OUTCOMES: to_json(list(bare))})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_atomically(directory / POINTS_FILE, sealed(sink.getvalue(), [point.index for point in points]))


def outcomes_without_rows(directory: Path) -> list[Outcome]:
    """The outcomes in the metadata of the table.

    Raises:
        UsageError: the file is damaged.
    """

    def read(file: Any) -> list[Outcome]:
        metadata = pyarrow.parquet.ParquetFile(file).schema_arrow.metadata or {}
        return from_json(metadata.get(_OUTCOMES, b"[]").decode())

    return _read(directory, read, rows=False) or []


def read_table(directory: Path) -> pyarrow.Table | None:
    """The table of a sweep directory; None if it has none yet.

    Raises:
        UsageError: the file is damaged, or is not the table of a sweep.
    """
    return _read(directory, _checked)


def _read(directory: Path, read: Callable[[Any], T], rows: bool = True) -> T | None:
    try:
        return read_file(directory / POINTS_FILE, directory, read, "remove it, then resume the sweep", rows)
    except FileNotFoundError:
        return None


def _checked(source: Any) -> pyarrow.Table:
    """The content of a table of points; raises ValueError if its columns are not those of one."""
    file = pyarrow.parquet.ParquetFile(source)
    schema = file.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise ValueError("two of its columns have one name")
    for name, kind in _FIXED.items():
        if name not in schema.names or schema.field(name).type != kind:
            raise ValueError(f"it has no column `{name}` of type {kind}")
    if schema.names[0] != "point":
        raise ValueError("its first column is not `point`")
    other = [field.name for field in schema if not _is_plain(field.type)]
    if other:
        raise ValueError(f"its column `{other[0]}` has neither numbers nor texts")
    if file.metadata.num_rows > MOST_ROWS:
        raise ValueError(f"it has {file.metadata.num_rows:,} rows")
    texts = [field.name for field in schema if field.type == pyarrow.string()]
    return read_bounded(source, texts, LARGEST_TABLE)


_FIXED = {"point": pyarrow.int64(), "status": pyarrow.string(), "identity": pyarrow.string()}


def _is_plain(kind: pyarrow.DataType) -> bool:
    return kind in (pyarrow.int64(), pyarrow.float64(), pyarrow.bool_(), pyarrow.string(), pyarrow.null())


def _status(outcome: Outcome | None) -> str:
    return "waiting" if outcome is None else outcome.status


_STATUSES = {"paused": "stopped"}  # a point that goes on has another status soon


def _values(values: Sequence[Any]) -> pyarrow.Array:
    """The values of an axis: numbers, or their text if some are something else."""
    present = [value for value in values if value is not None]
    if present and all(type(value) is bool for value in present):
        return array_of(values, pyarrow.bool_())
    if present and all(type(value) is int and -(1 << 63) <= value < 1 << 63 for value in present):
        return array_of(values, pyarrow.int64())
    if present and all(type(value) in _NUMBERS for value in present):
        return array_of([None if value is None else float(value) for value in values], pyarrow.float64())
    return array_of([_text(value) for value in values], pyarrow.string())


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else flow_text(value)
