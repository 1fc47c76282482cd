"""`train` steps of lanes: an evaluation and its derivatives are recorded once, and then run from the recording."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor

from runner.engine.lanes.operations.tape import Replay, Tape
from runner.engine.lanes.operations.tensor import Handler, LaneTensor
from runner.engine.session import Session
from runner.engine.steps import steps
from runner.engine.steps.autograd import Differentiate
from runner.engine.steps.step_code import Loops, Run
from runner.optim.updates import ALIGNMENT
from runner.plan.program.instructions import Train


def bind_train(session: Session, argument: Train, loops: Loops, draw: Handler) -> Run:
    """Bind a `train` step to the tensors of all lanes.

    Args:
        draw: computes an operation that draws random numbers, for each lane.
    """
    if argument.closure or not _is_recorded(session, argument):
        return steps.train(session, argument, loops)
    return steps.train(
        session, argument, loops, lambda differentiate: _Training(session, argument, loops, differentiate, draw)
    )


def _is_recorded(session: Session, argument: Train) -> bool:
    """Whether all inputs of the evaluation are tensors that exist before it."""
    state, columns = session.binding.state, dict(argument.evaluation.batches)
    return all(
        name in columns or name in state.parameters or name in state.constants
        for computation in argument.evaluation.computations()
        for name in computation.inputs
    )


class _Training:
    """Evaluates, and accumulates gradients.

    The first time, operations are chosen; the second time, they are recorded. Inputs of other shapes or strides have a
    recording of their own.
    """

    def __init__(
        self, session: Session, argument: Train, loops: Loops, differentiate: Differentiate, draw: Handler
    ) -> None:
        binding, evaluation = session.binding, argument.evaluation
        columns = dict(evaluation.batches)
        self._used = [binding.state.batches[source] for source in evaluation.sources]
        self._draw = draw
        self._draw_seed = binding.draw_seed if evaluation.computation.random else None
        self._objective = evaluation.objective
        self._differentiate = differentiate
        self._functions = {
            lengths: (computation.function, [binding.getter(name, loops, columns) for name in computation.inputs])
            for lengths, computation in evaluation.variants or [((), evaluation.computation)]
        }
        self._by_length = bool(evaluation.variants)
        self._parameters = binding.state.parameters
        self._trained = argument.parameters
        self._recordings: dict[Hashable, tuple[Replay, Sequence[str]]] = {}
        self._times: dict[Hashable, int] = {}  # how often it was computed without a recording

    def __call__(self) -> tuple[Any, ...]:
        for batches in self._used:
            if not batches.batch:
                batches.next()
        if self._draw_seed is not None:
            self._draw_seed()
        lengths = tuple(batches.length for batches in self._used) if self._by_length else ()
        function, getters = self._functions[lengths]
        inputs = [tensor if get is None else get() for tensor, get in getters]
        memory = [tensor.lanes if isinstance(tensor, LaneTensor) else tensor for tensor in inputs]
        key = (lengths, *[(each.shape, each.stride(), each.data_ptr() % ALIGNMENT) for each in memory])
        recording = self._recordings.get(key)
        if recording is None:
            times = self._times[key] = self._times.get(key, 0) + 1
            if times == 2:
                return self._record(key, function, inputs, memory)
            return self._compute(function, inputs)
        replay, trained = recording
        results = replay(memory)
        for name, gradient in zip(trained, results[len(results) - len(trained) :], strict=True):
            self._parameters[name].grad = gradient
        return results[: len(results) - len(trained)]

    def _compute(self, function: Callable[..., tuple[Any, ...]], inputs: Sequence[Any]) -> tuple[Any, ...]:
        results = function(None, *inputs)
        self._differentiate(results[self._objective])
        return results

    def _record(
        self, key: Hashable, function: Callable[..., tuple[Any, ...]], inputs: Sequence[Any], memory: Sequence[Tensor]
    ) -> tuple[Any, ...]:
        tape = Tape(memory, self._draw)
        with tape:
            results = self._compute(function, inputs)
        trained = [name for name in self._trained if self._parameters[name].grad is not None]
        gradients: list[Any] = [self._parameters[name].grad for name in trained]
        # a gradient that no operation made would be written in place, for instance by `clip`
        if all(isinstance(each, LaneTensor) and tape.made(each.lanes) for each in gradients):
            replay = tape.function([*results, *gradients])
            if replay is not None:
                self._recordings[key] = replay, trained
        return results
