"""W1c, W3c and W4c: W1, W3 and W4 under `engine: compile`, with compilation time reported separately."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks import digits, linear, transformer
from benchmarks.measure import Compiled, Workload, scratch
from benchmarks.training import losses, plan
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
    ]
