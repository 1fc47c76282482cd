"""A point as an executor gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A point to run."""

    index: int
    overrides: tuple[str, ...]
    identity: str
    rung: int = 0  # how many times the point has been compared with others
    until: int | None = None  # iterations of the last loop after which it is compared again; None: to its end
    state: str | None = None  # the files with its state, unless it begins
    chunk: int = 0  # the number of the chunk whose lanes it is among; 0: it runs alone
    alone: str = ""  # why it runs alone
    warning: str | None = None  # what its lane had computed, if the lanes of its chunk are left out for it
