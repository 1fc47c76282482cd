"""Steps that start from recorded state: late rows of a chaotic training stay sensitive to small faults.

Rounding grows from step to step in a chaotic run, until a late row says little of the steps before it. A few steps that
start from the state that the snapshot recorded have nothing to inherit: their uncertainty is that of these steps alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from runner.compare.numbers.tolerances import Tolerances
from runner.compare.rows.verdict import Verdict, align, compare
from runner.compare.snapshots.capture import kept_row, measurable_plan
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
"""Rows after each restart that are stored and compared; fewer where the run ends."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """Steps from a recorded state, compared with those of the snapshot."""

    after: int  # the number of the row whose state it is
    verdict: Verdict | None  # None where the state does not fit the config any more
    misfit: str = ""  # why it does not


UNBOUNDED = 1e9
"""Seconds for the perturbed runs of a restart: of a few steps each, as many are made as of the whole run."""


def take(
    plan: Plan, measurement: Measurement | None, allowed: Sequence[str] = (), announce: Announce | None = None
) -> tuple[Restart, ...]:
    """The restarts that a config asks for; the config is run once more for its states.

    Args:
        measurement: of the whole run; its count of perturbed runs measures each restart too. None measures nothing.
        allowed: folders that the plan reads data from, besides its own.
        announce: gives what is called before each perturbed run from the state after a row.
    Raises:
        SnapshotError: the run ends before a row of them, or right after it.
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
        kept = tuple(kept_row(row, plan.snapshot.tensors, own) for row in rows)
        restarts.append(Restart(after, states[after], kept))
    return tuple(restarts)


def compare_restarts(plan: Plan, snapshot: Snapshot, tolerances: Tolerances, *, edited: bool) -> Iterator[Restarted]:
    """Start from each recorded state of a snapshot, and compare the rows.

    Args:
        edited: whether the config was edited since; a state that does not fit it any more is passed over.
    Raises:
        SnapshotError: a state is not one of this config, which was not edited.
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
    """Restarts of a snapshot, and those of a run whose rows it has not."""
    known = {restart.after for restart in old}
    return tuple(sorted([*old, *(each for each in taken if each.after not in known)], key=lambda each: each.after))


def _states(plan: Plan) -> Mapping[int, bytes]:
    """The states after the rows that the plan names, by the number of the row."""
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
    """How uncertain the rows from a state are: of the eager engine on the CPU, whatever the plan's."""
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
