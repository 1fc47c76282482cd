"""W11: values of a trained run over a Parquet file, and the same by a loop over its batches.

The environment variable `STEPRUN_APPLY_ROWS` sets the number of rows.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file

import runner
from benchmarks.measure import Workload, scratch
from runner.record.apply.applying import MOST_SAMPLES, Request, apply

ROWS = int(os.environ.get("STEPRUN_APPLY_ROWS", "1_000_000"))
GROUP = 1 << 20
FEATURES = [f"f{number}" for number in range(8)]

CONFIG = f"""\
name: apply
parameters:
  w1: {{shape: [8, 64], init: kaiming_uniform}}
  b1: {{shape: [64], init: zeros}}
  w2: {{shape: [64, 3], init: kaiming_uniform}}
data:
  train: {{file: train.parquet, columns: {{x: [{", ".join(FEATURES)}], y: y}}, batch_size: 200}}
constants:
  mean: {{init: {{expression: train.x.mean(0)}}}}
  std: {{init: {{expression: train.x.std(0)}}}}
expression: |
  h = relu((x - mean) / std @ w1 + b1)
  logits = h @ w2
  probabilities = softmax(logits, -1)
  label = argmax(logits, -1)
  loss = cross_entropy(logits, y)
optimizer: {{sgd: {{lr: 0.1}}}}
steps: {{epochs: 2}}
"""


def write(path: Path, rows: int) -> None:
    random = numpy.random.default_rng(0)
    writer = None
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        columns = {name: random.normal(size=count).astype(numpy.float32) for name in FEATURES}
        numbers = {"y": random.integers(0, 3, count), "id": numpy.arange(start, start + count)}
        table = pyarrow.table(columns | numbers)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


@functools.cache
def trained() -> Path:
    """Trains the run, writes the new file, and returns the run directory."""
    folder = scratch() / "apply"
    folder.mkdir()
    write(folder / "train.parquet", 2_000)
    write(folder / "new.parquet", ROWS)
    (folder / "apply.yaml").write_text(CONFIG, encoding="utf-8")
    return runner.run(folder / "apply.yaml", runs_dir=folder / "runs").path


def ours() -> None:
    run = trained()
    folder = run.parents[2]
    data = f"train.file={folder / 'new.parquet'}"
    request = Request(("probabilities", "label"), str(folder / "ours.parquet"), (data,), ("id",), force=True)
    assert apply(run, request, warn=print) == ROWS


def theirs() -> None:
    run = trained()
    folder = run.parents[2]
    weights, fitted = load_file(run / "weights.safetensors"), load_file(run / "fitted.safetensors")
    writer = None
    file = pyarrow.parquet.ParquetFile(folder / "new.parquet")
    with torch.no_grad():
        for batch in file.iter_batches(MOST_SAMPLES, columns=[*FEATURES, "id"]):
            x = torch.from_numpy(numpy.stack([batch.column(name).to_numpy() for name in FEATURES], 1))
            h = torch.relu((x - fitted["mean"]) / fitted["std"] @ weights["w1"] + weights["b1"])
            logits = h @ weights["w2"]
            probabilities, label = torch.softmax(logits, -1), torch.argmax(logits, -1)
            lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(probabilities.numpy().ravel()), 3)
            arrays = [batch.column("id"), lists, pyarrow.array(label.numpy())]
            made = pyarrow.RecordBatch.from_arrays(arrays, ["id", "probabilities", "label"])
            writer = writer or pyarrow.parquet.ParquetWriter(folder / "theirs.parquet", made.schema)
            writer.write_batch(made)
    assert writer is not None
    writer.close()


def verify() -> None:
    ours()
    theirs()
    folder = trained().parents[2]
    left, right = (pyarrow.parquet.read_table(folder / f"{side}.parquet") for side in ("ours", "theirs"))
    assert left.equals(right)


def workloads() -> list[Workload]:
    what = f"`steprun apply` to {ROWS:,} rows of Parquet, two layers, probabilities and labels to Parquet"
    against = "a loop over batches of the file with the same operations"
    return [Workload("W11", what, against, ours, theirs, reach=1.10, verify=verify)]
