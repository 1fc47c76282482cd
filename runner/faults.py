"""Collects every problem of a config during planning, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runner.config.document import Document
from runner.config.text.nodes import ScalarNode
from runner.errors import ConfigError, Problem
from runner.language.text.faults import LanguageError
from runner.language.text.syntax import SIDE_BY_SIDE

ConfigPath = tuple[str | int, ...]


class KeyPath(tuple[str | int, ...]):
    """A config path that refers to the key itself rather than to its value."""

    __slots__ = ()


class PlacedFault(Exception):
    """A problem with its place in the config."""

    def __init__(
        self,
        path: ConfigPath,
        message: str,
        hint: str | None = None,
        *,
        at: tuple[int, int, int] | None = None,
        key: bool = False,
    ) -> None:
        super().__init__(message)
        self.path, self.message, self.hint = path, message, hint
        self.at = at  # line, column, width inside the string at `path`
        self.key = key  # whether to mark the key at `path` instead of its value

    @classmethod
    def within(cls, path: ConfigPath, error: LanguageError) -> PlacedFault:
        """The problem of the expression at `path`, or of a function that it calls."""
        place = path if error.origin is None else error.origin
        assert isinstance(place, tuple)
        return cls(place, error.message, error.hint, at=error.place.as_tuple())

    def problem(self, document: Document) -> Problem:
        return document.problem(self.path, self.message, self.hint, at=self.at, key=self.key)


@dataclass(slots=True)
class Faults:
    """The problems and warnings found so far."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, path: ConfigPath, message: str, hint: str | None = None, *, key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, key=key))

    def warn(self, path: ConfigPath, message: str, hint: str | None = None, *, key: bool = False) -> None:
        self.warnings.append(self.document.problem(path, message, hint, key=key))

    def language(self, path: ConfigPath, error: LanguageError, *, key: bool = False) -> None:
        """Add the problems of the expression at `path`, and of the functions that it calls."""
        for found in (error, *error.others):
            self.problems.append(place(self.document, path, found, key=key))

    def note(self, fault: PlacedFault) -> None:
        """Add a problem that was raised."""
        self.problems.append(fault.problem(self.document))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """If the block raises a `PlacedFault`, add its problem and continue after the block."""
        try:
            yield
        except PlacedFault as fault:
            self.note(fault)

    def stop(self, error: type[ConfigError] = ConfigError) -> None:
        """Raise all problems found so far.

        Raises:
            ConfigError: there is at least one problem.
        """
        if self.problems:
            raise error(_in_order(self.problems))


def place(document: Document, path: ConfigPath, error: LanguageError, *, key: bool = False) -> Problem:
    """Converts an error in the expression at `path` into a problem with its place in the file."""
    if error.origin is not None:
        assert isinstance(error.origin, tuple)
        path, key = error.origin, isinstance(error.origin, KeyPath)
    hint = _joined_lines(document, path) if error.message == SIDE_BY_SIDE else None
    return document.problem(path, error.message, hint or error.hint, at=error.place.as_tuple(), key=key)


def _joined_lines(document: Document, path: ConfigPath) -> str | None:
    """Returns a hint for statements on several lines without `|`, which YAML joins into one line."""
    node = document.node(path)
    if not isinstance(node, ScalarNode) or node.style or "\n" not in node.source.text[node.start : node.end]:
        return None
    return f"write `{path[-1]}: |`: without `|`, YAML joins the lines into one"


def _in_order(problems: list[Problem]) -> list[Problem]:
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.source or "", problem.line or 0, problem.column or 0))


def sentence(error: object) -> str:
    """The first line of an error from torch or Python, without a capital letter or full stop."""
    text = str(error).split("\n")[0].rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
