"""A run that acts on what it measures, stopped at any row, resumes to the same bits and the same best state."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import runner
from runner.engine.rows import Row
from runner.record.checkpoints.store import read_checkpoint
from runner.record.directory import create_run_directory
from runner.record.reading import Run, open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.forking import fork
from tests.record.stopping import check_same

CONFIG = """
seed: 4
parameters: {w: {shape: [2], init: zeros}, rate: {init: 0.4, requires_grad: false}}
data:
  train: {file: train.csv, columns: {x: [a, b], y: y}, batch_size: 3, shuffle: true}
  valid: {file: train.csv, columns: {x: [a, b], y: y}}
expression: loss = ((x @ w - y) ** 2).mean()
optimizer: {sgd: {lr: rate, momentum: 0.5}}
steps:
  - repeat:
      times: 12
      steps:
        - for_each: {data: train, steps: [train]}
        - evaluate: valid
        - checkpoint: {best: valid.loss}
        - reduce_lr_on_plateau: {rate: rate, on: valid.loss, patience: 0, cooldown: 1, factor: 0.3}
        - patience: {on: valid, evaluations: 3}
log: {state: true}
"""


def prepared(folder: Path) -> runner.Plan:
    values = "".join(f"{(n * 7) % 5 / 3},{(n * 3) % 7 / 5},{(n * 5) % 3}\n" for n in range(8))
    (folder / "train.csv").write_text(f"a,b,y\n{values}")
    (folder / "run.yaml").write_text(CONFIG)
    return runner.compile(runner.load(folder / "run.yaml"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("whole")
    directory = create_run_directory(folder, "run", datetime.now())
    run_recorded(prepared(folder), directory)
    return open_run(directory)


def best(run: Run) -> tuple[int, str]:
    content = read_checkpoint(run.path / "checkpoints" / "best.json")
    return content["row"], content["sha256"]


def check(run: Run, whole: Run) -> None:
    check_same(run, whole)
    assert best(run) == best(whole)


def test_the_run_ends_early_and_its_best_state_is_not_its_last(whole: Run) -> None:
    assert 20 < len(whole) < 12 * 5 + 1
    assert best(whole)[0] < len(whole) - 10


@pytest.mark.slow
def test_a_run_that_is_interrupted_at_any_row_resumes_to_the_same_bits(whole: Run, tmp_path: Path) -> None:
    plan = prepared(tmp_path)
    for row in range(1, len(whole), 5):
        directory = create_run_directory(tmp_path / "runs", f"run{row}", datetime.now())
        rows = 0

        def stop() -> bool:
            nonlocal rows
            rows += 1
            return rows == row  # noqa: B023

        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            run_recorded(plan, directory, stop=stop)
        check(resume(directory, allowed_folders=[tmp_path]), whole)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_row_resumes_to_the_same_bits(whole: Run, tmp_path: Path) -> None:
    plan = prepared(tmp_path)
    for row in range(2, len(whole)):
        directory = create_run_directory(tmp_path / "runs", f"run{row}", datetime.now())
        _killed(lambda see: run_recorded(plan, directory, see=see), row)  # noqa: B023
        check(resume(directory, allowed_folders=[tmp_path]), whole)


def _killed(run: Callable[[Callable[[Row], None]], None], row: int) -> None:
    """Run in a child process, and kill it once it has recorded a row."""
    child = fork()
    if child == 0:

        def see(found: Row) -> None:
            if found.number == row - 1:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            run(see)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
