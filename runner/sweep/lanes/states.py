"""Where lanes are between two steps: what some of them share, and what each has of its own.

Lanes that leave a loop earlier than others, or that pause at a rung of halving, go on from such a place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.engine.lanes.following import LaneTracker
from runner.engine.lanes.leaving import Masked
from runner.engine.lanes.operations.tensor import LaneTensor, stacked
from runner.engine.state import State, Tracker, Withheld
from runner.errors import Problem, RunError
from runner.plan import Plan
from runner.record.checkpoints.store import decode, encode, restore_state, state_contents
from runner.sweep.points.task import Task
from runner.sweep.record.states import STATES_FOLDER, load_states

SHARED = "step"
"""The entry of an optimizer's state that is the same in each lane: the count of its steps."""

OWN = ("row", "trackers")
"""The parts of a state that each lane has of its own."""

Trackers = Mapping[str, tuple[float, int, int, bool]]
"""Position of a step → the fields of its tracker: `best`, `worse`, `cooldown`, `fresh`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where some lanes are.

    Attributes:
        lanes: their numbers in the chunk.
        shared: the state but `OWN`, as JSON by name.
        tensors: those of the state by name: tensors of lanes, and tensors that all lanes share.
        rows: the number of the next row of each lane.
        trackers: those of each lane.
        withheld: rows that the log keeps only if this iteration of their loop is the last, by loop.
    """

    lanes: tuple[int, ...]
    shared: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    rows: tuple[int, ...]
    trackers: tuple[Trackers, ...]
    withheld: Mapping[int, tuple[int, list[Withheld]]]

    @property
    def position(self) -> int:
        """The position of the next instruction in the program."""
        return int(self.shared["position"])

    def weights(self, name: str) -> Tensor:
        """A parameter of all lanes: `(lanes, *s)`."""
        found: Any = self.tensors[f"weights.{name}"]
        return found.lanes  # type: ignore[no-any-return]

    def state_of(self, lane: int) -> tuple[Any, dict[str, Tensor]]:
        """The state of one lane, as that of the point alone: JSON and tensors.

        Args:
            lane: its place among `lanes`.
        """
        tensors = {
            name: (tensor.lanes[lane] if isinstance(tensor, LaneTensor) else tensor).clone()
            for name, tensor in self.tensors.items()
        }
        pairs = [[name, value] for name, value in self.shared.items()]
        pairs.append(["row", self.rows[lane]])
        if self.trackers[lane]:
            found = {
                position: [torch.tensor(best, dtype=torch.float64), *rest]
                for position, (best, *rest) in self.trackers[lane].items()
            }
            pairs.append(["trackers", encode(found, _storing(tensors, lambda tensor: tensor), ("trackers",))])
        return {"mapping": pairs}, tensors


def place_of(plan: Plan, state: State, chosen: Tensor, lanes: Sequence[int], rows: Callable[[int], int]) -> Place:
    """Where some lanes of a state are; their tensors are copied.

    Args:
        chosen: which lanes of the state: bool.
        lanes: the number in the chunk of each lane of the state.
        rows: returns the number of the next row of a lane of the state.
    """
    places = chosen.nonzero().flatten().tolist()
    withheld, state.withheld = state.withheld, {}
    try:
        contents = state_contents(plan, state)
    finally:
        state.withheld = withheld
    tensors: dict[str, Tensor] = {}
    store = _storing(tensors, lambda tensor: _some(tensor, places))
    return Place(
        tuple(lanes[place] for place in places),
        {name: encode(value, store, (name,)) for name, value in contents.items() if name not in OWN},
        tensors,
        tuple(map(rows, places)),
        tuple(_trackers_of(state, place) for place in places),
        {
            loop: (iteration, [(position, _values(values, places)) for position, values in found])
            for loop, (iteration, found) in withheld.items()
            if iteration == state.iterations[loop]
        },
    )


def restoring(place: Place) -> Callable[[State], None]:
    """A function that puts a new state of its lanes at a place."""

    def restore(state: State) -> None:
        contents = decode({"mapping": [[name, value] for name, value in place.shared.items()]}, place.tensors)
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.lanes = contents["weights"][name].lanes  # type: ignore[attr-defined]
            restore_state(state, {**contents, "weights": state.parameters, "row": place.rows[0]}, "cpu")
        state.withheld.update(place.withheld)
        for lane, trackers in enumerate(place.trackers):
            for position, fields in trackers.items():
                own = _own(state, int(position))[lane]
                own.best, own.worse, own.cooldown, own.fresh = fields

    return restore


def joined(places: Sequence[Place]) -> Place:
    """Places with equal keys as one."""
    first = places[0]
    if len(places) == 1:
        return first
    return Place(
        tuple(lane for place in places for lane in place.lanes),
        first.shared,
        {
            name: _together(name, [(place.tensors[name], len(place.lanes)) for place in places])
            for name in first.tensors
        },
        tuple(row for place in places for row in place.rows),
        tuple(trackers for place in places for trackers in place.trackers),
        {},
    )


def key_of(place: Place, without: Sequence[str] = ()) -> object:
    """Equal for places from which lanes can go on together.

    Args:
        without: names of what they need not share, because nothing reads it any more.
    """
    if place.withheld:
        return id(place)
    shared = json.dumps([value for name, value in place.shared.items() if name not in without])
    return shared, tuple((name, tensor.shape, tensor.dtype) for name, tensor in sorted(place.tensors.items()))


def load_places(directory: Path, tasks: Sequence[Task]) -> list[Place] | None:
    """Where points were at the end of their last rung; None if they begin.

    Raises:
        RunError: a state is damaged.
    """
    files: dict[str, list[str]] = {}
    for task in tasks:
        if task.state is not None:
            files.setdefault(task.state, []).append(task.identity)
    if not files:
        return None
    known = {
        (name, identity): state
        for name, identities in files.items()
        for identity, state in load_states(directory, name, identities).items()
    }
    found: dict[object, list[Place]] = {}
    for lane, task in enumerate(tasks):
        try:
            place = _loaded(lane, *known[task.state or "", task.identity])
        except (KeyError, TypeError, ValueError) as error:
            message = f"the state of point {task.index} in {directory / STATES_FOLDER} is damaged: {error}"
            raise RunError(Problem(message, f"remove {directory / STATES_FOLDER}, and resume the sweep")) from error
        found.setdefault(key_of(place), []).append(place)
    return [joined(places) for places in found.values()]


def _loaded(lane: int, contents: Any, tensors: Mapping[str, Tensor]) -> Place:
    shared = dict(contents["mapping"])
    trackers = decode(shared.get("trackers", {"mapping": []}), tensors)
    return Place(
        (lane,),
        {name: value for name, value in shared.items() if name not in OWN},
        {name: _together(name, [(tensor, 1)]) for name, tensor in tensors.items() if not name.startswith("trackers.")},
        (int(shared["row"]),),
        ({position: (float(best), *rest) for position, (best, *rest) in trackers.items()},),
        {},
    )


def _storing(tensors: dict[str, Tensor], of: Callable[[Tensor], Tensor]) -> Any:
    def store(path: tuple[str | int, ...], tensor: Tensor) -> Mapping[str, Any]:
        name = ".".join(map(str, path))
        tensors[name] = of(tensor)
        return {"tensor": name, "complex": False}

    return store


def _some(value: Tensor, places: Sequence[int]) -> Tensor:
    """Some lanes of a tensor; one that all lanes share is copied."""
    if isinstance(value, LaneTensor):
        return LaneTensor(stacked([value.lanes[place] for place in places]))
    return value.clone()


def _values(values: Any, places: Sequence[int]) -> Any:
    """Some lanes of the values of a row."""
    found = tuple(None if value is None else _some(value, places) for value in values)
    return Masked(found, values.lanes[places]) if isinstance(values, Masked) else found


def _together(name: str, tensors: Sequence[tuple[Tensor, int]]) -> Tensor:
    """The tensors of several places, each with its number of lanes, as one."""
    first = tensors[0][0]
    if name.startswith("optimizers.") and name.endswith(f".{SHARED}") and not isinstance(first, LaneTensor):
        return first
    parts: list[Tensor] = []
    for tensor, lanes in tensors:
        parts += tensor.lanes.unbind() if isinstance(tensor, LaneTensor) else [tensor] * lanes
    return LaneTensor(stacked(parts))


def _own(state: State, position: int) -> list[Tracker]:
    tracker: Any = state.trackers[position]
    assert isinstance(tracker, LaneTracker)
    return tracker.own


def _trackers_of(state: State, lane: int) -> Trackers:
    found = {}
    for position in state.trackers:
        own = _own(state, position)[lane]
        found[str(position)] = (own.best, own.worse, own.cooldown, own.fresh)
    return found
