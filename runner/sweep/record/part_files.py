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

import pyarrow

from runner.record.directory import write_atomically
from runner.record.rows.parquet import encode
from runner.record.rows.storage import StoredColumn, column_json
from runner.sweep.points.outcome import Outcome, to_json

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


class PartFiles:
    """Collects the points of one worker, and writes them to part files of their schema."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._written = 0
        self._rows: dict[str, _Part] = {}
        self._weights: dict[str, _Part] = {}
        self._bytes = 0
        self._since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the points so far should be written now."""
        return self._bytes >= FLUSH_BYTES or time.monotonic() - self._since >= FLUSH_SECONDS

    def add(
        self,
        outcome: Outcome,
        columns: Sequence[StoredColumn],
        tables: Sequence[pyarrow.Table],
        weights: Weights | None,
    ) -> None:
        """Add a point that has ended."""
        schema = schema_name(columns)
        part = self._rows.setdefault(schema, _Part(columns))
        part.outcomes.append(replace(outcome, schema=schema if columns else ""))
        for table in tables:
            part.tables.append(_with_point(table, outcome.index))
            self._bytes += table.nbytes
        if weights is not None:
            kept = self._weights.setdefault(schema_name(weights[0]), _Part(weights[0]))
            kept.outcomes.append(outcome)
            kept.tables.append(_with_point(weights[1], outcome.index))
            self._bytes += weights[1].nbytes

    def add_block(
        self,
        outcomes: Sequence[Outcome],
        columns: Sequence[StoredColumn],
        rows: pyarrow.Table,
        weights: Weights,
    ) -> None:
        """Add points that have ended, at least one, of one schema.

        Args:
            rows: the rows of all points, point by point, with the column `point`.
            weights: as rows, one row for each point.
        """
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
        name = f"{self._name}-{self._written}.parquet"
        for schema, part in self._weights.items():
            self._write(WEIGHTS_FOLDER, schema, name, part)
        found = []
        for schema, part in self._rows.items():
            if part.columns:
                self._write(ROWS_FOLDER, schema, name, part)
            found += part.outcomes
        self._rows.clear()
        self._weights.clear()
        self._written += 1
        self._bytes = 0
        self._since = time.monotonic()
        return found

    def _write(self, folder: str, schema: str, name: str, part: _Part) -> None:
        table = pyarrow.concat_tables(part.tables)
        table = table.replace_schema_metadata({OUTCOMES: to_json(part.outcomes)})
        content = memoryview(encode([table], part.columns))
        target = self._directory / folder / schema
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / name, content, through=target.parent)


def schema_name(columns: Sequence[StoredColumn]) -> str:
    """The folder of rows with these columns."""
    text = json.dumps([column_json(column.column) for column in columns])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _with_point(table: pyarrow.Table, index: int) -> pyarrow.Table:
    return with_points(table, pyarrow.array([index] * len(table), pyarrow.int64()))


def with_points(table: pyarrow.Table, points: pyarrow.Array) -> pyarrow.Table:
    """The rows of some points with the column `point`, int64."""
    return table.add_column(0, pyarrow.field("point", pyarrow.int64(), nullable=False), points)
