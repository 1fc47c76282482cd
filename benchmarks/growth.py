"""growth: how the cost of data and checkpoints grows, compared with pyarrow, numpy, safetensors and a loop by hand."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import runner
from benchmarks.measure import Workload, growing, scratch
from benchmarks.memory import peak_of
from runner.engine import initial_state
from runner.plan.compiler import PlanLimits
from runner.record.checkpoints.store import load_checkpoint, save_checkpoint
from runner.record.directory import create_run_directory

NAME = "growth"
ROWS, COLUMNS = 1_000_000, 8
NAMED, NAMED_ROWS = 1_000, 1_000
STREAMED, STREAMED_BATCH, WIDTH = 1_000_000, 1_000, 16
EVALUATED, EVALUATED_BATCH = 400_000, 10
WEIGHTS = 100_000_000  # float32: 400 MB
PEAK_PROGRAM = """
import sys
from pathlib import Path
from benchmarks import growth
growth.{function}(int(sys.argv[1]))
print(open("/proc/self/status").read())
"""


def _config(name: str, text: str) -> Path:
    path = scratch() / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- text tables


@functools.cache
def table_file(rows: int, columns: int) -> Path:
    """Writes a CSV file of normal numbers with six decimals, its columns named c0, c1, …"""
    import pyarrow
    import pyarrow.csv

    path = scratch() / f"table-{rows}-{columns}.csv"
    values = numpy.random.default_rng(0).normal(size=(columns, rows)).round(6)
    pyarrow.csv.write_csv(pyarrow.table({f"c{number}": values[number] for number in range(columns)}), path)
    return path


def trained_on_table(rows: int, columns: int) -> Tensor:
    """Plans and runs one step on the first 64 rows of a table whose columns are named; returns the loss."""
    names = ", ".join(f"c{number}" for number in range(1, columns))
    text = f"""
data:
  points: {{file: {table_file(rows, columns).name}, columns: {{x: [{names}], y: c0}}, batch_size: 64}}
parameters:
  w: {{shape: [{columns - 1}], init: ones}}
expression: |
  loss = ((x @ w - y) ** 2).mean()
optimizer: {{sgd: {{lr: 0.01}}}}
steps: [train]
log: {{include: [loss]}}
"""
    run = runner.run(_config(f"table-{rows}-{columns}", text), runs_dir=scratch())
    return torch.as_tensor(list(run.rows())[-1]["loss"])


def read_by_pyarrow(rows: int, columns: int) -> object:
    import pyarrow.csv

    return pyarrow.csv.read_csv(table_file(rows, columns))


# --- a memory map


@functools.cache
def array_file(samples: int) -> Path:
    path = scratch() / f"streamed-{samples}.npy"
    numpy.save(path, numpy.random.default_rng(0).normal(size=(samples, WIDTH)).astype(numpy.float32))
    return path


def streamed(samples: int, memory: int | None = None) -> Tensor:
    """Trains for one shuffled pass over a file that is read in parts; returns the weights."""
    text = f"""
data:
  points: {{columns: {{x: {array_file(samples).name}}}, batch_size: {STREAMED_BATCH}, shuffle: true}}
parameters:
  w: {{shape: [{WIDTH}], init: ones}}
expression: |
  loss = ((x @ w) ** 2).mean()
optimizer: {{sgd: {{lr: 0.001}}}}
steps: {{epochs: 1}}
log: {{include: [loss]}}
"""
    size = samples * WIDTH * 4
    limits = PlanLimits(memory=2 * size if memory is None else memory)  # over a quarter of the memory is streamed
    plan = runner.compile(runner.load(_config(f"streamed-{samples}", text)), limits=limits)
    assert plan.sources["points"].streams
    state = initial_state(plan)
    for _ in runner.execute(plan, state):
        pass
    return state.parameters["w"].detach()


def mapped_by_hand(samples: int) -> Tensor:
    """Trains for one shuffled pass over a memory map; returns the weights."""
    values = numpy.load(array_file(samples), mmap_mode="r")
    w = torch.ones(WIDTH, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.001)
    for chosen in torch.randperm(samples).split(STREAMED_BATCH):
        optimizer.zero_grad()
        loss = ((torch.from_numpy(values[chosen.numpy()]) @ w) ** 2).mean()
        loss.backward()
        optimizer.step()
        loss.item()
    return w.detach()


# --- evaluate


@functools.cache
def labelled(samples: int) -> dict[str, Tensor]:
    """Writes images and labels to two files, and returns them with the weights of a network."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(samples, 64, generator=generator), torch.arange(samples) % 10
    numpy.save(scratch() / f"images-{samples}.npy", images.numpy())
    numpy.save(scratch() / f"labels-{samples}.npy", labels.numpy())
    return {"images": images, "labels": labels}


def evaluated(samples: int, *, accuracy: bool = False) -> Tensor:
    """Evaluates a network with layers of 64, 128 and 10 on small batches.

    Returns:
        the loss, and with `accuracy` also the share of samples whose class is predicted: float64 `(1,)` or `(2,)`.
    """
    labelled(samples)
    columns = ["test.loss", *(["test.hits"] if accuracy else [])]
    text = f"""
data:
  test:
    columns: {{images: images-{samples}.npy, labels: labels-{samples}.npy}}
    batch_size: {EVALUATED_BATCH}
parameters:
  w1: {{shape: [128, 64], init: 0.01}}
  b1: {{shape: [128], init: zeros}}
  w2: {{shape: [10, 128], init: 0.01}}
  b2: {{shape: [10], init: zeros}}
expression: |
  scores = linear(relu(linear(images, w1, b1)), w2, b2)
  loss = cross_entropy(scores, labels)
{"metrics: {hits: 'accuracy(scores, labels)'}" if accuracy else ""}
steps: [evaluate: test]
log: {{include: [{", ".join(columns)}]}}
"""
    plan = runner.compile(runner.load(_config(f"evaluated-{samples}-{accuracy}", text)))
    *_, row = runner.execute(plan)
    return torch.stack([torch.as_tensor(row[name]).double() for name in columns])


def evaluated_by_hand(samples: int, *, accuracy: bool = False) -> Tensor:
    """The same as a loop with `torch.no_grad`."""
    images, labels = labelled(samples).values()
    w1, b1, w2, b2 = torch.full((128, 64), 0.01), torch.zeros(128), torch.full((10, 128), 0.01), torch.zeros(10)
    total, hits = 0.0, 0
    with torch.no_grad():
        for start in range(0, samples, EVALUATED_BATCH):
            x, y = images[start : start + EVALUATED_BATCH], labels[start : start + EVALUATED_BATCH]
            hidden = torch.relu(torch.nn.functional.linear(x, w1, b1))
            scores = torch.nn.functional.linear(hidden, w2, b2)
            total += cross_entropy(scores, y).item() * len(x)
            if accuracy:
                hits += int((scores.argmax(1) == y).sum().item())
    return torch.tensor([total / samples, *([hits / samples] if accuracy else [])], dtype=torch.float64)


# --- checkpoints


@functools.cache
def planned(weights: int) -> tuple[runner.Plan, Path]:
    """The plan of one large parameter, and a run directory for its checkpoints."""
    text = f"""
parameters:
  w: {{shape: [{weights // 1000}, 1000], init: ones}}
expression: |
  loss = w.sum()
optimizer: {{sgd: {{lr: 0.1}}}}
steps: [train]
log: {{tensors: none}}
"""
    plan = runner.compile(runner.load(_config(f"weights-{weights}", text)))
    return plan, create_run_directory(scratch(), plan.name, datetime.now())


@functools.cache
def tensor(weights: int) -> Tensor:
    return torch.ones(weights // 1000, 1000)


_state = functools.cache(lambda weights: initial_state(planned(weights)[0]))
_checkpoint = functools.cache(lambda weights: save(weights))


def save(weights: int) -> Path:
    plan, directory = planned(weights)
    return save_checkpoint(plan, _state(weights), directory, "large")


def save_by_safetensors(weights: int) -> Path:
    """Saves the same tensor, and waits for the disk as a checkpoint does."""
    from safetensors.torch import save_file

    path = scratch() / f"weights-{weights}.safetensors"
    save_file({"w": tensor(weights)}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def load(weights: int) -> Tensor:
    plan, _ = planned(weights)
    state = _state(weights)
    load_checkpoint(plan, state, _checkpoint(weights))
    return state.parameters["w"].detach()


_saved_by_safetensors = functools.cache(lambda weights: save_by_safetensors(weights))


def load_by_safetensors(weights: int) -> Tensor:
    """Loads the same tensor into memory of its own, as a parameter needs it: `load_file` alone only maps the file."""
    from safetensors.torch import load_file

    return load_file(_saved_by_safetensors(weights))["w"].clone()


def only_state(weights: int) -> None:
    _state(weights)


def _peak(function: Callable[[int], object], weights: int) -> int:
    program = PEAK_PROGRAM.format(function=function.__name__)
    return peak_of([sys.executable, "-c", program, str(weights)])


# --- all of them


def workloads() -> list[Workload]:
    part, pyarrow = functools.partial, "pyarrow reading it"
    read = f"a CSV file of {ROWS:,} rows and {COLUMNS} columns: planned, and one step run"
    pass_over = f"a streamed `.npy` file of {STREAMED:,} samples, shuffled, batches of {STREAMED_BATCH:,}"
    evaluation = f"`evaluate` of {EVALUATED:,} samples in batches of {EVALUATED_BATCH}"
    checkpoint = f"a checkpoint of {WEIGHTS * 4 // 10**6} MB"
    trained, by_pyarrow = part(trained_on_table, columns=COLUMNS), part(read_by_pyarrow, columns=COLUMNS)
    batches, evaluated_batches = STREAMED // STREAMED_BATCH, EVALUATED // EVALUATED_BATCH
    synced, copied = "safetensors, synced", "safetensors, copied from its map"
    return [
        growing(NAME, read, pyarrow, trained, by_pyarrow, ROWS, 2.0),
        growing(
            NAME,
            f"{NAMED:,} named columns of a CSV file of {NAMED_ROWS:,} rows",
            pyarrow,
            part(trained_on_table, NAMED_ROWS),
            part(read_by_pyarrow, NAMED_ROWS),
            NAMED,
            None,
        ),
        growing(NAME, pass_over, "a memory map by hand", streamed, mapped_by_hand, STREAMED, 1.3, steps=batches),
        *(
            growing(
                NAME,
                f"{evaluation}{more}",
                "a loop with `torch.no_grad`",
                part(evaluated, accuracy=accuracy),
                part(evaluated_by_hand, accuracy=accuracy),
                EVALUATED,
                reach,
                steps=evaluated_batches,
            )
            for more, accuracy, reach in (("", False, 1.1), (", with `accuracy`", True, 1.3))
        ),
        growing(NAME, f"{checkpoint}: saved", synced, save, save_by_safetensors, WEIGHTS, 2.0),
        growing(NAME, f"{checkpoint}: loaded", copied, load, load_by_safetensors, WEIGHTS, 2.0),
        Workload(
            NAME,
            f"{checkpoint}: saved and loaded",
            "the state alone",
            part(_peak, load, WEIGHTS),
            part(_peak, only_state, WEIGHTS),
            reach=64.0,
            measure="more memory",
        ),
    ]
