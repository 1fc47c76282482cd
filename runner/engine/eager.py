"""The eager engine: the program bound to its tensors once, then run step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine import clipping
from runner.engine.expectations import mismatch
from runner.engine.faults import does_not_hold, run_fault
from runner.engine.rows import Columns, Row
from runner.engine.state import State, initial_state, manual_seed
from runner.language.computation import Computation
from runner.optim import Stepper
from runner.plan.instructions import (
    Action,
    Again,
    Assign,
    Backward,
    Clip,
    ClipGradients,
    Enter,
    Evaluation,
    Expect,
    Expectation,
    Forward,
    Instruction,
    Leave,
    Step,
    Train,
    When,
    ZeroGrad,
)
from runner.plan.plan import Plan
from runner.plan.streams import stream_seed

Values = list[Tensor | None]
Run = Callable[[], Values | None]
"""One step: does it, and gives the values of its row, where one is due."""


def execute(plan: Plan, state: State | None = None) -> Iterator[Row]:
    """Run a plan, and yield a row for its start and after each step.

    Args:
        plan: as `compile` gives it.
        state: where to go on from; the start unless given. It is changed in place.
    Raises:
        RunError: a step fails; the problem names the place in the config.
        ExpectationError: an `expect` step does not hold.
    """
    state = initial_state(plan) if state is None else state
    bound = _Bound(plan, state)
    program, layout, iterations = bound.steps, bound.layout, state.iterations
    if state.row == 0:
        state.row = 1
        yield Row(0, "start", "start", 1, layout, tuple(bound.latest))
    end = len(program)
    position = state.position
    saved = torch.get_rng_state() if bound.random else None
    try:
        while position < end:
            run, action = program[position]
            if action is None:
                position = state.position = run(position)
                continue
            values = run()
            position += 1
            state.position = position
            if values is not None:
                number = state.row
                state.row = number + 1
                loops = action.loops
                if loops:
                    iteration = iterations[loops[-1]]
                    path = action.path.format(*iterations)
                else:
                    iteration, path = 1, action.path
                yield Row(number, action.kind, path, iteration, layout, tuple(values))
    except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError, MemoryError) as error:
        raise run_fault(plan, position, iterations, error) from error
    finally:
        if saved is not None:
            torch.set_rng_state(saved)


class _Bound:
    """A program whose instructions know their tensors."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan = plan
        self.state = state
        self.layout = Columns(plan.columns)
        self.random = any(_draws(instruction) for instruction in plan.program)
        self.fresh = _gradients_are_fresh(plan)
        self.latest: Values = [None] * len(plan.columns)
        self.capture(state.parameters, state.parameters, copy=True)
        self.steps: list[tuple[Callable[..., Any], Action | None]] = [self.bind(item) for item in plan.program]

    # instructions

    def bind(self, instruction: Instruction) -> tuple[Callable[..., Any], Action | None]:
        match instruction:
            case Enter():
                return self.enter(instruction), None
            case Again():
                return self.again(instruction), None
            case Leave():
                return self.leave(instruction), None
            case Action():
                return self.action(instruction), instruction

    def enter(self, instruction: Enter) -> Callable[[int], int]:
        iterations, loop, times, end = self.state.iterations, instruction.loop, instruction.times, instruction.exit

        def run(position: int) -> int:
            iterations[loop] = 1
            return position + 1 if times else end

        return run

    def again(self, instruction: Again) -> Callable[[int], int]:
        iterations, loop, times, start = self.state.iterations, instruction.loop, instruction.times, instruction.start

        def run(position: int) -> int:
            if iterations[loop] < times:
                iterations[loop] += 1
                return start
            return position + 1

        return run

    def leave(self, instruction: Leave) -> Callable[[int], int]:
        due = self.due(instruction.every, instruction.when, instruction.loops)
        end = instruction.exit
        return lambda position: end if due() else position + 1

    def action(self, action: Action) -> Run:
        run = self.bound_argument(action)
        if not torch.is_grad_enabled():
            run = _with_gradients(run)
        if action.every is not None or action.when is not None:
            due = self.due(action.every, action.when, action.loops)
            run = _if_due(run, due)
        if action.rows and self.plan.log.every > 1 and action.loops:
            run = self.every_row(run, action)
        return run

    def every_row(self, run: Run, action: Action) -> Run:
        """Drop the rows of iterations that the log does not keep."""
        every, loop, iterations = self.plan.log.every, action.loops[-1], self.state.iterations
        times = next(item.times for item in self.plan.program if isinstance(item, Enter) and item.loop == loop)

        def kept() -> Values | None:
            values = run()
            iteration = iterations[loop]
            return values if iteration % every == 0 or iteration == times else None

        return kept

    def due(self, every: int | None, when: When | None, loops: Sequence[int]) -> Callable[[], bool]:
        iterations = self.state.iterations
        condition = None if when is None else self.call(when.computation)
        loop = loops[-1] if loops else -1

        def due() -> bool:
            if every is not None and iterations[loop] % every:
                return False
            return True if condition is None else bool(condition()[0])

        return due

    def bound_argument(self, action: Action) -> Run:
        match action.argument:
            case Forward(evaluation):
                return self.forward(evaluation)
            case Backward():
                return self.backward(action.argument)
            case Step():
                return self.step(action.argument)
            case ZeroGrad():
                return self.zero_grad(action.argument)
            case Train():
                return self.train(action.argument)
            case ClipGradients(clip):
                return self.clip_gradients(clip)
            case Assign():
                return self.assign(action.argument)
            case Expect():
                return self.expect(action.argument)

    # computations

    def getter(self, name: str) -> tuple[Any, Callable[[], Any] | None]:
        """An input of a computation: the tensor itself where it is always the same, else how to get it."""
        state = self.state
        if name in state.parameters:
            return state.parameters[name], None
        if name in state.constants:
            return state.constants[name], None
        if name == "iteration":
            return None, self.iteration
        owner, _, entry = name.partition(".")
        if entry == "grad":
            parameter = state.parameters[owner]
            return None, lambda: _existing(parameter.grad, f"`{name}` does not exist: no gradient has been computed")
        if entry:
            stepper = next(stepper for stepper in state.steppers.values() if stepper.holds(owner))
            return None, lambda: _existing(stepper.state(owner).get(entry), f"`{name}` does not exist before the first step")
        values = state.values
        return None, lambda: _existing(values.get(name), f"`{name}` has not been computed yet")

    def iteration(self) -> int:
        return self.current

    def call(self, computation: Computation, detached: bool = True, loops: Sequence[int] = ()) -> Callable[[], tuple[Any, ...]]:
        """The computation as a function without arguments."""
        function, random = computation.function, computation.random
        found = [self.getter(name) for name in computation.inputs]
        tensors = tuple(tensor for tensor, _ in found)
        moving = [(position, get) for position, (_, get) in enumerate(found) if get is not None]
        inputs: Callable[[], Sequence[Any]]
        if moving:

            def inputs() -> Sequence[Any]:
                given = list(tensors)
                for position, get in moving:
                    given[position] = get()
                return given
        else:

            def inputs() -> Sequence[Any]:
                return tensors

        def call() -> tuple[Any, ...]:
            return function(None, *inputs())

        if not moving:

            def call() -> tuple[Any, ...]:
                return function(None, *tensors)

        if random:
            call = self.seeded(call)
        if detached:
            call = _detached(call, computation.gradients)
        return call

    def seeded(self, call: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        """Each evaluation draws from a stream of its own, counted from 1."""
        state, plan = self.state, self.plan

        def draw() -> tuple[Any, ...]:
            state.evaluations += 1
            manual_seed(stream_seed(plan.seed, "expression", "", state.evaluations), plan.device)
            return call()

        return draw

    def keep(self, evaluation: Evaluation) -> Callable[[tuple[Any, ...]], Values]:
        """Remember named values for later steps, and put those that are logged into a row."""
        outputs = evaluation.computation.outputs
        demanded = [(position, name) for position, name in enumerate(evaluation.named)]
        columns = [
            (output, column, outputs[output].aliases, outputs[output].scalar, outputs[output].dtype)
            for output, column in evaluation.columns
        ]
        values, latest = self.state.values, self.latest

        def keep(results: tuple[Any, ...]) -> Values:
            row = latest.copy()
            for output, column, aliases, scalar, dtype in columns:
                result = results[output]
                if scalar:
                    row[column] = torch.tensor(result, dtype=dtype)
                else:
                    row[column] = result.detach().clone() if aliases else result.detach()
            for position, name in demanded:
                values[name] = results[position]
            return row

        return keep

    # steps

    def forward(self, evaluation: Evaluation) -> Run:
        call, keep = self.call(evaluation.computation), self.keep(evaluation)
        return lambda: keep(call())

    def backward(self, argument: Backward) -> Run:
        evaluation = argument.evaluation
        call, keep = self.call(evaluation.computation, detached=False), self.keep(evaluation)
        objective = evaluation.objective or 0
        inputs = None if argument.inputs is None else [self.state.parameters[name] for name in argument.inputs]
        gradient = None if argument.gradient is None else self.call(argument.gradient)
        captured = self.parameters(argument.parameters)

        def run() -> Values:
            results = call()
            value = results[objective]
            given = None if gradient is None else _broadcast_gradient(gradient()[0], value)
            value.backward(given, inputs=inputs)
            self.capture({}, captured, copy=True)
            return keep(results)

        return run

    def parameters(self, names: Sequence[str]) -> dict[str, Parameter]:
        return {name: self.state.parameters[name] for name in names}

    def step(self, argument: Step) -> Run:
        steps = [self.stepping(name, argument.closure) for name in argument.optimizers]
        captured = self.parameters(argument.parameters)
        gradients = captured if argument.closure is not None else {}

        def run() -> Values:
            for take in steps:
                take()
            self.capture(captured, gradients, copy=True)
            return self.latest.copy()

        return run

    def stepping(self, name: str, closure: Evaluation | None = None) -> Callable[[], None]:
        """One optimizer's step, with its hyperparameters for the next `t`."""
        stepper, schedules = self.state.steppers[name], self.state.schedules[name]
        take = stepper.step
        if self.plan.optimizers[name].needs_closure:
            assert closure is not None
            evaluate = self.closure(stepper, closure, self.plan.optimizers[name].parameters)
            take = lambda: stepper.step_closure(evaluate)  # noqa: E731
        if not schedules:
            return take

        def scheduled() -> None:
            t = stepper.steps + 1
            for schedule in schedules:
                stepper.set_option(schedule.group, schedule.option, schedule.value(t))
            take()

        return scheduled

    def closure(
        self, stepper: Stepper, evaluation: Evaluation, names: Sequence[str], first: Callable[[tuple[Any, ...]], None] | None = None
    ) -> Callable[[], Tensor]:
        """What L-BFGS evaluates again and again within a step: the same batch, the same random numbers."""
        parameters = list(self.parameters(names).values())
        call = self.call(evaluation.computation, detached=False)
        objective = evaluation.objective or 0
        state = self.state
        before = -1
        steps = -1

        def evaluate() -> Tensor:
            nonlocal before, steps
            again = steps == stepper.steps
            if not again:
                steps, before = stepper.steps, state.evaluations
            state.evaluations = before
            with torch.enable_grad():
                for parameter in parameters:
                    parameter.grad = None
                results = call()
                results[objective].backward()
            if first is not None and not again:
                first(results)
            return results[objective]  # type: ignore[no-any-return]

        return evaluate

    def zero_grad(self, argument: ZeroGrad) -> Run:
        captured = self.parameters(argument.parameters)
        to_none = argument.set_to_none

        def run() -> Values:
            for parameter in captured.values():
                if to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.detach_().zero_()
            self.capture({}, captured, copy=True)
            return self.latest.copy()

        return run

    def train(self, argument: Train) -> Run:
        if argument.closure:
            return self.train_by_closure(argument)
        evaluation = argument.evaluation
        call, keep = self.call(evaluation.computation, detached=False), self.keep(evaluation)
        objective = evaluation.objective or 0
        captured = self.parameters(argument.parameters)
        zeroed = list(captured.values())
        inputs = None if argument.inputs is None else [self.state.parameters[name] for name in argument.inputs]
        clips = [self.clip(clip) for clip in argument.clips]
        steps = [self.stepping(name) for name in argument.optimizers]
        stepped = self.parameters([name for optimizer in argument.optimizers for name in self.plan.optimizers[optimizer].parameters])
        capture, copy = self.capture, not self.fresh

        def run() -> Values:
            for parameter in zeroed:
                parameter.grad = None
            results = call()
            results[objective].backward(inputs=inputs)
            norms = [clip() for clip in clips]
            for take in steps:
                take()
            capture(stepped, captured, copy=copy)
            row = keep(results)
            for norm in norms:
                if norm is not None:
                    row[norm[0]] = norm[1]
            return row

        return run

    def train_by_closure(self, argument: Train) -> Run:
        """L-BFGS: the row holds its first evaluation, and the weights after its step."""
        evaluation, keep = argument.evaluation, self.keep(argument.evaluation)
        name = argument.optimizers[0]
        stepper = self.state.steppers[name]
        captured = self.parameters(argument.parameters)
        held = self.plan.optimizers[name].parameters
        seen: list[tuple[Any, ...]] = []

        def first(results: tuple[Any, ...]) -> None:
            seen[:] = [results]
            self.capture({}, captured, copy=True)

        evaluate = self.closure(stepper, evaluation, held, first)
        schedules = self.state.schedules[name]

        def run() -> Values:
            for schedule in schedules:
                stepper.set_option(schedule.group, schedule.option, schedule.value(stepper.steps + 1))
            stepper.step_closure(evaluate)
            self.capture(captured, {}, copy=True)
            return keep(seen[0])

        return run

    def clip(self, clip: Clip) -> Callable[[], tuple[int, Tensor] | None]:
        parameters = list(self.parameters(clip.parameters).values())
        if clip.value is not None:
            value = clip.value

            def by_value() -> None:
                clipping.by_value(parameters, value)

            return by_value
        assert clip.max_norm is not None
        max_norm, norm_type, column = clip.max_norm, clip.norm_type, clip.column

        def by_norm() -> tuple[int, Tensor] | None:
            norm = clipping.by_norm(parameters, max_norm, norm_type)
            return None if column is None else (column, norm)

        return by_norm

    def clip_gradients(self, clip: Clip) -> Run:
        apply = self.clip(clip)
        captured = self.parameters(clip.parameters)

        def run() -> Values:
            norm = apply()
            self.capture({}, captured, copy=True)
            row = self.latest.copy()
            if norm is not None:
                row[norm[0]] = norm[1]
            return row

        return run

    def assign(self, argument: Assign) -> Run:
        calls = [self.call(computation) for computation in argument.computations]
        weights = self.parameters([target for target in argument.targets if not target.endswith(".grad")])
        gradients = self.parameters([target.removesuffix(".grad") for target in argument.targets if target.endswith(".grad")])

        def run() -> Values:
            results = [call()[0] for call in calls]
            for target, result in zip(argument.targets, results, strict=True):
                self.write(target, result)
            self.capture(weights, gradients, copy=True)
            return self.latest.copy()

        return run

    def write(self, target: str, result: Any) -> None:
        parameter = self.state.parameters[target.removesuffix(".grad")]
        if not isinstance(result, Tensor):
            result = torch.tensor(result, dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad():
            if target.endswith(".grad"):
                parameter.grad = result.to(parameter.dtype).expand(parameter.shape).clone(memory_format=torch.preserve_format)
            else:
                parameter.copy_(result.clone() if result.data_ptr() == parameter.data_ptr() else result)

    def expect(self, argument: Expect) -> Run:
        checks = [self.expectation(entry) for entry in argument.expectations]

        def run() -> None:
            failures = [failure for failure in (check() for check in checks) if failure is not None]
            if failures:
                raise does_not_hold(self.plan, self.state, failures)

        return run

    def expectation(self, entry: Expectation) -> Callable[[], tuple[Expectation, str] | None]:
        if entry.actual is None:
            assert entry.field is not None
            parameter = self.state.parameters.get(entry.field.removesuffix(".grad"))

            def absent() -> tuple[Expectation, str] | None:
                if parameter is None or parameter.grad is None:
                    return None
                return entry, f"expected no gradient, `{entry.field}` exists"

            return absent
        actual = self.call(entry.actual)
        expected = None if entry.expected is None else self.call(entry.expected)

        def holds() -> tuple[Expectation, str] | None:
            if entry.field is not None and self.state.parameters[entry.field.removesuffix(".grad")].grad is None:
                return entry, "there is no gradient"
            value = entry.value if expected is None else expected()[0]
            difference = mismatch(actual()[0], value, entry.rtol, entry.atol)
            return None if difference is None else (entry, str(difference))

        return holds

    # rows

    def capture(self, weights: Any, gradients: Any, *, copy: bool) -> None:
        """Bring the weights and gradients of the next row up to date."""
        latest, positions = self.latest, self.layout.positions
        for name, parameter in weights.items():
            position = positions.get(name)
            if position is not None:
                latest[position] = parameter.detach().clone()
        for name, parameter in gradients.items():
            position = positions.get(name + ".grad")
            if position is not None:
                gradient = parameter.grad
                latest[position] = gradient if gradient is None or not copy else gradient.detach().clone()


def _existing(value: Any, otherwise: str) -> Any:
    if value is None:
        raise ValueError(otherwise)
    return value


def _detached(call: Callable[[], tuple[Any, ...]], gradients: bool) -> Callable[[], tuple[Any, ...]]:
    """A computation without gradient; one with `grad(y, x)` needs autograd within itself."""
    mode = torch.enable_grad if gradients else torch.no_grad

    def run() -> tuple[Any, ...]:
        with mode():
            results = call()
        return tuple(result.detach() if isinstance(result, Tensor) else result for result in results)

    return run


def _with_gradients(run: Run) -> Run:
    def enabled() -> Values | None:
        with torch.enable_grad():
            return run()

    return enabled


def _if_due(run: Run, due: Callable[[], bool]) -> Run:
    return lambda: run() if due() else None


def _broadcast_gradient(gradient: Any, value: Tensor) -> Tensor:
    if not isinstance(gradient, Tensor):
        gradient = torch.tensor(gradient, dtype=value.dtype, device=value.device)
    return gradient.to(value.dtype).expand(value.shape)


def _draws(instruction: Instruction) -> bool:
    if not isinstance(instruction, Action):
        return False
    computations: list[Computation] = []
    for name in ("evaluation", "closure", "gradient", "computations"):
        value = getattr(instruction.argument, name, None)
        if isinstance(value, Evaluation):
            computations.append(value.computation)
        elif isinstance(value, Computation):
            computations.append(value)
        elif isinstance(value, tuple):
            computations.extend(value)
    return any(computation.random for computation in computations)


def _gradients_are_fresh(plan: Plan) -> bool:
    """Whether nobody writes a gradient after the `train` step that made it, so that rows may keep it uncopied.

    Some `foreach` and `fused` updates write gradients in place, and so do all steps but `train`.
    """
    quiet = (Train, Forward, Expect, Assign)
    arguments = [instruction.argument for instruction in plan.program if isinstance(instruction, Action)]
    options = [group.options for optimizer in plan.optimizers.values() for group in optimizer.groups]
    in_place = any(option.get("foreach") or option.get("fused") for option in options)
    return plan.device == "cpu" and not in_place and all(isinstance(argument, quiet) for argument in arguments)
