"""Values that `steprun apply` refuses, because they have no entry for each sample."""

from __future__ import annotations

from pathlib import Path

import numpy
import pyarrow.parquet
import pytest

import runner
from runner.errors import Problem
from runner.record.apply.applying import Request, apply

FIXED = """\
parameters: {w: 1.0}
data: {train: {columns: {x: x.npy}, batch_size: 4}}
expression: |
  rows = x.reshape(4, 2).sum(1)
  halves = x.reshape(2, 4).sum(1)
  loss = w * x.sum()
optimizer: {sgd: {lr: 0}}
steps: 1
"""


@pytest.mark.slow
def test_a_value_with_the_length_of_the_batch_written_into_it(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.arange(8, dtype=numpy.float32).reshape(4, 2))
    (tmp_path / "fixed.yaml").write_text(FIXED)
    run = runner.run(tmp_path / "fixed.yaml", runs_dir=tmp_path / "runs")
    to, warned = tmp_path / "out.parquet", list[Problem]()
    apply(run.path, Request(("rows",), str(to), allow=(str(tmp_path),)), warn=warned.append)
    assert pyarrow.parquet.read_table(to)["rows"].to_pylist() == [1, 5, 9, 13]
    with pytest.raises(runner.UsageError) as caught:
        apply(run.path, Request(("halves",), str(to), allow=(str(tmp_path),), force=True), warn=warned.append)
    (problem,) = caught.value.problems
    assert problem.message == "`halves` has shape [2] for a batch of 4, not an entry for each sample"
    assert problem.hint == "name another value: rows"
