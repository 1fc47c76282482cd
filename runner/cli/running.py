"""`steprun run`: execute a config and record it."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from runner.cli.options import FaultFormat, Request, RunsDir, examples, reads_config


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun run configs/linear.yaml",
            "steprun configs/linear.yaml learning_rate=0.1 --quiet",
            "steprun run - --json < configs/linear.yaml",
        ),
        short_help="Run a config and record every step.",
    )(run)


@reads_config
def run(
    request: Request,
    runs_dir: RunsDir = "runs",
    record: Annotated[bool, typer.Option("--record/--no-record", help="Keep a run directory.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each row as one JSON object a line.")] = False,
    report: FaultFormat = "text",
) -> None:
    """Run a config step by step, print each row and keep a run directory."""
