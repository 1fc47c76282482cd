"""`steprun runs`: what has been run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner.cli.options import FaultFormat, Json, RunsDir, examples


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun runs", "steprun runs linear", "steprun runs --json"),
        short_help="List what has been run.",
    )(runs)


def runs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only the runs of this name.", show_default=False)
    ] = None,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """List runs with their status, newest first."""
    from runner.record import list_runs
