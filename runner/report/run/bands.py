"""The section with the distribution of each tensor over rows, as bands between quantiles."""

from __future__ import annotations

import math

import numpy

from runner.report.markup import paragraph
from runner.report.reading.tensors import Measured
from runner.report.run.numbers import kind_text
from runner.report.run.subject import Subject
from runner.report.section import Section

_QUANTILES = ("least", "5 %", "25 %", "median", "75 %", "95 %", "largest")
_STATISTICS = ("least", "mean − std", "mean", "mean + std", "largest")


def _broken(tensor: Measured) -> dict[str, list[int]]:
    """How many elements are not finite in each row, if some are."""
    if not any(tensor.nonfinite):
        return {}
    counts = dict(zip(tensor.positions, tensor.nonfinite, strict=True))
    return {"broken": [counts[position] for position in tensor.band_positions]}


def bands(subject: Subject) -> Section | None:
    """Quantiles of the elements of each tensor in at most `MOST_BANDS` rows."""
    found = [
        {
            "name": tensor.of.name,
            "kind": kind_text(tensor.of.shape, tensor.of.dtype),
            "labels": list(_QUANTILES if tensor.of.column is not None else _STATISTICS),
            "rows": subject.rows.numbers[tensor.band_positions].astype(numpy.uint32),
            "values": numpy.asarray(tensor.bands, dtype=numpy.float64).T.astype(numpy.float32),
            **_broken(tensor),
        }
        for tensor in subject.tensors
        if tensor.bands and tensor.of.shape is not None and math.prod(tensor.of.shape) != 1
    ]
    if not found:
        return None
    said = paragraph("Of the finite elements of a tensor in each row: the least, quantiles, and the largest.", "note")
    return Section("distributions", "Distributions", said, "bands", {"tensors": found})
