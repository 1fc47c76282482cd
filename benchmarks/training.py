"""The steprun side of a workload that trains a network, and what the hand-written side needs from it."""

from __future__ import annotations

from pathlib import Path

import torch

import runner
from benchmarks.measure import scratch
from runner.engine import initial_state

DATA_FOLDER = Path(__file__).parents[1] / "configs" / "data"


def train(config: Path) -> None:
    """Runs a config and records it."""
    runner.run(config, runs_dir=scratch(), allowed_folders=[DATA_FOLDER])


def losses(config: Path, *overrides: str) -> list[float]:
    """Returns the `loss` of every step of a config."""
    found = [row["loss"] for row in runner.execute(plan(config, *overrides))]
    return [loss.item() for loss in found if loss is not None]


def start(config: Path) -> dict[str, torch.Tensor]:
    """Returns the initial weights of a config."""
    return {name: weight.detach() for name, weight in initial_state(plan(config)).parameters.items()}


def plan(config: Path, *overrides: str) -> runner.Plan:
    return runner.compile(runner.load(config, overrides, allowed_folders=[DATA_FOLDER]), allowed=[DATA_FOLDER])
