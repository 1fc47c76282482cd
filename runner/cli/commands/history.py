"""`steprun runs`: lists recorded runs and sweeps. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.options import FaultFormat, Json, RunsDir, SweepsDir, examples
from runner.cli.output.printing import say, say_json
from runner.text import printable_line

if TYPE_CHECKING:
    from runner.record.listing import RunSummary
    from runner.sweep.record.listing import SweepSummary


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun runs", "steprun runs linear", "steprun runs --json"),
        short_help="List recorded runs and sweeps.",
    )(runs)


def runs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="List only runs of this name.", show_default=False)
    ] = None,
    runs_dir: RunsDir = "runs",
    sweeps_dir: SweepsDir = "sweeps",
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """List recorded runs and sweeps with their status, newest first."""
    from runner.cli.output.plan_text import table
    from runner.record.listing import list_runs
    from runner.sweep.record.listing import list_sweeps

    sweeps = list_sweeps(sweeps_dir, name)
    found = [] if sweeps and not Path(runs_dir).is_dir() else list_runs(runs_dir, name)
    if as_json:
        say_json([run.to_json() for run in found] + [sweep.to_json() for sweep in sweeps])
    elif found or sweeps:
        tables = [[("started", "status", "rows", "took", "run"), *map(_cells, found)]] if found else []
        tables += [[("started", "status", "points", "sweep"), *map(_sweep_cells, sweeps)]] if sweeps else []
        say("\n\n".join("\n".join(table(rows, indent="")) for rows in tables))
    else:
        say(f"there are no runs of `{name}` in {runs_dir}" if name else f"there are no runs in {runs_dir}")


def _sweep_cells(sweep: SweepSummary) -> tuple[str, ...]:
    path = f"{sweep.path}  {sweep.failure}" if sweep.failure else str(sweep.path)
    cells = (_minute(sweep.started), sweep.status, "?" if sweep.points is None else f"{sweep.points:,}", path)
    return tuple(map(printable_line, cells))


def _minute(started: str | None) -> str:
    return started[:19].replace("T", " ") if started else "?"


def _cells(run: RunSummary) -> tuple[str, ...]:
    path = f"{run.path}  {run.failure}" if run.failure and run.status in ("failed", "unreadable") else str(run.path)
    cells = (
        _minute(run.started),
        run.status,
        "?" if run.rows is None else f"{run.rows:,}",
        "" if run.seconds is None else f"{run.seconds:.1f} s",
        path,
    )
    return tuple(map(printable_line, cells))
