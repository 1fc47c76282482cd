"""Turns an error into a message on standard error and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from runner.errors import Problem, SteprunError, UsageError, nearest
from runner.text import json_text, printable, printable_line

Format = Literal["text", "json", "github"]

INTERRUPTED = 130
FORMAT_KEY = "steprun.format"
"""The key of a command's `--format` in typer's context."""
ARGUMENTS_KEY = "steprun.arguments"
"""The key of all arguments."""


def exit_code_of(error: BaseException, meta: Mapping[str, Any]) -> int | None:
    """Report `error` and return the exit code; None if typer should handle it, as for usage errors in text.

    With `STEPRUN_DEBUG=1` in the environment, the traceback is printed first.
    """
    if type(error).__module__.partition(".")[0] in ("typer", "click"):
        return _of_usage(error, meta.get(ARGUMENTS_KEY, ()))
    if isinstance(error, BrokenPipeError):
        from runner.cli.output.streams import silence

        silence(sys.stdout)
        return 0
    if debugging():
        traceback.print_exception(error)
    report = meta.get(FORMAT_KEY, "text")
    if isinstance(error, KeyboardInterrupt):
        write_fault(interruption(error), INTERRUPTED, report)
        return INTERRUPTED
    fault = error if isinstance(error, SteprunError) else unexpected(error)
    write_fault(fault, fault.exit_code, report)
    return fault.exit_code


def _of_usage(error: Any, arguments: Sequence[str]) -> int | None:
    """The exit code of a usage error of typer, after reporting it for a program; None if the format is text."""
    if not hasattr(error, "format_message"):
        return None
    override = _meant_as_override(error, arguments)
    if override is not None:
        error.message = f"{error.message}; an override has no dashes: {override}"
        error.possibilities = None
    error.message = printable_line(error.message)
    formats: tuple[Format, ...] = ("json", "github")
    for report in formats:
        if f"--format={report}" in arguments or ("--format", report) in pairwise(arguments):
            write_fault(UsageError(error.format_message()), error.exit_code, report)
            return int(error.exit_code)
    return None


def _meant_as_override(error: Any, arguments: Sequence[str]) -> str | None:
    """The override `lr=3` for `--lr=3` or `--lr 3`, if the command takes overrides and has no similar option."""
    name = getattr(error, "option_name", None)
    if name is None or error.ctx is None or not any(each.name == "overrides" for each in error.ctx.command.params):
        return None
    if nearest(name.lstrip("-"), [option.lstrip("-") for option in error.possibilities or ()]):
        return None
    if name in arguments[:-1]:
        return f"{name.lstrip('-')}={arguments[arguments.index(name) + 1]}"
    return next((each.lstrip("-") for each in arguments if each.startswith(f"{name}=")), None)


def debugging() -> bool:
    return os.environ.get("STEPRUN_DEBUG", "") not in ("", "0")


def unexpected(error: BaseException) -> SteprunError:
    """Turns an exception that is no SteprunError into one with a message of one line, and perhaps a hint."""
    if isinstance(error, MemoryError):
        return SteprunError(Problem("out of memory", "a smaller shape, or `log: {tensors: none}`, needs less"))
    if isinstance(error, OSError):
        reason = (error.strerror or str(error)).lower()
        return SteprunError(Problem(f"{error.filename}: {reason}" if error.filename else reason))
    return SteprunError(
        Problem(
            f"internal error: {type(error).__name__}: {error}",
            "this is a bug in steprun, not in the config; STEPRUN_DEBUG=1 shows the traceback",
        )
    )


def interruption(error: KeyboardInterrupt) -> SteprunError:
    return SteprunError(Problem(str(error) or "interrupted"))


def write_fault(fault: SteprunError, code: int, report: Format) -> None:
    """Write every problem of `fault` to standard error, as text, as one JSON object, or as annotations of GitHub."""
    if report == "json":
        text = json_text(
            {
                "error": type(fault).__name__,
                "exit_code": code,
                "problems": [problem.to_json() for problem in fault.problems],
            }
        )
    elif report == "github":
        from runner.cli.output.annotations import annotations_of

        text = "\n".join(annotations_of(fault.problems))
    else:
        text = printable(str(fault))
    sys.stdout.flush()
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:  # `2>&1 | head`
        from runner.cli.output.streams import silence

        silence(sys.stderr)
