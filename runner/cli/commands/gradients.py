"""`steprun gradcheck`: compare autograd with finite differences."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.commands.comparing import NO_TERMINAL
from runner.cli.input.options import FaultFormat, Json, Request, examples, reads_config
from runner.cli.input.requests import make_plan, print_warnings, read_config
from runner.cli.output.printing import say, say_json
from runner.errors import ExpectationError, Problem, listing
from runner.text import finite_json

if TYPE_CHECKING:
    from runner.compare.gradients.check import Checked, Element, ObjectiveReport, Precision
    from runner.config import Config

MOST_CAUSES = 3
"""The most causes that are reported for one gradient."""


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples(
            "steprun gradcheck configs/linear.yaml",
            "steprun gradcheck configs/digits.yaml --elements 200",
            "steprun gradcheck configs/physics.yaml --json",
        ),
        short_help="Compare gradients with finite differences.",
    )(gradcheck)


@reads_config
def gradcheck(
    request: Request,
    elements: Annotated[
        int,
        typer.Option(
            "--elements",
            metavar="N",
            min=1,
            help="Elements to check in each parameter. A parameter with more of them is sampled.",
        ),
    ] = 32,
    step: Annotated[
        float, typer.Option("--step", metavar="SIZE", help="Distance of both points from a weight.")
    ] = 1e-6,
    rtol: Annotated[float, typer.Option("--rtol", metavar="R", help="Relative tolerance.")] = 1e-3,
    atol: Annotated[
        float,
        typer.Option("--atol", metavar="A", help="Absolute tolerance, in units of the gradient's root mean square."),
    ] = 1e-5,
    as_json: Json = False,
    report: FaultFormat = "text",
) -> None:
    """Compare the gradient of every objective with finite differences, in float64, at the initial values.

    The exit code is 3 if a gradient differs. A point without a derivative, such as relu at 0, is reported and passes.
    """
    from runner.compare.gradients.check import Precision, check_gradients, in_double_precision
    from runner.config import overridden

    _check("--step", step, step > 0, "takes a number above 0")
    _check("--rtol", rtol, rtol >= 0, "takes 0 or more")
    _check("--atol", atol, atol >= 0, "takes 0 or more")
    precision = Precision(step, rtol, atol, elements)
    config = read_config(request)
    if report == "text":
        print_warnings(make_plan(request, config).warnings)
    config = overridden(config, in_double_precision(config))
    found = check_gradients(make_plan(request, config), precision)
    if as_json:
        say_json(_described(config, precision, found))
    else:
        say("\n".join(_page(config, precision, found)))
    problems = [*_problems(config, found)]
    if problems:
        raise ExpectationError(problems)


def _check(option: str, value: float, fits: bool, expected: str) -> None:
    if not (fits and math.isfinite(value)):
        raise typer.BadParameter(f"it is {value}, and {expected}", param_hint=f"'{option}'")


# --- text


def _page(config: Config, precision: Precision, reports: Iterable[ObjectiveReport]) -> Iterator[str]:
    yield (
        f"{config.name}: autograd against finite differences in float64, "
        f"step {precision.step:g}, rtol {precision.rtol:g}, atol {precision.atol:g}"
    )
    reports = list(reports)
    if not reports:
        yield "no step differentiates an objective"
    for report in reports:
        yield ""
        yield from _objective(report)


def _objective(report: ObjectiveReport) -> Iterator[str]:
    over = f" over the first batch of {listing(report.sources)}" if report.sources else ""
    yield f"objective {report.name} = {report.value:.6g}{over}"
    yield from _table(report.parameters, shutil.get_terminal_size(NO_TERMINAL).columns)
    for checked in report.parameters:
        yield from _explanation(checked)
    if report.cut:
        yield f"  no derivative flows to {listing([f'`{name}`' for name in report.cut])}"


def _table(parameters: Iterable[Checked], width: int) -> list[str]:
    """One line for each gradient, with as many columns as fit."""
    from runner.cli.output.plan_text import table

    titles = ["gradient", "elements", "", "error", "relative", "worst at", "autograd", "numeric"]
    cells = [dict(zip(titles, _cells(checked), strict=True)) for checked in parameters]
    lines: list[str] = []
    for dropped in (None, *_DISPENSABLE):
        titles = [title for title in titles if title != dropped]
        lines = table([titles, *([row[title] for title in titles] for row in cells)])
        if max(map(len, lines)) <= width:
            break
    return lines


_DISPENSABLE = ("elements", "relative", "error")
"""Columns that a narrow table drops, in this order."""


def _cells(checked: Checked) -> tuple[str, ...]:
    worst = checked.worst
    share = f"{checked.elements:,}"
    if checked.checked < checked.elements:
        share = f"{checked.checked:,} of {share}"
    numbers = ("", "", "") if worst is None else (str(list(worst.index)), _shown(worst.autograd), _shown(worst.numeric))
    errors = (f"{checked.largest_error:.2g}", f"{checked.largest_relative:.2g}")
    return (f"{checked.parameter}.grad", share, checked.outcome, *errors, *numbers)


def _explanation(checked: Checked) -> Iterator[str]:
    """Explains an outcome in the table that is neither a pass nor a difference."""
    worst = checked.worst
    if worst is not None and checked.outcome in _NO_DERIVATIVE:
        yield f"  `{checked.parameter}` has no derivative at {_at(worst)}: {_NO_DERIVATIVE[checked.outcome](worst)}"


_NO_DERIVATIVE: Mapping[str, Callable[[Element], str]] = {
    "kink": lambda element: f"{_shown(element.left)} to its left, {_shown(element.right)} to its right",
    "jump": lambda element: "the objective jumps there",
}


def _at(element: Element) -> str:
    return str(list(element.index)) if element.index else "its value"


def _shown(number: float) -> str:
    return f"{number:.8g}"


# --- faults


def _problems(config: Config, reports: Iterable[ObjectiveReport]) -> Iterator[Problem]:
    for report in reports:
        for checked in report.parameters:
            if checked.outcome == "differs":
                path = ("parameters", checked.parameter)
                yield config.document.problem(path, _difference(report.name, checked), _cause(checked), key=True)


def _difference(objective: str, checked: Checked) -> str:
    worst = checked.worst
    what = f"the gradient of `{objective}` with respect to `{checked.parameter}` differs"
    if worst is None or worst.outcome != "differs":
        return f"{what}: `torch.autograd.gradcheck` finds a difference in an element that was not sampled"
    where = f" at {list(worst.index)}" if worst.index else ""
    return f"{what}: autograd gives {_shown(worst.autograd)}, finite differences {_shown(worst.numeric)}{where}"


def _cause(checked: Checked) -> str:
    if not checked.causes:
        return "look at the operations between them, try another --step, or check more with --elements"
    causes = [f"{cause.message} ({cause.mark})" if cause.mark else cause.message for cause in checked.causes]
    return listing(causes, MOST_CAUSES)


# --- JSON


def _described(config: Config, precision: Precision, reports: Iterable[ObjectiveReport]) -> dict[str, Any]:
    reports = list(reports)
    return {
        "name": config.name,
        "dtype": config.dtype,
        "step": precision.step,
        "rtol": precision.rtol,
        "atol": precision.atol,
        "holds": all(report.holds for report in reports),
        "objectives": [
            {
                "objective": report.name,
                "data": list(report.sources),
                "value": finite_json(report.value),
                "holds": report.holds,
                "gradients": [_gradient(checked) for checked in report.parameters],
                "cut": list(report.cut),
            }
            for report in reports
        ],
    }


def _gradient(checked: Checked) -> dict[str, Any]:
    worst = checked.worst
    return {
        "parameter": checked.parameter,
        "elements": checked.elements,
        "checked": checked.checked,
        "outcome": checked.outcome,
        "torch_agrees": checked.torch_agrees,
        "largest_error": finite_json(checked.largest_error),
        "largest_relative": finite_json(checked.largest_relative),
        "worst": None
        if worst is None
        else {
            "index": list(worst.index),
            "autograd": finite_json(worst.autograd),
            "numeric": finite_json(worst.numeric),
            "left": finite_json(worst.left),
            "right": finite_json(worst.right),
            "outcome": worst.outcome,
        },
        "causes": [
            {"message": cause.message, "at": None if cause.mark is None else str(cause.mark)}
            for cause in checked.causes
        ],
    }
