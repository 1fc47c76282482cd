"""`steprun runs`: lists recorded runs. Does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.options import FaultFormat, Json, RunsDir, examples
from runner.cli.output.printing import say, say_json
from runner.text import printable_line

if TYPE_CHECKING:
    from runner.record.listing import RunSummary


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun runs", "steprun runs linear", "steprun runs --json"),
        short_help="List recorded runs.",
    )(runs)


def runs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="List only runs of this name.", show_default=False)
    ] = None,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """List recorded runs with their status, newest first."""
    from runner.cli.output.plan_text import table
    from runner.record.listing import list_runs

    found = list_runs(runs_dir, name)
    if as_json:
        say_json([run.to_json() for run in found])
    elif found:
        say("\n".join(table([("started", "status", "rows", "took", "run"), *map(_cells, found)], indent="")))
    else:
        say(f"there are no runs of `{name}` in {runs_dir}" if name else f"there are no runs in {runs_dir}")


def _cells(run: RunSummary) -> tuple[str, ...]:
    path = f"{run.path}  {run.failure}" if run.failure and run.status in ("failed", "unreadable") else str(run.path)
    cells = (
        run.started[:19].replace("T", " ") if run.started else "?",
        run.status,
        "?" if run.rows is None else f"{run.rows:,}",
        "" if run.seconds is None else f"{run.seconds:.1f} s",
        path,
    )
    return tuple(map(printable_line, cells))
