"""The state of the optimizers of a `train` step, as tensors that a region is handed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from runner.engine.compiled.building import Built
from runner.engine.state import State
from runner.optim import Stepper
from runner.optim.stepper import STEP
from runner.plan.plan import Plan
from runner.plan.program.instructions import Train

Pattern = tuple[tuple[int, ...], ...]


class Preparing:
    """Makes ready what a step needs of its optimizers."""

    def __init__(self, plan: Plan, state: State, argument: Train) -> None:
        evaluation = argument.evaluation
        reached = argument.inputs or plan.objectives[evaluation.computation.outputs[evaluation.objective].name]
        self._state = state
        self._plans = [plan.optimizers[name] for name in argument.optimizers]
        self._steppers = [state.steppers[name] for name in argument.optimizers]
        self._held = [[name for name in optimizer.parameters if name in reached] for optimizer in self._plans]

    def _torch(self) -> Iterator[tuple[Stepper, int]]:
        for place, stepper in enumerate(self._steppers):
            if isinstance(stepper, Stepper):
                yield stepper, place

    def begins_apart(self) -> bool:
        """Whether this step is computed otherwise than those to come: SGD's first one, which its dampening spares."""
        for stepper, place in self._torch():
            for number, group in enumerate(self._plans[place].groups):
                names = [name for name in group.parameters if name in self._held[place]]
                new = any(not isinstance(stepper.state(name).get("momentum_buffer"), Tensor) for name in names)
                if new and stepper.group(number).get("dampening"):
                    return True
        return False

    def prepare(self) -> None:
        """Make the state that torch makes in a first step, for parameters that have not taken one."""
        for stepper, place in self._torch():
            for name in self._held[place]:
                stepper.prepare(name, [entry.name for entry in self._plans[place].state[name]])

    def pattern(self) -> Pattern:
        """Which parameters have taken equally many steps: what depends on that is computed once for all of them."""
        found: list[tuple[int, ...]] = []
        for stepper, place in self._torch():
            taken = [float(stepper.state(name).get(STEP, 0.0)) for name in self._held[place]]  # type: ignore[arg-type]
            found.append(tuple(taken.index(value) for value in taken))
        return tuple(found)

    def carry(self, built: Built) -> list[Tensor]:
        """Weights and state as a region takes them."""
        parameters, training = self._state.parameters, built.training
        carry = [parameters[name].detach().contiguous() for name in training.stepped]
        for name, entry in training.states:
            stepper = next(stepper for stepper in self._steppers if stepper.holds(name))
            value = stepper.state(name)[entry]
            assert isinstance(value, Tensor)
            carry.append(value.contiguous())
        return [*carry, *built.finals]
