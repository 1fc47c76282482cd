"""One side of a difference: its config as text, and the line that writes each tensor and each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from runner.compare.places import Written, place_of, step_place
from runner.config import Config
from runner.config.text.source import Source
from runner.plan.rows.columns import Column

MOST_TEXTS = 8
"""The most files of one config that a page shows."""

MOST_COLUMNS = 1_000
"""The most columns of a side that lead to a line."""

MOST_BYTES = 256 << 10
"""The most characters of one file that a page shows."""

Line = tuple[int, int]
"""A text of a side, and a line in it from 1."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side, with plain values only."""

    label: str  # "expected", "found"
    facts: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()  # name and content, the config's own file first
    columns: Mapping[str, Line] = field(default_factory=dict)
    steps: Mapping[str, Line] = field(default_factory=dict)  # by path


def side_of(
    label: str,
    config: Config,
    columns: Iterable[Column],
    paths: Iterable[str],
    facts: Iterable[tuple[str, object]] = (),
) -> Side:
    """The side of a config.

    Args:
        columns: the columns of its rows.
        paths: the paths of the steps that lead to a line.
    """
    texts = [config.document.source]
    lines: dict[str, Line] = {}
    steps: dict[str, Line] = {}
    for column in list(columns)[:MOST_COLUMNS]:
        _place(texts, lines, column.name, place_of(config, column))
    for path in paths:
        _place(texts, steps, path, step_place(config, path))
    shown = tuple((source.name, source.text[:MOST_BYTES]) for source in texts)
    return Side(label, tuple((name, str(value)) for name, value in facts), shown, lines, steps)


def _place(texts: list[Source], lines: dict[str, Line], name: str, found: Written | None) -> None:
    """Note the line of a name, and the text that it is in."""
    if found is None:
        return
    source, mark = found
    if source not in texts:
        if len(texts) == MOST_TEXTS:
            return
        texts.append(source)
    lines[name] = texts.index(source), mark.line


def address(side: Side, line: Line | None, prefix: str) -> str | None:
    """The address of a line of a side on the page."""
    return None if line is None else f"{prefix}{side.label}{line[0] or ''}-{line[1]}"
