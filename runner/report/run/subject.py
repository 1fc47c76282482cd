"""What the sections of a run's report are built from: the run, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.config.files.safe_files import Folder
from runner.errors import Problem, RunError, UsageError
from runner.plan import Plan
from runner.record.directory import ROWS_FOLDER
from runner.record.reading import Run
from runner.record.rows.part_digests import DIGESTS_FILE
from runner.report.reading.budget import is_large, plan_reading
from runner.report.reading.columns import shown_columns
from runner.report.reading.curves import Curve, Recorded
from runner.report.reading.rows import MOST_ROWS, Positions, Rows, Step, chosen_positions, read_rows, steps_at
from runner.report.reading.tensors import Measured, measure
from runner.report.run.focus import Focus, failed_row, focus_of
from runner.report.run.planned import planned
from runner.report.run.replayed import NOTHING, Replays

DIGESTED_BYTES = 64 << 20
"""Part files of at most this size together are compared with their digests; of larger ones, the pages that are read."""

MOST_VALUES = 1 << 27
"""The most values of all curves that are read."""

MOST_DAMAGED = 4
"""How often the rows are read; if damage is found each time, none is shown."""

NO_PART = ""
"""A name that no part file comes before."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A run, and what a report shows of it."""

    run: Run
    rows: Rows
    chosen: Positions  # the positions of the rows that the page shows one by one
    steps: tuple[Step, ...]  # of these rows
    curves: tuple[Curve, ...]
    numbers: Mapping[str, Mapping[int, float]]  # of each curve, the values at chosen positions
    before: Mapping[str, Mapping[int, float | None]]  # and the value before; None for the first
    tensors: tuple[Measured, ...]
    left_out: tuple[str, ...]  # sentences
    focus: Focus | None
    plan: Plan | None
    unplanned: str | None  # why there is no plan
    problems: tuple[Problem, ...] = ()  # what is damaged; only rows before it are read
    replayed: Replays = NOTHING  # the chosen rows that were computed again

    @property
    def name(self) -> str:
        return str(self.run.manifest.get("name") or self.run.path.parent.name)

    @property
    def objectives(self) -> tuple[str, ...]:
        return () if self.plan is None else tuple(self.plan.objectives)


def read_subject(directory: Path, allowed: Sequence[Path]) -> Subject:
    """Read a run for its report; of one whose rows are damaged, those before the damage.

    Args:
        allowed: folders that its config may read data from, besides those below the working directory.
    Raises:
        UsageError: its manifest cannot be read, or is not that of a run.
    """
    found = planned(Run(directory, before=NO_PART), allowed)
    checked, before = _digested(directory), None
    problems: list[Problem] = []
    for _ in range(MOST_DAMAGED):
        try:
            return _read(Run(directory, check_digests=checked, before=before), *found, problems)
        except UsageError as error:  # `rows` is not a folder
            problems += error.problems
            break
        except RunError as error:
            problems += error.problems
            if error.file == directory / DIGESTS_FILE:
                checked = False
            else:
                before = NO_PART if error.file is None else error.file.name
    return _read(Run(directory, before=NO_PART), *found, problems)


def _read(run: Run, plan: Plan | None, unplanned: str | None, problems: Sequence[Problem]) -> Subject:
    """Read the rows of a run; a RunError names the file that is damaged."""
    shown = shown_columns(run.columns)
    rows = read_rows(run, min(MOST_ROWS, MOST_VALUES // max(1, len(shown.curves))))
    recorded = Recorded(rows, shown.curves)
    curves = recorded.curves()
    chosen = chosen_positions(rows, _special(run, rows, curves), by_part=is_large(shown.tensors, rows))
    reading = plan_reading(shown.tensors, rows, chosen)
    tensors = measure(rows, shown.tensors, reading, chosen)
    return Subject(
        run=run,
        rows=rows,
        chosen=chosen,
        steps=tuple(steps_at(rows, chosen.tolist())),
        curves=tuple(curves),
        numbers=recorded.at(chosen),
        before=recorded.before(chosen),
        tensors=tuple(tensors),
        left_out=(*_later_rows(run, rows), *shown.left_out, *reading.left_out),
        focus=focus_of({} if problems else run.manifest, rows, curves, tensors),
        plan=plan,
        unplanned=unplanned,
        problems=tuple(problems),
    )


def _later_rows(run: Run, rows: Rows) -> list[str]:
    return [] if len(rows) == len(run) else [f"the log has {len(run):,} rows; the page has the first {len(rows):,}"]


def _digested(directory: Path) -> bool:
    """Whether the part files are small enough to compare them with their digests."""
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as rows:
            return sum(rows.status(name).st_size for name in rows.names()) <= DIGESTED_BYTES
    except OSError:  # opening the run says what is wrong
        return True


def _special(run: Run, rows: Rows, curves: Sequence[Curve]) -> list[int]:
    """The positions that the page has in any case, the most important first, each after the row before it."""
    failed = failed_row(run.manifest, rows)
    found: list[int | None] = [] if failed is None else [failed, failed - 2, failed - 4]  # and each one before
    found += [curve.broken for curve in curves]
    found += [place for curve in curves[:4] for place in (curve.most, curve.least)]
    return [place for each in found if each is not None for place in (each, each - 1)]
