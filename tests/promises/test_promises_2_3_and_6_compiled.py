"""Promises 2, 3 and 6 under `engine: compile`, in machine code: watching, another run and a crash change no bit."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.engine import initial_state
from runner.engine.compiled import library
from runner.engine.rows import Row
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.engine.running import same

CONFIG = """\
engine: compile
seed: 3
parameters: {w: {shape: [4, 6], init: normal}, b: {shape: [6], init: zeros}, v: {shape: [6], init: normal}}
data: {points: {file: points.npz, columns: {x: x, y: y}, batch_size: 5, shuffle: true, drop_last: true}}
expression: |
  h = tanh(x @ w + b)
  loss = ((h @ v - y) ** 2).mean()
optimizer: {adam: {lr: 0.05 / t ** 0.5}}
steps: [{repeat: {times: 30, steps: [train]}}]
log: {state: true}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own use
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config, in a folder of its own, to be run in regions of eight iterations."""
    monkeypatch.setattr(library, "LONGEST", 8)
    random = numpy.random.default_rng(0)
    numpy.savez(
        tmp_path / "points.npz", x=random.normal(size=(18, 4)).astype("f"), y=random.normal(size=18).astype("f")
    )
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def final(path: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """All tensors of the state after a run."""
    plan = runner.compile(runner.load(path, overrides))
    state = initial_state(plan)
    for _ in runner.execute(plan, state):
        pass
    return state.tensors()


def test_watching_changes_nothing(path: Path) -> None:
    watched, unwatched = final(path), final(path, "log={tensors: none}")
    assert {"w", "w.grad", "w.exp_avg", "w.step"} < set(watched)
    assert sorted(watched) == sorted(unwatched)
    assert [name for name in watched if not same(watched[name], unwatched[name])] == []


def test_a_run_that_is_killed_and_resumed_ends_in_the_bits_of_another_run(path: Path, tmp_path: Path) -> None:
    whole = runner.run(path, runs_dir=tmp_path)
    plan = runner.compile(runner.load(path))
    directory = create_run_directory(tmp_path, "run", datetime.now())

    def see(row: Row) -> None:
        if row.number == 21:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            run_recorded(plan, directory, see=see, checkpoint_every=7)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert open_run(directory).status == "killed"
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.status == "finished"
    assert resumed.to_arrow().equals(whole.to_arrow())
