"""A `train` step over tensors at fixed addresses, so that it can be recorded once and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Tensor

from runner.engine.cudagraph.addresses import Addresses
from runner.engine.cudagraph.capture import Capture
from runner.engine.cudagraph.recording import Recording
from runner.engine.data.batches import Batches
from runner.engine.session import Session
from runner.engine.steps import steps
from runner.engine.steps.optimizer_step import measured, stepping
from runner.optim import AnyStepper
from runner.plan.checks.engines.capturable import steps_within
from runner.plan.program.instructions import Train
from runner.plan.rows.layout import Held

WARM = 3
"""The number of eager warm-up runs of a step before it is recorded: the number that torch uses for its graphs."""

Lengths = tuple[int, ...]
"""The number of samples in each batch of a step: for each source, in each micro-batch."""


class CapturedTrain:
    """One `train` step. For each combination of batch lengths it runs eagerly a few times, then as a recording.

    The recording is a function of tensors at fixed addresses. It clears the gradients, computes the objective and the
    gradients of each micro-batch, and clips them. It also steps the optimizers whose update is the same in every step.
    Other optimizers step after the replay, into the same addresses. Both halves run the kernels of the eager engine.
    All tensors of a row are copied out together.
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
        self._done: dict[Lengths, int] = {}  # the number of eager runs so far
        self._recorded: dict[Lengths, Callable[[], Held]] = {}

    def run(self) -> Held | None:
        """Runs the step once."""
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
        """Returns the lengths of the batches that the step will use."""
        if not self._computations:
            return ()
        of_sources = [self._of_source(name, batches) for name, batches in self._sources.items()]
        return tuple(length for micro_batch in zip(*of_sources, strict=True) for length in micro_batch)

    def _of_source(self, name: str, batches: Batches) -> list[int]:
        """Returns the batch length of one source in each micro-batch."""
        argument = self._argument
        first = name in argument.draws or not batches.drawn
        again = (argument.accumulate - 1) * (name in argument.draws_again)
        ahead = batches.lengths(first + again)
        if not first:
            ahead = [batches.length, *ahead]
        return ahead if again else ahead * argument.accumulate

    def _record(self, lengths: Lengths) -> Callable[[], Held]:
        binding, argument = self._binding, self._argument
        state, plan = binding.state, binding.plan
        # health reads values between the gradients and the updates
        observed = plan.health.of_gradients or plan.health.of_updates
        inside = [] if observed else [name for name in argument.optimizers if steps_within(plan.optimizers[name])]
        outside = [name for name in argument.optimizers if name not in inside]
        inner = [state.steppers[name] for name in inside]
        self._addresses.hold(*inner)
        recording = Recording(binding, argument, lengths, [stepper.update_in_place for stepper in inner])
        replay = self._capture.record(recording.all if not outside else recording.compute)
        checks = [*self._checks(recording), *(_counting(stepper) for stepper in inner)]
        optimizer_steps = [stepping(binding, name, in_place=True) for name in outside]
        checks += measured(self._session, optimizer_steps, argument.optimizers)
        after_update = self._session.watch.updated(binding, argument.optimizers)
        if after_update is not None:
            checks.append(functools.partial(after_update, ()))
        if outside:
            checks.append(recording.gather)
        draw_seed = binding.draw_seed if recording.random else None
        settle, draw, restore, row = self._addresses.settle, recording.draw, recording.restore, recording.row

        def run() -> Held:
            settle()
            draw()
            if draw_seed is not None:
                draw_seed()
            replay()
            restore()
            for check in checks:
                check()
            return row()

        return run

    def _checks(self, recording: Recording) -> list[Callable[[], object]]:
        """Returns the checks of results, gradients and norms after the replay; they are always the same tensors."""
        binding, argument = self._binding, self._argument
        checks: list[Callable[[], object]] = []
        computed = self._session.watch.computed(binding, argument.evaluation, self._loops, argument.parameters)
        if computed is not None:
            checks.append(functools.partial(computed, recording.results))
        checks += [self._session.watch.clipped(functools.partial(_same, norm)) for norm in recording.norms]
        return [*checks, *self._session.health.gradients(binding.parameters(argument.parameters))]


def _same(norm: Tensor) -> Tensor:
    return norm


def _counting(stepper: AnyStepper) -> Callable[[], None]:
    def count() -> None:
        stepper.steps += 1

    return count
