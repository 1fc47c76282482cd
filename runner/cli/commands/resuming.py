"""`steprun resume`: continue a run that was stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.commands.running import Watch, interruption_of, print_directory, reporting_directory, watching
from runner.cli.input.declarations import argument
from runner.cli.input.interruption import Interruption
from runner.cli.input.options import (
    Address,
    Allow,
    AsJson,
    CheckpointEvery,
    Columns,
    FaultFormat,
    Jobs,
    On,
    Quiet,
    Rows,
    examples,
)
from runner.cli.input.printed_rows import Asked, asked_rows
from runner.cli.input.requests import print_warnings
from runner.cli.input.runs import check_no_point, check_options
from runner.cli.output.progress import compile_progress

if TYPE_CHECKING:
    from runner.engine.rows import AnyRows
    from runner.plan import Plan
    from runner.record.resuming import Longer


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun resume runs/linear/latest",
            "steprun resume runs/linear/latest steps=2000",
            "steprun resume sweeps/linear/latest seed=0..9",
        ),
        short_help="Resume a run that was stopped, or make a finished one longer.",
    )(resume)


def resume(
    run: Annotated[str, argument("RUN|SWEEP", help="A run, as runs/NAME/latest, or a sweep.")],
    overrides: Annotated[
        list[str] | None,
        argument(
            "KEY=VALUE", help="A larger count of the last loop of a finished run, or more values of an axis of a sweep."
        ),
    ] = None,
    allow: Allow = None,
    allow_changed_data: Annotated[
        bool, typer.Option("--allow-changed-data", help="Resume although a data file has changed, and record that.")
    ] = False,
    checkpoint_every: CheckpointEvery = None,
    jobs: Jobs = None,
    on: On = "processes",
    address: Address = None,
    retry: Annotated[
        str | None, typer.Option("--retry", metavar="failed", help="Also run the points of a sweep that failed.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run more than 100,000 points of a sweep.")] = False,
    rows: Rows = None,
    columns: Columns = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    report: FaultFormat = "text",
) -> None:
    """Resume a run that was interrupted, killed or failed, from its newest checkpoint or from its start.

    A larger count, such as steps=2000 or steps.epochs=20, continues the last loop of a finished run in a new run
    directory. The result has the bits of a run that was never stopped, or that was this long from the start.

    Given a sweep, it runs the points that have not ended. More values of an axis, such as seed=0..9, add points.
    """
    from runner.config.files.run_paths import SWEEP_MANIFEST, is_run, resolved_run, resolved_sweep

    check_no_point(run, "steprun resume")
    asked = asked_rows(rows, columns, quiet, as_json)
    sweep = resolved_sweep(run)
    if is_run(sweep, SWEEP_MANIFEST):
        of_runs = {
            "--rows": rows,
            "--columns": columns,
            "--allow-changed-data": allow_changed_data,
            "--checkpoint-every": checkpoint_every,
        }
        check_options(run, "a sweep", "a run", of_runs)
        from runner.cli.commands.sweeping import resume_points

        resume_points(str(sweep), allow, jobs, retry, on, address, quiet, as_json, overrides or (), yes)
        return
    directory = resolved_run(run)
    if is_run(directory):
        other = on if on != "processes" else None
        of_sweeps = {"--jobs": jobs, "--on": other, "--address": address, "--retry": retry, "--yes": yes}
        check_options(run, "a run", "a sweep", of_sweeps)
    output = _Output(asked, quiet, as_json, report)
    if overrides:
        longer = _lengthened(directory, overrides, allow, allow_changed_data)
        directory = longer.make_directory(datetime.now())
        _run_longer(longer, directory, output, checkpoint_every)
    else:
        _run_on(directory, output, checkpoint_every, allow, allow_changed_data)
    print_directory(directory, quiet, as_json)


@dataclass(frozen=True, slots=True)
class _Output:
    """What a resumed run prints."""

    asked: Asked
    quiet: bool
    as_json: bool
    report: str  # the format of problems


def _run_longer(longer: Longer, directory: Path, output: _Output, checkpoint_every: int | None) -> None:
    from runner.record.running import run_recorded

    with ExitStack() as stack:
        given = _stopping(stack, directory, output) | {"checkpoint_every": checkpoint_every}
        see = _preparing(stack, directory, output)(longer.plan)
        run_recorded(longer.plan, directory, see=see, earlier=longer.earlier, **given)


def _run_on(
    directory: Path,
    output: _Output,
    checkpoint_every: int | None,
    allow: Sequence[str] | None,
    allow_changed_data: bool,
) -> None:
    from runner.record.resuming import resume as resume_run

    with ExitStack() as stack:
        given = _stopping(stack, directory, output) | {"checkpoint_every": checkpoint_every}
        given |= {"allowed_folders": allow or (), "allow_changed_data": allow_changed_data}
        resume_run(directory, prepare=_preparing(stack, directory, output), **given)


def _stopping(stack: ExitStack, directory: Path, output: _Output) -> dict[str, Any]:
    """What a recorded run takes from a command: what stops it, its command line, and who follows compilations."""
    return {
        "stop": stack.enter_context(interruption_of(directory)),
        "command": ["steprun", *sys.argv[1:]],
        "compiling": compile_progress(sys.stderr, output.quiet),
    }


def _preparing(stack: ExitStack, directory: Path, output: _Output) -> Callable[[Plan], Watch]:
    """A function that opens the output of a run when its plan is known, and returns the watch of its rows."""
    asked, quiet, as_json = output.asked, output.quiet, output.as_json
    began = False  # whether a row was computed

    def prepare(plan: Plan) -> Watch:
        if output.report == "text":
            print_warnings(plan.warnings)
        printing = asked.printing(plan)
        stack.enter_context(reporting_directory(directory, as_json, quiet, lambda: began))
        watch = stack.enter_context(watching(plan, asked, printing))

        def see(row: AnyRows) -> None:
            nonlocal began
            began = True
            watch(row)

        return see

    return prepare


def _lengthened(
    directory: Path, overrides: Sequence[str], allow: Sequence[str] | None, allow_changed_data: bool
) -> Longer:
    from runner.record.resuming import lengthen

    with Interruption(at_once=True):
        return lengthen(directory, overrides, allowed_folders=allow or (), allow_changed_data=allow_changed_data)
