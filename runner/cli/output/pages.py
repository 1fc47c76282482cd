"""Writes the pages of `diff`, `check` and `compare --report`; imports what they need only if a page is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.compare.runs.difference import RunDifference
    from runner.compare.snapshots.checking import Observer, Outcome
    from runner.compare.variants.error_table import ErrorTable
    from runner.plan import Plan
    from runner.record import Run
    from runner.report.difference.recorder import Recorder
    from runner.report.section import Report


def check_page(path: Path | None) -> None:
    """Check, before the work, that a page can be written; None stands for no page.

    Raises:
        UsageError: the drawing library is not installed, or the file exists and is not a report.
    """
    if path is None:
        return
    from runner.report.library import library
    from runner.report.writing import check_target

    library()
    check_target(path)


def write_page(path: Path, report: Report) -> None:
    """Write a page.

    Raises:
        RunError: the file cannot be written.
    """
    from runner.report.page import page
    from runner.report.writing import write

    write(path, page(report))


def recorder_of_runs(found: Run, expected: Run) -> Recorder:
    """What sees the rows of two runs as they are compared."""
    from runner.report.difference.recorder import Recorder

    return Recorder(found.columns, expected.columns)


def page_of_runs(difference: RunDifference, found: Run, expected: Run, recorder: Recorder) -> Report:
    """The page of two runs."""
    from runner.report.difference.pages import report_of
    from runner.report.difference.sources import difference_of_runs

    return report_of(difference_of_runs(difference, found, expected, recorder.result()))


def recorder_of_variants(this: Plan, other: Plan) -> Recorder:
    """What sees the rows of two variants as they are compared."""
    from runner.compare.variants.lockstep import common_columns
    from runner.report.difference.recorder import Recorder

    mine, theirs = common_columns(this, other)
    return Recorder(theirs, mine)


def page_of_variants(table: ErrorTable, this: Plan, other: Plan, pairs: Sequence[str], recorder: Recorder) -> Report:
    """The page of a config and its variant."""
    from runner.report.difference.pages import report_of
    from runner.report.difference.sources import difference_of_variants

    return report_of(difference_of_variants(table, this, other, pairs, recorder.result()))


def observer() -> Callable[[Plan], Observer]:
    """Makes what sees the rows of a config as they are compared with its snapshot."""
    from runner.report.difference.sources import CheckObserver

    return CheckObserver


def page_of_check(outcomes: Sequence[Outcome], statuses: Mapping[str, str], by: Sequence[str], took: float) -> Report:
    """The page of a check.

    Args:
        statuses: how each status reads.
        by: how each snapshot was compared, as text.
        took: seconds.
    """
    from runner.report.difference.pages import report_of_check
    from runner.report.difference.sources import checked_of

    return report_of_check(checked_of(outcomes, statuses, by), took)
