"""W6 and W6u: checking many small snapshots in one process, and measuring the uncertainty of one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from benchmarks.measure import Workload
from runner.compare.snapshots.capture import plan_of
from runner.compare.snapshots.checking import Request, Target, check
from runner.compare.snapshots.many import check_all
from runner.compare.snapshots.targets import collect
from runner.compare.uncertainty.measuring import measure
from runner.engine import execute

CONFIG = Path(__file__).parents[1] / "configs" / "linear.yaml"
COUNT = 200


@functools.cache
def folder() -> Path:
    """Creates a folder of configs that differ in one initial value, each with its snapshot."""
    path = Path(tempfile.mkdtemp(prefix="steprun-checks-"))
    text = CONFIG.read_text(encoding="utf-8")
    for number in range(COUNT):
        config = path / f"linear-{number:03}.yaml"
        config.write_text(text.replace("init: 100}", f"init: {100 + number}}}").replace("99.9", f"{99.9 + number:.1f}"))
        target = Target(str(config), str(path / "snapshots" / f"{config.stem}.yaml"))
        assert check(target, Request("new", runs=3)).status == "written"
    return path


def checked() -> None:
    outcomes = list(check_all(collect([str(folder())]), Request()))
    assert [outcome.status for outcome in outcomes] == ["holds"] * COUNT


def planned_and_run() -> None:
    for config in sorted(folder().glob("*.yaml")):
        for _ in execute(plan_of(config)):
            pass


TRAINING = CONFIG.parent / "digits.yaml"
RUNS = 8


def measured() -> None:
    plan = plan_of(TRAINING)
    assert measure(plan, list(execute(plan)), runs=RUNS, budget=1e9).runs == RUNS


def run_plainly() -> None:
    for _ in range(RUNS + 1):
        for _row in execute(plan_of(TRAINING)):
            pass


def workloads() -> list[Workload]:
    return [
        Workload(
            "W6",
            f"check of {COUNT} small snapshots",
            "planning and running them",
            checked,
            planned_and_run,
            reach=10.0,
            measure="each",
            steps=COUNT,
        ),
        Workload(
            "W6u",
            f"configs/digits.yaml: a snapshot's run and {RUNS} perturbed ones",
            f"{RUNS + 1} plain runs",
            measured,
            run_plainly,
            reach=7.0,
        ),
    ]
