"""Where the report of a run opens: at the row and the tensor that went wrong, if any did."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.report.reading.curves import Curve
from runner.report.reading.rows import Rows
from runner.report.reading.tensors import Measured

_ROW = re.compile(r"\(row (\d{1,15})[,;)]")
_NAME = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Focus:
    """A row and a quantity to look at."""

    position: int
    name: str | None
    reason: str  # a sentence


def problems_of(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The problems that ended a run; none if it did not fail."""
    return list((manifest.get("failure") or {}).get("problems", ()))


def failed_row(manifest: Mapping[str, Any], rows: Rows) -> int | None:
    """The position of the row that the failure of a run names; None if it names none."""
    for problem in problems_of(manifest):
        found = _ROW.search(problem["message"])
        if found:
            return rows.position(int(found[1]))
    return None


def focus_of(
    manifest: Mapping[str, Any], rows: Rows, curves: Sequence[Curve], tensors: Sequence[Measured]
) -> Focus | None:
    """What went wrong, and where; None if nothing did."""
    if not len(rows):
        return None
    broken = sorted(
        [(curve.broken, curve.name) for curve in curves if curve.broken is not None]
        + [(tensor.broken, tensor.of.name) for tensor in tensors if tensor.broken is not None]
    )
    names = {curve.name for curve in curves} | {tensor.of.name for tensor in tensors}
    for problem in problems_of(manifest):
        named = [name for name in _NAME.findall(problem["message"]) if name in names]
        row = failed_row(manifest, rows)
        position = row if row is not None else broken[0][0] if broken else len(rows) - 1
        name = named[0] if named else next((name for place, name in broken if place <= position), None)
        return Focus(position, name, "the run failed here")
    if broken:
        return Focus(broken[0][0], broken[0][1], f"`{broken[0][1]}` is not finite here for the first time")
    return None
