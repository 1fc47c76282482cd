"""Time two sides alternately and compare their medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

LEAST_REPEATS = 7


@dataclass(frozen=True, slots=True)
class Workload:
    """Two sides of one comparison, each a function that does its work and is timed as a whole."""

    name: str
    what: str
    against: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    reach: float  # the most that `measure` may be
    measure: Literal["ratio", "difference", "each"] = "ratio"  # of the medians; a difference is in seconds
    steps: int | None = None  # times are told a step where a run has steps


@dataclass(frozen=True, slots=True)
class Result:
    workload: Workload
    ours: tuple[float, ...]  # seconds
    theirs: tuple[float, ...]

    @property
    def value(self) -> float:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        if self.workload.measure == "each":  # of our steps, in milliseconds
            assert self.workload.steps is not None
            return ours / self.workload.steps * 1e3
        return ours / theirs if self.workload.measure == "ratio" else ours - theirs

    @property
    def reached(self) -> bool:
        return self.value <= self.workload.reach


def measured(workload: Workload, repeats: int) -> Result:
    """Run both sides once unmeasured, then `repeats` times each, alternating and changing which goes first."""
    sides: dict[str, list[float]] = {"ours": [], "theirs": []}
    workload.theirs()
    workload.ours()
    for repeat in range(repeats):
        order = ("ours", "theirs") if repeat % 2 else ("theirs", "ours")
        for side in order:
            sides[side].append(_seconds(workload.ours if side == "ours" else workload.theirs))
    return Result(workload, tuple(sides["ours"]), tuple(sides["theirs"]))


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def table(results: list[Result]) -> Iterator[str]:
    """The results as a Markdown table, columns aligned."""
    rows = [("", "what", "steprun", "against", "", "measured", "reach", "")]
    rows += [_cells(result) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        if number == 0:
            yield "| " + " | ".join("-" * max(3, width) for width in widths) + " |"


def _cells(result: Result) -> tuple[str, ...]:
    workload = result.workload
    sign = "+" if workload.measure == "difference" else ""
    unit = {"ratio": "", "difference": " s", "each": " ms"}[workload.measure]
    return (
        workload.name,
        workload.what,
        _time(result.ours, workload.steps),
        workload.against,
        _time(result.theirs, workload.steps),
        f"{result.value:{sign}.2f}{unit}",
        f"≤ {workload.reach:{sign}.2f}{unit}",
        "reached" if result.reached else "not reached",
    )


def _time(seconds: tuple[float, ...], steps: int | None) -> str:
    median = statistics.median(seconds)
    if steps is not None and median / steps < 1e-3:
        return f"{median / steps * 1e6:.1f} µs a step"
    return f"{median / steps * 1e3:.2f} ms a step" if steps is not None else f"{median:.3f} s"
