"""Builds a config and a plan from a command-line request."""

from __future__ import annotations

import sys
import warnings as python_warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.input.options import Request
from runner.cli.output.printing import say
from runner.errors import DataWarning, HealthWarning, Problem

if TYPE_CHECKING:
    from runner.config import Config
    from runner.plan.compiler import PlanLimits
    from runner.plan.plan import Plan

STDIN = "-"
READING = ("file_bytes", "nesting", "alias_nodes", "files")
PLANNING = ("nodes", "memory", "seconds")
RUN_WARNINGS = (DataWarning, HealthWarning)


def read_config(request: Request) -> Config:
    """The config of a request, from its file or from standard input.

    Raises:
        UsageError: there is no such file.
        ConfigError: the config is not valid.
    """
    from runner.config import Limits, load, loads

    limits = Limits(**{name: value for name, value in request.limits.items() if name in READING})
    if request.config == STDIN:
        data = sys.stdin.buffer.read(limits.file_bytes + 1)
        return loads(data, overrides=request.overrides, limits=limits, allowed_folders=request.allow)
    return load(request.config, request.overrides, limits=limits, allowed_folders=request.allow)


def make_plan(request: Request, config: Config, *, runs: bool = True, spent: float = 0) -> Plan:
    """The plan of a config, within the limits of a request.

    Args:
        runs: whether it will run. If not, insufficient memory is only a warning.
        spent: seconds that reading the config took.
    Raises:
        ConfigError: the config is not valid.
    """
    from runner.plan.compiler import compile

    limits = plan_limits(request, runs=runs, spent=spent)
    return compile(config, allowed=[Path(folder) for folder in request.allow], limits=limits)


def plan_limits(request: Request, *, runs: bool = True, spent: float = 0) -> PlanLimits:
    """The limits of a request on planning."""
    from runner.plan.compiler import PlanLimits

    given: dict[str, Any] = {name: value for name, value in request.limits.items() if name in PLANNING}
    return PlanLimits(**given, runs=runs, spent=spent)


def print_warnings(warnings: Iterable[Problem]) -> None:
    """Write warnings to standard error."""
    for warning in warnings:
        say(f"warning: {warning.render()}", err=True)


@contextmanager
def printing_run_warnings() -> Iterator[None]:
    """Write warnings about the data and the numbers of a run in the same form as warnings about a config."""
    with python_warnings.catch_warnings():
        for category in RUN_WARNINGS:
            python_warnings.simplefilter("always", category)
        otherwise = python_warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if isinstance(message, RUN_WARNINGS) or category is UserWarning:
                if sys.stderr.isatty():
                    sys.stderr.write("\r\x1b[2K")  # overwrite the progress bar
                say(f"warning: {_text_of(message)}", err=True)
            else:
                otherwise(message, category, *where, **more)

        python_warnings.showwarning = show
        yield


def _text_of(message: Warning | str) -> str:
    """A warning as it is printed; of torch's own, the first line without the place in torch's source."""
    if isinstance(message, RUN_WARNINGS):
        return str(message)
    from runner.language.inference.torch_warnings import warning_text

    return f"torch: {warning_text(message)}"
