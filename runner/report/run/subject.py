"""What the sections of a run's report are built from: the run, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.config.files.run_paths import resolved_run
from runner.config.files.safe_files import Folder
from runner.plan import Plan
from runner.record.directory import ROWS_FOLDER
from runner.record.reading import Run, open_run
from runner.report.reading.budget import is_large, plan_reading
from runner.report.reading.columns import Shown, shown_columns
from runner.report.reading.curves import Curve, Recorded
from runner.report.reading.rows import Positions, Rows, Step, chosen_positions, read_rows, steps_at
from runner.report.reading.tensors import Measured, measure
from runner.report.run.focus import Focus, failed_row, focus_of
from runner.report.run.planned import planned

DIGESTED_BYTES = 64 << 20
"""Part files of at most this size together are compared with their digests; of larger ones, the pages that are read."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A run, and what a report shows of it."""

    run: Run
    rows: Rows
    chosen: Positions  # the positions of the rows that the page shows one by one
    steps: tuple[Step, ...]  # of these rows
    curves: tuple[Curve, ...]
    numbers: Mapping[str, Mapping[int, float]]  # of each curve, the values at chosen positions
    moves: Mapping[str, Mapping[int, float | None]]  # and how they changed since the last row that has one
    tensors: tuple[Measured, ...]
    left_out: tuple[str, ...]  # sentences
    focus: Focus | None
    plan: Plan | None
    unplanned: str | None  # why there is no plan

    @property
    def name(self) -> str:
        return str(self.run.manifest.get("name") or self.run.path.parent.name)

    @property
    def objectives(self) -> tuple[str, ...]:
        return () if self.plan is None else tuple(self.plan.objectives)


def read_subject(path: str | Path, allowed: Sequence[Path]) -> Subject:
    """Read a run for its report.

    Args:
        allowed: folders that its config may read data from, besides those below the working directory.
    Raises:
        UsageError: it is not a run, or its files are not those of one.
        RunError: a file of its rows is damaged.
    """
    run = _opened(path)
    rows = read_rows(run)
    shown = shown_columns(run.columns)
    plan, unplanned = planned(run, allowed)
    recorded = Recorded(rows, shown.curves)
    curves = recorded.curves()
    chosen = chosen_positions(rows, _special(run, rows, shown, curves), by_part=is_large(shown.tensors, rows))
    reading = plan_reading(shown.tensors, rows, chosen)
    tensors = measure(rows, shown.tensors, reading, chosen)
    return Subject(
        run=run,
        rows=rows,
        chosen=chosen,
        steps=tuple(steps_at(rows, chosen.tolist())),
        curves=tuple(curves),
        numbers=recorded.at(chosen),
        moves=recorded.changes(chosen),
        tensors=tuple(tensors),
        left_out=(*shown.left_out, *reading.left_out),
        focus=focus_of(run.manifest, rows, curves, tensors),
        plan=plan,
        unplanned=unplanned,
    )


def _opened(path: str | Path) -> Run:
    directory = resolved_run(path)
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as rows:
            size = sum(rows.status(name).st_size for name in rows.names())
    except OSError:  # `open_run` says what is wrong
        size = 0
    return open_run(directory, check_digests=size <= DIGESTED_BYTES)


def _special(run: Run, rows: Rows, shown: Shown, curves: Sequence[Curve]) -> list[int]:
    """The positions that the page has in any case, the most important first, each after the row before it."""
    found = [failed_row(run.manifest, rows)]
    found += [curve.broken for curve in curves]
    found += [place for curve in curves[:4] for place in (curve.most, curve.least)]
    return [place for each in found if each is not None for place in (each, each - 1)]
