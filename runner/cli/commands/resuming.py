"""`steprun resume`: continue a run that was stopped."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.commands.running import Watch, print_directory, reporting_directory, watching
from runner.cli.input.interruption import Interruption
from runner.cli.input.options import Address, Allow, AsJson, CheckpointEvery, FaultFormat, Jobs, On, Quiet, examples
from runner.cli.input.requests import print_warnings
from runner.cli.output.progress import compile_progress

if TYPE_CHECKING:
    from runner.engine import Row
    from runner.plan import Plan


SWEEP_MANIFEST = "sweep.json"


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun resume runs/linear/20261123-063012-7f3a"),
        short_help="Resume a run that was stopped.",
    )(resume)


def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or sweep directory.", show_default=False)],
    allow: Allow = None,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Resume although a data file has changed, and record that.")
    ] = False,
    checkpoint_every: CheckpointEvery = None,
    jobs: Jobs = None,
    on: On = "processes",
    address: Address = None,
    retry: Annotated[
        str | None, typer.Option("--retry", metavar="failed", help="Of a sweep, run the points that failed again.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    report: FaultFormat = "text",
) -> None:
    """Resume a run that was interrupted, killed or failed, from its newest checkpoint or from its start.

    The result has the same bits as that of a run that was never stopped. Of a sweep, the points that have not ended
    run.
    """
    if os.path.lexists(Path(run) / SWEEP_MANIFEST):
        from runner.cli.commands.sweeping import resume_points

        resume_points(run, allow, jobs, retry, on, address, quiet, as_json)
        return
    from runner.record.resuming import resume as resume_run

    began = False  # whether a row was computed
    with ExitStack() as stack:

        def prepare(plan: Plan) -> Watch:
            if report == "text":
                print_warnings(plan.warnings)
            stack.enter_context(reporting_directory(Path(run), as_json, quiet, lambda: began))
            watch = stack.enter_context(watching(plan, quiet, as_json))

            def see(row: Row) -> None:
                nonlocal began
                began = True
                watch(row)

            return see

        stop = stack.enter_context(Interruption(f"; `steprun resume {run}` goes on"))
        resume_run(
            run,
            allowed_folders=allow or (),
            allow_changed_data=allow_changed_data,
            checkpoint_every=checkpoint_every,
            prepare=prepare,
            stop=stop,
            command=["steprun", *sys.argv[1:]],
            compiling=compile_progress(sys.stderr, quiet),
        )
    print_directory(Path(run), quiet, as_json)
