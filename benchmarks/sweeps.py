"""W8 and W9: many small runs of one config as lanes of one computation, recorded."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import runner
from benchmarks import digits, linear, startup
from benchmarks.measure import Workload, scratch
from benchmarks.training import DATA_FOLDER
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import Outcome
from runner.sweep.running import How, run_sweep, start_sweep

POINTS, STEPS = 1000, 100
NETWORKS, EPOCHS = 64, 5


class Nobody:
    """Follows a sweep, and says nothing."""

    def begun(self, index: int) -> None:
        """Ignore it."""

    def known(self, outcomes: Sequence[Outcome]) -> None:
        """Ignore it."""

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Ignore it."""


def sweep(config: Path, overrides: Sequence[str], axes: Mapping[str, Sequence[Any]], lanes: str) -> dict[int, Outcome]:
    """Plans a sweep, runs it with one job, and records it."""
    how = How(jobs=1, allowed=(DATA_FOLDER,), lanes=lanes)
    loaded = runner.load(config, overrides, allowed_folders=[DATA_FOLDER])
    plan = plan_sweep(loaded, axes, allowed=how.allowed)
    return run_sweep(start_sweep(loaded, plan, axes, scratch(), how), plan, how, Nobody())


def linear_points() -> dict[int, Outcome]:
    rates = [0.001 + 1e-5 * point for point in range(POINTS)]
    return sweep(linear.CONFIG, [f"steps={STEPS}"], {"learning_rate": rates}, "exact")


def linear_by_hand() -> None:
    for _ in range(POINTS):
        linear.by_hand(STEPS)


def networks(lanes: str) -> dict[int, Outcome]:
    return sweep(digits.CONFIG, [f"steps.epochs={EPOCHS}"], {"seed": range(NETWORKS)}, lanes)


def networks_by_hand() -> None:
    for _ in range(NETWORKS):
        digits.by_hand(EPOCHS)


def whole_process() -> None:
    rates = f"learning_rate=linspace(0.001, 0.01, {POINTS})"
    with tempfile.TemporaryDirectory() as folder:
        startup.process(startup.COMMAND, "sweep", linear.CONFIG, f"steps={STEPS}", rates, "--sweeps-dir", folder)


def verify() -> None:
    outcomes = linear_points()
    assert all(outcomes[point].alone == "" for point in range(POINTS)), "some points are not lanes"
    assert all(outcomes[point].rows == STEPS + 1 for point in range(POINTS)), "some points have other rows"


def workloads() -> list[Workload]:
    points = f"{POINTS:,} points of configs/linear.yaml, {STEPS} steps, everything to Parquet"
    nets = f"{NETWORKS} networks of W3, {EPOCHS} epochs, losses recorded"
    hand = "hand-written loop, one after another"
    torch_alone = functools.partial(startup.process, sys.executable, "-c", "import torch")
    return [
        Workload("W8", points, hand, linear_points, linear_by_hand, reach=0.10, steps=POINTS, verify=verify),
        Workload(
            "W8p",
            f"the whole process of `steprun sweep`: {points}",
            "python -c 'import torch'",
            whole_process,
            torch_alone,
            reach=4.0,
            measure="difference",
        ),
        Workload(
            "W9",
            f"{nets}, `--lanes close`",
            hand,
            functools.partial(networks, "close"),
            networks_by_hand,
            reach=0.50,
            steps=NETWORKS,
        ),
        Workload(
            "W9x",
            f"{nets}, `--lanes exact`",
            hand,
            functools.partial(networks, "exact"),
            networks_by_hand,
            reach=None,
            steps=NETWORKS,
        ),
    ]
