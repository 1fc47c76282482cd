"""The section with the distribution of each tensor over rows, as bands between quantiles."""

from __future__ import annotations

import numpy

from runner.report.markup import paragraph
from runner.report.run.numbers import kind_text
from runner.report.run.subject import Subject
from runner.report.section import Section

_QUANTILES = ("least", "5 %", "25 %", "median", "75 %", "95 %", "largest")
_STATISTICS = ("least", "mean − std", "mean", "mean + std", "largest")


def bands(subject: Subject) -> Section | None:
    """Quantiles of the elements of each tensor in up to 200 rows."""
    found = [
        {
            "name": tensor.of.name,
            "kind": kind_text(tensor.of.shape, tensor.of.dtype),
            "labels": list(_QUANTILES if tensor.of.column is not None else _STATISTICS),
            "rows": subject.rows.numbers[tensor.band_positions].astype(numpy.uint32),
            "values": numpy.asarray(tensor.bands, dtype=numpy.float64).T.astype(numpy.float32),
        }
        for tensor in subject.tensors
        if tensor.bands
    ]
    if not found:
        return None
    said = paragraph("Of the finite elements of a tensor in each row: the least, quantiles, and the largest.", "note")
    return Section("distributions", "Distributions", said, "bands", {"tensors": found})
