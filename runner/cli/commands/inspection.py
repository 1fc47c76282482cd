"""`steprun validate` and `steprun show`: inspect a config without running it."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.commands.snapshots import BareOptions, Counter
from runner.cli.input.declarations import option
from runner.cli.input.options import FaultFormat, Json, Request, examples, reads_config
from runner.cli.input.requests import make_plan, plan_limits, print_warnings, printing_run_warnings, read_config
from runner.cli.output.printing import say, say_json
from runner.errors import ConfigError, Problem, UsageError, did_you_mean
from runner.text import counted

if TYPE_CHECKING:
    from runner.config import Config

RULE = "rule:"
"""The prefix of a shipped rule's name, in the place of a config for `show`."""
NO_TERMINAL = (120, 24)
MIN_RUNS, DEFAULT_BUDGET = 3, 60

Uncertainty = Annotated[
    int | None,
    option(
        "--uncertainty",
        metavar="[=N]",
        min=MIN_RUNS,
        help="Run it and show how many digits of each number are significant, from N perturbed runs; 8 by default.",
    ),
]
Budget = Annotated[
    float, typer.Option("--budget", metavar="SECONDS", min=0, help="Time for the perturbed runs. At least 3 are made.")
]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun validate configs/linear.yaml", "steprun validate - --format json < config.yaml"),
        short_help="Check a config without running it.",
    )(validate)
    application.command(
        cls=BareOptions,
        epilog=examples(
            "steprun show configs/linear.yaml",
            "steprun show configs/linear.yaml --json",
            "steprun show configs/linear.yaml --uncertainty",
            "# an optimizer as equations, to paste into a config: steprun show rule:adam",
        ),
        short_help="Show the plan of a config.",
    )(show)


@reads_config
def validate(request: Request, as_json: Json = False, report: FaultFormat = "text") -> None:
    """Check a whole config without running it, and report every problem not masked by another."""
    from runner.cli.input.time_limit import VALIDATING, exits_after

    request = replace(request, limits={"seconds": VALIDATING, **request.limits})
    try:
        began = time.thread_time()
        config = read_config(request)
        spent = time.thread_time() - began
        with exits_after(request.limits["seconds"], spent, config, "json" if report == "json" else "text"):
            plan = make_plan(request, config, spent=spent)
            points = None if config.sweep is None else _points_of(config, request)
    except ConfigError as error:
        if as_json:
            problems = [problem.to_json() for problem in error.problems]
            with suppress(BrokenPipeError):
                say_json({"valid": False, "problems": problems}, indent=None)
        raise
    if report == "text":
        print_warnings(plan.warnings)
    if as_json:
        warnings = [found.to_json() for found in plan.warnings]
        say_json({"valid": True, "name": plan.name, "warnings": warnings}, indent=None)
    else:
        count = len(plan.warnings)
        warned = f", {count} warning{'s' if count > 1 else ''}" if count else ""
        swept = "" if points is None else f", {counted(points, 'point')} of a sweep"
        say(f"{request.config}: valid{warned}{swept}")


def _points_of(config: Config, request: Request) -> int:
    """The number of points of a sweep, every axis of which is checked."""
    from runner.sweep.planning import plan_sweep

    allowed = tuple(Path(folder) for folder in request.allow)
    return len(plan_sweep(config, {}, allowed=allowed, limits=plan_limits(request)).points)


@reads_config
def show(
    request: Request,
    uncertainty: Uncertainty = None,
    budget: Budget = DEFAULT_BUDGET,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Show the plan: tensors, graph, program, memory and log size, and what reaches each objective.

    With rule:NAME instead of a config, print an optimizer as equations. With --uncertainty, run the config and show
    how many digits of each tensor are significant in each row.
    """
    if request.config.startswith(RULE):
        name = request.config.removeprefix(RULE)
        text = _rule(name)
        if as_json:
            say_json({"name": name, "text": text})
        else:
            say(text, nl=False)
        return
    if uncertainty is not None:
        _show_digits(request, uncertainty, budget, as_json, report)
        return
    from runner.cli.output.plan_json import describe
    from runner.cli.output.plan_text import page

    plan = make_plan(request, read_config(request), runs=False)
    if report == "text":
        print_warnings(plan.warnings)
    described = describe(plan)
    if as_json:
        say_json(described)
    else:
        say(page(described))


def _show_digits(request: Request, runs: int, budget: float, as_json: bool, report: str) -> None:
    from runner.cli.commands.digits import describe_digits, digits_page, measurable

    plan = make_plan(request, measurable(read_config(request)))
    if report == "text":
        print_warnings(plan.warnings)
    with printing_run_warnings(), Counter("measuring: perturbed run", shown=sys.stderr.isatty()) as counter:
        described = describe_digits(plan, runs, budget, counter.at)
    width = shutil.get_terminal_size(NO_TERMINAL).columns
    if as_json:
        say_json(described)
    else:
        say(digits_page(described, width))


def _rule(name: str) -> str:
    from runner.catalogue import shipped_rules

    rules = shipped_rules()
    if name not in rules:
        hint = did_you_mean(name, rules, f"rules are {', '.join(rules)}")
        raise UsageError(Problem(f"there is no rule `{name}`", hint))
    return rules[name]
