"""P8: the 1,000 runs of W8 by other libraries, each measured if it is installed. W8j: two processes against one."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import runner
from benchmarks import linear, sweeps
from benchmarks.measure import Workload, scratch
from runner.sweep.planning import plan_sweep
from runner.sweep.running import How, run_sweep, start_sweep

NAMES = ("P8",)
TRIALS = 100
"""The runs of each peer; its time is scaled to those of W8."""

POOL_POINTS, POOL_STEPS = 64, 2000


def rates(count: int) -> list[float]:
    """The first learning rates of W8."""
    return [0.001 + 1e-5 * point for point in range(count)]


def final(rate: float) -> float:
    """Train by hand for the steps of W8 at one rate, and return the last weight."""
    x1, x2, x3 = (torch.tensor([value], requires_grad=True) for value in (100.0, 200.0, 300.0))
    constant = torch.tensor([30.0])
    optimizer = torch.optim.SGD([x1, x2, x3], lr=rate)
    for _ in range(sweeps.STEPS):
        optimizer.zero_grad()
        f = 10 * x1 + 20 * x2 + constant * x3
        f.backward()
        optimizer.step()
    return x3.item()


def optuna_runs() -> list[float]:
    """Optuna in memory, with its sampler of a grid."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.GridSampler({"rate": rates(TRIALS)}, seed=0)
    study = optuna.create_study(sampler=sampler)
    found: dict[float, float] = {}

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("rate", 0.0, 1.0)
        found[rate] = final(rate)
        return found[rate]

    study.optimize(objective, n_trials=TRIALS)
    return [found[rate] for rate in rates(TRIALS)]


def joblib_runs() -> list[float]:
    """Joblib with a process for each core; they stay between calls."""
    import joblib

    workers = joblib.Parallel(n_jobs=os.cpu_count())
    return list(workers(joblib.delayed(final)(rate) for rate in rates(TRIALS)))


def hydra_runs() -> list[float]:
    """Hydra's multirun in one process, with its directory and log for each run."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    found: list[float] = []

    def task(config: DictConfig) -> None:
        found.append(final(float(config.rate)))

    words = [
        "benchmark",
        "--multirun",
        f"+rate={','.join(map(repr, rates(TRIALS)))}",
        f"hydra.sweep.dir={scratch()}/hydra",
    ]
    GlobalHydra.instance().clear()
    with mock.patch.object(sys, "argv", words), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        hydra.main(version_base=None, config_path=None)(task)()
    return found


@dataclass(frozen=True, slots=True)
class SweepPeer:
    """Another library that runs many trials: its module, and the runs, each of which returns its last weight."""

    name: str
    module: str
    runs: Callable[[], Sequence[float]]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


PEERS = (
    SweepPeer("Optuna in memory", "optuna", optuna_runs),
    SweepPeer("joblib", "joblib", joblib_runs),
    SweepPeer("Hydra", "hydra", hydra_runs),
)


def verify(peer: SweepPeer) -> None:
    """Check that a peer computes what the loop by hand does."""
    assert list(peer.runs()) == [final(rate) for rate in rates(TRIALS)], f"{peer.name} computes other weights"


def pool(jobs: int) -> None:
    """A sweep without lanes in a pool of processes."""
    config = runner.load(linear.CONFIG, [f"steps={POOL_STEPS}"])
    plan = plan_sweep(config, {"learning_rate": rates(POOL_POINTS)})
    how = How(jobs=jobs, lanes="off")
    run_sweep(start_sweep(config, plan, {}, Path(scratch()), how), plan, how, sweeps.Nobody())


def workloads() -> list[Workload]:
    """The runs of each installed peer against the lanes of W8, and the pool of processes."""
    what = f"{sweeps.POINTS:,} points of configs/linear.yaml, {sweeps.STEPS} steps, everything to Parquet"
    found = [
        Workload(
            "P8",
            what,
            f"{peer.name}, {TRIALS} runs, scaled",
            sweeps.linear_points,
            peer.runs,
            reach=None,
            steps=sweeps.POINTS,
            verify=functools.partial(verify, peer),
            share=TRIALS / sweeps.POINTS,
        )
        for peer in PEERS
        if peer.installed
    ]
    points = f"{POOL_POINTS} points of configs/linear.yaml, {POOL_STEPS:,} steps, `--lanes off --jobs 2`"
    one, two = functools.partial(pool, 1), functools.partial(pool, 2)
    return [*found, Workload("W8j", points, "`--jobs 1`", two, one, reach=1 / 1.8, steps=POOL_POINTS)]
