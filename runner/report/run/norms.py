"""The section with heat maps over rows: norms of gradients and weights, and how much each update changes a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import numpy.typing

from runner.report.markup import paragraph
from runner.report.reading.tensors import Measured
from runner.report.run.subject import Subject
from runner.report.section import Section

MOST_CELLS = 240
"""The most stretches of rows that a heat map has; each shows the largest value of its rows."""

Cells = numpy.typing.NDArray[numpy.float32]


def norms(subject: Subject) -> Section | None:
    """Heat maps of norms and of update-to-weight ratios."""
    measured = [tensor for tensor in subject.tensors if tensor.positions]
    maps = [
        ("Norm of each gradient", [each for each in measured if each.of.role == "gradient"], "norms"),
        ("Update-to-weight ratio", [each for each in measured if each.of.role == "weight" and each.ratios], "ratios"),
        ("Norm of each weight", [each for each in measured if each.of.role == "weight"], "norms"),
    ]
    data = [_map(subject, title, tensors, what) for title, tensors, what in maps if tensors]
    if not data:
        return None
    rows = "A cell is a row." if len(subject.rows) <= MOST_CELLS else "A cell shows the largest value of its rows."
    every = "" if subject.plan is None or subject.plan.log.every == 1 else " An update is between two rows of the log."
    said = paragraph(f"{rows} The ratio is blank in rows that change no parameter.{every}", "note")
    return Section("norms", "Gradients and updates", said, "heatmap", {"maps": data})


def _map(subject: Subject, title: str, tensors: Sequence[Measured], what: str) -> dict[str, Any]:
    count = len(subject.rows)
    cells = min(count, MOST_CELLS)
    edges = numpy.linspace(0, count, cells + 1).astype(numpy.int64)
    lines = [_largest(tensor, edges, getattr(tensor, what)) for tensor in tensors]
    return {
        "title": title,
        "names": [tensor.of.name for tensor in tensors],
        "starts": subject.rows.numbers[edges[:-1]].astype(numpy.uint32),
        "ends": subject.rows.numbers[edges[1:] - 1].astype(numpy.uint32),
        "values": numpy.concatenate(_updating(lines) if what == "ratios" else lines),
    }


def _updating(lines: list[Cells]) -> list[Cells]:
    """The ratios, with NaN for 0 where no weight changes."""
    still = numpy.all([(line == 0) | numpy.isnan(line) for line in lines], axis=0)
    return [numpy.where(still, numpy.float32(numpy.nan), line) for line in lines]


def _largest(tensor: Measured, edges: numpy.typing.NDArray[numpy.int64], values: Sequence[float]) -> Cells:
    """The largest value of each stretch; NaN where it has none, infinite where one is not finite."""
    found = numpy.full(len(edges) - 1, -1.0)
    places = numpy.searchsorted(edges, tensor.positions, side="right") - 1
    broken = numpy.asarray(tensor.nonfinite) > 0
    numbers = numpy.asarray(values, dtype=numpy.float64)
    known = ~numpy.isnan(numbers) | broken
    numpy.maximum.at(found, places[known], numpy.where(broken, numpy.inf, numbers)[known])
    return numpy.where(found < 0, numpy.nan, found).astype(numpy.float32)
