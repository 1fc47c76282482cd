"""Reads sweeps: their table, their rows, and each point as a run of its own."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.compute
from torch import Tensor

from runner.errors import Problem, UsageError
from runner.plan.data.tables.parquet_files import chunks_of
from runner.record.reading import Run, open_run
from runner.record.resuming.stopped import recorded_folders
from runner.record.rows.arrow import columns_of
from runner.sweep.choosing.objective import Objective, objective_of
from runner.sweep.points.outcome import Outcome, joined, outcomes_of
from runner.sweep.record.config import check_unchanged, load_sweep
from runner.sweep.record.manifest import read_manifest
from runner.sweep.record.part_files import ROWS_FOLDER, WEIGHTS_FOLDER
from runner.sweep.record.parts import Vanished, part_paths, read_part, span_in, while_merging, written_in
from runner.sweep.record.seals import Span
from runner.sweep.record.table import POINTS_FILE, read_table
from runner.text import Table, html_tables, steprun_command, text_tables

if TYPE_CHECKING:
    import pandas
    import pyarrow.parquet

    from runner.config import Config

MOST_SHOWN = 20
"""The most points that a notebook shows; `table` and `to_pandas` have all."""


def open_sweep(path: str | Path) -> Sweep:
    """Open a sweep directory, even while it is running or after it was killed.

    Raises:
        UsageError: `path` is not a sweep directory.
    """
    return Sweep(Path(path))


class Sweep:
    """A recorded sweep, as of when it was opened.

    Attributes:
        path: the sweep directory.
        manifest: `sweep.json`; its `status` is `running`, `finished`, `failed`, `interrupted` or `killed`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = read_manifest(path)
        self._found: dict[int, list[tuple[Outcome, Path]]] = {}  # of the points that were read
        self._spans: dict[Path, Span] = {}  # of the parts that were opened

    @property
    def status(self) -> str:
        return str(self.manifest["status"])

    @functools.cached_property
    def config(self) -> Config:
        """The resolved config of the sweep.

        Raises:
            UsageError: it cannot be read, or has been edited.
        """
        config = load_sweep(self.path, tuple(recorded_folders(self.manifest)))
        check_unchanged(self.path, self.manifest, config)
        return config

    @property
    def objective(self) -> Objective | None:
        """What the sweep looks for."""
        return objective_of(None if self.config.sweep is None else self.config.sweep.objective)

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The override paths that the points set."""
        names = self.table().column_names
        return tuple(names[1 : names.index("status")])

    def __len__(self) -> int:
        return int(self.manifest["points"])

    @property
    def has_table(self) -> bool:
        """Whether there is a table of points; a sweep that has just begun has none."""
        return os.path.lexists(self.path / POINTS_FILE)

    def table(self) -> pyarrow.Table:
        """One row for each point: values, status, objective, last, smallest and largest of each scalar, failure."""
        table = read_table(self.path)
        if table is None:
            hint = f"`{steprun_command('resume', self.path)}` writes it"
            raise UsageError(Problem(f"{self.path} has no {POINTS_FILE}", hint))
        return table.replace_schema_metadata(None)

    def to_pandas(self) -> pandas.DataFrame:
        """`table` as a DataFrame."""
        return self.table().to_pandas()

    def rows(self, point: int) -> pyarrow.Table:
        """The rows of one point, as they are stored.

        Raises:
            UsageError: there is no such point, or it has no rows.
        """
        return while_merging(lambda: self._rows(point))

    def _rows(self, point: int) -> pyarrow.Table:
        parts = self._parts(point)
        found = []
        for (outcome, path), following in itertools.zip_longest(parts, parts[1:]):
            row = pyarrow.compute.field("row")
            wanted = (pyarrow.compute.field("point") == outcome.index) & (row >= outcome.first)
            if following is not None:  # the next rung has computed the last rows again
                wanted &= row < following[0].first
            try:
                table = read_part(path, lambda file: file.read(use_threads=False)).filter(wanted)
            except Vanished:
                del self._found[point]
                raise
            found.append(table.drop_columns("point").replace_schema_metadata(None))
        return pyarrow.concat_tables(found)

    def outcome(self, point: int) -> Outcome:
        """How a point ended.

        Raises:
            UsageError: there is no such point, or it has no rows.
        """
        return joined([outcome for outcome, _ in self._parts(point)])

    def run(self, point: int) -> Run:
        """One point as an ordinary run, in a run directory below the sweep's own that is made on demand.

        Raises:
            UsageError: there is no such point, or it has no rows.
        """
        from runner.sweep.record.point_runs import point_directory

        outcome = replace(self.outcome(point), index=point)
        rows, weights = self.rows(point), self.weights(point)
        return open_run(point_directory(self.path, self.manifest, self.config, outcome, rows, weights))

    def weights(self, point: int) -> dict[str, Tensor]:
        """The parameters of one point as they are at its end; empty if it has none.

        Raises:
            UsageError: there is no such point.
        """
        return while_merging(lambda: self._weights(point))

    def _weights(self, point: int) -> dict[str, Tensor]:
        from runner.record.rows.tensors import tensors_of

        parts = _parts_of(self.path, WEIGHTS_FOLDER, point, self._identity(point), self._spans)
        if not parts:
            return {}
        outcome, path = parts[-1]
        table = read_part(path, lambda file: file.read(use_threads=False)).filter(
            pyarrow.compute.field("point") == outcome.index
        )
        rows = table.column("row").to_pylist()
        table = table.slice(rows.index(max(rows)), 1)  # of the last rung: a merged part has all rungs, in any order
        columns = columns_of(table.schema)
        return {column.name: value for column in columns if (value := tensors_of(table, column)[-1]) is not None}

    @functools.cached_property
    def _identities(self) -> dict[int, str]:
        table = self.table()
        return dict(zip(table.column("point").to_pylist(), table.column("identity").to_pylist(), strict=True))

    def _identity(self, point: int) -> str:
        if point not in self._identities:
            count = len(self._identities)
            hint = (
                f"its points are 0 to {count - 1}"
                if count
                else f"`{steprun_command('resume', self.path)}` runs its points"
            )
            raise UsageError(Problem(f"{self.path} has no point {point}", hint))
        return str(self._identities[point])

    def _parts(self, point: int) -> list[tuple[Outcome, Path]]:
        """The outcomes of a point that have rows, each with its part, in the order of the rungs."""
        if point not in self._found:
            identity = self._identity(point)
            found = while_merging(lambda: _parts_of(self.path, ROWS_FOLDER, point, identity, self._spans))
            if not found:
                hint = f"`{steprun_command('resume', self.path)}` runs it"
                raise UsageError(Problem(f"point {point} of {self.path} has no rows", hint))
            self._found[point] = found
        return self._found[point]

    def __repr__(self) -> str:
        return f"<Sweep {self.path}: {self.status}, {len(self)} points>"

    def __str__(self) -> str:
        return text_tables(self._tables())

    def _repr_html_(self) -> str:
        return html_tables(self._tables())

    def _tables(self) -> Iterator[Table]:
        """The sweep, and its first points; without a table of points, the sweep alone."""
        yield Table([("sweep", self.path), ("status", self.status), ("points", f"{len(self):,}")])
        points = read_table(self.path)
        if points is None:
            return
        names = [name for name in points.column_names if name != "identity"]
        rows = points.slice(0, MOST_SHOWN).select(names).to_pylist()
        yield Table([[_cell(row[name]) for name in names] for row in rows], names)


def _parts_of(
    directory: Path, folder: str, point: int, identity: str, spans: dict[Path, Span]
) -> list[tuple[Outcome, Path]]:
    """The outcomes of a point, each with the newest part that has it, in the order of the rungs.

    Parts whose statistics allow the point are searched first, so that the time does not grow with the other points. The
    others may have an equal point, which ran in its place: a sampler proposes some points twice.

    Args:
        spans: those of parts that were opened before; others are added.
    """
    paths = list(part_paths(directory, folder))
    for path in paths:
        if path not in spans:
            spans[path] = _span(path)
    likely = [path for path in paths if spans[path][0] <= point <= spans[path][1]]
    return _outcomes_in(likely, identity) or _outcomes_in(paths, identity)


def _outcomes_in(paths: Sequence[Path], identity: str) -> list[tuple[Outcome, Path]]:
    found: dict[int, tuple[Outcome, Path]] = {}
    for path in paths:
        for outcome in read_part(path, lambda file: outcomes_of(written_in(file), identity), rows=False):
            found[outcome.rung] = outcome, path
    return [found[rung] for rung in sorted(found)]


def _span(path: Path) -> Span:
    """The smallest and the largest point of a part, by its seal, or by its footer if it has none.

    Raises:
        UsageError: it is damaged.
    """
    return span_in(path) or read_part(path, _measured_span, rows=False)


def _measured_span(file: pyarrow.parquet.ParquetFile) -> Span:
    """The smallest and the largest value of the first column of a part; all if its footer has none."""
    least, most = math.inf, -math.inf
    for group in range(file.metadata.num_row_groups):
        statistics = chunks_of(file, group, ["point"]).column(0).statistics
        if statistics is None or not statistics.has_min_max:
            return -math.inf, math.inf
        least, most = min(least, statistics.min), max(most, statistics.max)
    return least, most


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
