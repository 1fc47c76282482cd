"""Regions in code of XLA give the rows, the state and the faults of one step at a time."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import runner
from runner.engine import eager, initial_state
from runner.record.directory import create_run_directory
from runner.record.resuming import resume
from runner.record.running import run_recorded
from tests.engine.compiled.test_regions import HEAD, MEASURED, MODEL, PROGRAMS, check_failing_in_a_region
from tests.engine.interrupting import interrupted_while_compiling
from tests.engine.running import compiled, numbers, same
from tests.record.stopping import stopped_after

jax = pytest.importorskip("jax")

from runner.engine.xla import translated  # noqa: E402
from runner.language.xla import checking  # noqa: E402

XLA = HEAD.replace("compile", "xla")
NETWORK = MODEL.replace("compile", "xla")
CONSTANT = "constants: {x: {shape: [8, 4], init: normal}}\n"
SMALL = XLA + CONSTANT + "expression: loss = (tanh(x @ w1 + b) @ w2).square().mean()\n"
"""Without data: it is compiled once."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Regions of at most four iterations, and some data."""
    monkeypatch.setattr(translated, "MOST_AT_ONCE", 4)
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(17, 4, generator=generator), torch.randn(17, generator=generator)
    numpy.savez("train.npz", x=x.numpy(), y=y.numpy())


def agree(text: str, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    plan = compiled(text)
    found, expected = list(runner.execute(plan)), list(eager.execute(plan))
    assert [(row.number, row.step, row.path, row.iteration) for row in found] == [
        (row.number, row.step, row.path, row.iteration) for row in expected
    ]
    for row, other in zip(found, expected, strict=True):
        given = numbers(row)
        for name, value in numbers(other).items():
            assert (given[name] is None) == (value is None), (row.path, name)
            if value is not None:
                torch.testing.assert_close(given[name], value, rtol=rtol, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_rows_are_those_of_the_eager_engine(program: str) -> None:
    agree(NETWORK + PROGRAMS[program])


@pytest.mark.slow
def test_a_rate_that_is_measured_is_the_same_in_all_iterations_of_a_region() -> None:
    agree(NETWORK.replace("parameters: {", "parameters: {rate: {init: 0.1, requires_grad: false}, ") + MEASURED)


RANDOM = {
    "dropout": "(dropout(x @ w1 + b, 0.5, training) @ w2).square().mean()",
    "drawn": "((x + 0.1 * randn_like(x)) @ w1 + rand(6) * b).square().mean() + w2.sum()",
    "integers": "(x @ w1 + b).square().mean() + w2[randint(0, 6, (3,))].square().sum()",
}


@pytest.mark.slow
@pytest.mark.parametrize("expression", RANDOM)
def test_random_numbers_are_those_of_the_eager_engine(expression: str) -> None:
    agree(XLA + CONSTANT + f"expression: loss = {RANDOM[expression]}\noptimizer: {{sgd: {{lr: 0.01}}}}\nsteps: 6\n")


@pytest.mark.slow
def test_complex_numbers_train_in_regions() -> None:
    agree(
        "engine: xla\nparameters: {w: {shape: [3], init: ones, dtype: complex64}}\n"
        "constants: {x: {shape: [5, 3], init: normal, dtype: complex64}}\n"
        "expression: loss = (x @ w).abs().square().mean()\noptimizer: {adam: {lr: 0.01}}\nsteps: 6\n"
        "log: {state: true}\n"
    )


@pytest.mark.slow
def test_the_iteration_is_a_number_of_each_row() -> None:
    agree(
        XLA
        + "constants: {x: {shape: [8, 4], init: normal}, weight: [1.0, 0.5, 0.25]}\n"
        + "expression: |\n  root = sqrt(iteration)\n  scaled = (x @ w1 + b) * weight[iteration % 3] / root\n"
        + "  loss = ((iteration > 2) * scaled + scaled).square().mean() + w2.sum() / iteration\n"
        + "optimizer: {sgd: {lr: 0.01}}\nsteps: 6\n"
    )


@pytest.mark.parametrize("rows", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_a_run_stopped_within_a_region_resumes_to_the_same_bits(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(NETWORK + PROGRAMS["for_each"])
    whole = runner.run(path, runs_dir=tmp_path / "whole")
    resumed = resume(stopped_after(rows, path, tmp_path), allowed_folders=[tmp_path])
    assert resumed.to_arrow().equals(whole.to_arrow())


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_rows_that_are_recorded_together_are_those_that_are_recorded_one_by_one(every: int, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL + f"optimizer: {{adam: {{lr: 0.05}}}}\nsteps: 14\nlog: {{every: {every}, state: true}}\n")
    plan = runner.compile(runner.load(path))
    tables = []
    for checkpoint_every in (None, 1000):  # with checkpoints, each row is recorded alone
        directory = create_run_directory(tmp_path / str(checkpoint_every), "run", datetime.now())
        run_recorded(plan, directory, checkpoint_every=checkpoint_every)
        tables.append(runner.open_run(directory).to_arrow())
    assert tables[0].equals(tables[1])
    assert tables[0]["row"].to_pylist() == list(range(len(tables[0])))
    assert tables[0]["path"].to_pylist()[1:] == [
        f"repeat[{number}].train" for number in tables[0]["iteration"].to_pylist()[1:]
    ]


def test_what_fails_within_a_region_fails_at_its_place_after_the_rows_before_it() -> None:
    """XLA takes the nearest row of a table where torch has an error."""
    check_failing_in_a_region("engine: xla\non_nonfinite: ignore\n")


def test_what_is_not_finite_is_told_as_the_eager_engine_tells_it() -> None:
    text = """\
engine: xla
parameters: {w: {shape: [3], init: [1.0, 2.0, 3.0]}}
expression: |
  root = sqrt(w - 0.35)
  loss = root.sum()
optimizer: {sgd: {lr: 0.2}}
steps: 9
"""
    rows = runner.execute(compiled(text))
    given = [next(rows).path for _ in range(7)]
    assert given == ["start", *[f"repeat[{place}].train" for place in range(1, 7)]]
    with pytest.raises(runner.RunError, match=r":4:10  .*\n.*\n.*`root` is nan at \[0\], from `sqrt.*repeat\[6\]"):
        next(rows)


@pytest.mark.slow
def test_watching_changes_nothing_and_twice_gives_the_same_bits() -> None:
    finals = []
    for log in ("{state: true}", "{tensors: none}", "{state: true}"):
        plan = compiled(SMALL + f"optimizer: {{adam: {{lr: 0.05}}}}\nsteps: 9\nlog: {log}\n")
        state = initial_state(plan)
        for _ in runner.execute(plan, state):
            pass
        finals.append(state.tensors())
    for other in finals[1:]:
        assert {"w1", "w1.grad", "w1.exp_avg", "w1.step"} < set(other)
        assert [name for name in finals[0] if not same(finals[0][name], other[name])] == []


@pytest.mark.slow
def test_by_row_the_state_is_that_after_each_row_with_the_bits_of_a_region() -> None:
    plan = compiled(SMALL + PROGRAMS["clipped by value"])
    state = initial_state(plan)
    found = []
    for row in runner.execute(plan, state, by_row=True):
        weight = row["w1"]
        assert weight is not None
        assert same(weight, state.parameters["w1"].detach())
        assert state.row == row.number + 1
        found.append(weight.clone())
    regions = [row["w1"] for row in runner.execute(plan)]
    assert all(same(one, other) for one, other in zip(found, regions, strict=True))


@pytest.mark.slow
def test_changing_a_row_changes_no_run() -> None:
    plan = compiled(SMALL + PROGRAMS["clipped by value"])
    state, undisturbed = initial_state(plan), initial_state(plan)
    for row in runner.execute(plan, state):
        for value in row.values:
            if value is not None:
                value.fill_(float("nan"))
    list(runner.execute(plan, undisturbed))
    found, expected = state.tensors(), undisturbed.tensors()
    assert [name for name in expected if not same(found[name], expected[name])] == []


@pytest.mark.slow
def test_jax_keeps_its_settings() -> None:
    before = jax.config.jax_enable_x64, torch.compiler.is_compiling()
    list(runner.execute(compiled(SMALL + "optimizer: {sgd: {lr: 0.1}}\nsteps: 3\n")))
    assert (jax.config.jax_enable_x64, torch.compiler.is_compiling()) == before
    assert jax.numpy.zeros(1).dtype == jax.numpy.float32


@pytest.mark.slow
def test_nothing_is_collected_while_a_step_is_traced_and_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, bool]] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            found.append((name, gc.isenabled()))
            return function(*given)

        return call

    monkeypatch.setattr(checking, "untranslatable", noting("planned", checking.untranslatable))
    monkeypatch.setattr(translated, "trace", noting("traced", translated.trace))
    monkeypatch.setattr(translated.Region, "__call__", noting("ran", translated.Region.__call__))
    list(runner.execute(compiled(SMALL + "optimizer: {sgd: {lr: 0.1}}\nsteps: 3\n")))
    assert found == [("planned", False), ("traced", False), ("ran", True)]


FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."


def full_when(monkeypatch: pytest.MonkeyPatch, when: Callable[[int, int], bool]) -> list[int]:
    """Calls of XLA run out of memory when a function of their number, from 1, and of the longest region is true.

    Returns the longest region of each call.
    """
    calls: list[int] = []
    call = translated.Region.__call__

    def maybe_full(self: translated.Region, *given: Any) -> Any:
        calls.append(self._longest)
        if when(len(calls), self._longest):
            raise jax.errors.JaxRuntimeError(FULL)
        return call(self, *given)

    monkeypatch.setattr(translated.Region, "__call__", maybe_full)
    return calls


@pytest.mark.slow
def test_out_of_memory_loses_no_row_and_resume_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL + "optimizer: {adam: {lr: 0.05}}\nsteps: 14\nlog: {state: true}\n")
    whole = runner.run(path, runs_dir=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        full_when(patch, lambda number, longest: number > 2)
        with pytest.raises(runner.RunError, match=r"does not fit into memory: it needs 4\.0 GiB \(at repeat\[9\]"):
            runner.run(path, runs_dir=tmp_path)
    (directory,) = (each for each in (tmp_path / "run").iterdir() if each.is_dir() and not each.is_symlink())
    failed = runner.open_run(directory)
    assert failed.status == "failed"
    assert failed.to_arrow().equals(whole.to_arrow().slice(0, 9))
    assert resume(directory).to_arrow().equals(whole.to_arrow())


@pytest.mark.slow
def test_out_of_memory_makes_regions_shorter_and_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(translated, "MOST_AT_ONCE", 64)
    plan = compiled(SMALL + "optimizer: {adam: {lr: 0.05}}\nsteps: 90\nlog: {state: true}\n")
    expected = [numbers(row) for row in runner.execute(plan)]
    calls = full_when(monkeypatch, lambda number, longest: longest > 2)
    found = [numbers(row) for row in runner.execute(plan)]
    assert calls[:4] == [64, 4, 2, 2]
    assert len(found) == len(expected) == 91
    for row, other in zip(found, expected, strict=True):
        assert [name for name in other if not same(row[name], other[name])] == []


@pytest.mark.slow
def test_after_out_of_memory_the_state_is_that_of_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step alone in its loop, and one beside another."""
    full_when(monkeypatch, lambda number, longest: True)
    for steps in ("3", "[train]"):
        plan = compiled(SMALL + f"optimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {steps}\n")
        state = initial_state(plan)
        before = state.parameters["w1"].detach().clone()
        with pytest.raises(runner.RunError, match="memory"):
            list(runner.execute(plan, state))
        assert same(state.parameters["w1"].detach(), before)
        assert (state.row, state.evaluations) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "verb"), [("compile", "compile"), ("__call__", "run")], ids=["compiling", "running"]
)
def test_an_error_of_xla_ends_the_run_at_the_step_and_is_not_tried_again(
    method: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def failing(self: translated.Region, *given: Any) -> None:
        nonlocal tried
        tried += 1
        raise jax.errors.JaxRuntimeError("INTERNAL: Failed to materialize symbols.\nsecond line")

    monkeypatch.setattr(translated.Region, method, failing)
    plan = compiled(SMALL + "optimizer: {sgd: {lr: 0.1}}\nsteps: 3\n")
    state = initial_state(plan)
    before = state.parameters["w1"].detach().clone()
    with pytest.raises(runner.RunError, match="xla") as caught:
        list(runner.execute(plan, state))
    (problem,) = caught.value.problems
    assert problem.message == f"`engine: xla` cannot {verb} this step: INTERNAL: Failed to materialize symbols"
    assert problem.hint == "write `engine: compile` or `engine: eager`"
    assert (problem.line, tried) == (7, 1)
    assert same(state.parameters["w1"].detach(), before)


def test_a_step_that_cannot_be_traced_is_an_error_after_the_row_that_the_eager_engine_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The eager step finds where a fault is. Where it finds none, its row stays, and the next step says what failed."""
    tried = 0

    def failing(*given: Any) -> None:
        nonlocal tried
        tried += 1
        raise RuntimeError("Attempting to mutate a tensor that is not functional.")

    monkeypatch.setattr(translated, "trace", failing)
    plan = compiled(SMALL + "optimizer: {sgd: {lr: 0.1}}\nsteps: 3\n")
    rows = runner.execute(plan)
    assert [next(rows).path for _ in range(2)] == ["start", "repeat[1].train"]
    message = r"attempting to mutate a tensor that is not functional \(at repeat\[2\]\.train\)"
    with pytest.raises(runner.RunError, match=message):
        next(rows)
    assert tried == 1


@pytest.mark.slow
def test_an_interrupt_while_xla_compiles_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(SMALL + "optimizer: {adam: {lr: 0.05}}\nsteps: 9\n")
    directory = interrupted_while_compiling(path, "runner.engine.xla.regions", "Region.compile")
    assert resume(directory).to_arrow().equals(runner.run(path).to_arrow())


@pytest.mark.slow
def test_xla_that_runs_out_of_memory_does_not_abort_the_process(tmp_path: Path) -> None:
    """A real allocation of XLA fails: its code returns four tensors of 64 MiB, and the process may allocate 64 MiB."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "engine: xla\nparameters: {w: {shape: [16777216], init: zeros}}\nexpression: loss = w.sum()\n"
        "optimizer: {adam: {lr: 0.1}}\nsteps: 3\nlog: {tensors: none}\n"
    )
    program = """\
import sys
from runner.cli.main import entry
from runner.engine.xla.regions import Region
from runner.plan.memory import limited_data

call = Region.__call__

def limited(self, *given):
    with limited_data(0):
        return call(self, *given)

Region.__call__ = limited
sys.argv = ["steprun", "-q", sys.argv[1], "--runs-dir", "runs"]
entry()
"""
    command = [sys.executable, "-c", program, str(path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"run\.yaml:5:8  steps\n.*\n.*this does not fit into memory: it needs \d+\.\d MiB \(at", done.stderr
    )
    (directory,) = (each for each in (tmp_path / "runs" / "run").iterdir() if each.is_dir() and not each.is_symlink())
    failed = runner.open_run(directory)
    assert (failed.status, len(failed)) == ("failed", 1)
