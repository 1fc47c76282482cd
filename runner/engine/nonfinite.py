"""The watch over what a run computes and changes: the first value, gradient or weight that is not finite is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from runner.engine.findings import (
    GO_ON,
    Scene,
    as_warning,
    assigned_problem,
    at_step,
    evaluated_problem,
    told,
    where,
)
from runner.engine.finite import Named, Results, Target, finite_on_device, has_elements, looks_finite
from runner.engine.replay import kind_of
from runner.engine.state import State
from runner.errors import HealthWarning, Problem
from runner.language.computation import Output
from runner.plan.instructions import Action, Assign, Evaluate, Evaluation
from runner.plan.outlook import NORM_COLUMN
from runner.plan.plan import Plan

if TYPE_CHECKING:
    from runner.engine.binding import Binding

Look = Callable[[Results], None]
"""Looks at what a computation gave, and at what a step has made of it."""

BLOCK = 64
"""Rows that are looked at together where looking at each would wait for the device."""

MOST_WAITING = 8 * BLOCK
"""Looks that wait at most, where the log leaves rows out."""

LOWER = f"lower the learning rate; {GO_ON}"
_NORM = Output(NORM_COLUMN, torch.float32, (), False, False)


def tell_as_warning(problem: Problem) -> None:
    warnings.warn(HealthWarning(problem.render()), stacklevel=2)


Find = Callable[[str, Tensor, Results], Problem]
"""What is told of a tensor that is not finite, by its name."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What will be looked at later."""

    row: int
    position: int
    iterations: tuple[int, ...]
    names: tuple[str, ...]
    finite: Tensor  # bool `(names,)`, on the device


class Watch:
    """Looks at what steps compute and change, and keeps the first that is not finite.

    On the CPU each step is looked at while everything is there that it was computed from, so that the operation can
    be told. Elsewhere that would wait for the device in every step: the norms of `BLOCK` rows are collected and looked
    at together, and the row and the tensor are told.

    `failure` is what ends the run once the row of the step is out; it stays None where the run goes on.
    """

    __slots__ = ("_defers", "_over", "_plan", "_state", "_waiting", "failure", "tell")

    def __init__(
        self, plan: Plan, state: State, tell: Callable[[Problem], None] = tell_as_warning, *, defers: bool | None = None
    ) -> None:
        """Args:
        tell: is given what is found where the run goes on.
        defers: whether rows are looked at in blocks; where the device is not the CPU unless given.
        """
        self.failure: Problem | None = None
        self.tell = tell
        self._plan = plan
        self._state = state
        self._defers = plan.device != "cpu" if defers is None else defers
        self._over = plan.on_nonfinite == "ignore"  # nothing is looked at, any more or at all
        self._waiting: list[_Waiting] = []

    def start(self) -> None:
        """Look at the weights before the first step."""
        if not self._over:
            parameters = {name: self._state.parameters[name] for name in self._plan.trainable}
            self._search(Target(weights=parameters), (), self._initial)

    def sound(self) -> bool:
        """Whether nothing that ends the run has been found; whatever waits is looked at."""
        self.settle()
        return self.failure is None

    # what steps call; each is None where nothing is to be looked at

    def computed(
        self,
        binding: Binding,
        evaluation: Evaluation,
        loops: Sequence[int],
        parameters: Sequence[str] = (),
        *,
        cotangent: Sequence[Tensor] = (),
        later_draws: int = 0,
    ) -> Look | None:
        """Looks at the objective and the metrics of an evaluation, and at the gradients that it gave.

        Args:
            parameters: whose gradients.
            cotangent: holds the gradient of the objective, where it is not one.
            later_draws: computations with random numbers between the evaluation and the look.
        """
        outputs = {
            output.name: position
            for position, output in enumerate(evaluation.computation.outputs)
            if position == evaluation.objective or output.name in self._plan.lowered.metrics
        }
        order = sorted(outputs, key=lambda name: outputs[name] != evaluation.objective)  # the objective first
        scene = Scene(binding, evaluation, loops, later_draws)

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            if name in outputs:
                return scene.of_value(outputs[name], tensor)
            return scene.of_gradient(name.removesuffix(".grad"), tensor, cotangent[0] if cotangent else None)

        target = Target(
            tuple(
                (name, outputs[name]) for name in order if has_elements(evaluation.computation.outputs[outputs[name]])
            ),
            binding.parameters(parameters),
        )
        return self._look(target, find, evaluation.computation.outputs)

    def updated(
        self, binding: Binding, optimizers: Sequence[str], gradients: Sequence[str] = ()
    ) -> list[Callable[[], None]]:
        """Looks at the weights that optimizers hold, after their step.

        Args:
            gradients: the parameters whose gradients the step has computed again; those that a line search leaves
                are of a point that it may have rejected, and not looked at.
        """
        plan, state = self._plan, self._state
        if any(group.options.get("line_search_fn") for name in optimizers for group in plan.optimizers[name].groups):
            gradients = ()
        holders = {name: optimizer for optimizer in optimizers for name in plan.optimizers[optimizer].parameters}

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            if name not in holders:
                return at_step(plan, state, told(name, tensor, ", in a later evaluation of the step"), LOWER)
            optimizer = plan.optimizers[holders[name]]
            message = told(name, tensor, f", after step {state.steppers[optimizer.name].steps} of `{optimizer.kind}`")
            return plan.config.document.problem(optimizer.path, f"{message} {where(plan, state)}", LOWER)

        target = Target(gradients=binding.parameters(gradients), weights=binding.parameters(list(holders)))
        look = self._look(target, find)
        return [] if look is None else [lambda: look(())]

    def clipped(self, norm: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A norm of gradients that is looked at."""
        plan, state = self._plan, self._state

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            message = told(name, tensor, ", and the gradients are finite")
            return at_step(plan, state, message, f"scale the objective down; {GO_ON}")

        look = self._look(Target(((NORM_COLUMN, 0),)), find, [_NORM])
        if look is None:
            return norm

        def looked() -> Tensor:
            found = norm()
            look((found,))
            return found

        return looked

    def assigned(self, binding: Binding, argument: Assign, loops: Sequence[int]) -> tuple[Look | None, Look | None]:
        """Looks at what an `assign` has computed, before it is written, and at what it has written."""
        plan, state = self._plan, self._state
        positions = {target: position for position, target in enumerate(argument.targets)}
        watched = [target for target in argument.targets if target.removesuffix(".grad") in plan.trainable]
        outputs = [computation.outputs[0] for computation in argument.computations]

        def of_computation(name: str, tensor: Tensor, results: Results) -> Problem:
            return assigned_problem(binding, argument, loops, positions[name], tensor)

        def of_target(name: str, tensor: Tensor, results: Results) -> Problem:
            path = argument.config_paths[positions[name]]
            dtype = str(tensor.dtype).removeprefix("torch.")
            message = f"{told(name, tensor, f', written as {dtype}')} {where(plan, state)}"
            return plan.config.document.problem(path, message, GO_ON)

        computed = [(name, positions[name]) for name in watched if has_elements(outputs[positions[name]])]
        written = Target(
            gradients=binding.parameters([name.removesuffix(".grad") for name in watched if name.endswith(".grad")]),
            weights=binding.parameters([name for name in watched if not name.endswith(".grad")]),
        )
        return self._look(Target(tuple(computed)), of_computation, outputs), self._look(written, of_target)

    def evaluated(self, binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Look | None:
        """Looks at the means that an `evaluate` gives."""
        results = argument.results

        def find(name: str, tensor: Tensor, means: Results) -> Problem:
            result = next(result for result in results if result.name == name)
            return evaluated_problem(binding, argument, loops, result, tensor)

        outputs = [argument.evaluation.computation.outputs[result.output] for result in results]
        target = Target(tuple((result.name, position) for position, result in enumerate(results)))
        return self._look(target, find, outputs)

    def row(self, number: int, path: str, values: Mapping[str, Tensor]) -> None:
        """Look at the tensors of a whole row, for an engine that has several rows at a time.

        The row and the first tensor are told, without the operation.
        """
        if self._over:
            return
        for name, tensor in values.items():
            if kind_of(tensor):
                message = f"{told(name, tensor)} (row {number}, {path})"
                self._found(
                    self._plan.config.document.problem(("steps",), message, f"`engine: eager` says more; {GO_ON}")
                )
                return

    # looking

    def _look(self, target: Target, find: Find, outputs: Sequence[Output] = ()) -> Look | None:
        if self._over or not (target.outputs or target.gradients or target.weights):
            return None
        if self._defers:
            return lambda results: self._defer(target.named(results))
        finite = looks_finite(target, outputs)

        def look(results: Results) -> None:
            if not finite(results):
                self._search(target, results, find)

        return look

    def _search(self, target: Target, results: Results, find: Find) -> None:
        if self._over:
            return
        for name, tensor in target.named(results):
            if kind_of(tensor):
                self._found(find(name, tensor, results))
                return

    def _found(self, problem: Problem) -> None:
        self._over = True
        if self._plan.on_nonfinite == "stop":
            self.failure = problem
        else:
            self.tell(as_warning(problem))

    def _initial(self, name: str, tensor: Tensor, results: Results) -> Problem:
        hint = f"start from finite values; {GO_ON}"
        message = f"{told(name, tensor, ', an initial value')} {where(self._plan, self._state)}"
        return self._plan.config.document.problem(("parameters", name), message, hint)

    # rows that are looked at together

    def _defer(self, named: Named) -> None:
        state, waiting = self._state, self._waiting
        if waiting and (state.row >= waiting[0].row + BLOCK or len(waiting) >= MOST_WAITING):
            self.settle()
        held = [(name, tensor) for name, tensor in named if tensor.numel()]
        if held and not self._over:
            finite = finite_on_device([tensor for _, tensor in held])
            names = tuple(name for name, _ in held)
            self._waiting.append(_Waiting(state.row, state.position, tuple(state.iterations), names, finite))

    def settle(self) -> None:
        """Look at whatever waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting or self._over:
            return
        finite = torch.cat([entry.finite for entry in waiting]).tolist()
        if all(finite):
            return
        names = [(entry, name) for entry in waiting for name in entry.names]
        entry, name = names[finite.index(False)]
        action = self._plan.program[entry.position]
        assert isinstance(action, Action)
        message = f"`{name}` is not finite (row {entry.row}, {action.path.format(*entry.iterations)})"
        hint = f"`device: cpu` says which operation made it so; {GO_ON}"
        self._found(self._plan.config.document.problem(action.config_path, message, hint))
