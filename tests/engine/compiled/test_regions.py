"""Regions: many iterations at once give the rows, the state and the faults of one at a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import runner
from runner.engine import eager, initial_state
from runner.engine.compiled import machine_code
from runner.record.directory import create_run_directory
from runner.record.resuming import resume
from runner.record.rows.digest import digest_of
from runner.record.running import run_recorded
from tests.engine.compiled.plain import without_compiler
from tests.engine.interrupting import interrupted_while_compiling
from tests.engine.running import compiled, numbers, same
from tests.record.stopping import stopped_after

HEAD = """\
engine: compile
seed: 5
parameters: {w1: {shape: [4, 6], init: normal}, b: {shape: [6], init: zeros}, w2: {shape: [6], init: normal}}
"""
MODEL = (
    HEAD
    + """\
data: {train: {file: train.npz, columns: {x: x, y: y}, batch_size: 5, shuffle: true}}
expression: |
  h = tanh(x @ w1 + b)
  loss = ((h @ w2 - y) ** 2).mean()
"""
)
PROGRAMS = {
    "for_each": "optimizer: {adam: {lr: 0.05}}\nsteps: {epochs: 4}\n",
    "dampening": "optimizer: {sgd: {lr: 0.1, momentum: 0.9, dampening: 0.2}}\nsteps: 14\n",
    "clipped by value": """\
optimizer: {sgd: {lr: 0.1 / t, momentum: 0.9}}
steps: [{repeat: {times: 11, steps: [train: {clip_grad_value: 0.1}]}}]
""",
    "accumulated and clipped": """\
optimizer: {adamw: {}}
steps: [{repeat: {times: 9, steps: [train: {accumulate: 3, clip_grad_norm: 0.5}]}}]
""",
    "a rule on one batch": """\
optimizer: {rule: {state: {m: 0}, update: "m = 0.9 * m + grad / sqrt(t)\\nparam = param - 0.1 * m * (1 - 0.5 ** t)"}}
steps: [next: train, {repeat: {times: 9, steps: [train: {data: null}]}}]
""",
    "mixed precision": """\
autocast: bfloat16
optimizer: {adam: {lr: 0.05}}
metrics: {whole: (x @ w1).mean()}
steps: {epochs: 3}
""",
    "beside others": """\
optimizers:
  first: {adam: {betas: ["0.9 - 0.1 / t", 0.99]}, parameters: [w1, b]}
  second: {nadam: {}, parameters: [w2]}
steps:
  - repeat:
      times: 6
      steps:
        - {train: {optimizer: first}, every: 2}
        - train: {optimizer: second}
        - {train: , when: "loss > 0.5"}
        - evaluate: train
        - assign: {b: 0.9 * b}
        - {stop: , when: iteration == 5}
  - repeat: {times: 9, steps: [train]}
log: {every: 2, state: true}
""",
}


MEASURED = """\
optimizers:
  first: {adam: {lr: rate * 0.9 ** t}, parameters: [w1, b]}
  second: {rule: {update: "param = param - rate * grad / t"}, parameters: [w2]}
steps:
  - repeat:
      times: 4
      steps:
        - repeat: {times: 5, steps: [train]}
        - evaluate: train
        - reduce_lr_on_plateau: {rate: rate, on: train, patience: 0, threshold: 0.5, factor: 0.5}
        - assign: {b: 0.9 * b, w1.exp_avg: 0}
        - checkpoint: {best: train.loss}
        - patience: {on: train, evaluations: 2, min_delta: 0.1}
log: {state: true}
"""


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Regions of at most four iterations, traced by torch's compiler and not made into machine code; some data."""
    without_compiler(monkeypatch)
    monkeypatch.setattr(machine_code, "LONGEST", 4)
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(17, 4, generator=generator), torch.randn(17, generator=generator)
    numpy.savez("train.npz", x=x.numpy(), y=y.numpy())


def agree(text: str) -> None:
    plan = compiled(text)
    found, expected = list(runner.execute(plan)), list(eager.execute(plan))
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert (row.number, row.step, row.path, row.iteration) == (
            other.number,
            other.step,
            other.path,
            other.iteration,
        )
        given, wanted = numbers(row), numbers(other)
        assert [name for name in wanted if (given[name] is None) != (wanted[name] is None)] == []
        for name, value in wanted.items():
            if value is not None:
                torch.testing.assert_close(given[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_rows_are_those_of_the_eager_engine(program: str) -> None:
    agree(MODEL + PROGRAMS[program])


def test_a_rate_that_is_measured_is_the_same_in_all_iterations_of_a_region() -> None:
    agree(MODEL.replace("parameters: {", "parameters: {rate: {init: 0.1, requires_grad: false}, ") + MEASURED)


def test_random_numbers_are_those_of_the_eager_engine() -> None:
    constants = "constants: {x: {shape: [8, 4], init: normal}}\n"
    agree(
        HEAD
        + constants
        + "expression: 'loss = (dropout(x @ w1 + b, 0.5, training) @ w2).square().mean()'\n"
        + "optimizer: {sgd: {lr: 0.01}}\nsteps: 6\n"
    )


def test_the_iteration_is_a_number_of_each_row() -> None:
    constants = "constants: {x: {shape: [8, 4], init: normal}, weight: [1.0, 0.5, 0.25]}\n"
    agree(
        HEAD
        + constants
        + "expression: |\n  root = sqrt(iteration)\n  scaled = (x @ w1 + b) * weight[iteration % 3] / root\n"
        + "  loss = ((iteration > 2) * scaled + scaled).square().mean() + w2.sum() / iteration\n"
        + "optimizer: {sgd: {lr: 0.01}}\nsteps: 6\n"
    )


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        ("for_each", 3),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("for_each", 5), ("dampening", 7), ("beside others", 7)]
        ),
    ],
)
def test_a_run_stopped_within_a_region_resumes_to_the_same_bits(program: str, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL + PROGRAMS[program])
    whole = runner.run(path, runs_dir=tmp_path / "whole")
    resumed = resume(stopped_after(rows, path, tmp_path), allowed_folders=[tmp_path])
    assert resumed.to_arrow().equals(whole.to_arrow())


def test_what_fails_within_a_region_fails_at_its_place_after_the_rows_before_it() -> None:
    check_failing_in_a_region("engine: compile\n")


def check_failing_in_a_region(head: str) -> None:
    text = (
        head
        + """\
parameters: {w: {shape: [3], init: ones}, k: 1.0}
constants: {index: [0, 1, 2]}
expression: |
  loss = (w * embedding(index.where(k > 0.75, index + 7), w[:, None])[:, 0]).sum() + k
optimizer: {sgd: {lr: 0.1}}
steps: 6
"""
    )
    line = 4 + head.count("\n")
    rows = runner.execute(compiled(text))
    given = [next(rows).path for _ in range(4)]
    assert given == ["start", "repeat[1].train", "repeat[2].train", "repeat[3].train"]
    message = r"  .*\n.*\n.*index out of range in self \(at repeat\[4\]\.train\)"
    with pytest.raises(runner.RunError, match=f":{line}:15{message}"):
        next(rows)


def test_out_of_memory_makes_regions_shorter_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compiled(MODEL + PROGRAMS["for_each"])
    expected = [numbers(row) for row in runner.execute(plan)]
    calls: list[int] = []
    make = machine_code.compiled_region

    def compiled_region(*given: Any, **named: Any) -> Any:
        region = make(*given, **named)

        def call(carry: list[Tensor], each: list[Tensor], fixed: list[Tensor]) -> Any:
            found = region(carry, each, fixed)
            calls.append(each[0].shape[0])
            if calls[-1] == 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.")
            return found

        return call

    monkeypatch.setattr(machine_code, "compiled_region", compiled_region)
    found = [numbers(row) for row in runner.execute(plan)]
    assert calls[:5] == [6, 3, 1, 1, 1]  # the first call compiles
    assert len(found) == len(expected) == 17
    for row, other in zip(found, expected, strict=True):
        assert [name for name in other if not same(row[name], other[name])] == []


def test_out_of_memory_of_one_iteration_is_told_at_the_step_and_changes_no_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes.")

    monkeypatch.setattr(machine_code, "compiled_region", lambda *given, **named: full)
    plan = compiled(MODEL + PROGRAMS["for_each"])
    state = initial_state(plan)
    before = state.parameters["w1"].detach().clone()
    with pytest.raises(runner.RunError, match=r"does not fit into memory: it needs 4\.0 GiB \(at for_each\[1\]"):
        list(runner.execute(plan, state))
    assert same(state.parameters["w1"].detach(), before)


def test_steps_that_do_the_same_are_compiled_once_and_told_of() -> None:
    told: list[tuple[str, bool]] = []
    constants = (
        "constants: {x: {shape: [8, 4], init: normal}}\nexpression: loss = (x @ w1 + b).square().mean() + w2.sum()\n"
    )
    plan = compiled(
        HEAD + constants + "optimizer: {sgd: {lr: 0.1}}\nsteps: [train, {repeat: {times: 9, steps: [train]}}, train]\n"
    )
    rows = list(runner.execute(plan, compiling=lambda path, seconds: told.append((path, seconds is None))))
    assert told == [("1.train", True), ("1.train", False)]
    assert len(rows) == 12


def test_the_manifest_says_what_compiling_took_apart_from_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL + PROGRAMS["clipped by value"])
    compiling = runner.run(path, runs_dir=tmp_path).manifest
    assert 0 < compiling["compile_seconds"] < compiling["seconds"]
    eager_run = runner.run(path, overrides=["engine=eager"], runs_dir=tmp_path).manifest
    assert eager_run["compile_seconds"] is None


def test_changing_a_row_changes_no_run() -> None:
    plan = compiled(MODEL + PROGRAMS["clipped by value"])
    state, undisturbed = initial_state(plan), initial_state(plan)
    for row in runner.execute(plan, state):
        for value in row.values:
            if value is not None:
                value.fill_(float("nan"))
    list(runner.execute(plan, undisturbed))
    found, expected = state.tensors(), undisturbed.tensors()
    assert [name for name in expected if not same(found[name], expected[name])] == []


def test_by_row_the_state_is_that_after_each_row() -> None:
    plan = compiled(MODEL + PROGRAMS["clipped by value"])
    state = initial_state(plan)
    for row in runner.execute(plan, state, by_row=True):
        weight = row["w1"]
        assert weight is not None
        assert same(weight, state.parameters["w1"].detach())
        assert state.row == row.number + 1


@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_what_is_not_finite_is_told_alike(engine: str) -> None:
    text = f"""\
engine: {engine}
parameters: {{w: {{shape: [3], init: [1.0, 2.0, 3.0]}}}}
expression: |
  root = sqrt(w - 0.35)
  loss = root.sum()
optimizer: {{sgd: {{lr: 0.2}}}}
steps: 9
"""
    rows = runner.execute(compiled(text))
    given = [next(rows).path for _ in range(7)]
    assert given == ["start", *[f"repeat[{place}].train" for place in range(1, 7)]]
    with pytest.raises(runner.RunError, match=r":4:10  .*\n.*\n.*`root` is nan at \[0\], from `sqrt.*repeat\[6\]"):
        next(rows)


@pytest.mark.slow
def test_an_interrupt_while_torch_compiles_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(MODEL + PROGRAMS["for_each"])
    directory = interrupted_while_compiling(path, "runner.engine.compiled.machine_code", "MachineCode._compile")
    resumed = resume(directory, allowed_folders=[tmp_path])
    assert resumed.to_arrow().equals(runner.run(path).to_arrow())


@pytest.mark.parametrize("shape", [(), (3, 2), (65, 64)])
def test_rows_of_a_region_are_recorded_in_every_form(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch)
    text = f"""\
engine: compile
dtype: float64
parameters: {{w: {{shape: {list(shape)}, init: {{normal: {{std: 1.0}}}}}}}}
expression: loss = (w ** 2).sum() / 2
optimizer: {{sgd: {{lr: 0.1}}}}
steps: 7
"""

    def recorded(tensors: str) -> runner.Run:
        plan = runner.compile(runner.loads(f"{text}log: {{tensors: {tensors}}}\n"))
        directory = create_run_directory(tmp_path / tensors, "run", datetime.now())
        run_recorded(plan, directory)
        return runner.open_run(directory)

    weights = recorded("full").tensor("w")
    torch.testing.assert_close(weights, torch.stack([weights[0] * 0.9**row for row in range(8)]))
    stats, digests = recorded("stats").to_pandas(), recorded("digest").to_pandas()
    if shape:  # one number is as short as what would be told of it
        norms = torch.tensor(stats["w.norm"].to_list(), dtype=torch.float64)
        torch.testing.assert_close(norms, weights.reshape(8, -1).norm(dim=1))
        assert list(digests["w.digest"]) == [digest_of(weight) for weight in weights]
