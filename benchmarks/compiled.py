"""W1c, W3c and W4c: W1, W3 and W4 under `engine: compile`, with compilation time reported separately."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from benchmarks import digits, linear, transformer
from benchmarks.measure import Compiled, Workload, scratch
from benchmarks.training import DATA_FOLDER, losses, plan
from runner.record.directory import create_run_directory
from runner.record.running import run_recorded

STEPS = 200_000


def compiled(config: Path, *overrides: str, engine: str = "compile") -> Compiled:
    """Runs and records a config under a compiling engine; returns the seconds spent compiling."""
    seconds: list[float] = []

    def note_seconds(path: str, taken: float | None) -> None:
        if taken is not None:
            seconds.append(taken)

    made = plan(config, f"engine={engine}", *overrides)
    run_recorded(made, create_run_directory(scratch(), made.name, datetime.now()), compiling=note_seconds)
    return Compiled(sum(seconds))


def near(config: Path, by_hand: Callable[[], list[float]], engine: str = "compile") -> None:
    """Asserts that the losses of both sides agree to a relative 1e-3."""
    pairs = zip(losses(config, f"engine={engine}"), by_hand(), strict=True)
    worst = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
    assert worst < 1e-3, f"the losses of both sides differ by {worst:.1e}"


FIRST_ROW = """\
import itertools, sys
import torch
torch.set_num_threads(1)
import runner
from pathlib import Path
from runner.engine.compiled import machine_code
config, folder, as_torch, *overrides = sys.argv[1:]
if as_torch == "True":
    machine_code.compile_quickly = lambda compile_now: compile_now()
config = runner.load(config, ["engine=compile", *overrides], allowed_folders=[folder])
plan = runner.compile(config, allowed=[Path(folder)])
print([row.path for row in itertools.islice(runner.execute(plan), 2)])
"""


def first_row(config: Path, *overrides: str, as_torch: bool) -> None:
    """Runs a process until it has the row of the first `train` step, with nothing compiled before.

    Args:
        as_torch: whether torch probes the compiler, and compiles its header first, as it does by default.
    """
    command = [sys.executable, "-c", FIRST_ROW, str(config), str(DATA_FOLDER), str(as_torch), *overrides]
    with tempfile.TemporaryDirectory() as folder:
        empty = {"TMPDIR": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"}
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=os.environ | empty)


def _cold() -> Iterator[Workload]:
    for name, config, *overrides in (("W1c", linear.CONFIG, f"steps={STEPS}"), ("W3c", digits.CONFIG)):
        first = functools.partial(first_row, config, *overrides)
        what = f"{config.name}: a process until its first row of `train`, `engine: compile`, empty caches"
        quick, usual = functools.partial(first, as_torch=False), functools.partial(first, as_torch=True)
        yield Workload(name, what, "with torch's probes and header", quick, usual, reach=0.5)


def workloads() -> list[Workload]:
    parts = (
        ("W3c", digits, "hand-written loop", 0.30),
        ("W4c", transformer, "the same as an `nn.Module`", 1.0),
    )
    what = f"configs/linear.yaml, {STEPS:,} `train` steps, `engine: compile`, every gradient and weight to Parquet"
    return [
        Workload(
            "W1c",
            what,
            "hand-written loop, no logging",
            functools.partial(compiled, linear.CONFIG, f"steps={STEPS}"),
            functools.partial(linear.by_hand, STEPS),
            reach=0.08,
            steps=STEPS,
        ),
        *(
            Workload(
                name,
                f"{of.workloads()[0].what}, `engine: compile`",
                against,
                functools.partial(compiled, of.CONFIG),
                of.by_hand,
                reach=reach,
                steps=of.STEPS,
                verify=functools.partial(near, of.CONFIG, of.by_hand),
            )
            for name, of, against, reach in parts
        ),
        *_cold(),
    ]
