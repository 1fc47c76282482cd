"""The optimizer state of a `train` step, as tensors for a region."""

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
    """Prepares the optimizer state that a step needs."""

    def __init__(self, plan: Plan, state: State, argument: Train) -> None:
        evaluation = argument.evaluation
        reached = argument.inputs or plan.objectives[evaluation.computation.outputs[evaluation.objective].name]
        self._state = state
        self._plans = [plan.optimizers[name] for name in argument.optimizers]
        self._steppers = [state.steppers[name] for name in argument.optimizers]
        self._stepped = [[name for name in optimizer.parameters if name in reached] for optimizer in self._plans]

    def _torch(self) -> Iterator[tuple[Stepper, int]]:
        for place, stepper in enumerate(self._steppers):
            if isinstance(stepper, Stepper):
                yield stepper, place

    def first_step_differs(self) -> bool:
        """Whether the next step differs from those after it: dampening does not apply to the first step of SGD."""
        for stepper, place in self._torch():
            for number, group in enumerate(self._plans[place].groups):
                names = [name for name in group.parameters if name in self._stepped[place]]
                new = any(not isinstance(stepper.state(name).get("momentum_buffer"), Tensor) for name in names)
                if new and stepper.group(number).get("dampening"):
                    return True
        return False

    def prepare(self) -> None:
        """Creates the state that torch creates in a first step, for parameters that have not taken one."""
        for stepper, place in self._torch():
            for name in self._stepped[place]:
                stepper.prepare(name, [entry.name for entry in self._plans[place].state[name]])

    def pattern(self) -> Pattern:
        """Groups parameters by their step count: the numbers that depend on it are computed once for each group."""
        found: list[tuple[int, ...]] = []
        for stepper, place in self._torch():
            taken = [float(stepper.state(name).get(STEP, 0.0)) for name in self._stepped[place]]  # type: ignore[arg-type]
            found.append(tuple(taken.index(value) for value in taken))
        return tuple(found)

    def carry(self, built: Built) -> list[Tensor]:
        """Returns weights and state as the carry of a region."""
        parameters, training = self._state.parameters, built.training
        carry = [parameters[name].detach().contiguous() for name in training.stepped]
        for name, entry in training.states:
            stepper = next(stepper for stepper in self._steppers if stepper.holds(name))
            value = stepper.state(name)[entry]
            assert isinstance(value, Tensor)
            carry.append(value.contiguous())
        return [*carry, *built.finals]
