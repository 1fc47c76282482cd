"""`steprun runs`: lists recorded runs and sweeps, and deletes runs. Listing does not import torch."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.declarations import argument, option
from runner.cli.input.options import FaultFormat, Json, RunsDir, SweepsDir, examples, names_in
from runner.cli.output.printing import say, say_json
from runner.errors import Problem, SteprunError, UsageError, did_you_mean
from runner.text import counted, printable_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.record.listing.runs import Recorded

Name = Annotated[str | None, argument("NAME", help="List only runs of this name.")]
Status = Annotated[
    list[str] | None, option("--status", metavar="STATUS", help="List only runs of these statuses, as failed,killed.")
]
OlderThan = Annotated[
    str | None, option("--older-than", metavar="TIME", help="List only runs that started before: 30d, 12h.")
]
Filter = Annotated[
    str | None, option("--filter", metavar="CONDITION", help="List only runs that meet it, as 'loss < 0.1'.")
]
Sort = Annotated[
    str | None, option("--sort", metavar="NAME", help="Sort by a value; -NAME for the largest first.  [newest first]")
]
Columns = Annotated[
    list[str] | None,
    option(
        "--columns", metavar="NAMES", help="Columns to show: fields, last scalars, keys of the config. May be repeated."
    ),
]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun runs",
            "steprun runs linear --columns loss,learning_rate --sort loss",
            "steprun runs --filter 'test.accuracy > 0.9 and seed == 1' --json",
            "steprun runs --status failed,killed --older-than 30d --delete",
        ),
        short_help="List recorded runs and sweeps, and delete runs.",
    )(runs)


def runs(
    name: Name = None,
    runs_dir: RunsDir = "runs",
    sweeps_dir: SweepsDir = "sweeps",
    status: Status = None,
    older_than: OlderThan = None,
    condition: Filter = None,
    sort: Sort = None,
    columns: Columns = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the listed runs. Asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """List recorded runs and sweeps with their status, newest first.

    With an option that chooses, sorts or shows values, only runs are listed.
    """
    from runner.cli.output.tables.runs import print_all, print_runs
    from runner.record.listing.runs import recorded_runs
    from runner.sweep.record.listing import list_sweeps

    if yes and not delete:
        raise UsageError(Problem("--yes has no effect without --delete", "leave --yes out"))
    statuses, shown = names_in(status), names_in(columns)
    chooses = any(option is not None for option in (statuses, older_than, condition))
    if delete and not chooses and name is None:
        hint = "name them, or choose with --status, --older-than or --filter"
        raise UsageError(Problem("--delete would delete every run", hint))
    if not chooses and not delete and sort is None and shown is None:
        sweeps = list_sweeps(sweeps_dir, name)
        found = [] if sweeps and not Path(runs_dir).is_dir() else recorded_runs(runs_dir, name)
        if found or sweeps or as_json:
            print_all([run.summary for run in found], sweeps, as_json)
        else:
            of_name = f" of `{name}`" if name else ""
            say(f"there are no runs{of_name} in {runs_dir}{_nearest(name, runs_dir)}")
        return
    found = _chosen(recorded_runs(runs_dir, name), statuses, older_than, condition, sort)
    if delete:
        _delete(found, yes, as_json)
    elif found or as_json:
        print_runs(found, shown, as_json)
    else:
        say(f"no run in {runs_dir} is chosen")


def _nearest(name: str | None, runs_dir: str) -> str:
    """The end of a sentence: the nearest name that has runs; of a path, its last part but `latest` is the name."""
    from runner.record.listing.runs import recorded_runs

    parts = [part for part in Path(name or "").parts if part != "latest"]
    if not parts or not Path(runs_dir).is_dir():
        return ""
    found = did_you_mean(parts[-1], {run.summary.path.parent.name for run in recorded_runs(runs_dir)})
    return f"; {found}" if found else ""


def _chosen(
    runs: list[Recorded],
    statuses: Sequence[str] | None,
    older_than: str | None,
    condition: str | None,
    sort: str | None,
) -> list[Recorded]:
    from runner.record.listing import choosing

    if statuses is not None:
        runs = choosing.with_status(runs, statuses)
    if older_than is not None:
        runs = choosing.older_than(runs, older_than, datetime.now().astimezone())
    if condition is not None and runs:
        runs = choosing.that_meet(runs, condition)
    return choosing.sorted_by(runs, sort) if sort is not None and runs else runs


def _delete(runs: Sequence[Recorded], yes: bool, as_json: bool) -> None:
    """Delete runs, and report those that cannot be deleted.

    Raises:
        UsageError: the answer is not yes, or some runs cannot be deleted.
    """
    from runner.record.listing.removing import remove_run

    if runs and not yes:
        _ask(runs)
    problems: list[Problem] = []
    deleted = []
    for run in runs:
        try:
            remove_run(run.summary)
        except SteprunError as error:
            problems += error.problems
        else:
            deleted.append(str(run.summary.path))
    if as_json:
        say_json(deleted)
    else:
        say(f"deleted {counted(len(deleted), 'run')}")
    if problems:
        raise UsageError(problems)


def _ask(runs: Sequence[Recorded]) -> None:
    for run in runs:
        say(f"{run.summary.status}  {printable_line(str(run.summary.path))}", err=True)
    say(f"delete {counted(len(runs), 'run')}? [y/N] ", err=True, nl=False)
    answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        if not answer:
            say("", err=True)
        raise UsageError(Problem("nothing was deleted", "answer y, or write --yes"))
