"""Writes the part files of a sweep: rows and weights of many points in one file.

A file's metadata lists the points that are complete in it. So a part is the only record of what is finished: it
appears with an atomic rename, and a sweep that is killed has exactly the points of its parts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy
import pyarrow

from runner.record.directory import write_atomically
from runner.record.rows.arrow import integers_of
from runner.record.rows.parquet import encode
from runner.record.rows.storage import StoredColumn, column_json
from runner.sweep.points.outcome import Outcome, to_json
from runner.sweep.record.seals import sealed
from runner.sweep.record.states import State, StateFiles, States

ROWS_FOLDER = "rows"
WEIGHTS_FOLDER = "weights"
OUTCOMES = b"steprun.points"
"""The key of a part's metadata under which it lists its points."""

FLUSH_SECONDS = 2.0
FLUSH_BYTES = 64 << 20

Weights = tuple[Sequence[StoredColumn], pyarrow.Table]


@dataclass(slots=True)
class _Part:
    columns: Sequence[StoredColumn]
    tables: list[pyarrow.Table] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """A point that has ended, or paused at a rung."""

    outcome: Outcome
    columns: Sequence[StoredColumn] = ()
    table: pyarrow.Table | None = None  # its rows
    weights: Weights | None = None
    state: State | None = None  # if it can go on


class PartFiles:
    """Collects the points of one worker, and writes them to part files of their schema."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._written = 0
        self._rows: dict[str, _Part] = {}
        self._weights: dict[str, _Part] = {}
        self._states = StateFiles(self._part_name)
        self._bytes = 0
        self._since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the points so far should be written now."""
        return self._bytes >= FLUSH_BYTES or time.monotonic() - self._since >= FLUSH_SECONDS

    def add(self, ended: Ended) -> None:
        """Add a point that has ended."""
        schema = schema_name(ended.columns)
        part = self._rows.setdefault(schema, _Part(ended.columns))
        outcome = replace(ended.outcome, schema=schema if ended.columns else "")
        if ended.state is not None:
            outcome = self._with_state(outcome, ended.state)
        part.outcomes.append(outcome)
        if ended.table is not None:
            part.tables.append(_with_point(ended.table, outcome.index))
            self._bytes += ended.table.nbytes
        if ended.weights is not None:
            columns, table = ended.weights
            kept = self._weights.setdefault(schema_name(columns), _Part(columns))
            kept.outcomes.append(outcome)
            kept.tables.append(_with_point(table, outcome.index))
            self._bytes += table.nbytes

    def add_block(
        self,
        outcomes: Sequence[Outcome],
        columns: Sequence[StoredColumn],
        rows: pyarrow.Table,
        weights: Weights,
        states: States = MappingProxyType({}),
    ) -> None:
        """Add points that have ended, at least one, of one schema.

        Args:
            rows: the rows of all points, point by point, with the column `point`.
            weights: as rows, one row for each point.
            states: those of points that can go on, by identity.
        """
        outcomes = [
            self._with_state(outcome, states[outcome.identity]) if outcome.identity in states else outcome
            for outcome in outcomes
        ]
        schema = schema_name(columns)
        part = self._rows.setdefault(schema, _Part(columns))
        part.outcomes += [replace(outcome, schema=schema) for outcome in outcomes]
        part.tables.append(rows)
        kept = self._weights.setdefault(schema_name(weights[0]), _Part(weights[0]))
        kept.outcomes += outcomes
        kept.tables.append(weights[1])
        self._bytes += rows.nbytes + weights[1].nbytes

    def flush(self) -> list[Outcome]:
        """Write every point to disk, and return the outcomes.

        Raises:
            OSError: a file cannot be written; the points of files that were written are complete.
        """
        name = f"{self._part_name}.parquet"
        self._states.save(self._directory)
        for schema, part in self._weights.items():
            self._write(WEIGHTS_FOLDER, schema, name, part)
        found = []
        for schema, part in self._rows.items():
            if part.columns:
                self._write(ROWS_FOLDER, schema, name, part)
            found += part.outcomes
        for collected in (self._rows, self._weights):
            collected.clear()
        self._written += 1
        self._states = StateFiles(self._part_name)
        self._bytes = 0
        self._since = time.monotonic()
        return found

    @property
    def _part_name(self) -> str:
        return f"{self._name}-{self._written}"

    def _with_state(self, outcome: Outcome, state: State) -> Outcome:
        """Add the state of a point, and note in its outcome where it is."""
        self._bytes += sum(tensor.nbytes for tensor in state[1].values())
        return replace(outcome, state=self._states.add(outcome.identity, state))

    def _write(self, folder: str, schema: str, name: str, part: _Part) -> None:
        table = pyarrow.concat_tables(part.tables)
        table = table.replace_schema_metadata({OUTCOMES: to_json(part.outcomes)})
        target = self._directory / folder / schema
        target.mkdir(parents=True, exist_ok=True)
        content = sealed(encode([table], part.columns), [outcome.index for outcome in part.outcomes])
        write_atomically(target / name, content, through=target.parent)


def schema_name(columns: Sequence[StoredColumn]) -> str:
    """The folder of rows with these columns."""
    text = json.dumps([column_json(column.column) for column in columns])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _with_point(table: pyarrow.Table, index: int) -> pyarrow.Table:
    return with_points(table, numpy.full(len(table), index))


def with_points(table: pyarrow.Table, points: numpy.ndarray) -> pyarrow.Table:
    """The rows of some points with the column `point`, int64."""
    return table.add_column(0, pyarrow.field("point", pyarrow.int64(), nullable=False), integers_of(points))
