"""The errors a user sees: where, what is wrong with the offending text, one thing to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from runner.text import printable

EXCERPT_WIDTH = 100
"""Maximum characters shown of an offending line; longer lines are cut around the problem."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a config: where the user should look."""

    source: str
    line: int  # from 1
    column: int  # from 1, in characters

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: its place, its config path, what is wrong, and one thing to do."""

    message: str
    hint: str | None = None
    mark: Mark | None = None
    path: str = ""
    excerpt: str | None = None  # the whole text of the marked line
    width: int = 1  # characters of that line to underline

    @property
    def source(self) -> str | None:
        return self.mark.source if self.mark else None

    @property
    def line(self) -> int | None:
        return self.mark.line if self.mark else None

    @property
    def column(self) -> int | None:
        return self.mark.column if self.mark else None

    def render(self) -> str:
        """The problem as text for a terminal: place, excerpt with carets, hint."""
        head = str(self.mark) if self.mark else "steprun"
        lines = [f"{head}  {self.path}".rstrip()]
        if self.mark and self.excerpt is not None and self.excerpt.strip():
            excerpt, column = _window(self.excerpt, self.mark.column)
            width = max(1, min(self.width, len(excerpt) - column + 1))
            gutter = f"{self.mark.line:>5} | "
            blank = " " * (len(gutter) - 2) + "| "
            lines.append(gutter + excerpt)
            lines.append(f"{blank}{' ' * (column - 1)}{'^' * width} {self.message}")
        else:
            blank = " " * 6 + "| "
            lines.append(f"      {self.message}")
        if self.hint:
            lines.append(" " * (len(blank) - 2) + f"= {self.hint}")
        return printable("\n".join(lines))

    def to_json(self) -> dict[str, Any]:
        """The problem as plain values, for `--format json`."""
        return {
            "source": self.source,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "hint": self.hint,
        }


class SteprunError(Exception):
    """An error that the user can fix; carries every problem found.

    The command line shows `str(error)` and exits with `exit_code`.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = (problems,)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n\n".join(problem.render() for problem in self.problems))


class ConfigError(SteprunError):
    """A config, an expression or an override is invalid. Nothing was run."""

    exit_code = 2


class EngineError(ConfigError):
    """A valid config that the chosen engine does not support."""


class UsageError(SteprunError):
    """The command line is invalid: a missing file, a bad option."""

    exit_code = 2


class RunError(SteprunError):
    """A valid run failed while running or recording, or a file of it is damaged.

    Attributes:
        file: the damaged file of a run's rows, if that is the fault.
    """

    exit_code = 1
    file: Path | None = None


class ExpectationError(RunError):
    """An `expect` step or a snapshot comparison failed."""

    exit_code = 3


class ComparisonError(SteprunError):
    """Two values, or two runs, cannot be compared."""

    exit_code = 2


class SnapshotError(SteprunError):
    """A snapshot cannot be read, or belongs to another config. The snapshot was not changed."""

    exit_code = 2


class DataWarning(UserWarning):
    """Warns of data that may be a mistake, found while reading them."""


class HealthWarning(UserWarning):
    """Warns of numbers that may be a mistake, found during a run."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most similar to `name`, or None if none is similar."""
    pool = sorted(set(candidates))
    for candidate in pool:
        if candidate.lower() == name.lower():
            return candidate
    found = difflib.get_close_matches(name, pool, n=1, cutoff=0.6)
    if found:
        return found[0]
    if len(name) < 3:
        return None
    initials = "".join(word[:1] for word in name.split("_"))
    if len(initials) > 1 and initials in pool:
        return initials
    containing = [
        candidate for candidate in pool if name in candidate or (len(candidate) > 1 and candidate in name.split("_"))
    ]
    return min(containing, key=len) if containing else None


def did_you_mean(name: str, candidates: Iterable[str], otherwise: str | None = None) -> str | None:
    """``did you mean `x`?`` for the nearest candidate, else `otherwise`."""
    found = nearest(name, candidates)
    return f"did you mean `{found}`?" if found else otherwise


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Joins names with commas in the given order; an ellipsis replaces those past `limit`."""
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _window(excerpt: str, column: int) -> tuple[str, int]:
    """Cut a long line around `column`; returns the text and the column within it (both from 1)."""
    excerpt = excerpt.rstrip("\r\n")
    start = max(0, min(column - 1 - EXCERPT_WIDTH // 2, len(excerpt) - EXCERPT_WIDTH))
    text = excerpt[start : start + EXCERPT_WIDTH].replace("\t", " ")
    text = "".join(char if char.isprintable() else "�" for char in text)
    if start > 0:
        text = "…" + text[1:]
    if start + EXCERPT_WIDTH < len(excerpt):
        text = text[:-1] + "…"
    return text, column - start
