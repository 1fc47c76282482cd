"""Collecting every fault of a config while it is planned, each at its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.config.document import Document
from runner.errors import ConfigError, Problem
from runner.language.text.faults import LanguageError

ConfigPath = tuple[str | int, ...]


class KeyPath(tuple[str | int, ...]):
    """A config path whose key, rather than its value, holds the text that is meant."""

    __slots__ = ()


@dataclass(slots=True)
class Faults:
    """The faults and warnings found so far."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def add(self, path: ConfigPath, message: str, hint: str | None = None, *, key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, hint, key=key))

    def warn(self, path: ConfigPath, message: str, hint: str | None = None, *, key: bool = False) -> None:
        self.warnings.append(self.document.problem(path, message, hint, key=key))

    def language(self, path: ConfigPath, error: LanguageError, *, key: bool = False) -> None:
        """The faults inside the expression at `path`, or in the functions that it calls."""
        for found in (error, *error.others):
            self.problems.append(place(self.document, path, found, key=key))

    def stop(self, error: type[ConfigError] = ConfigError) -> None:
        """Raise what has been found.

        Raises:
            ConfigError: there is at least one fault.
        """
        if self.problems:
            raise error(_in_order(self.problems))


def place(document: Document, path: ConfigPath, error: LanguageError, *, key: bool = False) -> Problem:
    """A fault of the expression at `path` as a problem of the file."""
    if error.origin is not None:
        assert isinstance(error.origin, tuple)
        path, key = error.origin, isinstance(error.origin, KeyPath)
    return document.problem(path, error.message, error.hint, at=error.place.as_tuple(), key=key)


def _in_order(problems: list[Problem]) -> list[Problem]:
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda problem: (problem.source or "", problem.line or 0, problem.column or 0))
