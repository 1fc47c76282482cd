"""Checks what a run computes, and reports the first value, gradient or weight that is not finite."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from runner.engine.state import State
from runner.engine.watch.checks import Check, Named, Results, Target, finite_on_device, has_elements, quick_look
from runner.engine.watch.replay import kind_of
from runner.engine.watch.reports import (
    GO_ON,
    Replayable,
    as_warning,
    assigned_problem,
    at_step,
    described,
    evaluated_problem,
    where,
)
from runner.errors import HealthWarning, Problem
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Output
from runner.optim import AnyStepper
from runner.plan.plan import Plan
from runner.plan.program.demand import NORM_COLUMN
from runner.plan.program.instructions import Action, Assign, Evaluate, Evaluation, Train

if TYPE_CHECKING:
    from runner.engine.binding import Binding

BLOCK = 64
"""Rows that are checked together on a device, because checking each would wait for it."""

MOST_WAITING = 8 * BLOCK
"""The maximum number of waiting checks. If the log leaves out rows, a block has more checks than rows."""

HANDING_ON = frozenset(("adadelta", "adagrad", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "sgd"))
"""Optimizers that turn a non-finite gradient into a non-finite weight, for any hyperparameters."""

LOWER = f"lower the learning rate; {GO_ON}"
_NORM = Output(NORM_COLUMN, torch.float32, (), False, False)


def report_as_warning(problem: Problem) -> None:
    warnings.warn(HealthWarning(problem.render()), stacklevel=2)


Find = Callable[[str, Tensor, Results], Problem]
"""Builds the report for a named tensor that is not finite."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A check on a device, whose result has not been read yet."""

    row: int
    position: int
    iterations: tuple[int, ...]
    names: tuple[str, ...]
    finite: Tensor  # bool `(names,)`, on the device


class Watch:
    """Checks what steps compute and change, and reports the first problem.

    On the CPU each step is checked while its inputs still exist, so that the report can name the operation. On other
    devices, a check in each step would wait for the device. There the norms of `BLOCK` rows are checked together, and
    the report names only the row and the tensor.

    `failure` ends the run after the row of its step; it stays None while the run continues.
    """

    __slots__ = ("_defers", "_over", "_plan", "_state", "_waiting", "failure", "report")

    def __init__(
        self,
        plan: Plan,
        state: State,
        report: Callable[[Problem], None] = report_as_warning,
        *,
        defers: bool | None = None,
    ) -> None:
        """Args:
        report: called with each problem that does not end the run.
        defers: whether rows are checked in blocks; by default on every device but the CPU.
        """
        self.failure: Problem | None = None
        self.report = report
        self._plan = plan
        self._state = state
        self._defers = plan.device != "cpu" if defers is None else defers
        self._over = plan.on_nonfinite == "ignore"  # whether checking has ended, or is off
        self._waiting: list[_Waiting] = []

    @property
    def warns(self) -> bool:
        """Whether warnings reach anyone."""
        return True

    @property
    def active(self) -> bool:
        """Whether steps are still checked: checking is on, and nothing has been found yet."""
        return not self._over

    def start(self) -> None:
        """Check the weights before the first step."""
        if not self._over:
            parameters = {name: self._state.parameters[name] for name in self._plan.trainable}
            target = Target(weights=parameters)
            quick_look(target, (), functools.partial(self._search, target, self._initial))()

    def sound(self) -> bool:
        """Run the waiting checks; returns whether the run can continue."""
        self.settle()
        return self.failure is None

    # the checks that steps call; None if there is nothing to check

    def computed(
        self,
        binding: Binding,
        evaluation: Evaluation,
        loops: Sequence[int],
        parameters: Sequence[str] = (),
        *,
        cotangent: Sequence[Tensor] = (),
        later_draws: int = 0,
    ) -> Check | None:
        """A check of the objective, the metrics and the gradients of an evaluation.

        Args:
            parameters: the parameters whose gradients are checked.
            cotangent: contains the gradient of the objective; empty if that is one.
            later_draws: how many computations draw random numbers between the evaluation and the check.
        """
        scene = Replayable(binding, evaluation, loops, later_draws)
        positions = self._watched(evaluation)

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            if name in positions:
                return scene.of_value(positions[name], tensor)
            return scene.of_gradient(name.removesuffix(".grad"), tensor, cotangent[0] if cotangent else None)

        target = Target(tuple(positions.items()), binding.parameters(parameters))
        return self._look(target, find, evaluation.computation.outputs)

    def trained(
        self, binding: Binding, argument: Train, loops: Sequence[int]
    ) -> tuple[Check | None, Check | None, Sequence[AnyStepper]]:
        """The checks before and after the optimizers of a `train` step, and the optimizers that have to `forget`.

        Most optimizers turn a non-finite gradient into a non-finite weight. For those the first check is None:
        gradients are checked only if a weight is not finite. The report then needs the weights before the step. The
        previous row has them; optimizers remember those that no row has, until `forget`.
        """
        evaluation, optimizers = argument.evaluation, argument.optimizers
        held = [name for optimizer in optimizers for name in self._plan.optimizers[optimizer].parameters]
        objective = evaluation.computation.outputs[evaluation.objective].name
        differentiated = {*argument.parameters} & {*self._plan.objectives[objective]}
        unlogged = [name for name in held if not binding.records(name)]
        hand_on = (
            all(self._plan.optimizers[name].kind in HANDING_ON for name in optimizers)
            and not argument.clips
            and argument.accumulate == 1
            and not binding.rewrites_gradients
            and differentiated.issubset(held)
            and all(binding.stepper(name).remembers_cheaply for name in unlogged)
        )
        if not hand_on:
            looks = self.computed(binding, evaluation, loops, argument.parameters)
            return looks, self.updated(binding, optimizers), ()
        scene = Replayable(binding, evaluation, loops, before=held)
        positions = self._watched(evaluation)
        of_weight = self._finding_weights(optimizers)

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            if name in positions:
                return scene.of_value(positions[name], tensor)
            if name in held:
                return of_weight(name, tensor, results)
            return scene.of_gradient(name.removesuffix(".grad"), tensor, None)

        gradients = [name for name in argument.parameters if name in differentiated]
        quick = self._stepped(binding, optimizers, tuple(positions.items()))
        whole = Target(tuple(positions.items()), binding.parameters(gradients), binding.parameters(held))
        look = self._look(quick, find, evaluation.computation.outputs, whole)
        if look is None:
            return None, None, ()
        steppers = [self._state.steppers[name] for name in optimizers]
        remembering = [stepper for stepper in steppers if any(map(stepper.holds, unlogged))]
        for stepper in remembering:
            stepper.remembers = True
        return None, look, remembering

    def _watched(self, evaluation: Evaluation) -> dict[str, int]:
        """The positions of the outputs of an evaluation that are checked, the objective first."""
        outputs = evaluation.computation.outputs
        found = [evaluation.objective]
        watched = self._plan.lowered.metrics.keys() - self._plan.partial
        found += [position for position, output in enumerate(outputs) if output.name in watched]
        return {outputs[position].name: position for position in found if has_elements(outputs[position])}

    def updated(self, binding: Binding, optimizers: Sequence[str], gradients: Sequence[str] = ()) -> Check | None:
        """A check of the weights of optimizers, after their step.

        Args:
            gradients: the parameters whose gradients the step has computed again. A line search may leave
                gradients of a point that it rejected; those are not checked.
        """
        plan, state = self._plan, self._state
        if any(group.options.get("line_search_fn") for name in optimizers for group in plan.optimizers[name].groups):
            gradients = ()
        held = [name for optimizer in optimizers for name in plan.optimizers[optimizer].parameters]
        of_weight = self._finding_weights(optimizers)

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            if name in held:
                return of_weight(name, tensor, results)
            return at_step(plan, state, described(name, tensor, ", in a later evaluation of the step"), LOWER)

        whole = Target(gradients=binding.parameters(gradients), weights=binding.parameters(held))
        quick = replace(self._stepped(binding, optimizers), gradients=whole.gradients)
        return self._look(quick, find, whole=whole)

    def _stepped(
        self, binding: Binding, optimizers: Sequence[str], outputs: tuple[tuple[str, int], ...] = ()
    ) -> Target:
        """A target of outputs and the weights of optimizers; of their sum instead where an optimizer sums cheaply."""
        summed = [stepper for name in optimizers if (stepper := self._state.steppers[name]).sums_cheaply]
        for stepper in summed:
            stepper.sums = self.active and not self._defers
        apart = [name for optimizer in optimizers for name in self._plan.optimizers[optimizer].parameters]
        apart = [name for name in apart if binding.stepper(name) not in summed]
        groups = binding.groups_with(apart)
        grouped = {name for group in groups for name in group.columns}
        weights = binding.parameters([name for name in apart if name not in grouped])
        return Target(outputs, weights=weights, summed=summed, groups=groups)

    def _finding_weights(self, optimizers: Sequence[str]) -> Find:
        """Builds the report for a non-finite weight after an optimizer step."""
        plan, state = self._plan, self._state
        holders = {name: optimizer for optimizer in optimizers for name in plan.optimizers[optimizer].parameters}

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            optimizer = plan.optimizers[holders[name]]
            message = described(
                name, tensor, f", after step {state.steppers[optimizer.name].steps} of `{optimizer.kind}`"
            )
            return plan.config.document.problem(optimizer.path, f"{message} {where(plan, state)}", LOWER)

        return find

    def clipped(self, norm: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Returns `norm`, which clips gradients and returns their norm, with a check of the norm."""
        plan, state = self._plan, self._state

        def find(name: str, tensor: Tensor, results: Results) -> Problem:
            message = described(name, tensor, ", and the gradients are finite")
            return at_step(plan, state, message, f"scale the objective down; {GO_ON}")

        look = self._look(Target(((NORM_COLUMN, 0),)), find, [_NORM])
        if look is None:
            return norm

        def looked() -> Tensor:
            found = norm()
            look((found,))
            return found

        return looked

    def assigned(self, binding: Binding, argument: Assign, loops: Sequence[int]) -> tuple[Check | None, Check | None]:
        """Checks of what an `assign` step computes, before it is written, and of what it has written."""
        plan, state = self._plan, self._state
        positions = {target: position for position, target in enumerate(argument.targets)}
        watched = [target for target in argument.targets if plan.trains(target.removesuffix(".grad"))]
        outputs = [computation.outputs[0] for computation in argument.computations]

        def of_computation(name: str, tensor: Tensor, results: Results) -> Problem:
            return assigned_problem(binding, argument, loops, positions[name], tensor)

        def of_target(name: str, tensor: Tensor, results: Results) -> Problem:
            path = argument.config_paths[positions[name]]
            dtype = dtype_name(tensor.dtype)
            message = f"{described(name, tensor, f', written as {dtype}')} {where(plan, state)}"
            return plan.config.document.problem(path, message, GO_ON)

        computed = [(name, positions[name]) for name in watched if has_elements(outputs[positions[name]])]
        written = Target(
            gradients=binding.parameters([name.removesuffix(".grad") for name in watched if name.endswith(".grad")]),
            weights=binding.parameters([name for name in watched if not name.endswith(".grad")]),
        )
        return self._look(Target(tuple(computed)), of_computation, outputs), self._look(written, of_target)

    def evaluated(self, binding: Binding, argument: Evaluate, loops: Sequence[int]) -> Check | None:
        """A check of the means of an `evaluate` step."""
        results = {result.name: place for place, result in enumerate(argument.results) if not result.partial}

        def find(name: str, tensor: Tensor, means: Results) -> Problem:
            return evaluated_problem(binding, argument, loops, argument.results[results[name]], tensor)

        return self._look(Target(tuple(results.items())), find, [result.inferred for result in argument.results])

    # checking

    def _look(
        self, target: Target, find: Find, outputs: Sequence[Output] = (), whole: Target | None = None
    ) -> Check | None:
        """A check of a target; if it fails, the report is about a tensor in `whole`, by default the target."""
        whole = target if whole is None else whole
        checked = target.outputs or target.gradients or target.weights or target.summed or target.groups
        if self._over or not checked:
            return None
        if self._defers:
            later = whole

            def defer(results: Results) -> None:
                self._defer(later.named(results))

            return Check((), (), (), defer, defer)
        return quick_look(target, outputs, functools.partial(self._search, whole, find))

    def _search(self, target: Target, find: Find, results: Results) -> None:
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
            self.report(as_warning(problem))

    def _initial(self, name: str, tensor: Tensor, results: Results) -> Problem:
        hint = f"start from finite values; {GO_ON}"
        message = f"{described(name, tensor, ', an initial value')} {where(self._plan, self._state)}"
        return self._plan.config.document.problem(("parameters", name), message, hint)

    # rows that are checked together

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
        """Read the results of the waiting checks."""
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
