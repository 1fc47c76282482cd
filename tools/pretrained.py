"""Trains a small network to read `configs/data/digits.npz`, and writes its weights to `configs/data`.

    python -m tools.pretrained

`configs/fine-tune-from-run.yaml` starts from these weights.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import runner

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "data"
NAME = "pretrained-digits.safetensors"
CONFIG = """\
name: pretrained-digits
seed: 5
parameters:
  w1: {shape: [64, 32], init: kaiming_normal}
  b1: {shape: [32], init: zeros}
  w2: {shape: [32, 10], init: xavier_normal}
  b2: {shape: [10], init: zeros}
data:
  train: {file: digits.npz, columns: {images: images, labels: labels}, dtype: {images: float32}, batch_size: 128,
          shuffle: true}
expression: |
  scores = relu(images.flatten(1) / 16 @ w1 + b1) @ w2 + b2
  loss = cross_entropy(scores, labels)
optimizer: {adam: {lr: 0.01}}
steps: {epochs: 12}
"""


def write(folder: Path) -> None:
    """Writes the weights into `folder`."""
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "pretrained-digits.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        shutil.copy(FOLDER / "digits.npz", name)
        run = runner.run(config, runs_dir=Path(name) / "runs")
        shutil.copy(run.weights.path, folder / NAME)


if __name__ == "__main__":
    write(FOLDER)
