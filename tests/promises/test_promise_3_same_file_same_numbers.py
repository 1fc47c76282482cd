"""Promise 3: the same config, torch build and device give the same bits, in any process, resumed or not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import runner
from runner.record.resuming import resume
from tests.record.stopping import stopped_after

CONFIG = """\
dtype: float32
seed: 7
parameters:
  w1: {shape: [6, 16], init: {normal: {std: 0.5}}}
  b1: {shape: [16], init: zeros}
  w2: {shape: [16, 3], init: xavier_uniform}
  average: {shape: [16, 3], init: {expression: w2}, requires_grad: false}
constants:
  x: {shape: [20, 6], init: uniform}
  y: {shape: [20, 3], init: uniform}
expression: |
  h = dropout(relu(x @ w1 + b1 + 0.01 * randn(16)), 0.25, training)
  loss = mse_loss(h @ w2, y)
metrics: {worst: (h @ w2 - y).abs().amax()}
optimizer: {adam: {lr: 0.02, amsgrad: true}}
steps:
  - repeat:
      times: 12
      steps:
        - train: {clip_grad_norm: 1.0}
        - {backward: loss, every: 3}
        - assign: {average: 0.9 * average + 0.1 * w2}
        - zero_grad
"""

WEIGHTS = ("w1", "b1", "w2", "average")


def executed(text: str, folder: Path) -> list[runner.Row]:
    return list(runner.execute(runner.compile(runner.loads(text, base=str(folder)))))


def weights(row: runner.Row) -> dict[str, Tensor]:
    found = {name: row[name] for name in WEIGHTS}
    return {name: value for name, value in found.items() if value is not None}


def test_adding_a_parameter_keeps_the_others_init(tmp_path: Path) -> None:
    alone = weights(executed(CONFIG, tmp_path)[0])
    more = CONFIG.replace("parameters:\n", "parameters:\n  extra: {shape: [4, 4], init: normal}\n").replace(
        "loss = mse_loss(h @ w2, y)", "loss = mse_loss(h @ w2, y) + extra.sum()"
    )
    together = weights(executed(more, tmp_path)[0])
    assert all(torch.equal(alone[name], together[name]) for name in WEIGHTS)


def test_another_seed_draws_other_numbers(tmp_path: Path) -> None:
    one = weights(executed(CONFIG, tmp_path)[0])
    other = weights(executed(CONFIG.replace("seed: 7", "seed: 8"), tmp_path)[0])
    assert not torch.equal(one["w1"], other["w1"])
    assert not torch.equal(one["w2"], other["w2"])


def test_drawing_outside_a_run_moves_no_number_in_it(tmp_path: Path) -> None:
    before = digest(executed(CONFIG, tmp_path))
    torch.manual_seed(123)
    torch.rand(5)
    assert digest(executed(CONFIG, tmp_path)) == before


def test_a_run_leaves_the_callers_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    executed(CONFIG, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rows", [1, 7, 30])
def test_same_file_same_numbers_resumed_or_not(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    directory = stopped_after(rows, path, tmp_path)
    assert len(runner.open_run(directory)) == rows
    assert digest(list(resume(directory).rows())) == digest(executed(CONFIG, tmp_path))


@pytest.mark.slow
def test_same_file_same_numbers_in_any_process(tmp_path: Path) -> None:
    here = digest(executed(CONFIG, tmp_path))
    there = [digest_in_another_process(tmp_path, hash_seed) for hash_seed in ("1", "2")]
    assert there == [here, here]


def digest(rows: list[runner.Row]) -> str:
    """A hash of every bit of every row."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(f"{row.number} {row.step} {row.path} {row.iteration}".encode())
        for column, value in zip(row.columns, row.values, strict=True):
            whole.update(column.name.encode())
            whole.update(b"none" if value is None else value.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()


def digest_in_another_process(folder: Path, hash_seed: str) -> str:
    program = f"import sys; from {__name__} import *; print(digest(executed(CONFIG, Path(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=True,
    )
    return done.stdout.strip()
