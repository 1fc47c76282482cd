"""The section of the first difference: its row, its tensors, how far apart they are, and the likely causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from runner.compare.rows.report import rounded_up, shown
from runner.report.difference.leads import Leads
from runner.report.difference.model import Difference
from runner.report.difference.recorder import Kept
from runner.report.markup import Markup, block, coded, joined, paragraph, tag, text, wide_table
from runner.report.reading.rows import IN_WORDS
from runner.report.section import Section

MOST_TENSORS = 64
"""The most tensors of the first row that a page lists."""

_HEAD = ("tensor", "expected", "found", "relative", "ULP", "elements", "uncertainty", "passes at")


def first(difference: Difference) -> Section | None:
    """The first row that differs, with each of its tensors; then any other such row."""
    found = difference.verdict.get("first")
    leads = Leads(difference)
    if found is None:
        return _within(difference, leads)
    tensors = found["tensors"]
    step = leads.step(found["path"], f"row {found['row']}, {found['path'] or found['step']}")
    said = [
        tag("p", text("In "), step, text(": "), leads.name(tensors[0]["name"]), text(" differs first.")),
        leads.configs(),
    ]
    causes = difference.verdict.get("causes") or []
    if causes:
        listed = joined(tag("li", coded(cause)) for cause in causes)
        said.append(tag("div", tag("h3", text("Likely causes")), tag("ul", listed)))
    said += [paragraph(IN_WORDS, "note"), _table(tensors, leads)]
    report = block("\n".join(difference.lines), "Report")
    printed = f"As `{difference.command}` prints it" if difference.command else "As text"
    said.append(tag("details", tag("summary", coded(printed)), report))
    title = "The first difference"
    rows = difference.observed.rows
    data = rows_data(difference, leads, str(tensors[0]["name"]), int(found["row"])) if rows else {}
    view = "rowdifference" if rows else None
    return Section(f"{difference.prefix}first", title, joined(said), view, data)


def _within(difference: Difference, leads: Leads) -> Section | None:
    """Where bits first differ, if nothing differs by more than the tolerance."""
    rows = difference.observed.rows
    if not rows:
        return None
    name = next(iter(rows[0].pairs))
    row = leads.step(rows[0].path, f"row {rows[0].number}, {rows[0].path or rows[0].step}")
    said = tag(
        "p", text("Within the tolerance, numbers differ from "), row, text(" on, first "), leads.name(name), text(".")
    )
    data = rows_data(difference, leads, name, rows[0].number)
    return Section(f"{difference.prefix}first", "Differences within the tolerance", said, "rowdifference", data)


def _table(tensors: Sequence[Mapping[str, Any]], leads: Leads) -> Markup:
    measured = any(tensor.get("uncertainty") for tensor in tensors)
    names = [name for name in _HEAD if measured or name != "uncertainty"]
    rows = (_line(tensor, leads, names[1:]) for tensor in tensors[:MOST_TENSORS])
    caption = (
        "The tensors of this row that differ: the numbers are those of the element that is farthest apart; "
        "a tensor passes at any one of the last column's tolerances"
    )
    return wide_table(names, rows, caption, "Tensors that differ first")


def _line(tensor: Mapping[str, Any], leads: Leads, names: Sequence[str]) -> Markup:
    cells = _cells(tensor)
    shown = joined(tag("td", text(cells.get(name, "")), class_="number") for name in names)
    return tag("tr", tag("th", leads.name(tensor["name"]), scope="row"), shown)


def _cells(tensor: Mapping[str, Any]) -> dict[str, str]:
    worst = tensor.get("worst")
    if worst is None:
        expected, found = (str(tensor.get(side) or "none") for side in ("expected", "found"))
        apart = "; ".join(tensor.get("statistics") or ()) or str(tensor["kind"])
        return {"expected": expected, "found": found, "relative": apart}
    where = f" at {worst['index']}" if worst["index"] else ""
    ulps, uncertainty, passing = worst["ulps"], tensor.get("uncertainty"), tensor["passes_at"]
    kinds = [(name, passing[name]) for name in ("rtol", "atol", "ulp") if passing.get(name) is not None]
    return {
        "expected": f"{_element(worst['expected'], tensor)}{where}",
        "found": _element(worst["found"], tensor),
        "relative": _short(worst["relative"]),
        "ULP": "" if ulps is None else f"{ulps:,}",
        "elements": f"{tensor['differing']:,} of {tensor['elements']:,}",
        "uncertainty": "" if uncertainty is None else _times(uncertainty),
        "passes at": ", or ".join(f"{name} {_tolerance(value)}" for name, value in kinds) or "no tolerance",
    }


def shapes_of(sides: Mapping[str, Any]) -> str | None:
    """The shapes of two sides such as `float32 [3]` as text, in place of an error; None if only one has a shape."""
    expected, found = (str(sides[side]).partition(" ")[2] for side in ("expected", "found"))
    shapes = expected != found and expected.startswith("[") and found.startswith("[")
    return f"shape {expected} → {found}" if shapes else None


def _times(uncertainty: Mapping[str, Any]) -> str:
    return f"{_short(uncertainty['times'])} times, {uncertainty['allowed']:g} allowed"


def _element(value: Any, tensor: Mapping[str, Any]) -> str:
    """A number with the fewest digits that distinguish it from its neighbours."""
    if isinstance(value, list):
        return f"{value[0]} + {value[1]}i"
    dtype = getattr(torch, str(tensor["expected"]).partition(" ")[0], None)
    real = isinstance(value, float) and isinstance(dtype, torch.dtype)
    return shown(value, dtype) if real and isinstance(dtype, torch.dtype) else str(value)


def _tolerance(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else rounded_up(value) if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)


def rows_data(difference: Difference, leads: Leads, name: str, first_row: int) -> dict[str, Any]:
    """Each row that is shown one by one, with the tensors that differ in it."""
    rows = difference.observed.rows
    at = next((place for place, row in enumerate(rows) if row.number >= first_row), 0)
    curves = (curve.name for curve in difference.observed.curves)
    names = list(dict.fromkeys([name, *curves, *(each for row in rows for each in row.pairs)]))
    known = {each for row in rows for each in (*row.pairs, *row.equal)}
    return {
        "rows": [{"row": row.number, "step": row.step, "path": row.path, "iteration": _iteration(row)} for row in rows],
        "lines": [leads.step_address(row.path) for row in rows],
        "at": at,
        "name": name,
        "tensors": [_tensor(each, rows, leads) for each in names if each in known],
    }


def _iteration(row: Kept) -> int:
    inside = row.path.rpartition("[")[2].partition("]")[0]
    return int(inside) if inside.isdecimal() else 1


def _tensor(name: str, rows: Sequence[Kept], leads: Leads) -> dict[str, Any]:
    found: list[dict[str, Any] | None] = []
    for row in rows:
        pair = row.pairs.get(name)
        if pair is None:
            found.append(None)
            continue
        cells = [
            None if each is None else {"height": each.shape[0], "width": each.shape[1], "cells": each.reshape(-1)}
            for each in pair.cells
        ]
        found.append(
            {
                "expected": pair.expected,
                "found": pair.found,
                "error": pair.error,
                "ulps": pair.ulps,
                "cells": cells if any(each is not None for each in cells) else None,
                "ranges": pair.ranges,
                "own": pair.own,
                **({"whole": pair.whole} if any(pair.whole) else {}),
            }
        )
    equal = [row.equal.get(name) for row in rows]
    return {"name": name, "line": leads.address(name), "shown": found, "equal": equal}
