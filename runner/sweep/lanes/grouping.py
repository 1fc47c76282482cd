"""Decides which points of a sweep are computed as lanes, and why the others run alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.config import Config, overridden
from runner.errors import ConfigError, SteprunError, listing
from runner.plan import PlanLimits, compile
from runner.plan.checks.engines.stackable import unstackable
from runner.plan.plan import Plan
from runner.sweep.lanes.literals import Literals
from runner.sweep.lanes.varying import Varying, varying
from runner.sweep.points.task import Task

FEWEST = 4
"""The fewest points that are worth a chunk: two of its lanes also run alone, for comparison."""

TOUCHED_BYTES = 32 << 20
"""Bytes that a step of a chunk touches at most; with more lanes the memory is read from outside the cache."""

SPLIT_BYTES = 2 << 20
"""Bytes that a step touches at least in each process: for less, starting a process takes longer than it saves."""

ROWS_BYTES = 64 << 20
"""Bytes of the rows of a chunk, which stay in memory until its end."""

MOST_LANES = 4096
LEAST_LANES = 8

ALIKE = f"fewer than {FEWEST} points"
FEW = f"fewer than {FEWEST} points go on"
NUMBER = "a constant is no summand, factor or divisor in the expression"
LARGE = f"{FEWEST} lanes take too much memory"
OFF = "--lanes off"
DIED = "the process of the lanes died"
LATE = "the lanes took longer than --time-limit"
MOST_NAMES = 3
"""The most fields that a reason names."""


def touched_bytes(plan: Plan) -> int:
    """Bytes that a step of one lane reads and writes, about."""
    estimates = plan.estimates
    return 2 * (estimates.tensors + estimates.gradients + estimates.state + estimates.values)


def lane_bytes(plan: Plan) -> int:
    """Bytes of memory that each lane takes: its tensors, and its rows as they are collected and written."""
    return touched_bytes(plan) + 4 * plan.estimates.log


def room_of(plan: Plan) -> int | None:
    """Bytes of memory that a chunk of lanes may take; None for no limit."""
    return None if plan.memory is None else plan.memory // 2


def lanes_at_once(plan: Plan, room: int | None = None) -> int:
    """The number of lanes of a chunk.

    Args:
        room: bytes of memory that a chunk may take.
    """
    most = min(MOST_LANES, max(LEAST_LANES, TOUCHED_BYTES // max(1, touched_bytes(plan))))
    most = min(most, max(1, ROWS_BYTES // max(1, plan.estimates.log)))
    return most if room is None else min(most, max(1, room // max(1, lane_bytes(plan))))


@dataclass(slots=True)
class Grouping:
    """Gives tasks the number of their chunk.

    Args:
        room: bytes of memory that a chunk may take; None for no limit.
        alone: why no point is computed as a lane, if so.
        exact: whether each lane must have the bits of the run alone.
    """

    base: Config
    first: Plan  # of the first point
    allowed: Sequence[Path]
    limits: PlanLimits | None
    jobs: int = 1
    room: int | None = None
    alone: str | None = None
    exact: bool = True
    _varying: Varying | None = None
    _known: tuple[tuple[str, ...], Plan] | None = None  # the overrides of the last point that was planned
    _chunks: int = 0

    def grouped(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks, each with the number of its chunk, or with the reason why it runs alone; chunks come first."""
        if self.alone is not None:
            return [replace(task, alone=self.alone) for task in tasks]
        if self._varying is None:
            self._varying = varying(self.base, self.first)
        found: dict[tuple[object, ...], list[Task]] = {}
        alone: list[Task] = []
        for task in tasks:
            own, shared = self._varying.split(task.overrides)
            key = (tuple(sorted(own)), shared, task.rung, task.until, task.state is None)
            found.setdefault(key, []).append(task)
        stacked: list[Task] = []
        apart = _differing([self._varying.split(group[0].overrides)[1] for group in found.values()])
        for group in found.values():
            few = FEW if group[0].rung else self._too_few(group, apart, len(found))
            reason = few if len(group) < FEWEST else self._obstacle(group)
            if reason is not None:
                alone += [replace(task, alone=reason) for task in group]
            else:
                stacked += self._cut(group)
        return stacked + alone

    def _too_few(self, group: Sequence[Task], apart: Sequence[str], groups: int) -> str:
        """Why a group is too small for a chunk.

        Args:
            apart: the overrides in which groups differ, and that their lanes would share.
            groups: the number of all groups.
        """
        assert self._varying is not None
        shared = self._varying.split(group[0].overrides)[1]
        barred = [path for path in _paths(each for each in shared if each in apart) if self._varying.has(path)]
        if barred:
            return f"lanes cannot have this value of {_named(barred)}"
        paths = [path for path in _paths(apart) if not self._varying.has(path)]
        if paths and len(group) == 1:
            return f"lanes cannot differ in {_named(paths)}"
        if paths:
            return (
                f"fewer than {FEWEST} points have the same {'values' if len(paths) > 1 else 'value'} of {_named(paths)}"
            )
        return ALIKE if groups == 1 or apart else f"fewer than {FEWEST} points set the same fields"

    def _obstacle(self, group: Sequence[Task]) -> str | None:
        assert self._varying is not None
        if self._varying.in_expression(self._varying.split(group[0].overrides)[0]):
            other, first = self._planned(group[-1]), self._planned(group[0])
            if first is not None and other is not None and not Literals(first).add(other):
                return NUMBER
        plan = self._planned(group[0])
        if plan is None:
            return "its config is not valid"
        obstacle = unstackable(plan, self.exact)
        if obstacle is not None:
            return obstacle.reason
        return None if lanes_at_once(plan, self.room) >= FEWEST else LARGE

    def _planned(self, task: Task) -> Plan | None:
        if self._known is None or self._known[0] != task.overrides:
            try:
                config = overridden(self.base, task.overrides)
                self._known = task.overrides, compile(config, allowed=self.allowed, limits=self.limits)
            except (SteprunError, MemoryError):
                return None
        return self._known[1]

    def _cut(self, group: Sequence[Task]) -> list[Task]:
        """The tasks of a group in chunks of about equal size, at least one for each process."""
        plan = self._planned(group[0])
        assert plan is not None
        most = lanes_at_once(plan, self.room)
        worth = len(group) * touched_bytes(plan) // SPLIT_BYTES
        chunks = max(-(-len(group) // most), min(self.jobs, worth, len(group) // FEWEST), 1)
        size = -(-len(group) // chunks)
        cut = []
        for start in range(0, len(group), size):
            self._chunks += 1
            cut += [replace(task, chunk=self._chunks) for task in group[start : start + size]]
        return cut


def _differing(shared: Sequence[tuple[str, ...]]) -> list[str]:
    """The overrides that some groups have, and others have not."""
    common = set(shared[0]).intersection(*shared[1:]) if shared else set()
    return [override for overrides in shared for override in overrides if override not in common]


def _paths(overrides: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(override.partition("=")[0].removeprefix("~") for override in overrides))


def _named(paths: Sequence[str]) -> str:
    return listing([f"`{path}`" for path in paths], MOST_NAMES)


def check_some(config: Config, first: Plan, grouped: Sequence[Task]) -> None:
    """Check that `--lanes exact`, given explicitly, computes some point of a config as a lane.

    Raises:
        ConfigError: it computes none; the problem is at the place of the reason.
    """
    if any(task.chunk for task in grouped):
        return
    obstacle = unstackable(first)
    reason = next((task.alone for task in grouped), ALIKE)
    path = ("steps" if config.sweep is None else "sweep",) if obstacle is None else obstacle.path
    hint = "leave --lanes out, and the points run in processes"
    raise ConfigError(config.document.problem(path, f"no point can be a lane: {reason}", hint, key=True))
