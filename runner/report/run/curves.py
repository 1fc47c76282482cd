"""The section with the objective, the metrics and other named numbers over rows."""

from __future__ import annotations

import fnmatch

import numpy

from runner.report.markup import NOTHING, joined, paragraph
from runner.report.reading.curves import MOST_VISIBLE, Curve, spans_decades
from runner.report.run.numbers import number
from runner.report.run.subject import Subject
from runner.report.section import Section
from runner.text import counted


def curves(subject: Subject) -> Section | None:
    """Curves of every named number; those of objectives and metrics are visible at first."""
    shown = [curve for curve in subject.curves if curve.count]
    if not shown:
        return None
    first = set(subject.objectives) | set(() if subject.plan is None else subject.plan.lowered.metrics)
    visible = [
        curve.name for curve in shown if curve.name in first or any(_is_result(curve.name, name) for name in first)
    ]
    visible = (visible or [curve.name for curve in shown])[:MOST_VISIBLE]
    notes = []
    decimated = [curve for curve in shown if len(curve.rows) < curve.count]
    if decimated:
        count, kept = (max(found) for found in zip(*((each.count, len(each.rows)) for each in decimated), strict=True))
        notes.append(f"Of {counted(count, 'value')} the page has {kept:,}, every extreme among them.")
    for curve in shown:
        if curve.broken is not None:
            row = int(subject.rows.numbers[curve.broken])
            notes.append(f"{curve.name} is not finite in {counted(curve.nonfinite, 'row')}, first in row {row:,}.")
    data = {
        "log": spans_decades(numpy.concatenate([curve.values for curve in shown if curve.name in visible])),
        "curves": [
            {
                "name": curve.name,
                "rows": curve.rows,
                "values": curve.values,
                "visible": curve.name in visible,
                "thinned": len(curve.rows) < curve.count,
                "range": _range(subject, curve),
            }
            for curve in shown
        ],
    }
    text = joined(paragraph(note, "note") for note in notes) if notes else NOTHING
    return Section("curves", "Curves", text, "curves", data)


def _range(subject: Subject, curve: Curve) -> str | None:
    """The least and the largest finite value, with their rows."""
    if curve.least is None or curve.most is None or curve.least == curve.most:
        return None
    finite = curve.values[numpy.isfinite(curve.values)]
    low, high = number(float(finite.min())), number(float(finite.max()))
    rows = subject.rows.numbers
    return f"least {low} in row {int(rows[curve.least]):,}, largest {high} in row {int(rows[curve.most]):,}"


def _is_result(name: str, value: str) -> bool:
    """Whether a curve is the result of `evaluate` for a value: `test.loss`."""
    return fnmatch.fnmatchcase(name, "*.*") and name.partition(".")[2] == value
