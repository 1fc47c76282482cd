"""Problems as annotations of GitHub Actions, which a reviewer sees at the lines of a pull request.

Source: "Workflow commands for GitHub Actions", and `escapeData` and `escapeProperty` of its toolkit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from runner.text import printable, shortened

if TYPE_CHECKING:
    from runner.compare.snapshots.checking import Outcome
    from runner.errors import Problem

OVERRIDE = "override "
"""How the source of a problem begins that is a word of the command line."""

LONGEST = 4_000
"""The most characters of one annotation."""

WORKSPACE = "GITHUB_WORKSPACE"
"""The variable with the folder of the repository, to which the paths of annotations are relative."""


def annotation(message: str, file: str | None = None, line: int | None = None, column: int | None = None) -> str:
    """One error as a workflow command: `::error file=a.yaml,line=3,col=5::message`."""
    places = (("file", None if file is None else _in_workspace(file)), ("line", line), ("col", column))
    written = ",".join(f"{name}={_property(str(value))}" for name, value in places if value is not None)
    return f"::error{f' {written}' if written else ''}::{_data(shortened(printable(message), LONGEST))}"


def annotations_of(problems: Iterable[Problem]) -> list[str]:
    """The annotations of problems."""
    return [_of_problem(each) for each in problems]


def _of_problem(problem: Problem) -> str:
    said = _said(problem.message, problem.hint, problem.path)
    if (problem.source or "").startswith(OVERRIDE):  # of a word of the command line, which no file has
        return annotation(f"{problem.source}: {said}")
    return annotation(said, problem.source, problem.line, problem.column)


def annotate(outcomes: Sequence[Outcome]) -> None:
    """Print an annotation on standard error for each outcome of a check that is not fine."""
    from runner.compare.snapshots.checking import FINE

    found = [line for outcome in outcomes if outcome.status not in FINE for line in _of_outcome(outcome)]
    if found:
        sys.stdout.flush()
        print("\n".join(found), file=sys.stderr, flush=True)


def _of_outcome(outcome: Outcome) -> list[str]:
    problems: list[dict[str, Any]] = outcome.details.get("problems") or []
    if problems:
        return [
            annotation(
                _said(each["message"], each["hint"], each["path"]), each["source"] or outcome.name, *_place(each)
            )
            for each in problems
        ]
    at = outcome.details.get("at") or {"file": outcome.name, "line": 1, "column": 1}
    return [annotation("\n".join(outcome.lines), at["file"], at["line"], at["column"])]


def _place(problem: dict[str, Any]) -> tuple[int | None, int | None]:
    return (problem["line"], problem["column"]) if problem["source"] else (1, 1)


def _said(message: str, hint: str | None, path: str) -> str:
    first = f"{path}: {message}" if path else message
    return f"{first}\n= {hint}" if hint else first


def _in_workspace(file: str) -> str:
    """A path relative to the repository, if it is in it."""
    workspace = os.environ.get(WORKSPACE)
    if not workspace:
        return file
    inside = os.path.relpath(file, workspace)
    return file if inside.startswith(os.pardir) else inside


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
