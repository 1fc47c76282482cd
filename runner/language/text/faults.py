"""Faults of an expression, placed within its own text."""

from __future__ import annotations

import ast
import functools
from collections.abc import Hashable
from dataclasses import dataclass

from runner.text import shortened


@dataclass(frozen=True, slots=True)
class Place:
    """A place inside an expression's text."""

    line: int  # from 1
    column: int  # from 0, in characters
    width: int  # characters, at least 1

    def as_tuple(self) -> tuple[int, int, int]:
        return (self.line, self.column, self.width)


START = Place(1, 0, 1)


class LanguageError(Exception):
    """An expression is not valid. The caller knows the file and turns this into a `Problem` there."""

    def __init__(
        self, message: str, hint: str | None = None, place: Place = START, origin: Hashable | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.place = place
        self.origin = origin  # the text that the place is in, where that is not the caller's: a function's body
        self.others: tuple[LanguageError, ...] = ()  # further faults of the same expression, in its order


class Consequence(LanguageError):
    """An expression reads a value whose own statement has a fault, which alone is told."""


def place_of(node: ast.AST, text: str) -> Place:
    """Where `node` stands in `text`; columns counted in characters, cut to its first line."""
    line = getattr(node, "lineno", 1)
    lines = _lines(text)
    content = lines[line - 1] if line <= len(lines) else b""
    start = _characters(content, getattr(node, "col_offset", 0))
    if getattr(node, "end_lineno", line) == line:
        end = _characters(content, getattr(node, "end_col_offset", None) or 0)
    else:
        end = _characters(content, len(content))
    return Place(line, start, max(1, end - start))


def source_of(node: ast.AST, text: str) -> str:
    """The text that `node` was parsed from, on one line and cut to 60 characters."""
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", None) or 1
    lines = [*_lines(text)[first - 1 : last]]
    if not lines:
        return ""
    lines[-1] = lines[-1][: getattr(node, "end_col_offset", None)]
    lines[0] = lines[0][getattr(node, "col_offset", 0) :]
    segment = " ".join(b" ".join(lines).decode(errors="ignore").split())
    return shortened(segment, 60)


@functools.lru_cache(maxsize=16)
def _lines(text: str) -> tuple[bytes, ...]:
    return tuple(line.encode() for line in text.split("\n"))


def _characters(line: bytes, offset: int) -> int:
    return offset if line.isascii() else len(line[:offset].decode(errors="ignore"))
