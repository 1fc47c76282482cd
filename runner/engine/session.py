"""One run in progress: its binding, its watch, its health rules, and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.engine.binding import Binding
from runner.engine.state import State
from runner.engine.watch.health import Health
from runner.engine.watch.undefined import Undefined
from runner.engine.watch.watch import Watch
from runner.plan.plan import Plan

SaveCheckpoint = Callable[[str | None], None]
"""Saves the state of the run under a tag."""


@dataclass(frozen=True, slots=True)
class Session:
    """The objects that all steps of a run share."""

    binding: Binding
    watch: Watch
    health: Health
    checkpoint: SaveCheckpoint


def open_session(
    plan: Plan, state: State, *, checkpoint: SaveCheckpoint | None = None, watch: Watch | None = None
) -> Session:
    """A session over the tensors of `state`.

    Args:
        checkpoint: called by `checkpoint` steps.
        watch: watches over `state`; by default it reports as Python warnings.
    """
    watch = Watch(plan, state) if watch is None else watch
    binding = Binding(plan, state, Undefined(plan, state, watch.tell).without)
    return Session(binding, watch, Health(plan, state, watch.tell), checkpoint or _saves_nothing)


def _saves_nothing(tag: str | None) -> None:
    """Ignore `checkpoint` steps, for a run that is not recorded."""
