"""Random numbers of lanes: each lane draws from the streams that it would have alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner.engine.lanes.operations.alone import joined, lane_of
from runner.engine.lanes.operations.tensor import LaneTensor, NotStackable
from runner.engine.state import State
from runner.plan.streams import stream_seed

aten = torch.ops.aten


@dataclass(slots=True)
class Streams:
    """The random streams of all lanes.

    Args:
        seeds: the seed of each lane.
    """

    seeds: Sequence[int]
    state: State | None = None
    _evaluation: int = -1  # the last evaluation that drew
    _states: list[Tensor] = field(default_factory=list)  # of the generator after the last draw of each lane

    def draw(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operation that draws random numbers, for one lane after another."""
        assert self.state is not None
        generator, number = torch.default_generator, self.state.evaluations
        begins = number != self._evaluation
        writes = operation._schema.is_mutable
        if writes and not isinstance(args[0], LaneTensor):
            raise NotStackable(f"{operation} draws into a tensor that all runs share")
        found, states = [], []
        for lane, seed in enumerate(self.seeds):
            if begins:
                generator.manual_seed(stream_seed(seed, "expression", "", number))
            else:
                generator.set_state(self._states[lane])
            given = [lane_of(value, lane) for value in args]
            found.append(operation(*given, **{name: lane_of(value, lane) for name, value in kwargs.items()}))
            states.append(generator.get_state())
        self._evaluation, self._states = number, states
        if not writes:
            return joined(found, str(operation))
        for lane, drawn in enumerate(found):
            args[0].lanes[lane].copy_(drawn)
        return args[0]


class Drawing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes operations that draw random numbers draw for each lane, even where no operand is of lanes."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._streams = streams

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler, which takes a second, to keep it away from this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = kwargs.get("generator") is not None
        if torch.Tag.nondeterministic_seeded in func.tags and not given:
            return self._streams.draw(func, args, kwargs)
        found = func(*args, **kwargs)
        if func is aten.empty_like.default and not isinstance(found, LaneTensor):  # dropout draws into such a tensor
            return LaneTensor(torch.stack([found] * len(self._streams.seeds)))
        return found
