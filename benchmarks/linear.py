"""W1 and W1h: the notebook's linear expression for 10,000 training steps, with a full log."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

import runner
from benchmarks.measure import Workload, scratch

STEPS = 10_000
CONFIG = Path(__file__).parents[1] / "configs" / "linear.yaml"


def steprun() -> None:
    runner.run(CONFIG, overrides=[f"steps={STEPS}"], runs_dir=scratch())


def by_hand(steps: int = STEPS) -> tuple[torch.Tensor, ...]:
    """Runs a typical hand-written loop without logging."""
    x1, x2, x3, constant = _tensors()
    optimizer = torch.optim.SGD([x1, x2, x3], lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        f = 10 * x1 + 20 * x2 + constant * x3
        f.backward()
        optimizer.step()
    return x1, x2, x3


def forward_and_backward() -> None:
    """Runs the minimum of any loop: forward and backward."""
    x1, x2, x3, constant = _tensors()
    for _ in range(STEPS):
        f = 10 * x1 + 20 * x2 + constant * x3
        f.backward()


def by_hand_with_json() -> None:
    """Runs the same loop and writes all weights and gradients after each step as one line of JSON."""
    x1, x2, x3, constant = _tensors()
    optimizer = torch.optim.SGD([x1, x2, x3], lr=0.01)
    with tempfile.TemporaryFile("w") as log:
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            f = 10 * x1 + 20 * x2 + constant * x3
            f.backward()
            optimizer.step()
            row = {
                "step": step,
                "f": f.tolist(),
                "x1": x1.tolist(),
                "x2": x2.tolist(),
                "x3": x3.tolist(),
                "x1.grad": x1.grad.tolist(),
                "x2.grad": x2.grad.tolist(),
                "x3.grad": x3.grad.tolist(),
            }
            log.write(json.dumps(row) + "\n")


def _tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.tensor([100], dtype=torch.float, requires_grad=True),
        torch.tensor([200], dtype=torch.float, requires_grad=True),
        torch.tensor([300], dtype=torch.float, requires_grad=True),
        torch.tensor([30], dtype=torch.float),
    )


def workloads() -> list[Workload]:
    what = f"configs/linear.yaml, {STEPS:,} `train` steps, every gradient and weight to Parquet"
    return [
        Workload("W1", what, "hand-written loop, no logging", steprun, by_hand, reach=0.75, steps=STEPS),
        Workload("W1h", what, "hand-written loop, JSON lines", steprun, by_hand_with_json, reach=0.60, steps=STEPS),
    ]
