"""Steps that follow a result of `evaluate`: each acts once on a new evaluation, and remembers the best so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from runner.engine.binding import Binding
from runner.engine.session import Session
from runner.engine.state import State, Tracker
from runner.engine.steps.step_code import Run
from runner.plan.checks.measured import place_of_followed, planned_idle
from runner.plan.program.instructions import (
    Action,
    Break,
    Followed,
    Instruction,
    KeepBest,
    Patience,
    Plateau,
    followed_by,
)
from runner.plan.rows.layout import Held

BEST = "best"
"""The tag of the checkpoint with the best weights."""

Better = Callable[[float, float], bool]
"""Whether a result is better than the best one so far."""


def better(followed: Followed) -> Better:
    """The comparison of a followed result, as in torch's `ReduceLROnPlateau`; NaN is never better."""
    lower, threshold = followed.mode == "min", followed.threshold
    if followed.relative:
        factor = 1.0 - threshold if lower else threshold + 1.0
        return (lambda a, best: a < best * factor) if lower else (lambda a, best: a > best * factor)
    return (lambda a, best: a < best - threshold) if lower else (lambda a, best: a > best + threshold)


def marking(state: State, results: Iterable[str]) -> Callable[[], None]:
    """A function that marks some results as measured anew, for the steps that follow them."""
    names = {*results}
    trackers = [tracker for tracker in state.trackers.values() if tracker.result in names]

    def mark() -> None:
        for tracker in trackers:
            tracker.fresh = True

    return mark


def keep_best(session: Session, argument: KeepBest, position: int) -> Run:
    """Saves the state when a new result is the best so far."""
    state = session.binding.state
    tracker, is_better = state.trackers[position], better(argument.followed)

    def run() -> None:
        if not tracker.fresh:
            return
        tracker.fresh = False
        current = _current(state, tracker)
        if is_better(current, tracker.best) and session.watch.sound():
            tracker.best = current
            session.checkpoint(BEST)

    return run


def reduce_on_plateau(session: Session, argument: Plateau, position: int) -> Run:
    """Follows a result and reduces a rate, as `torch.optim.lr_scheduler.ReduceLROnPlateau.step` does."""
    binding = session.binding
    state, rate = binding.state, binding.state.parameters[argument.rate]
    tracker, is_better = state.trackers[position], better(argument.followed)
    written = binding.parameters([argument.rate])

    def run() -> Held | None:
        if not tracker.fresh:
            return None
        tracker.fresh = False
        if reduces(tracker, argument, is_better, _current(state, tracker)):
            before = float(rate.item())
            after = max(before * argument.factor, argument.min_lr)
            if before - after > argument.eps:
                rate.data = rate.detach().clone().fill_(after)
                binding.capture_weights(written)
        return tuple(binding.latest)

    return run


def reduces(tracker: Tracker, argument: Plateau, is_better: Better, current: float) -> bool:
    """Count one more evaluation, and return whether the rate is reduced now."""
    is_worse(tracker, is_better, current)
    if tracker.cooldown > 0:
        tracker.cooldown -= 1
        tracker.worse = 0
    if tracker.worse <= argument.patience:
        return False
    tracker.cooldown = argument.cooldown
    tracker.worse = 0
    return True


def is_worse(tracker: Tracker, is_better: Better, current: float) -> int:
    """Count one more evaluation, and return how many in a row were not better."""
    if is_better(current, tracker.best):
        tracker.best, tracker.worse = current, 0
    else:
        tracker.worse += 1
    return tracker.worse


def is_exhausted(binding: Binding, patience: Patience, position: int) -> Callable[[], bool]:
    """A function that counts a new evaluation, and returns whether enough in a row were not better."""
    state = binding.state
    tracker, is_better = state.trackers[position], better(patience.followed)

    def exhausted() -> bool:
        if not tracker.fresh:
            return False
        tracker.fresh = False
        return is_worse(tracker, is_better, _current(state, tracker)) >= patience.evaluations

    return exhausted


def starting_again(state: State, program: Sequence[Instruction], loop: int) -> Callable[[], None]:
    """A function that lets the `patience` steps that leave a loop forget the evaluations before it begins."""
    leaving = [
        (state.trackers[position], item.patience.followed.worst)
        for position, item in enumerate(program)
        if isinstance(item, Break) and item.patience is not None and item.loops[-1] == loop
    ]

    def start() -> None:
        for tracker, worst in leaving:
            tracker.best, tracker.worse, tracker.fresh = worst, 0, False

    return start


def conclude(session: Session) -> None:
    """Report each step that had nothing to follow in the whole run, unless planning has reported it."""
    plan, state = session.binding.plan, session.binding.state
    if not session.watch.warns:
        return
    known = planned_idle(plan.program) if state.trackers else frozenset()
    for position, tracker in state.trackers.items():
        instruction = plan.program[position]
        assert isinstance(instruction, Action | Break)
        if position in known or not all(state.iterations[loop] for loop in instruction.loops):
            continue
        result, report = tracker.result, session.watch.report
        path, problem = place_of_followed(instruction), plan.config.document.problem
        if result not in state.values:
            message = f"never-measured: no step measured `{result}` in this run"
            report(problem(path, message, f"look at the `when` of `evaluate: {result.partition('.')[0]}`"))
        elif _never_acted(state, tracker, position, plan.program):
            message = f"never-runs: `{result}` was measured, and this step never followed it"
            report(problem(path, message, "look at its `when`, or put it after the `evaluate`"))


def _never_acted(state: State, tracker: Tracker, position: int, program: Sequence[Instruction]) -> bool:
    """Whether a step has not seen any of the results that were measured."""
    followed = followed_by(program[position])
    assert followed is not None
    seen = (tracker.best, tracker.worse, tracker.cooldown) != (followed.worst, 0, 0)
    return tracker.fresh and not seen and better(followed)(_current(state, tracker), followed.worst)


def _current(state: State, tracker: Tracker) -> float:
    return float(state.values[tracker.result].item())
