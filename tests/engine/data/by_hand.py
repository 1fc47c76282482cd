"""A config that reads two sources of data, and its loop by hand."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch

import runner

X = torch.from_numpy(numpy.random.default_rng(0).normal(size=(12, 3)).astype("float32"))

Y = torch.from_numpy(numpy.random.default_rng(1).integers(0, 4, 12))

START = (torch.arange(12.0).reshape(3, 4) - 6) / 20

HEAD = """
parameters:
  w: {shape: [3, 4], init: {expression: "(arange(12.0).reshape(3, 4) - 6) / 20"}}
expression: |
  scores = x @ w
  loss = cross_entropy(scores, y)
metrics:
  accuracy: (scores.argmax(1) == y).to(float32).mean()
"""

SGD = "optimizer: {sgd: {lr: 0.5, momentum: 0.9}}\n"


def with_arrays(tmp_path: Path) -> Path:
    """The folder, with a file for each of the sources."""
    numpy.savez(tmp_path / "all.npz", x=X.numpy(), y=Y.numpy())
    numpy.savez(tmp_path / "part.npz", x=X[:7].numpy() * 2, y=Y[:7].numpy())
    return tmp_path


def data(train: str = "batch_size: 4", test: str = "batch_size: 3") -> str:
    columns = "columns: {x: x, y: y}"
    return f"data:\n  train: {{file: all.npz, {columns}, {train}}}\n  test: {{file: part.npz, {columns}, {test}}}\n"


def of(rows: list[runner.Row], step: str) -> list[runner.Row]:
    return [row for row in rows if row.step == step]
