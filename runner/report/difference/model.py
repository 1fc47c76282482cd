"""A difference with plain values only, so that another process can return it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.report.difference.recorder import Observed
from runner.report.difference.side import Side


@dataclass(frozen=True, slots=True)
class Keys:
    """One key of two configs or environments that differs."""

    key: str
    expected: str
    found: str
    lines: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two sequences of rows, compared."""

    title: str
    summary: str  # how they were compared, a sentence
    verdict: Mapping[str, Any]  # as `runner.compare.rows.report.to_json` returns it
    lines: tuple[str, ...]  # the verdict as text
    observed: Observed
    expected: Side | None  # None: a snapshot, which has no config of its own
    found: Side
    config: tuple[Keys, ...] = ()
    environment: tuple[Keys, ...] = ()
    prefix: str = ""  # of the names of its sections, if a page has several
    tolerance: str = ""  # how numbers were compared; empty: bit for bit
    command: str = ""  # that prints the difference, if one does
