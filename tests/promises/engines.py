"""A config that every engine of the CPU takes, for the promises that all of them keep."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy
import pytest

import runner
from runner.engine.rows import Row

ENGINES = (
    "eager",
    pytest.param(
        "compile",
        marks=[
            pytest.mark.slow,
            pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's
        ],
    ),
    pytest.param(
        "xla",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX"),
        ],
    ),
)

ROWS = 31
CONFIG = """\
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


def points() -> tuple[numpy.ndarray, numpy.ndarray]:
    """The data: `x` (18, 4) and `y` (18)."""
    random = numpy.random.default_rng(0)
    return random.normal(size=(18, 4)).astype("float32"), random.normal(size=18).astype("float32")


def written(folder: Path, engine: str, text: str = CONFIG) -> Path:
    """The config and its data in a folder."""
    x, y = points()
    numpy.savez(folder / "points.npz", x=x, y=y)
    path = folder / f"{engine}.yaml"
    path.write_text(f"engine: {engine}\n{text}", encoding="utf-8")
    return path


def shorten_regions(patch: pytest.MonkeyPatch, engine: str) -> None:
    """Regions of eight iterations."""
    if engine == "compile":
        patch.setattr("runner.engine.compiled.machine_code.LONGEST", 8)
    if engine == "xla":
        patch.setattr("runner.engine.xla.translated.MOST_AT_ONCE", 8)


def rows(path: Path) -> list[Row]:
    return list(runner.execute(runner.compile(runner.load(path))))
