"""Notes which lanes may fail, because something is not finite or differs from what is expected.

Those run again alone, which reports the failure, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.lanes.tensor import LaneTensor
from runner.engine.state import State
from runner.engine.watch.checks import Check, Results
from runner.errors import Problem
from runner.plan.plan import Plan
from runner.plan.program.instructions import Assign, Evaluate, Evaluation, Train


class LaneWatch:
    """Has the place of a `Watch`, and never ends the run.

    It sums more than a `Watch` checks, and finite elements may overflow; then a lane runs again alone in vain.
    """

    __slots__ = ("_active", "_plan", "_state", "_sums", "failure")

    def __init__(self, plan: Plan, state: State, lanes: int) -> None:
        self.failure: Problem | None = None
        self._plan = plan
        self._state = state
        self._active = plan.on_nonfinite == "stop"
        self._sums = torch.zeros(lanes, dtype=torch.float64)

    @property
    def active(self) -> bool:
        return False

    def sound_lanes(self) -> Tensor:
        """Whether nothing was noted about a lane: bool `(lanes,)`."""
        return self._sums.isfinite()

    @property
    def count(self) -> int:
        """The number of lanes."""
        return len(self._sums)

    def doubt(self, lane: int | None = None) -> None:
        """Note that a lane, or all of them, may fail when it runs alone."""
        self._sums[slice(None) if lane is None else lane] = torch.nan

    def report(self, problem: Problem) -> None:
        """Drop a warning, as all points of a sweep do."""

    def start(self) -> None:
        if self._active:
            self._note(self._state.parameters.values())

    def sound(self) -> bool:
        return True

    def settle(self) -> None:
        """Do nothing: no check waits."""

    def computed(self, binding: Binding, evaluation: Evaluation, loops: Sequence[int], *_: Any, **__: Any) -> Any:
        return self._check(self._plan.trainable)

    def trained(self, binding: Binding, argument: Train, loops: Sequence[int]) -> tuple[Any, Any, tuple[()]]:
        held = [name for optimizer in argument.optimizers for name in self._plan.optimizers[optimizer].parameters]
        return self._check(argument.parameters), self._check((), held), ()

    def updated(self, binding: Binding, optimizers: Sequence[str], gradients: Sequence[str] = ()) -> Any:
        return self._check((), [name for each in optimizers for name in self._plan.optimizers[each].parameters])

    def clipped(self, norm: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def noted() -> Tensor:
            found = norm()
            if self._active:
                self._note([found])
            return found

        return noted

    def assigned(self, binding: Binding, argument: Assign, loops: Sequence[int]) -> tuple[Any, Any]:
        return self._check(self._plan.trainable, self._plan.trainable), None

    def evaluated(self, binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Any:
        return self._check(())

    def _check(self, gradients: Iterable[str], weights: Iterable[str] = ()) -> Check | None:
        if not self._active:
            return None
        parameters = self._state.parameters
        of_gradients = [parameters[name] for name in gradients]
        of_weights = [parameters[name] for name in weights]

        def note(results: Results) -> None:
            self._note([result for result in results if isinstance(result, Tensor)])
            self._note([gradient for parameter in of_gradients if (gradient := parameter.grad) is not None])
            self._note(of_weights)

        return Check((), (), note, note)

    def _note(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            if not (tensor.is_floating_point() or tensor.is_complex()):
                continue
            if isinstance(tensor, LaneTensor):
                lanes = tensor.lanes.detach()
                lanes = torch.view_as_real(lanes) if lanes.is_complex() else lanes
                total = lanes.reshape(len(lanes), -1).sum(1)
            else:
                total = tensor.detach().abs().sum()
            self._sums.add_(total, alpha=0)  # zero, or NaN for ever
