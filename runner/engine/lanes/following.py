"""Steps that follow a result of `evaluate`, in lanes: each lane remembers its own best result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.operations.tensor import LaneTensor
from runner.engine.session import Session
from runner.engine.state import State, Tracker
from runner.engine.steps.following import better, is_worse, reduces
from runner.plan.program.instructions import KeepBest, Patience, Plateau


def _of_all(name: str) -> Any:
    """A field of a tracker: that of the first lane; written, it is the same in each."""

    def read(self: LaneTracker) -> Any:
        return getattr(self.own[0], name)

    def write(self: LaneTracker, value: Any) -> None:
        for tracker in self.own:
            setattr(tracker, name, value)

    return property(read, write)


class LaneTracker:
    """What a step that follows a result remembers in each lane; it has the place of a `Tracker`."""

    __slots__ = ("own", "result")

    best, worse, cooldown, fresh = map(_of_all, ("best", "worse", "cooldown", "fresh"))

    def __init__(self, tracker: Tracker, lanes: int) -> None:
        self.result = tracker.result
        self.own = [replace(tracker) for _ in range(lanes)]


Followed = Callable[[Tensor], Tensor]
"""Takes the lanes in which a step runs, and returns those in which it has an effect: bool `(lanes,)`."""


def exhausted(state: State, patience: Patience, position: int, lanes: int) -> Followed:
    """A function that counts a new evaluation in some lanes, and returns those in which enough were not better."""
    is_better = better(patience.followed)

    def count(tracker: Tracker, current: float) -> bool:
        return is_worse(tracker, is_better, current) >= patience.evaluations

    return _each(state, position, lanes, count)


def keep_best(session: Session, argument: KeepBest, position: int, lanes: int) -> Callable[[Tensor], None]:
    """A function that notes a new best result; a sweep keeps no checkpoint of it."""
    is_better = better(argument.followed)

    def note(tracker: Tracker, current: float) -> bool:
        if is_better(current, tracker.best):
            tracker.best = current
        return False

    follow = _each(session.binding.state, position, lanes, note)
    return lambda due: void(follow(due))


def reduce_on_plateau(session: Session, argument: Plateau, position: int, lanes: int) -> Followed:
    """A function that reduces the rate of lanes whose result is not better; returns those with a new evaluation."""
    binding = session.binding
    rate: Any = binding.state.parameters[argument.rate]
    written = binding.parameters([argument.rate])
    tracker: Any = binding.state.trackers[position]
    is_better = better(argument.followed)
    due = _each(binding.state, position, lanes, lambda tracker, current: reduces(tracker, argument, is_better, current))

    def run(running: Tensor) -> Tensor:
        fresh = torch.tensor([own.fresh for own in tracker.own]) & running
        reduced = due(running).nonzero().flatten().tolist()
        if reduced:
            numbers = rate.lanes.clone()
            for lane in reduced:
                before = float(numbers[lane].item())
                after = max(before * argument.factor, argument.min_lr)
                if before - after > argument.eps:
                    numbers[lane].fill_(after)
            rate.lanes = numbers
            binding.capture_weights(written)
        return fresh

    return run


def void(_: object) -> None:
    """Return nothing."""


def _each(state: State, position: int, lanes: int, act: Callable[[Tracker, float], bool]) -> Followed:
    """A function that acts once on a new result of each lane; returns the lanes for which `act` returns true."""
    tracker: Any = state.trackers[position]

    def run(running: Tensor) -> Tensor:
        found = torch.zeros(lanes, dtype=torch.bool)
        fresh = [lane for lane in running.nonzero().flatten().tolist() if tracker.own[lane].fresh]
        if not fresh:
            return found
        current = list(_numbers(state.values[tracker.result], lanes))
        for lane in fresh:
            own = tracker.own[lane]
            own.fresh = False
            found[lane] = act(own, current[lane])
        return found

    return run


def _numbers(value: Any, lanes: int) -> Iterable[float]:
    if isinstance(value, LaneTensor):
        return map(float, value.lanes.reshape(lanes).tolist())
    return [float(value.item())] * lanes
