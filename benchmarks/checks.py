"""W6: many small snapshots checked in one process, against planning and running the same configs."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from benchmarks.measure import Workload
from runner.compare.checking import Request, Target, check
from runner.compare.collecting import collect
from runner.compare.many import check_all
from runner.compare.taking import plan_of
from runner.engine import execute

CONFIG = Path(__file__).parents[1] / "configs" / "linear.yaml"
COUNT = 200


@functools.cache
def folder() -> Path:
    """A folder of configs that differ in one number, each with its snapshot."""
    path = Path(tempfile.mkdtemp(prefix="steprun-checks-"))
    text = CONFIG.read_text(encoding="utf-8")
    for number in range(COUNT):
        config = path / f"linear-{number:03}.yaml"
        config.write_text(text.replace("init: 100}", f"init: {100 + number}}}").replace("99.9", f"{99.9 + number:.1f}"))
        target = Target(str(config), str(path / "snapshots" / f"{config.stem}.yaml"))
        assert check(target, Request("new")).status == "written"
    return path


def checked() -> None:
    outcomes = list(check_all(collect([str(folder())]), Request()))
    assert [outcome.status for outcome in outcomes] == ["holds"] * COUNT


def planned_and_run() -> None:
    for config in sorted(folder().glob("*.yaml")):
        for _ in execute(plan_of(config)):
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
        )
    ]
