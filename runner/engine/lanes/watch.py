"""Notes which lanes may fail, because something is not finite or differs from what is expected.

Those run again alone, which reports the failure, if there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.lanes.operations.tensor import LaneTensor
from runner.engine.state import State
from runner.engine.watch.checks import Check, Results
from runner.errors import Problem
from runner.plan.checks.engines.stackable import RATED
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Assign, Evaluate, Evaluation, Train


class LaneWatch:
    """Has the place of a `Watch`, and never ends the run.

    It sums more than a `Watch` checks, and finite elements may overflow; then a lane runs again alone in vain.
    """

    __slots__ = ("_active", "_lasting", "_only", "_plan", "_state", "_sums", "failure")

    def __init__(self, plan: Plan, state: State, lanes: int) -> None:
        self.failure: Problem | None = None
        self._plan = plan
        self._state = state
        self._active = plan.on_nonfinite == "stop"
        self._lasting = _lasting(plan)
        self._sums = torch.zeros(lanes, dtype=torch.float64)
        self._only: Tensor | None = None

    @property
    def warns(self) -> bool:
        return False

    @property
    def active(self) -> bool:
        return False

    def sound_lanes(self) -> Tensor:
        """Whether nothing was noted about a lane, after the last step: bool `(lanes,)`."""
        if self._active and self._lasting:
            self._note([self._state.parameters[name] for name in self._lasting])
        return self._sums.isfinite()

    @contextmanager
    def only(self, lanes: Tensor) -> Iterator[None]:
        """Note nothing about other lanes: a step gives them back what they had."""
        self._only = lanes
        try:
            yield
        finally:
            self._only = None

    def doubt(self, lanes: Sequence[int]) -> None:
        """Note that some lanes may fail when they run alone."""
        self._sums[list(lanes)] = torch.nan

    def report(self, problem: Problem) -> None:
        """Drop a warning, as all points of a sweep do."""

    def start(self) -> None:
        if self._active:
            self._note([self._state.parameters[name] for name in self._plan.trainable])

    def sound(self) -> bool:
        return True

    def settle(self) -> None:
        """Do nothing: no check waits."""

    def computed(self, binding: Binding, evaluation: Evaluation, loops: Sequence[int], *_: Any, **__: Any) -> Any:
        return self._check(self._plan.trainable)

    def trained(self, binding: Binding, argument: Train, loops: Sequence[int]) -> tuple[Any, Any, tuple[()]]:
        clipped = any(clip.value is not None for clip in argument.clips)  # which makes an infinite gradient finite
        held = {name for optimizer in argument.optimizers for name in self._plan.optimizers[optimizer].parameters}
        lasting = frozenset[str]() if clipped else self._lasting & held
        seen = [name for name in argument.parameters if name not in lasting]
        return self._check(seen), self._check((), self._held(argument.optimizers)), ()

    def updated(self, binding: Binding, optimizers: Sequence[str], gradients: Sequence[str] = ()) -> Any:
        return self._check((), self._held(optimizers))

    def _held(self, optimizers: Iterable[str]) -> list[str]:
        """The parameters of some optimizers that have to be checked after each of their steps."""
        held = (name for optimizer in optimizers for name in self._plan.optimizers[optimizer].parameters)
        return [name for name in held if name not in self._lasting]

    def clipped(self, norm: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def noted() -> Tensor:
            found = norm()
            if self._active:
                self._note([found])
            return found

        return noted

    def assigned(self, binding: Binding, argument: Assign, loops: Sequence[int]) -> tuple[Any, Any]:
        trained = [place for place, target in enumerate(argument.targets) if self._trains(target)]
        check = self._check(self._plan.trainable, self._plan.trainable)
        if check is None:
            return None, None
        return lambda results: check([results[place] for place in trained]), None

    def _trains(self, target: str) -> bool:
        return self._plan.trains(target.removesuffix(".grad"))

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

        return Check((), (), (), note, note)

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
            if self._only is not None:
                total = torch.where(self._only, total, 0)
            self._sums.add_(total, alpha=0)  # zero, or NaN for ever


def _lasting(plan: Plan) -> frozenset[str]:
    """The parameters that stay not finite for ever once their gradient or weight is: checking them last is enough."""
    assigned = {
        target
        for instruction in plan.program
        if isinstance(instruction, Action) and isinstance(instruction.argument, Assign)
        for target in instruction.argument.targets
    }
    known = [optimizer for optimizer in plan.optimizers.values() if optimizer.kind in RATED and optimizer.rule is None]
    return frozenset(name for optimizer in known for name in optimizer.parameters) - assigned
