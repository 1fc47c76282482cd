"""`steprun run`: execute a config, print its rows and record them."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.declarations import option
from runner.cli.input.interruption import Interruption
from runner.cli.input.options import (
    AsJson,
    CheckpointEvery,
    Columns,
    FaultFormat,
    Quiet,
    Request,
    Rows,
    RunsDir,
    examples,
    reads_config,
)
from runner.cli.input.printed_rows import Asked, asked_rows
from runner.cli.input.requests import make_plan, print_warnings, printing_run_warnings, read_config
from runner.cli.output.faults import INTERRUPTED
from runner.cli.output.printing import say
from runner.cli.output.progress import Progress, can_draw, compile_progress
from runner.errors import Problem, SteprunError, UsageError
from runner.text import steprun_command

if TYPE_CHECKING:
    from runner.engine.rows import AnyRows, Row
    from runner.plan import Plan
    from runner.record.display.console import Printing

Watch = Callable[["AnyRows"], None]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun run configs/linear.yaml",
            "steprun configs/linear.yaml learning_rate=0.1 --quiet",
            "steprun configs/transformer.yaml --rows lines --columns 'loss,*.grad'",
            "steprun run - --json < configs/linear.yaml",
        ),
        short_help="Run a config and record every step.",
    )(run)


@reads_config
def run(
    request: Request,
    runs_dir: RunsDir = "runs",
    name: Annotated[str | None, option("--name", metavar="NAME", help="Name of the run.")] = None,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Write a run directory.")] = True,
    checkpoint_every: CheckpointEvery = None,
    rows: Rows = None,
    columns: Columns = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    report: FaultFormat = "text",
) -> None:
    """Run a config step by step, print its rows and record the run."""
    asked = asked_rows(rows, columns, quiet, as_json)
    config = read_config(request if name is None else _named(request, name))
    if config.sweep is not None and not quiet and report == "text":
        runs = steprun_command("sweep", request.config)
        say(f"note: `{runs}` runs the points of its sweep; this is a run without it", err=True)
    with Interruption(at_once=True):
        plan = make_plan(request, config)
    if report == "text":
        print_warnings(plan.warnings)
    if not record and checkpoint_every is not None:
        raise UsageError("--checkpoint-every needs a run directory; leave --no-record out")
    directory = _execute(plan, Path(runs_dir) if record else None, asked, checkpoint_every)
    if directory:
        print_directory(directory, quiet, as_json)


def _named(request: Request, name: str) -> Request:
    """The request for a run with a name.

    Raises:
        UsageError: the text is not the name of a run.
    """
    from runner.config.fields import FieldError, check_run_name

    try:
        check_run_name(name)
    except FieldError as error:
        raise UsageError(Problem(f"--name: {error.message}", error.hint)) from error
    return replace(request, overrides=(*request.overrides, f"name={json.dumps(name)}"))


def _execute(plan: Plan, runs_dir: Path | None, asked: Asked, checkpoint_every: int | None) -> Path | None:
    """Run a plan and return the run directory; None if nothing is recorded."""
    from runner.engine import execute_together
    from runner.engine.watch.warned import warning_again
    from runner.plan.memory import limited_data
    from runner.record.directory import create_run_directory
    from runner.record.running import run_recorded

    printing = asked.printing(plan)
    if not gc.isenabled():  # imports are over: exclude their objects from garbage collection
        gc.freeze()
        gc.enable()
    if runs_dir is None:
        with (
            read_to_the_end(),
            watching(plan, asked, printing) as watch,
            Interruption() as stop,
            limited_data(plan.memory),
        ):
            for row in warning_again(execute_together(plan, compiling=compile_progress(sys.stderr, asked.quiet))):
                watch(row)
                if stop():
                    raise KeyboardInterrupt
        return None
    directory = create_run_directory(runs_dir, plan.name, datetime.now())
    with (
        reporting_directory(directory, asked.as_json, asked.quiet),
        watching(plan, asked, printing) as watch,
        interruption_of(directory) as stop,
    ):
        run_recorded(
            plan,
            directory,
            command=["steprun", *sys.argv[1:]],
            see=watch,
            checkpoint_every=checkpoint_every,
            stop=stop,
            compiling=compile_progress(sys.stderr, asked.quiet),
        )
    return directory


def interruption_of(directory: Path) -> Interruption:
    """What stops a recorded run."""
    from runner.record.manifest import note_interruption

    def note() -> None:
        with suppress(OSError, SteprunError):  # the run is then shown as killed
            note_interruption(directory)

    return Interruption(f"; `{steprun_command('resume', directory)}` goes on", ending=note)


def print_directory(directory: Path, quiet: bool, as_json: bool) -> None:
    """Print where a run is recorded. With `quiet` this is the path alone; with `as_json` it goes to standard error, or
    nowhere if `quiet` is set too.
    """
    if not as_json:
        say(f"{'' if quiet else 'recorded in '}{directory}")
    elif not quiet:
        say(f"recorded in {directory}", err=True)


@contextmanager
def reporting_directory(
    directory: Path, as_json: bool, quiet: bool, began: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """If an exception ends the block, tell the user where the rows are; after an interruption, how to resume.

    Args:
        began: returns whether the run has begun, so that there is something to report.
    """
    goes_on = f"; `{steprun_command('resume', directory)}` goes on"
    try:
        with read_to_the_end(goes_on):
            yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or f"interrupted{goes_on}") from error
    except Exception:
        if not as_json and began():
            say(f"recorded until then in {directory}", err=quiet)
        raise


@contextmanager
def read_to_the_end(more: str = "") -> Iterator[None]:
    """If the reader of the output closes it (`| head`), end the run as interrupted.

    Args:
        more: the end of the message; if it is empty, the run ends without a message.
    """
    try:
        yield
    except BrokenPipeError as error:
        from runner.cli.output.streams import silence

        silence(sys.stdout)
        if not more:  # the run cannot be resumed, and the reader has what it needs
            raise typer.Exit(INTERRUPTED) from error
        raise KeyboardInterrupt(f"interrupted when its output was closed{more}") from error


@contextmanager
def watching(plan: Plan, asked: Asked, printing: Printing | None) -> Iterator[Watch]:
    """The callback for each row: prints the row as text or as JSON, and updates a progress bar on a terminal.

    Args:
        printing: how to print rows as text; None: not at all.
    """
    from runner.engine.watch.warned import torch_warnings_placed
    from runner.engine.watch.watch import report_as_warning

    with ExitStack() as stack:
        stack.enter_context(printing_run_warnings())
        stack.enter_context(torch_warnings_placed(plan, report_as_warning))
        watches: list[Watch] = []
        progress = None if asked.as_json or not can_draw(sys.stderr) else _progress(plan)
        if asked.as_json:
            from runner.record.rows.row_json import row_json

            watches.append(_one_by_one(lambda row: print(row_json(row))))
        elif printing is not None:
            from runner.record.display.console import printer_of

            before = None if progress is None else progress.clear
            printer = printer_of(plan, printing, sys.stdout, before)
            stack.callback(printer.close)
            watches.append(_one_by_one(printer))
        if progress is not None:
            watches.append(stack.enter_context(progress))
        yield _together(watches)


def _one_by_one(print_row: Callable[[Row], None]) -> Watch:
    """Prints each of the rows that were computed together."""
    from runner.engine.rows import each_row

    def watch(found: AnyRows) -> None:
        for row in each_row(found):
            print_row(row)

    return watch


def _progress(plan: Plan) -> Progress:
    computed = (plan.lowered.result, *plan.objectives)
    return Progress(sys.stderr, plan.estimates.rows, list(dict.fromkeys(computed)))


def _together(watches: list[Watch]) -> Watch:
    if len(watches) == 1:
        return watches[0]

    def watch(row: AnyRows) -> None:
        for each in watches:
            each(row)

    return watch
