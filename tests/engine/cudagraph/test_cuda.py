"""What is promised on a CUDA device. Every test needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor

import runner
from runner.engine.eager import execute
from runner.record.rows.transfer import CudaLane, Staged
from tests.engine.running import compiled, numbers, same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

NETWORK = """
device: cuda
{engine}
seed: 3
parameters:
  w1: {{shape: [8, 32], init: {{normal: {{std: 0.3}}}}}}
  b1: {{shape: [32], init: 0}}
  w2: {{shape: [32, 4], init: {{normal: {{std: 0.3}}}}}}
data:
  train: {{columns: {{x: x.npy, y: y.npy}}, batch_size: 16, shuffle: {shuffle}}}
expression: |
  h = relu(x @ w1 + b1)
  loss = cross_entropy(h @ w2, y)
optimizer: {{{optimizer}}}
steps: {steps}
"""
OPTIMIZERS = {
    "sgd": "sgd: {lr: 0.05, momentum: 0.9, nesterov: true}",
    "adam": "adam: {lr: 0.01}",
    "adamw": "adamw: {lr: 0.01 * 0.99 ** t, weight_decay: 0.1}",
    "rule": "rule: {state: {m: 0}, update: 'm = 0.9 * m + grad\n\n  param = param - 0.05 * m'}",
}
SAMPLES = 72  # four batches of 16, and one of 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(2)
    numpy.save(tmp_path / "x.npy", torch.randn(SAMPLES, 8, generator=generator).numpy())
    numpy.save(tmp_path / "y.npy", torch.randint(0, 4, (SAMPLES,), generator=generator).numpy())
    return tmp_path


def network(folder: Path, optimizer: str = OPTIMIZERS["adam"], **more: str) -> runner.Plan:
    given = {"engine": "", "shuffle": "false", "steps": "{epochs: 8}", **more}
    return compiled(NETWORK.format(optimizer=optimizer, **given), folder)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Whatever waits for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# the eager engine


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_eager_engine_gives_the_bits_of_torch_by_hand(folder: Path, name: str) -> None:
    plan = network(folder, OPTIMIZERS[name])
    rows = list(runner.execute(plan))
    weights = [rows[0][parameter].clone().requires_grad_() for parameter in ("w1", "b1", "w2")]
    w1, b1, w2 = weights
    if name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True)
    else:
        optimizer = torch.optim.Adam(weights, lr=0.01)
    x = torch.from_numpy(numpy.load(folder / "x.npy")).cuda()
    y = torch.from_numpy(numpy.load(folder / "y.npy")).cuda()
    expected: list[Tensor] = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(8):
            for start in range(0, SAMPLES, 16):
                optimizer.zero_grad()
                h = torch.relu(x[start : start + 16].clone() @ w1 + b1)
                loss = torch.nn.functional.cross_entropy(h @ w2, y[start : start + 16].clone())
                loss.backward()
                optimizer.step()
                expected += [loss.detach(), *(weight.detach().clone() for weight in weights)]
    finally:
        torch.use_deterministic_algorithms(False)
    found = [row[column] for row in rows[1:] for column in ("loss", "w1", "b1", "w2")]
    assert len(found) == len(expected)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shuffle", ["true", "false"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_waits_for_the_device(folder: Path, name: str, shuffle: str) -> None:
    plan = network(folder, OPTIMIZERS[name], shuffle=shuffle, steps="[{repeat: {times: 40, steps: [train]}}]")
    rows = execute(plan, shared=True)
    for _ in range(6):  # what is made in the first steps
        next(rows)
    with without_waiting():
        for _ in range(24):
            next(rows)
    rows.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_batch_that_is_sent_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engine.data.placing.RESIDENT_BYTES", 0)
    test_no_step_waits_for_the_device(folder, "sgd", "true")


def test_two_runs_give_the_same_bits(folder: Path) -> None:
    text = "[{repeat: {times: 30, steps: [{train: {clip_grad_norm: 0.5}}]}}]"
    first, second = (list(runner.execute(network(folder, shuffle="true", steps=text))) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(same(one[column.name], other[column.name]) for column in one.columns)


def test_what_gives_other_bits_each_time_is_refused() -> None:
    plan_of = (
        "{device: cuda, parameters: {x: {shape: [4, 4], init: 1}}, "
        "expression: f = adaptive_avg_pool2d(x.reshape(1, 1, 4, 4), (3, 3)).sum(), steps: [backward]}"
    )
    with pytest.raises(runner.errors.SteprunError, match="does not have a deterministic implementation"):
        list(runner.execute(compiled(plan_of)))
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_generators_of_torch_are_left_alone() -> None:
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    text = "{device: cuda, parameters: {x: {shape: [4], init: 1}}, expression: f = (x * randn(4)).sum(), steps: 2}"
    rows = list(runner.execute(compiled(text.replace("steps: 2", "optimizer: {sgd: {lr: 0.1}}, steps: 2"))))
    assert not same(rows[1]["f"], rows[2]["f"])
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


# the log


def test_what_is_recorded_is_what_was_computed(folder: Path, tmp_path: Path) -> None:
    (folder / "run.yaml").write_text(
        NETWORK.format(optimizer=OPTIMIZERS["adam"], engine="", shuffle="false", steps="60")
    )
    run = runner.run(folder / "run.yaml", runs_dir=tmp_path / "runs")
    rows = list(runner.execute(runner.compile(runner.load(folder / "run.yaml"))))
    assert len(run) == len(rows)
    for recorded, row in zip(run, rows, strict=True):
        for name, value in numbers(row).items():
            assert same(recorded[name], None if value is None else value.cpu()), name


def test_sending_rows_does_not_wait_for_the_device() -> None:
    transfer = Staged(CudaLane("cuda"))
    made = [torch.randn(1000, device="cuda") for _ in range(8)]
    torch.cuda.synchronize()
    with without_waiting():
        handles = [transfer.begin([tensor, tensor.double()]) for tensor in made]
        found = [handle.result() for handle in handles]  # waits for the event alone
    for tensor, (single, double) in zip(made, found, strict=True):
        assert same(single, tensor.cpu())
        assert same(double, tensor.double().cpu())


# CUDA graphs


@pytest.mark.parametrize(
    "steps",
    [
        "{epochs: 16}",
        "[{repeat: {times: 60, steps: [{train: {clip_grad_norm: 0.5}}]}}]",
        "[{repeat: {times: 60, steps: [train, {assign: {b1: b1 * 0.5}, every: 7}, {evaluate: train, every: 20}]}}]",
        "[{repeat: {times: 60, steps: [{train: {accumulate: 2}}]}}]",
    ],
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replayed_graphs_give_the_bits_of_the_eager_engine(folder: Path, name: str, steps: str) -> None:
    eager, graphs = (
        list(runner.execute(network(folder, OPTIMIZERS[name], engine=engine, shuffle="true", steps=steps)))
        for engine in ("engine: eager", "engine: cudagraph")
    )
    assert len(eager) == len(graphs)
    for one, other in zip(eager, graphs, strict=True):
        for column in one.columns:
            assert same(one[column.name], other[column.name]), f"row {one.number}: {column.name}"


def test_replayed_graphs_draw_the_numbers_of_the_eager_engine() -> None:
    text = """
device: cuda
engine: {}
parameters: {{w: {{shape: [1000], init: {{normal: {{std: 1.0}}}}}}}}
expression: loss = (dropout(w, 0.5, training=training) + 0.1 * randn(1000)).square().mean()
optimizer: {{adam: {{lr: 0.05}}}}
steps: 20
"""
    eager, graphs = (list(runner.execute(compiled(text.format(engine)))) for engine in ("eager", "cudagraph"))
    for one, other in zip(eager, graphs, strict=True):
        for column in one.columns:
            assert same(one[column.name], other[column.name]), f"row {one.number}: {column.name}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_replay_waits_for_the_device(folder: Path, name: str) -> None:
    steps = "[{repeat: {times: 80, steps: [train]}}]"
    rows = runner.execute(network(folder, OPTIMIZERS[name], engine="engine: cudagraph", steps=steps))
    for _ in range(36):  # until batches of either length have been recorded
        next(rows)
    with without_waiting():
        for _ in range(24):
            next(rows)


def test_what_a_graph_cannot_hold_is_told_with_its_place() -> None:
    text = """
device: cuda
engine: cudagraph
parameters: {w: {init: [[2.0, 0.0], [0.0, 3.0]]}}
expression: loss = linalg.eigvals(w).abs().sum()
optimizer: {sgd: {lr: 0.05}}
steps: 8
"""
    with pytest.raises(runner.errors.RunError, match="a CUDA graph cannot hold this step"):
        list(runner.execute(compiled(text)))
