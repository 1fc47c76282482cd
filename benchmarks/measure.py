"""Measures two sides alternately and compares their medians."""

from __future__ import annotations

import atexit
import functools
import gc
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEAST_REPEATS = 7

Measure = Literal["ratio", "difference", "each", "memory", "more memory"]
_OF_MEMORY = ("memory", "more memory")
_DIFFERENCES = ("difference", "more memory")
_UNITS = {"difference": " s", "each": " ms", "more memory": " MiB"}


@functools.cache
def scratch() -> Path:
    """Returns a folder for recorded runs, removed when the process ends so that no measurement includes it."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@dataclass(frozen=True, slots=True)
class Workload:
    """Two sides of one comparison, each a function that is timed as a whole.

    For the memory measures, each side starts a process and returns its peak memory in bytes, which varies too little to
    be measured repeatedly.
    """

    name: str
    what: str
    against: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    reach: float | None  # the largest acceptable `measure`; None against a peer
    measure: Measure = "ratio"  # of the medians; differences are in seconds, and of memory in MiB
    steps: int | None = None  # times are reported per step if given
    verify: Callable[[], None] | None = None  # called first; asserts that both sides compute the same
    cache: str = " from torch's cache"  # why a later compilation takes less time
    share: float = 1.0  # the fraction of the work that `theirs` does; its time is scaled to the whole
    tenth: Callable[[], object] | None = None  # `ours` at a tenth of the size, to report how its time grows


def growing(
    name: str,
    what: str,
    against: str,
    ours: Callable[[int], object],
    theirs: Callable[[int], object],
    size: int,
    reach: float | None,
    measure: Measure = "ratio",
    steps: int | None = None,
) -> Workload:
    """A workload of one size, whose own side is also timed at a tenth of it."""
    part = functools.partial
    sides = part(ours, size), part(theirs, size)
    return Workload(name, what, against, *sides, reach, measure, steps, tenth=part(ours, size // 10))


@dataclass(frozen=True, slots=True)
class Compiled:
    """A side may return this: seconds of its time to report separately, spent on compilation."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    workload: Workload
    ours: tuple[float, ...]  # seconds, or bytes
    theirs: tuple[float, ...]
    compilation: tuple[
        float, ...
    ] = ()  # compilation seconds, not part of `ours`: of the warm-up, then of the other runs
    tenth: tuple[float, ...] = ()  # seconds of `workload.tenth`

    @property
    def value(self) -> float:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        if self.workload.measure == "each":  # milliseconds per step of ours
            assert self.workload.steps is not None
            return ours / self.workload.steps * 1e3
        if self.workload.measure == "more memory":
            return (ours - theirs) / (1 << 20)
        return ours - theirs if self.workload.measure == "difference" else ours / theirs

    @property
    def exponent(self) -> float | None:
        """The time of ours grows as its size to this power, over the last decade; None if it was not measured."""
        return math.log10(statistics.median(self.ours) / statistics.median(self.tenth)) if self.tenth else None

    @property
    def reached(self) -> bool:
        return self.workload.reach is None or self.value <= self.workload.reach


def measured(workload: Workload, repeats: int) -> Result:
    """Runs both sides once as a warm-up, then `repeats` times each, alternating which side goes first."""
    if workload.verify is not None:
        workload.verify()
    if workload.measure in _OF_MEMORY:
        return Result(workload, (_bytes(workload.ours),), (_bytes(workload.theirs),))
    sides: dict[str, list[float]] = {"ours": [], "theirs": []}
    workload.theirs()
    _, first = _seconds(workload.ours)
    compilation = [first]
    tenth: list[float] = []
    if workload.tenth is not None:
        workload.tenth()
    for repeat in range(repeats):
        order = ("ours", "theirs") if repeat % 2 else ("theirs", "ours")
        for side in order:
            seconds, compiling = _seconds(workload.ours if side == "ours" else workload.theirs)
            sides[side].append(seconds if side == "ours" else seconds / workload.share)
            if side == "ours":
                compilation.append(compiling)
        if workload.tenth is not None:
            tenth.append(_seconds(workload.tenth)[0])
    both = tuple(sides["ours"]), tuple(sides["theirs"])
    return Result(workload, *both, tuple(compilation) if first else (), tuple(tenth))


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Runs one side and returns its seconds and, separately, its seconds of compilation."""
    gc.collect()
    begun = time.perf_counter()
    returned = work()
    elapsed = time.perf_counter() - begun
    compilation = returned.seconds if isinstance(returned, Compiled) else 0.0
    return elapsed - compilation, compilation


def _bytes(work: Callable[[], object]) -> float:
    taken = work()
    assert isinstance(taken, int)
    return float(taken)


def table(results: list[Result]) -> Iterator[str]:
    """Yields the results as a Markdown table with aligned columns."""
    rows = [("", "what", "steprun", "against", "", "measured", "reach", "")]
    rows += [_cells(result) for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        if number == 0:
            yield "| " + " | ".join("-" * max(3, width) for width in widths) + " |"


def _cells(result: Result) -> tuple[str, ...]:
    workload = result.workload
    sign = "+" if workload.measure in _DIFFERENCES else ""
    unit = _UNITS.get(workload.measure, "")
    grows = "" if result.exponent is None else f"; grows as n^{result.exponent:.2f}"
    return (
        workload.name,
        workload.what + _compilation_text(result),
        _figure_text(result.ours, workload),
        workload.against,
        _figure_text(result.theirs, workload),
        f"{result.value:{sign}{_digits(result.value)}}{unit}{grows}",
        *(
            ("", "peer")
            if workload.reach is None
            else (f"≤ {workload.reach:{sign}{_digits(workload.reach)}}{unit}", _verdict(result))
        ),
    )


def _digits(value: float) -> str:
    return ".2f" if abs(value) >= 0.01 or not value else ".2g"


def _verdict(result: Result) -> str:
    return "reached" if result.reached else "not reached"


def _compilation_text(result: Result) -> str:
    if not result.compilation:
        return ""
    return (
        f"; compiled in {result.compilation[0]:.1f} s, "
        f"then in {statistics.median(result.compilation[1:]):.1f} s{result.workload.cache}"
    )


def _figure_text(figures: tuple[float, ...], workload: Workload) -> str:
    median = statistics.median(figures)
    if workload.measure in _OF_MEMORY:
        return f"{median / (1 << 20):.0f} MiB"
    if workload.steps is None:
        return f"{median:.3f} s"
    step = median / workload.steps
    return f"{step * 1e6:.1f} µs a step" if step < 1e-3 else f"{step * 1e3:.2f} ms a step"
