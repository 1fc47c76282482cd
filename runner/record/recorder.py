"""Records a run: keeps its directory, its rows and its manifest consistent, however the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runner.config.files.run_paths import CONFIG_FILE
from runner.engine.rows import Row, Rows
from runner.errors import Problem, RunError
from runner.plan.rows.columns import Column
from runner.record.directory import locked, sync_opening, write_atomically
from runner.record.manifest import Manifest, RunDescription
from runner.record.rows.part_reading import Part
from runner.record.rows.transfer import Transfer
from runner.record.rows.writer import RowWriter


@dataclass(frozen=True, slots=True)
class Recording:
    """The functions that record the parts of a run."""

    directory: Path
    write: Callable[[Row], None]  # records a row; raises RunError if an earlier one could not be written
    write_together: Callable[[Rows], None]  # records rows of one block, as `write` does
    warn: Callable[[str], None]  # adds a warning to the manifest
    compiled: Callable[[float], None]  # adds the seconds of a compilation to the manifest
    digest: Callable[[str, str], None]  # adds the SHA-256 of a large data file, by its path, to the manifest
    wrote_weights: Callable[[Mapping[str, str]], None]  # adds the SHA-256 of weights files, by name, to the manifest
    flush: Callable[[], None]  # waits until every row so far is on disk
    end: Callable[[], None]  # starts to write the last rows, while the caller does something else; no row may follow


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a resumed run already has on disk."""

    rows: int  # also the number of the next row
    parts: int
    changed_data: tuple[str, ...] = ()  # data files that have changed; the user allowed this


@dataclass(frozen=True, slots=True)
class Copied:
    """The rows of another run with which a new one begins."""

    parts: Sequence[Part]
    rows: int


@contextmanager
def recording(
    directory: Path,
    columns: Sequence[Column],
    description: RunDescription,
    config: str,
    recorded: Recorded | None = None,
    transfer: Transfer | None = None,
    copied: Copied | None = None,
) -> Iterator[Recording]:
    """Record a run into a new directory, or continue one that was stopped: `config.yaml`, `run.json`, `rows/`.

    A new directory is locked until the end. A caller that resumes a run already holds the lock.

        with recording(directory, plan.columns, description, text) as record:
            for row in execute(plan):
                record.write(row)

    When the block ends, every row is on disk and the manifest's status is `finished`. After an exception it is
    `failed`, with the problems, and after KeyboardInterrupt `interrupted`. The exception propagates.

    Raises:
        RunError: something could not be written.
    """
    with nullcontext() if recorded is not None else locked(directory):
        yield from _recording(directory, columns, description, config, recorded, transfer, copied)


def _recording(
    directory: Path,
    columns: Sequence[Column],
    description: RunDescription,
    config: str,
    recorded: Recorded | None,
    transfer: Transfer | None,
    copied: Copied | None,
) -> Iterator[Recording]:
    try:
        if recorded is None:
            write_atomically(directory / CONFIG_FILE, config.encode(), synced=False)
        manifest = Manifest(
            directory,
            description,
            columns,
            resumed_at=recorded.rows if recorded else None,
            copied_rows=copied.rows if copied else 0,
        )
        if recorded is not None and recorded.changed_data:
            manifest.note_changed_data(recorded.changed_data)
    except OSError as error:
        raise _cannot_write(directory, error) from error
    try:
        existing = recorded or (Recorded(0, 0) if copied is None else _copy(copied, columns, directory))
    except OSError as error:
        raise _cannot_write(directory, error) from error
    opening = partial(sync_opening, directory) if recorded is None else None
    writer = RowWriter(directory, columns, parts=existing.parts, rows=existing.rows, transfer=transfer, opening=opening)
    try:
        with writer:
            yield Recording(
                directory,
                writer.write,
                writer.write_together,
                manifest.warn,
                manifest.compiled,
                manifest.digest,
                manifest.wrote_weights,
                writer.flush,
                writer.end,
            )
    except BaseException as error:
        try:
            manifest.finish(writer.rows_on_disk, error)
        except OSError as second:
            error.add_note(str(_cannot_write(directory, second)))
        raise
    try:
        manifest.finish(writer.rows_on_disk)
    except OSError as error:
        raise _cannot_write(directory, error) from error


def _copy(copied: Copied, columns: Sequence[Column], directory: Path) -> Recorded:
    from runner.record.rows.parts import copy_rows  # imports pyarrow, which other runs import on another thread

    return Recorded(copied.rows, copy_rows(copied.parts, copied.rows, columns, directory))


def _cannot_write(directory: Path, error: OSError) -> RunError:
    problem = Problem(
        f"cannot write to {directory}: {error.strerror or error}", hint="free space, or choose another --runs-dir"
    )
    return RunError(problem)
