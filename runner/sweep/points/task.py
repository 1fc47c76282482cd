"""A point as an executor gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A point to run."""

    index: int
    overrides: tuple[str, ...]
    identity: str
    chunk: int = 0  # the number of the chunk whose lanes it is among; 0: it runs alone
    alone: str = ""  # why it runs alone
