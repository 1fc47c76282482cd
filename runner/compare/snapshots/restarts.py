"""Steps that start from recorded states, so that a check finds small faults even late in a chaotic training.

In a chaotic run, rounding grows from step to step, until a late row says little about the steps before it. A few steps
that start from a recorded state inherit no rounding: their uncertainty is that of these steps alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from runner.compare.numbers.tolerances import Tolerances
from runner.compare.rows.results import Verdict
from runner.compare.rows.verdict import align, compare
from runner.compare.snapshots.capture import measurable_plan, stored_row
from runner.compare.snapshots.model import Restart, Snapshot, uncertainty_of
from runner.compare.snapshots.restart_state import LARGEST_STATE, StateError, encoded, misfits, restore
from runner.engine import Row, State, execute, initial_state
from runner.errors import Problem, SnapshotError, listing
from runner.language.inference.inference import readable_bytes
from runner.plan import Plan

if TYPE_CHECKING:
    from runner.compare.uncertainty.measuring import Measurement, Progress

    Announce = Callable[[int], Progress]

STEPS = 3
"""The number of rows after each restart that are stored and compared; fewer if the run ends."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """Steps from a recorded state, compared with those of the snapshot."""

    after: int  # the number of the row that the state follows
    verdict: Verdict | None  # None if the state no longer fits the config
    misfit: str = ""  # why it does not fit


UNBOUNDED = 1e9
"""Seconds for the perturbed runs of a restart: no limit, because they have few steps."""


def take_restarts(
    plan: Plan, measurement: Measurement | None, allowed: Sequence[str] = (), announce: Announce | None = None
) -> tuple[Restart, ...]:
    """The restarts that a config asks for. The config runs once more to record their states.

    Args:
        measurement: of the whole run; each restart gets as many perturbed runs. None measures nothing.
        allowed: folders that the plan may read data from, besides its own.
        announce: returns the progress callback for the perturbed runs from the state after a row.
    Raises:
        SnapshotError: the run ends before one of these rows, or right after it.
    """
    if not plan.snapshot.restart:
        return ()
    states = _states(plan)
    restarts = []
    for place, after in enumerate(plan.snapshot.restart):
        rows = _rows(plan, states[after]) if after in states else []
        if not rows:
            message = f"the run ends before a step follows row {after}"
            problem = plan.config.document.problem(("snapshot", "restart", place), message, "write an earlier row")
            raise SnapshotError(problem)
        if len(states[after]) > LARGEST_STATE:
            size, most = readable_bytes(len(states[after])), readable_bytes(LARGEST_STATE)
            message = f"the state after row {after} takes {size}, and at most {most} are stored"
            problem = plan.config.document.problem(("snapshot", "restart", place), message, "leave it out")
            raise SnapshotError(problem)
        progress = None if announce is None else announce(after)
        own = None if measurement is None else _measured(plan, states[after], rows, measurement.runs, allowed, progress)
        stored = tuple(stored_row(row, plan.snapshot.tensors, own) for row in rows)
        restarts.append(Restart(after, states[after], stored))
    return tuple(restarts)


def compare_restarts(plan: Plan, snapshot: Snapshot, tolerances: Tolerances, *, edited: bool) -> Iterator[Restarted]:
    """Start from each recorded state of a snapshot, and compare the rows.

    Args:
        edited: whether the config was edited since; a state that no longer fits is then skipped.
    Raises:
        SnapshotError: a state does not fit the config, although that was not edited.
    """
    for restart in snapshot.restarts:
        found = misfits(plan, restart.state)
        if found and edited:
            yield Restarted(restart.after, None, f"{listing(found, 3)} changed")
            continue
        try:
            rows = _rows(plan, restart.state)
        except StateError as error:
            if not edited:
                message = f"the state after row {restart.after} is damaged: {error}"
                hint = "restore the file that belongs to this snapshot, or take it again"
                raise SnapshotError(Problem(message, hint)) from error
            yield Restarted(restart.after, None, str(error))
            continue
        pairs = align(rows, restart.rows)
        yield Restarted(restart.after, compare(pairs, plan.columns, snapshot.columns, tolerances, uncertainty_of))


def merged(old: Sequence[Restart], taken: Sequence[Restart]) -> tuple[Restart, ...]:
    """The restarts of a snapshot, and those of a run that start after other rows; in order of these rows."""
    known = {restart.after for restart in old}
    return tuple(sorted([*old, *(each for each in taken if each.after not in known)], key=lambda each: each.after))


def _states(plan: Plan) -> Mapping[int, bytes]:
    """The states after the rows that the plan names, by row number."""
    wanted, found = set(plan.snapshot.restart), {}
    state = initial_state(plan)
    for row in execute(plan, state, shared=True, by_row=True):
        if row.number in wanted:
            found[row.number] = encoded(plan, state)
        if row.number == max(wanted):
            break
    return found


def _rows(plan: Plan, content: bytes) -> list[Row]:
    """The rows of the first steps from a recorded state."""
    plan = _logging_every_row(plan)
    return list(islice(execute(plan, _started(content, plan), by_row=True), STEPS))


def _logging_every_row(plan: Plan) -> Plan:
    return replace(plan, log=replace(plan.log, every=1))


def _started(content: bytes, plan: Plan) -> State:
    state = initial_state(plan)
    restore(plan, state, content)
    return state


def _measured(
    plan: Plan, content: bytes, rows: Sequence[Row], runs: int, allowed: Sequence[str], progress: Progress | None
) -> Measurement:
    """The uncertainty of the rows from a state, always measured with the eager engine on the CPU."""
    from runner.compare.uncertainty.measuring import measure  # imports torch's compiler

    perturbed = measurable_plan(plan, allowed)
    rows = rows if perturbed is plan else _rows(perturbed, content)
    return measure(
        _logging_every_row(perturbed),
        rows,
        runs=runs,
        budget=UNBOUNDED,
        progress=progress,
        start=partial(_started, content),
    )
