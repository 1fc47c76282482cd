"""Reads the points of a sweep from a .csv file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from runner.config.document import Document
from runner.config.text.nodes import Path
from runner.config.text.scalars import NumberRangeError, resolve_plain
from runner.plan.data.sandbox import FileFault, locate, open_ordinary
from runner.sweep.points.values import MOST_VALUES, AxisFault

LARGEST_FILE = 64 << 20
"""The most bytes of a file of points."""


def read_points(text: str, document: Document, path: Path) -> list[dict[str, Any]]:
    """The points of a file: its first line names override paths, and each further line is a point.

    Cells are read as values of a config. A blank cell leaves the value of the config.

    Raises:
        AxisFault: the file cannot be read, or a line does not fit the first one.
    """
    if not text.lower().endswith(".csv"):
        raise AxisFault(f"`{text}` is not a .csv file", "write a list of points, or the path of a .csv file")
    try:
        with open_ordinary(locate(text, document.folder(path), document.folders())) as file:
            content = file.read(LARGEST_FILE + 1)
    except FileFault as fault:
        raise AxisFault(fault.message, fault.hint or "write the path of a .csv file") from fault
    if len(content) > LARGEST_FILE:
        raise AxisFault(f"`{text}` is larger than 64 MiB", "use fewer points")
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        rows = list(_bounded(reader, text))
    except (UnicodeDecodeError, csv.Error) as error:
        raise AxisFault(f"`{text}` is not a table: {error}", "write it as UTF-8 with commas") from error
    names = [name.strip() for name in rows[0]] if rows else []
    if not names or not all(names) or len(set(names)) < len(names):
        raise AxisFault(f"the first line of `{text}` does not name its columns", "write a path such as `learning_rate`")
    points = []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(names):
            raise AxisFault(f"{text}:{number} has {len(row)} cells, and its header {len(names)}", "complete the line")
        points.append({name: _value(cell, text, number) for name, cell in zip(names, row, strict=True) if cell.strip()})
    if not points:
        raise AxisFault(f"`{text}` has no points", "write a line for each point")
    return points


def _bounded(rows: Iterable[list[str]], text: str) -> Iterator[list[str]]:
    cells = 0
    for row in rows:
        cells += len(row) or 1
        if cells > MOST_VALUES:
            raise AxisFault(f"`{text}` has more than {MOST_VALUES:,} cells", "use fewer points")
        yield row


def _value(cell: str, text: str, line: int) -> Any:
    try:
        return resolve_plain(cell.strip())
    except NumberRangeError as error:
        raise AxisFault(f"{text}:{line} holds `{cell[:40]}`, which {error}", "write a smaller number") from error
