"""Reads recorded runs: rows as torch tensors in their true dtype, tables for pandas and Arrow."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from runner.config.files.run_paths import (
    CONFIG_FILE,
    LATEST,
    MANIFEST_FILE,
    SWEEP_MANIFEST,
    is_run,
    resolved_run,
    resolved_sweep,
    runs_in,
)
from runner.config.files.safe_files import Folder
from runner.engine.rows import Row
from runner.errors import Problem, UsageError, did_you_mean, nearest
from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns
from runner.record.manifest import hint_about, read_manifest
from runner.record.rows.part_digests import check_parts
from runner.record.rows.part_reading import LABELS, Span, check_columns, parts_of
from runner.record.rows.storage import from_column_json, stored_column
from runner.text import Shown, Table, steprun_command

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from runner.config import Config
    from runner.record.checkpoints.weights import Weights
    from runner.record.display.figure import Figure

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def open_run(path: str | Path, *, check_digests: bool = True) -> Run:
    """Open the run in a run directory, even while it is running or after it was killed.

    Args:
        path: a run directory, or `runs/NAME/latest` or `runs/NAME` for the newest run of that name.
        check_digests: whether to compare all of its rows with their digests. What is read is compared with the
            checksum of its page in any case.
    Raises:
        UsageError: `path` is not a run directory.
        RunError: a file of its rows is damaged; the message names the file.
    """
    directory = resolved_run(path)
    check_is_run(directory)
    return Run(directory, check_digests=check_digests)


def check_is_run(directory: Path) -> None:
    """Raise UsageError if a path is not a run directory; the message says what it is instead."""
    if not os.path.lexists(directory / MANIFEST_FILE):
        raise UsageError(_not_a_run(directory))


def _not_a_run(directory: Path) -> Problem:
    if is_run(resolved_sweep(directory), SWEEP_MANIFEST):
        return Problem(f"{directory} is a sweep, not a run", hint=f"write `{directory}#0` for its point 0")
    lists = "`steprun runs` lists the recorded runs"
    if directory.is_file():
        of_config = directory.suffix in (".yaml", ".yml")
        records = f"`{steprun_command(directory)}` records a run of it" if of_config else lists
        return Problem(f"{directory} is a file, not a run directory", hint=records)
    if directory.name == LATEST and directory.parent.is_dir():
        return Problem(f"there is no run in {directory.parent}", hint=lists)
    if not directory.is_dir():
        return Problem(f"there is no folder {directory}", hint=_meant(directory) or _nearest_folder(directory) or lists)
    return Problem(f"{directory} is not a run directory: it has no {MANIFEST_FILE}", hint=lists)


_RUNS = Path("runs")
"""Where commands record runs by default."""


def _meant(directory: Path) -> str | None:
    """The newest run of a name alone, `linear`, or of a misspelt `latest`."""
    if runs_in(_RUNS / directory) and not directory.is_absolute():
        return f"did you mean `{_RUNS / directory / LATEST}`?"
    if nearest(directory.name, [LATEST]) and runs_in(directory.parent):
        return f"did you mean `{directory.parent / LATEST}`?"
    return None


def _nearest_folder(directory: Path) -> str | None:
    """The nearest path to one of which a single part is wrong."""
    missing = directory if directory.parent.is_dir() else directory.parent
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return None
    found = nearest(missing.name, names)
    if found is None or (is_run(missing.parent / found) and not found.startswith(missing.name)):
        return None  # times of runs resemble each other: another one is not meant
    return f"did you mean `{missing.parent / found / directory.relative_to(missing)}`?"


class Run(Shown):
    """A recorded run, as of when it was opened; open it again to see rows written since.

    Attributes:
        path: the run directory.
        manifest: `run.json`; its `status` is `running`, `finished`, `failed`, `interrupted`, or `killed`.
    """

    def __init__(self, path: Path, *, check_digests: bool = True, before: str | None = None) -> None:
        """Open a run directory, or the part files before the one named `before`."""
        self.path = path
        self.manifest: dict[str, Any] = read_manifest(path)
        columns = _described(path, self.manifest)
        if check_digests:
            check_parts(path, before)
        self.parts = parts_of(path, before)
        check_columns(self.parts, columns)
        self._layout = Columns(columns)

    @property
    def status(self) -> str:
        return str(self.manifest["status"])

    @functools.cached_property
    def config(self) -> Config:
        """The resolved config that ran."""
        return self.load_config()

    def load_config(self, allowed_folders: Sequence[Path] = ()) -> Config:
        """The resolved config that ran; it may read from its own folder and from the allowed ones.

        Raises:
            UsageError: `config.yaml` cannot be read, or is not an ordinary file.
            ConfigError: the config is not valid.
        """
        import runner.config

        path, limits = self.path / CONFIG_FILE, runner.config.Limits()
        try:
            with Folder(self.path) as folder:
                text = folder.read(CONFIG_FILE, limits.file_bytes)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        return runner.config.loads(text, self.path, name=str(path), limits=limits, allowed_folders=allowed_folders)

    @functools.cached_property
    def weights(self) -> Weights:
        """The weights at the end of the run, by name; each access reads one tensor, on the CPU, in its true dtype.

        Raises:
            UsageError: the run left no weights.
            RunError: the file is damaged.
        """
        from runner.plan.tensors.run_files import WEIGHTS_FILE
        from runner.record.checkpoints.weights import Weights

        return Weights(self.path, WEIGHTS_FILE, self.manifest.get("weights", {}).get(WEIGHTS_FILE))

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._layout.columns

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)

    def __iter__(self) -> Iterator[Row]:
        return self.rows()

    def rows(self) -> Iterator[Row]:
        """Iterate over the rows in order, with tensors on the CPU; loads one part of the run at a time."""
        for span in self.spans():
            yield from span

    def spans(self) -> Iterator[Span]:
        """Iterate over the rows in order, by column, one part of the run at a time."""
        from runner.record.rows.tensors import read_of

        def read(table: pyarrow.Table) -> Span:
            return Span(table.select(LABELS), read_of(table, self.columns), self._layout, 0)

        return (part.read(read) for part in self.parts)

    def tensor(self, name: str, missing: float | None = None) -> Tensor:
        """One column as a tensor `(rows, *shape)` in its true dtype.

        Args:
            name: "f", "w1", "w1.grad".
            missing: the value for rows without a value or gradient; by default NaN, which only floating-point and
                complex columns have. `present` returns which rows have a value.
        Raises:
            UsageError: there is no such column, or its shape varies. Also if a row has no value, `missing` is not
                given, and the dtype has no NaN.
        """
        from runner.record.rows.tensors import stacked_of

        column = self._column(name)
        if column.shape is None:
            raise UsageError(
                Problem(f"the shape of `{name}` varies from row to row", hint=f"read it with run.values({name!r})")
            )
        read = [part.read(partial(stacked_of, column=column), [name]) for part in self.parts]
        if not read:
            return torch.zeros((0, *column.shape), dtype=column.dtype)
        values, present = (torch.cat(parts) for parts in zip(*read, strict=True))
        absent = len(present) - int(present.sum())
        if absent == 0:
            return values
        if missing is None and not (column.dtype.is_floating_point or column.dtype.is_complex):
            raise UsageError(
                Problem(
                    f"`{name}` has no value in {absent} of {len(present)} rows, and {column.dtype} has no NaN",
                    hint=f"give these rows a value: run.tensor({name!r}, missing=0)",
                )
            )
        blank = torch.tensor(math.nan if missing is None else missing).to(column.dtype)
        integer = _INTEGERS.get(column.dtype.itemsize, column.dtype)  # some dtypes do not support assignment by mask
        values.view(integer)[~present] = blank.view(integer)
        return values

    def present(self, name: str) -> Tensor:
        """Which rows have a value of a column: bool `(rows,)`."""
        from runner.record.rows.tensors import present_of

        self._column(name)
        masks = [part.read(partial(present_of, name=name), [name]) for part in self.parts]
        return torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)

    def values(self, name: str) -> list[Tensor | None]:
        """One column as a list: for each row a tensor, or None if the row has no value. The shape may vary."""
        from runner.record.rows.arrow import SHAPE_SUFFIX
        from runner.record.rows.tensors import tensors_of

        column = self._column(name)
        names = [name] if column.shape is not None else [name, name + SHAPE_SUFFIX]
        return [value for part in self.parts for value in part.read(partial(tensors_of, column=column), names)]

    def to_arrow(self) -> pyarrow.Table:
        """All rows as one Arrow table, as they are stored."""
        import pyarrow

        from runner.record.rows.arrow import empty_table

        empty = empty_table([stored_column(column) for column in self.columns])
        return pyarrow.concat_tables([*(part.read(lambda table: table) for part in self.parts), empty])

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a DataFrame: a tensor of one element is a number, a larger one a NumPy array of its shape.

        Half precision becomes float32. A missing value is NaN, or None in a column of arrays.

        Raises:
            UsageError: pandas is not installed.
        """
        from runner.record.rows.frames import frame_of

        return frame_of(self.to_arrow(), self.columns)

    def plot(self, *names: str, log: bool = False) -> Figure:
        """A figure of columns over the rows, which a notebook shows; `figure.save("loss.svg")` writes it to a file.

        Args:
            names: names or globs of columns, as "loss" or "*.grad"; by default all values of one number. A tensor
                is drawn as its Euclidean norm.
            log: whether the scale of the values is logarithmic.
        Raises:
            UsageError: a name matches no column, or no column has a number to draw.
        """
        from runner.record.display.curves import curves_of, drawable
        from runner.record.display.figure import Figure

        curves, _ = drawable(curves_of(self.columns, self.parts, names), log=log)
        return Figure(curves, log=log)

    def _column(self, name: str) -> Column:
        position = self._layout.positions.get(name)
        if position is None:
            names = list(self._layout.positions)
            substitutes = [column for column in self.columns if column.of is not None and column.of.name == name]
            if substitutes:
                raise UsageError(_not_whole(name, substitutes))
            raise UsageError(
                Problem(f"no column `{name}`", hint=did_you_mean(name, names, f"columns are {', '.join(names)}"))
            )
        return self.columns[position]

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self.status}, {len(self)} rows of {len(self.columns)} columns>"

    def _tables(self) -> Iterator[Table]:
        yield Table(
            [
                ("run", self.path),
                ("status", self.status),
                ("rows", f"{len(self):,}"),
                ("started", self.manifest.get("started")),
                ("seconds", self.manifest.get("seconds")),
                ("device", self.manifest.get("environment", {}).get("device")),
                ("torch", self.manifest.get("versions", {}).get("torch")),
            ]
        )
        columns = [(column.name, column.role, _shape(column), dtype_name(column.dtype)) for column in self.columns]
        yield Table(columns, ("column", "role", "shape", "dtype"))


def _described(path: Path, manifest: dict[str, Any]) -> tuple[Column, ...]:
    """The columns that a manifest describes."""
    try:
        return tuple(map(from_column_json, manifest.get("columns", ())))
    except ValueError as error:
        problem = Problem(f"{path / MANIFEST_FILE} is not the manifest of a run: {error}", hint_about(manifest))
        raise UsageError(problem) from error


def _not_whole(name: str, substitutes: Sequence[Column]) -> Problem:
    kept = "a digest" if substitutes[0].is_digest else "statistics"
    return Problem(
        f"the log kept {kept} of `{name}`, not its elements",
        hint=f"it has {', '.join(column.name for column in substitutes)}; `log: {{tensors: full}}` keeps every element",
    )


def _shape(column: Column) -> str:
    return "?" if column.shape is None else str(list(column.shape))
