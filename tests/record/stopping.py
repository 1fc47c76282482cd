"""Runs that are stopped at some row, and what they have to end as once they are resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest

import runner
from runner.engine.rows import AnyRows, Row
from runner.record.directory import create_run_directory
from runner.record.reading import Run
from runner.record.running import run_recorded
from tests.forking import fork

CONFIG = """\
parameters:
  w: {shape: [8, 8], init: {normal: {std: 0.5}}}
  b: {shape: [8], init: zeros}
  average: {init: {expression: w}, requires_grad: false}
constants: {x: {shape: [16, 8], init: normal}, n: 40}
expression: |
  h = dropout(tanh(x @ w + b), 0.2, training)
  loss = (h ** 2).mean()
optimizer: %s
steps:
  - repeat:
      times: n
      steps:
        - train
        - {checkpoint: , every: 7}
        - assign: {average: 0.9 * average + 0.1 * w}
        - {backward: , when: "loss > 0.01"}
  - repeat: {times: 3, steps: [{repeat: {times: 2, steps: [train]}}, {clip_grad_norm: 0.1}]}
log: {state: true}
"""
OPTIMIZERS = (
    "{adam: {lr: 0.01 / t}}",
    "{sgd: {lr: 0.1, momentum: 0.9}}",
    "{nadam: {}}",
    "{lbfgs: {lr: 0.1, max_iter: 4}}",
    '{rule: {state: {m: 0}, update: "m = 0.9 * m + grad\\nparam = param - 0.01 * m"}}',
)


def stopped(tmp_path: Path, optimizer: str, rows: int, how: int | None, every: int | None = None) -> Path:
    """A run directory whose process was killed, or interrupted, once so many rows were given."""
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG % optimizer)
    plan = runner.compile(runner.load(path))
    directory = create_run_directory(tmp_path, "run", datetime.now())
    seen: list[int] = []

    def see(row: Row) -> None:
        seen.append(row.number)
        if how is not None and len(seen) == rows:
            os.kill(os.getpid(), how)

    if how is None:
        with pytest.raises(KeyboardInterrupt):
            run_recorded(plan, directory, see=see, checkpoint_every=every, stop=lambda: len(seen) >= rows)
        return directory
    child = fork()
    if child == 0:
        try:
            run_recorded(plan, directory, see=see, checkpoint_every=every)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == how
    return directory


def stopped_after(rows: int, path: Path, runs_dir: Path, overrides: Sequence[str] = ()) -> Path:
    """The directory of a run that was asked to stop once it had given so many rows, and saved its state."""
    plan = runner.compile(runner.load(path, overrides))
    directory = create_run_directory(runs_dir, "run", datetime.now())
    seen = 0

    def see(given: AnyRows) -> None:
        nonlocal seen
        seen = given.last.number + 1

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_recorded(plan, directory, see=see, stop=lambda: seen >= rows)
    return directory


def check_same(found: Run, whole: Run) -> None:
    assert found.status == "finished"
    assert len(found) == len(whole)
    assert found.to_arrow().equals(whole.to_arrow())


def whole_runs(folder: Path) -> Callable[[str], Run]:
    """The run that was never stopped, by its optimizer."""
    runs: dict[str, Run] = {}

    def of(optimizer: str) -> Run:
        if optimizer not in runs:
            path = folder / f"run{len(runs)}.yaml"
            path.write_text(CONFIG % optimizer)
            runs[optimizer] = runner.run(path, runs_dir=folder)
        return runs[optimizer]

    return of
