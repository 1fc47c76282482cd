"""Promises 1, 2, 3, 6 and 7, of every engine of the CPU; those of `engine: compile` in machine code."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import runner
from runner.engine import initial_state
from runner.engine.data.orders import order
from runner.record.directory import create_run_directory
from runner.record.reading import open_run
from runner.record.resuming import resume
from tests.engine.running import same
from tests.promises.engines import CONFIG, ENGINES, ROWS, points, rows, shorten_regions, written
from tests.promises.test_promise_3_same_file_same_numbers import digest

pytestmark = pytest.mark.parametrize("engine", ENGINES)

TOLERANCES = {"eager": (0.0, 0.0), "compile": (6.5e-6, 5e-5), "xla": (6.5e-6, 5e-5)}
"""Relative and absolute; of a compiled engine those of `torch.testing`, times five for compounding."""


@pytest.fixture(autouse=True)
def short_regions(engine: str, monkeypatch: pytest.MonkeyPatch, inductor_cache: Path) -> None:
    """Regions of eight iterations."""
    shorten_regions(monkeypatch, engine)


def test_1_the_numbers_are_those_of_the_computation_written_by_hand(engine: str, tmp_path: Path) -> None:
    path = written(tmp_path, engine)
    plan = runner.compile(runner.load(path))
    x, y = map(torch.from_numpy, points())
    w, b, v = (Parameter(weight.detach()) for weight in initial_state(plan).parameters.values())
    optimizer = torch.optim.Adam([w, b, v])
    rtol, atol = TOLERANCES[engine]
    found = rows(path)
    assert len(found) == ROWS
    for t, row in enumerate(found[1:], 1):
        epoch, batch = divmod(t - 1, 3)
        chosen = order(3, "points", epoch + 1, 18)[5 * batch : 5 * batch + 5]
        optimizer.param_groups[0]["lr"] = 0.05 / t**0.5
        optimizer.zero_grad()
        loss = ((torch.tanh(x[chosen] @ w + b) @ v - y[chosen]) ** 2).mean()
        loss.backward()
        optimizer.step()
        expected = {"loss": loss, "w": w, "b": b, "v": v, "w.grad": w.grad, "v.exp_avg": optimizer.state[v]["exp_avg"]}
        for name, value in expected.items():
            torch.testing.assert_close(row[name], None if value is None else value.detach(), rtol=rtol, atol=atol)


def test_2_watching_changes_nothing(engine: str, tmp_path: Path) -> None:
    finals = []
    for text in (CONFIG, CONFIG.replace("log: {state: true}", "log: {tensors: none}")):
        plan = runner.compile(runner.load(written(tmp_path, engine, text)))
        state = initial_state(plan)
        for _ in runner.execute(plan, state):
            pass
        finals.append(state.tensors())
    watched, unwatched = finals
    assert {"w", "w.grad", "w.exp_avg", "w.step"} < set(watched)
    assert sorted(watched) == sorted(unwatched)
    assert [name for name in watched if not same(watched[name], unwatched[name])] == []


@pytest.mark.slow  # promise 3 has a fast one for the eager engine
def test_3_another_process_gives_the_same_bits(engine: str, tmp_path: Path) -> None:
    path = written(tmp_path, engine)
    program = (
        "import sys; from pathlib import Path; import pytest; "
        f"from {digest.__module__} import digest; from {rows.__module__} import rows, shorten_regions; "
        "shorten_regions(pytest.MonkeyPatch(), sys.argv[2]); print(digest(rows(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(path), engine]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout.strip() == digest(rows(path))


KILLED = """\
import os, signal, sys
from pathlib import Path
import pytest
import runner
from runner.record.running import run_recorded
from tests.promises.engines import shorten_regions
shorten_regions(pytest.MonkeyPatch(), sys.argv[1])
see = lambda row: os.kill(os.getpid(), signal.SIGKILL) if row.number == 21 else None
run_recorded(runner.compile(runner.load(sys.argv[2])), Path(sys.argv[3]), see=see, checkpoint_every=7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_6_a_run_that_is_killed_resumes_to_the_bits_of_another(engine: str, tmp_path: Path) -> None:
    path = written(tmp_path, engine)
    whole = runner.run(path, runs_dir=tmp_path)
    directory = create_run_directory(tmp_path, "run", datetime.now())
    # a process of its own: neither JAX nor, in some releases, autograd works in a fork of one that has used threads
    command = [sys.executable, "-c", KILLED, engine, str(path), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert open_run(directory).status == "killed"
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.status == "finished"
    assert resumed.to_arrow().equals(whole.to_arrow())


def test_7_what_becomes_infinite_says_where_after_the_rows_before_it(engine: str, tmp_path: Path) -> None:
    text = """\
parameters: {w: {shape: [3], init: [1.0, 2.0, 3.0]}}
expression: |
  root = sqrt(w - 0.35)
  loss = root.sum()
optimizer: {sgd: {lr: 0.2}}
steps: 30
"""
    found = runner.execute(runner.compile(runner.load(written(tmp_path, engine, text))))
    given = [next(found).path for _ in range(7)]
    assert given == ["start", *[f"repeat[{place}].train" for place in range(1, 7)]]
    with pytest.raises(runner.RunError, match=r":4:10  .*\n.*\n.*`root` is nan at \[0\], from `sqrt.*repeat\[6\]"):
        next(found)
