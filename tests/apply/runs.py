"""A small trained run, and the same model by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import torch
from safetensors.torch import load_file
from torch import Tensor

import runner

CONFIG = """\
name: wine
parameters:
  w1: {shape: [features, 6], init: kaiming_uniform}
  w2: {shape: [6, 3], init: kaiming_uniform}
data:
  train: {file: train.csv, columns: {x: [a, b], y: y}, batch_size: 10, shuffle: true, drop_last: true}
  valid: {file: train.csv, columns: {x: [a, b], y: y}, batch_size: 7}
constants:
  features: train.x.shape[1]
  mean: {init: {expression: train.x.mean(0)}}
  std: {init: {expression: train.x.std(0)}}
  weights: {init: {expression: "len(train.y) / (3.0 * bincount(train.y))"}}
expression: |
  h = relu((x - mean) / std @ w1)
  logits = dropout(h, 0.5, training) @ w2
  probabilities = softmax(logits, -1)
  label = argmax(logits, -1)
  centred = logits - logits.mean(0)
  pair = max(logits, 1)
  noisy = logits + randn(logits.shape)
  loss = cross_entropy(logits, y, weight=weights)
metrics: {sure: probabilities.amax(-1)}
optimizer: {sgd: {lr: 0.1}}
steps: {epochs: 3}
"""

ROWS = 53


def table(rows: int = ROWS, seed: int = 0) -> dict[str, numpy.ndarray]:
    random = numpy.random.default_rng(seed)
    return {
        "id": numpy.arange(rows) + 1000,
        "a": random.normal(3, 2, rows),
        "b": random.normal(-1, 5, rows),
        "y": numpy.arange(rows) % 3,
    }


def write(path: Path, columns: Mapping[str, object], row_group: int = 1 << 20) -> Path:
    """Writes a table as .csv or .parquet."""
    made = pyarrow.table(dict(columns))
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(made, path)
    else:
        pyarrow.parquet.write_table(made, path, row_group_size=row_group)
    return path


def trained(folder: Path, config: str = CONFIG) -> runner.Run:
    write(folder / "train.csv", table())
    (folder / "wine.yaml").write_text(config, encoding="utf-8")
    return runner.run(folder / "wine.yaml", runs_dir=folder / "runs")


def by_hand(run: runner.Run, x: Tensor) -> dict[str, Tensor]:
    """The values of the run for a batch, by the weights in its directory."""
    weights = load_file(run.path / "weights.safetensors")
    train = table()
    columns = numpy.stack([train["a"], train["b"]], 1).astype(numpy.float32).astype(numpy.float64)
    mean = torch.from_numpy(columns.mean(0)).float()
    std = torch.from_numpy(columns.std(0, ddof=1)).float()
    logits = torch.relu((x - mean) / std @ weights["w1"]) @ weights["w2"]
    return {"logits": logits, "probabilities": torch.softmax(logits, -1), "label": logits.argmax(-1)}


def samples(columns: Mapping[str, numpy.ndarray]) -> Tensor:
    return torch.from_numpy(numpy.stack([columns["a"], columns["b"]], 1)).float()


NEW = 300


def without_target(rows: int = NEW, seed: int = 1) -> dict[str, numpy.ndarray]:
    return {name: column for name, column in table(rows, seed).items() if name != "y"}
