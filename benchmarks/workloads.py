"""All workloads, each measured in its own process."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks import (
    applying,
    checks,
    compiled,
    costs,
    digits,
    growth,
    linear,
    memory,
    parameter,
    peers,
    reports,
    startup,
    sweep_peers,
    sweeps,
    transformer,
    translated,
)
from benchmarks.measure import Result, Workload, measured

_GROUPS = (
    linear.workloads,
    parameter.workloads,
    digits.workloads,
    transformer.workloads,
    compiled.workloads,
    translated.workloads,
    startup.workloads,
    checks.workloads,
    memory.workloads,
    sweeps.workloads,
    applying.workloads,
    reports.workloads,
    growth.workloads,
    costs.workloads,
    peers.workloads,
    sweep_peers.workloads,
)

Figures = tuple[tuple[float, ...], ...]


def workloads() -> list[Workload]:
    return [workload for group in _GROUPS for workload in group()]


def results(names: Collection[str], repeats: int) -> Iterator[Result]:
    """Measures the workloads with these names and yields their results.

    Each workload has its own process, as a run has: what another leaves in the allocator changes figures by a tenth.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache = tempfile.mkdtemp(prefix="steprun-benchmarks-")  # empty at first
    atexit.register(shutil.rmtree, cache)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        for number, workload in enumerate(workloads()):
            if workload.name in names:
                print(f"{workload.name}: {workload.what} …", file=sys.stderr, flush=True)
                yield Result(workload, *processes.submit(_figures, number, repeats).result())


def _figures(number: int, repeats: int) -> Figures:
    torch.set_num_threads(1)
    result = measured(workloads()[number], repeats)
    return result.ours, result.theirs, result.compilation, result.tenth
