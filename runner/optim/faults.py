"""Faults found while planning: raised with their config path, collected so that all are shown at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import Problem
from runner.language.text.faults import LanguageError
from runner.optim.plans import Path

if TYPE_CHECKING:
    from runner.config import Document


class PlacedFault(Exception):
    """A fault with its place in the config."""

    def __init__(
        self,
        path: Path,
        message: str,
        hint: str | None = None,
        *,
        at: tuple[int, int, int] | None = None,
        key: bool = False,
    ) -> None:
        super().__init__(message)
        self.path, self.message, self.hint = path, message, hint
        self.at = at  # line, column, width inside the string at `path`
        self.key = key  # the key at `path` is marked, not its value

    @classmethod
    def within(cls, path: Path, error: LanguageError) -> PlacedFault:
        """The fault of an expression that stands at `path`, or in a function that it calls."""
        place = path if error.origin is None else error.origin
        assert isinstance(place, tuple)
        return cls(place, error.message, error.hint, at=error.place.as_tuple())

    def problem(self, document: Document) -> Problem:
        return document.problem(self.path, self.message, self.hint, at=self.at, key=self.key)


@dataclass(frozen=True, slots=True)
class Collector:
    """Turns faults into problems of one document and goes on."""

    document: Document
    problems: list[Problem]

    def add(self, fault: PlacedFault) -> None:
        self.problems.append(fault.problem(self.document))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """What is inside ends at its first fault; what follows goes on."""
        try:
            yield
        except PlacedFault as fault:
            self.add(fault)


def sentence(error: object) -> str:
    """The first line of what torch or Python says, as it reads within a message."""
    text = str(error).split("\n")[0].rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
