"""A run that draws batches, stopped and resumed: the cursors of its sources go on where they were."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy
import pytest

import runner
from runner.engine.rows import Row
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded

CONFIG = """\
parameters: {w: {shape: [3], init: 1}}
data:
  train: {file: points.npz, columns: {x: x, y: y}, batch_size: 4, shuffle: true}
  test: {file: points.npz, columns: {x: x, y: y}, batch_size: 6}
expression: |
  loss = mse_loss(dropout(x, 0.2, training) @ w, y)
optimizer: {sgd: {lr: 0.05, momentum: 0.9}}
steps:
  - for_each:
      data: train
      epochs: 4
      steps:
        - train
        - {next: test, every: 2}
        - forward: {data: test}
        - {evaluate: test, every: 3}
        - {stop: , when: iteration == 14}
  - train
  - train: {data: null}
"""


@pytest.mark.parametrize("stop_after", [1, 2, 9, 17, 30])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    random = numpy.random.default_rng(0)
    numpy.savez(tmp_path / "points.npz", x=random.normal(size=(18, 3)), y=random.normal(size=18))
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    whole = runner.run(path, runs_dir=tmp_path)
    plan = runner.compile(runner.load(path))
    directory = create_run_directory(tmp_path, "run", datetime.now())

    def see(row: Row) -> None:
        if row.number == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recorded(plan, directory, see=see)
    assert open_run(directory).status == "interrupted"
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.to_arrow().equals(whole.to_arrow())
