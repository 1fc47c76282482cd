"""Binds a plan to the tensors of one run: computations become calls without arguments."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.data.batches import Batches
from runner.engine.state import State
from runner.language.graph.computation import Computation
from runner.language.inference.generators import manual_seed
from runner.optim import AnyStepper
from runner.plan.plan import Plan
from runner.plan.program.instructions import Action, Break, Evaluate, Evaluation
from runner.plan.rows.layout import Columns, Together, groups_of, joined
from runner.plan.streams import stream_seed

Defined = Callable[[str], Callable[[Any], Any]]
AS_IT_IS: Defined = lambda name: lambda value: value  # noqa: E731
NOTHING: Mapping[str, str] = MappingProxyType({})


class Binding:
    """The plan and the state of a run, and the values of its next row."""

    def __init__(self, plan: Plan, state: State, defined: Defined = AS_IT_IS, *, groups: bool = False) -> None:
        """Args:
        defined: returns for a metric a function from its value to that of a row.
        groups: whether rows hold many small tensors of one shape as one, a copy.
        """
        self.plan = plan
        self.defined = defined
        self.state = state
        self.layout = Columns(plan.columns, groups_of(plan.columns) if groups and _may_group(plan) else ())
        places = len(self.layout.apart) + len(self.layout.groups)
        self.latest: list[Together] = [None] * places  # the current weights and gradients
        self.results = _results(plan)
        self.state_columns: list[tuple[int, str, str]] = []
        for position, column in enumerate(plan.columns):
            if column.role == "state":
                owner, _, entry = column.name.partition(".")
                self.state_columns.append((self.layout.places[position], owner, entry))
        groups_made = [Group(self, number) for number in range(len(self.layout.groups))]
        self._group_of = {name: group for group in groups_made for name in group.columns}
        self.rewrites_gradients = _rewrites_gradients(plan)
        for name, stepper in state.steppers.items():
            stepper.keep(held for held in plan.optimizers[name].parameters if self.position(held) is not None)
        self.capture_weights(state.parameters)
        self.capture_gradients(state.parameters)
        self.capture_state()

    def getter(
        self, name: str, loops: Sequence[int], sources: Mapping[str, str] = NOTHING
    ) -> tuple[Any, Callable[[], Any] | None]:
        """An input of a computation: `(tensor, None)` if it is always the same tensor, else `(None, getter)`."""
        state = self.state
        if name in sources:
            return None, self.column(state.batches[sources[name]], name)
        if name in state.parameters:
            return state.parameters[name], None
        if name in state.constants:
            return state.constants[name], None
        if name == "iteration":
            return None, self.iteration(loops)
        owner, _, entry = name.partition(".")
        if name in self.results:
            return None, lambda: _existing(
                state.values.get(name), f"`{name}` does not exist before `evaluate: {owner}`"
            )
        if entry == "grad":
            parameter = state.parameters[owner]
            return None, lambda: _existing(parameter.grad, f"`{name}` does not exist: no gradient has been computed")
        if entry:
            stepper = next(stepper for stepper in state.steppers.values() if stepper.holds(owner))
            return None, lambda: _existing(
                stepper.state(owner).get(entry), f"`{name}` does not exist before the first step"
            )
        values = state.values
        return None, lambda: _existing(values.get(name), f"`{name}` has not been computed yet")

    def reading(self, loops: Sequence[int]) -> Callable[[str], Any]:
        """A function that returns the current value of an input that is no batch column."""

        def read(name: str) -> Any:
            tensor, get = self.getter(name, loops)
            return tensor if get is None else get()

        return read

    def column(self, batches: Batches, name: str) -> Callable[[], Any]:
        """A function that returns a column of the current batch."""
        return lambda: batches.batch[name]

    def evaluate(
        self, evaluation: Evaluation, loops: Sequence[int], *, detached: bool = True
    ) -> Callable[[], tuple[Any, ...]]:
        """A function that computes an evaluation over the current batches; it draws them if there are none yet."""
        if not evaluation.batches:
            return self.call(evaluation.computation, loops, detached=detached)
        sources = dict(evaluation.batches)
        used = [self.state.batches[name] for name in evaluation.sources]
        if evaluation.variants:
            variants = {
                lengths: self.call(computation, loops, detached=detached, sources=sources)
                for lengths, computation in evaluation.variants
            }

            def of_length() -> tuple[Any, ...]:
                for batches in used:
                    if not batches.batch:
                        batches.next()
                return variants[tuple(batches.length for batches in used)]()

            return of_length
        call = self.call(evaluation.computation, loops, detached=detached, sources=sources)

        def drawn() -> tuple[Any, ...]:
            for batches in used:
                if not batches.batch:
                    batches.next()
            return call()

        return drawn

    def iteration(self, loops: Sequence[int]) -> Callable[[], int]:
        """A function that returns `iteration`, that of the innermost loop, or 1 outside a loop."""
        iterations = self.state.iterations
        if not loops:
            return lambda: 1
        loop = loops[-1]
        return lambda: iterations[loop]

    def call(
        self,
        computation: Computation,
        loops: Sequence[int],
        *,
        detached: bool = True,
        sources: Mapping[str, str] = NOTHING,
        observes: bool = False,
    ) -> Callable[[], tuple[Any, ...]]:
        """A computation as a function without arguments.

        Args:
            detached: whether its results have no autograd history.
            sources: the data source of each batch column.
            observes: whether it serves `expect` or `when`, and must not change the random numbers of the training.
        """
        function, random = computation.function, computation.random
        found = [self.getter(name, loops, sources) for name in computation.inputs]
        tensors = tuple(tensor for tensor, _ in found)
        moving = [(position, get) for position, (_, get) in enumerate(found) if get is not None]
        inputs: Callable[[], Sequence[Any]]
        if moving:

            def inputs() -> Sequence[Any]:
                given = list(tensors)
                try:
                    for position, get in moving:
                        given[position] = get()
                except MissingValue as error:
                    error.origin = computation.origin
                    raise
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
            call = self.observing(call) if observes else self.seeded(call)
        if detached:
            call = _detached(call, computation.gradients)
        return call

    def draw_seed(self) -> None:
        """Seed the generator for the next evaluation; each has its own stream, counted from 1."""
        state, plan = self.state, self.plan
        state.evaluations += 1
        manual_seed(stream_seed(plan.seed, "expression", "", state.evaluations), plan.device)

    def seeded(self, call: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        def draw() -> tuple[Any, ...]:
            self.draw_seed()
            return call()

        return draw

    def observing(self, call: Callable[[], tuple[Any, ...]]) -> Callable[[], tuple[Any, ...]]:
        """`call` with random numbers from the streams of `expect` and `when`, which nothing else uses."""
        state, plan = self.state, self.plan

        def draw() -> tuple[Any, ...]:
            state.observations += 1
            manual_seed(stream_seed(plan.seed, "observation", "", state.observations), plan.device)
            return call()

        return draw

    def parameters(self, names: Sequence[str]) -> dict[str, Parameter]:
        return {name: self.state.parameters[name] for name in names}

    def trained(self, names: Sequence[str] | None) -> list[Tensor] | None:
        """The parameters whose gradients are computed; None for all that the objective reaches."""
        return None if names is None else [self.state.parameters[name] for name in names]

    def stepper(self, name: str) -> AnyStepper:
        """The optimizer that holds a parameter."""
        return next(stepper for stepper in self.state.steppers.values() if stepper.holds(name))

    # the values of the next row

    def position(self, column: str) -> int | None:
        """The place of a column in what a row holds; None if it is not logged, or held in a group."""
        position = self.layout.positions.get(column)
        return None if position is None else self.layout.places.get(position)

    def groups_with(self, columns: Iterable[str]) -> list[Group]:
        """The groups that have some of these columns."""
        return list(dict.fromkeys(self._group_of[name] for name in columns if name in self._group_of))

    def records(self, column: str) -> bool:
        """Whether rows have a column."""
        return column in self.layout.positions

    def recorded(self, column: str) -> Tensor | None:
        """The value of a column in the latest row; None if it has none."""
        return self.layout.value(tuple(self.latest), self.layout.positions[column])

    def capture_weights(self, parameters: Mapping[str, Parameter]) -> None:
        """Put the weights of these parameters into later rows.

        Those apart are not copied: nothing may write them again.
        """
        for name, parameter in parameters.items():
            position = self.position(name)
            if position is not None:
                self.latest[position] = parameter.detach()
        for group in self.groups_with(parameters):
            self.latest[group.place] = group.take()

    def capture_gradients(self, parameters: Mapping[str, Parameter]) -> None:
        """Put the gradients of these parameters into later rows, as `capture_weights` does."""
        for name, parameter in parameters.items():
            position = self.position(name + ".grad")
            if position is not None:
                self.latest[position] = parameter.grad
        for group in self.groups_with(f"{name}.grad" for name in parameters):
            self.latest[group.place] = group.take()

    def capture_state(self) -> None:
        """Put copies of the optimizer state into later rows."""
        for position, name, entry in self.state_columns:
            for stepper in self.state.steppers.values():
                if stepper.holds(name):
                    value = stepper.state(name).get(entry)
                    self.latest[position] = value.detach().clone() if isinstance(value, Tensor) else None


class Group:
    """Weights or gradients that rows hold as one tensor.

    Attributes:
        columns: their names.
        place: where a row holds them.
        take: copies the current ones: `Together`, of weights always a tensor.
    """

    __slots__ = ("columns", "place", "take")

    def __init__(self, binding: Binding, number: int) -> None:
        layout, parameters = binding.layout, binding.state.parameters
        members = [layout.columns[position] for position in layout.groups[number]]
        self.columns = tuple(column.name for column in members)
        self.place = layout.place_of_group(number)
        weights = [parameters[name.removesuffix(".grad")] for name in self.columns]
        self.take: Callable[[], Any] = _taking(weights, of_gradients=members[0].role == "gradient")


def _taking(parameters: Sequence[Parameter], *, of_gradients: bool) -> Callable[[], Together]:
    """A function that copies the current weights or gradients of some parameters into one tensor."""

    def gradients() -> Together:
        return joined([parameter.grad for parameter in parameters])

    def weights() -> Together:
        with torch.no_grad():
            return torch.stack(parameters)  # type: ignore[arg-type]

    return gradients if of_gradients else weights


def _may_group(plan: Plan) -> bool:
    """Whether rows may hold tensors in groups: on the CPU, unless a checkpoint may have rows that are withheld."""
    withholds = plan.log.every > 1 and any(isinstance(instruction, Break) for instruction in plan.program)
    return plan.device == "cpu" and not withholds


def _results(plan: Plan) -> frozenset[str]:
    """The names of the results of `evaluate` steps."""
    arguments = [instruction.argument for instruction in plan.program if isinstance(instruction, Action)]
    found = [argument.results for argument in arguments if isinstance(argument, Evaluate)]
    return frozenset(result.name for results in found for result in results)


def _rewrites_gradients(plan: Plan) -> bool:
    """Whether an optimizer may write gradients in place, as some `foreach` and `fused` implementations do."""
    options = [group.options for optimizer in plan.optimizers.values() for group in optimizer.groups]
    return plan.device != "cpu" or any(option.get("foreach") or option.get("fused") for option in options)


class MissingValue(ValueError):
    """An expression reads a value that does not exist yet; `origin` says which text reads it."""

    origin: Hashable | None = None
    hint: str | None = None


class RefusedValue(MissingValue):
    """A step writes a value that its target cannot have; `origin` says which."""


def _existing(value: Any, otherwise: str) -> Any:
    if value is None:
        raise MissingValue(otherwise)
    return value


def _detached(call: Callable[[], tuple[Any, ...]], gradients: bool) -> Callable[[], tuple[Any, ...]]:
    """Wraps `call`, so that its results have no autograd history. With `gradients`, autograd runs, for `grad(y, x)`."""
    mode = torch.enable_grad if gradients else torch.no_grad

    def run() -> tuple[Any, ...]:
        with mode():
            results = call()
        return tuple(result.detach() if isinstance(result, Tensor) else result for result in results)

    return run
