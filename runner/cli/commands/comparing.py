"""`steprun diff` and `steprun compare`: compare two recorded runs, or two variants of a config in lockstep."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.input.completion import complete_override
from runner.cli.input.declarations import argument, option
from runner.cli.input.options import FaultFormat, Json, Page, Request, examples, reads_config
from runner.cli.input.requests import make_plan, print_warnings, printing_run_warnings, read_config
from runner.cli.input.runs import run_path
from runner.cli.input.tolerance_option import ToleranceOption, tolerances_of
from runner.cli.output.pages import (
    check_page,
    page_of_runs,
    page_of_variants,
    recorder_of_runs,
    recorder_of_variants,
    write_page,
)
from runner.cli.output.printing import say, say_json
from runner.errors import ExpectationError, Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.compare.rows.results import Verdict
    from runner.compare.variants.error_table import ErrorTable
    from runner.compare.variants.lockstep import Side
    from runner.plan import Plan

NARROWEST, WIDEST = 60, 120
"""The narrowest and the widest table in columns, whatever the terminal's width."""

FEWEST_ROWS, MOST_ROWS = 6, 30
OTHER_LINES = 13
"""Lines of the screen besides rows, including the lines for rows that are left out."""

NO_TERMINAL = (WIDEST, 30)
"""Columns and lines without a terminal."""


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun compare configs/polynomial-sgd.yaml --with dtype=float64",
            "steprun compare configs/polynomial-sgd.yaml --with dtype=float64 --reinject",
            "steprun compare configs/digits.yaml --with threads=1 --tolerance dtype",
            "steprun compare configs/digits.yaml --with dtype=float64 --report errors.html",
            "steprun compare configs/fine-tuning.yaml --with optimizer=rule:adamw",
        ),
        short_help="Run two variants of a config in lockstep.",
    )(compare)
    application.command(
        epilog=examples(
            "steprun diff runs/linear/20261123-063012-7f3a runs/linear/20261124-101500-c81d",
            "steprun diff runs/linear/20261123-063012-7f3a runs/linear/20261124-101500-c81d --tolerance ulp=4",
        ),
        short_help="Compare two recorded runs.",
    )(diff)


def diff(
    expected: Annotated[str, argument("RUN", help="A run, as runs/NAME/latest.")],
    found: Annotated[str, argument("RUN", help="The run to compare with it.")],
    tolerance: ToleranceOption = None,
    page: Page = None,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Compare two recorded runs: their configs, their environments, and the first row that differs.

    Rows are compared bit for bit if the environments are equal, and by the tolerance of their dtype otherwise. Of an
    unfinished run, the recorded rows are compared. The exit code is 3 if rows differ.
    """
    from runner.compare.runs.difference import compare_runs
    from runner.compare.runs.report import runs_json, runs_page
    from runner.record import open_run

    check_page(page)
    tolerances = None if tolerance is None else tolerances_of(tolerance)
    before, after = open_run(run_path(expected)), open_run(run_path(found))
    runs = after, before
    recorder = None if page is None else recorder_of_runs(*runs)
    difference = compare_runs(*runs, tolerances, tolerance or "", recorder)
    if page is not None and recorder is not None:
        write_page(page, page_of_runs(difference, *runs, recorder))
    if as_json:
        say_json(runs_json(difference, *runs))
    else:
        say("\n".join(runs_page(difference, *runs, width=_width())))
    if not difference.verdict.holds:
        raise typer.Exit(ExpectationError.exit_code)


@reads_config
def compare(
    request: Request,
    pairs: Annotated[
        list[str] | None,
        option(
            "--with",
            metavar="KEY=VALUE",
            help="What the variant changes: an override, threads=N, or optimizer=rule:NAME. May be repeated.",
            autocompletion=complete_override,
        ),
    ] = None,
    reinject: Annotated[
        bool, typer.Option("--reinject", help="Also start each step of the variant from the state of the config.")
    ] = False,
    tolerance: ToleranceOption = None,
    rows: Annotated[
        int | None,
        option(
            "--rows",
            metavar="N",
            min=3,
            help="Rows of the table: the first, the worst and the last. As many as fit the screen unless given.",
        ),
    ] = None,
    page: Page = None,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Run a config and a variant of it in lockstep, and report the error of each tensor in each row.

    Every step is compared, in the narrower dtype of the two sides, whatever `log` leaves out. With --reinject, each
    step of the variant also starts from the state of the config, which separates the error of a step from the error
    that it inherits. The exit code is 3 if --tolerance is given and exceeded.
    """
    from runner.compare.variants.error_report import errors_json
    from runner.compare.variants.error_table import tabulate_errors
    from runner.compare.variants.lockstep import lockstep

    check_page(page)
    if not pairs:
        raise UsageError(Problem("the variant is missing", "write for example `--with dtype=float64`"))
    tolerances = None if tolerance is None else tolerances_of(tolerance)
    this, other = _sides(request, pairs)
    if report == "text":
        print_warnings(this.plan.warnings)
        print_warnings(warning for warning in other.plan.warnings if warning not in this.plan.warnings)
    recorder = None if page is None else recorder_of_variants(this.plan, other.plan)
    with printing_run_warnings():
        table = tabulate_errors(
            lockstep(this, other, reinject=reinject),
            this.plan,
            other.plan,
            reinjected=reinject,
            tolerances=tolerances,
            most=None if as_json else rows or _rows(),
            observe=recorder,
        )
    if page is not None and recorder is not None:
        write_page(page, page_of_variants(table, this.plan, other.plan, pairs, recorder))
    if as_json:
        say_json({"name": this.plan.name, "with": pairs, **errors_json(table)})
    else:
        say(f"{this.plan.name}: as it is, and with {' '.join(pairs)}")
        _print_errors(table, this.plan, other.plan, reinjected=reinject)
    if table.within is not None and not table.within.holds:
        raise ExpectationError(_exceeded(table.within, str(tolerance)))


def _sides(request: Request, pairs: Sequence[str]) -> tuple[Side, Side]:
    """The config with its whole log, and its variant."""
    from runner.compare.variants.lockstep import WHOLE_LOG, Side, without_stops
    from runner.compare.variants.variant import variant_of
    from runner.config import overridden

    config = overridden(read_config(request), WHOLE_LOG)
    variant = variant_of(config, pairs)
    this = Side(without_stops(make_plan(request, config)))
    return this, Side(without_stops(make_plan(request, variant.config)), variant.threads)


def _print_errors(table: ErrorTable, plan: Plan, variant: Plan, *, reinjected: bool) -> None:
    from runner.compare.rows.causes import RANDOM
    from runner.compare.variants.error_report import errors_page
    from runner.compare.variants.lockstep import own_state

    if reinjected and (own := own_state(plan, variant)):
        say(f"each side keeps its own state of {', '.join(f'`{name}`' for name in own)}")
    if RANDOM in table.draws and plan.dtype != variant.dtype:
        say("random operations of the steps draw other numbers in another dtype")
    say("\n".join(errors_page(table, width=_width(), height=_height())))


def _width() -> int:
    return min(max(shutil.get_terminal_size(NO_TERMINAL).columns, NARROWEST), WIDEST)


def _height() -> int:
    return shutil.get_terminal_size(NO_TERMINAL).lines - 2  # without the heading and the shell's next prompt


def _rows() -> int:
    return min(max((_height() - OTHER_LINES) * 3 // 4, FEWEST_ROWS), MOST_ROWS)


def _exceeded(verdict: Verdict, tolerance: str) -> Problem:
    from runner.compare.rows.report import report

    first, *_ = report(verdict)
    passing = next((line.split(maxsplit=2)[2] for line in report(verdict) if line.startswith("  passes at")), None)
    hint = f"it passes at {passing}" if passing else "no tolerance would make this pass"
    return Problem(f"the difference exceeds the tolerance {tolerance}: {first}", hint)
