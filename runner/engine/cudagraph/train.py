"""A `train` step over tensors that stay where they are, so that it can be recorded once and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Tensor

from runner.engine.cudagraph.addresses import Addresses
from runner.engine.cudagraph.capture import Capture
from runner.engine.cudagraph.recording import Recording
from runner.engine.data.batches import Batches
from runner.engine.session import Session
from runner.engine.state import Values
from runner.engine.steps import steps
from runner.engine.steps.optimizer_step import measured, stepping
from runner.optim import AnyStepper
from runner.plan.checks.capturable import steps_within
from runner.plan.program.instructions import Train

WARM = 3
"""Times that a step is done as the eager engine does it before it is recorded: torch's own number for its graphs."""

Lengths = tuple[int, ...]
"""How many samples each batch of a step has: of each source, in each micro-batch."""


class CapturedTrain:
    """One `train` step: eager a few times, then recorded and replayed, for each combination of batch lengths.

    What is recorded is a function of tensors at fixed addresses: the gradients are removed, the objective and its
    gradients computed for each micro-batch, clipped, and where an update is the same in every step the weights are
    updated. Other optimizers step after the replay, into the same addresses. So both halves are what the eager engine
    does, in the same kernels. Everything that a row holds is copied out together.
    """

    def __init__(
        self, session: Session, argument: Train, loops: Sequence[int], addresses: Addresses, capture: Capture
    ) -> None:
        self._session = session
        self._binding = session.binding
        self._argument = argument
        self._addresses = addresses
        self._loops = loops
        self._capture = capture
        self._eager = steps.bind(session, argument, loops)
        self._sources = {name: session.binding.state.batches[name] for name in argument.evaluation.sources}
        self._computations = dict(argument.evaluation.variants)
        self._done: dict[Lengths, int] = {}  # how often it was done step by step
        self._recorded: dict[Lengths, Callable[[], Values]] = {}

    def run(self) -> Values | None:
        """Take the step."""
        lengths = self._lengths()
        recorded = self._recorded.get(lengths)
        if recorded is not None:
            return recorded()
        done = self._done.get(lengths, 0)
        if done < WARM:
            self._done[lengths] = done + 1
            return self._capture.warm(self._eager)
        recorded = self._recorded[lengths] = self._record(lengths)
        return recorded()

    def _lengths(self) -> Lengths:
        """The lengths of the batches that the step will see."""
        if not self._computations:
            return ()
        of_sources = [self._of_source(name, batches) for name, batches in self._sources.items()]
        return tuple(length for micro_batch in zip(*of_sources, strict=True) for length in micro_batch)

    def _of_source(self, name: str, batches: Batches) -> list[int]:
        """Of one source, in each micro-batch."""
        argument = self._argument
        first = name in argument.draws or not batches.drawn
        again = (argument.accumulate - 1) * (name in argument.draws_again)
        ahead = batches.lengths(first + again)
        if not first:
            ahead = [batches.length, *ahead]
        return ahead if again else ahead * argument.accumulate

    def _record(self, lengths: Lengths) -> Callable[[], Values]:
        binding, argument = self._binding, self._argument
        state, plan = binding.state, binding.plan
        apart = plan.health.of_gradients or plan.health.of_updates  # it looks between the gradients and the updates
        within = [] if apart else [name for name in argument.optimizers if steps_within(plan.optimizers[name])]
        beside = [name for name in argument.optimizers if name not in within]
        inner = [state.steppers[name] for name in within]
        self._addresses.hold(*inner)
        recording = Recording(binding, argument, lengths, [stepper.update_in_place for stepper in inner])
        replay = self._capture.record(recording.all if not beside else recording.compute)
        looks = [*self._looks(recording), *(_counting(stepper) for stepper in inner)]
        takes = [stepping(binding, name, in_place=True) for name in beside]
        looks += measured(self._session, takes, argument.optimizers)
        left = self._session.watch.updated(binding, argument.optimizers)
        if left is not None:
            looks.append(functools.partial(left, ()))
        if beside:
            looks.append(recording.gather)
        draw_seed = binding.draw_seed if recording.random else None
        settle, draw, restore, row = self._addresses.settle, recording.draw, recording.restore, recording.row

        def run() -> Values:
            settle()
            draw()
            if draw_seed is not None:
                draw_seed()
            replay()
            restore()
            for look in looks:
                look()
            return row()

        return run

    def _looks(self, recording: Recording) -> list[Callable[[], object]]:
        """What looks at results, gradients and norms after the replay; they are always the same tensors."""
        binding, argument = self._binding, self._argument
        looks: list[Callable[[], object]] = []
        computed = self._session.watch.computed(binding, argument.evaluation, self._loops, argument.parameters)
        if computed is not None:
            looks.append(functools.partial(computed, recording.results))
        looks += [self._session.watch.clipped(functools.partial(_same, norm)) for norm in recording.norms]
        return [*looks, *self._session.health.gradients(binding.parameters(argument.parameters))]


def _same(norm: Tensor) -> Tensor:
    return norm


def _counting(stepper: AnyStepper) -> Callable[[], None]:
    def count() -> None:
        stepper.steps += 1

    return count
