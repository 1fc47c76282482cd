"""The heat maps of a report: norms of gradients, updates and weights, against closed forms."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy
import pytest

from runner.report.run import norms
from tests.report.runs import data_of, record

HALVING = """\
parameters: {w: [3.0, 4.0]}
expression: loss = (w ** 2).sum() / 2
optimizer: {sgd: {lr: 0.5}}
steps: 7
"""
"""w[n] = w[0] / 2 ** n, without a rounding; the gradient of a row is the weight of the row before."""


@pytest.mark.parametrize("cells", [100, 3])
def test_a_cell_has_the_largest_norm_of_its_rows(cells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "MOST_CELLS", cells)
    weights = 5 * 0.5 ** numpy.arange(8)
    gradients = numpy.array([numpy.nan, *weights[:-1]])
    updates = numpy.array([numpy.nan, *[0.5] * 7])
    edges = numpy.linspace(0, 8, min(8, cells) + 1).astype(int)
    maps = data_of(record(HALVING, tmp_path), "norms")["maps"]
    assert len(maps) == 3
    for found, expected in zip(maps, (gradients, updates, weights), strict=True):
        largest = [numpy.fmax.reduce(expected[start:end]) for start, end in itertools.pairwise(edges)]
        assert (found["starts"].tolist(), found["ends"].tolist()) == (edges[:-1].tolist(), (edges[1:] - 1).tolist())
        numpy.testing.assert_array_equal(found["values"], numpy.array(largest, numpy.float32), found["title"])
