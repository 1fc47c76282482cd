"""The objects that all steps of a run share: its tensors, its checks, and what saves its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from runner.engine.binding import Binding
from runner.engine.state import State
from runner.engine.watch.health import Health
from runner.engine.watch.undefined import Undefined
from runner.engine.watch.watch import Watch
from runner.plan.plan import Plan
from runner.plan.program.last_loop import LastLoop, last_loop

SaveCheckpoint = Callable[[str | None], None]
"""Saves the state of the run under a tag."""


KEPT = "last"
"""The tag of the state that every finished run keeps, so that its last loop can go on."""


@dataclass(frozen=True, slots=True)
class Session:
    """The tensors, checks and checkpoints of one run.

    Attributes:
        last_loop: the loop whose state is kept at its end.
        keeping: the positions of steps that run many iterations at once, and keep the state of this loop themselves.
    """

    binding: Binding
    watch: Watch
    health: Health
    checkpoint: SaveCheckpoint
    last_loop: LastLoop | None
    keeping: set[int] = field(default_factory=set)


def open_session(
    plan: Plan,
    state: State,
    *,
    checkpoint: SaveCheckpoint | None = None,
    watch: Watch | None = None,
    groups: bool = False,
) -> Session:
    """Returns a session for the tensors of `state`.

    Args:
        checkpoint: called by `checkpoint` steps.
        watch: checks `state`; by default it reports as Python warnings.
        groups: whether rows hold many small tensors of one shape as one.
    """
    watch = Watch(plan, state) if watch is None else watch
    binding = Binding(plan, state, Undefined(plan, state, watch.report).without, groups=groups)
    health = Health(plan, state, watch.report)
    return Session(binding, watch, health, checkpoint or _saves_nothing, last_loop(plan.program))


def _saves_nothing(tag: str | None) -> None:
    """Ignore `checkpoint` steps, for a run that is not recorded."""
