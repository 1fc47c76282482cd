"""Turns the results of a region into rows, and writes them back to the state of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.compiled.building import Built
from runner.engine.data.batches import Batches
from runner.engine.rows import Block
from runner.optim import Stepper
from runner.plan.program.instructions import Train


@dataclass(frozen=True, slots=True)
class Computed:
    """Iterations that have been computed but not yet written back to the state."""

    built: Built
    iterations: int
    cursors: Mapping[str, Batches]  # positions after the last iteration
    numbers: Tensor
    after: list[Tensor]  # the carry after the last iteration
    outputs: list[Tensor]  # of all iterations, stacked
    sound: Tensor | None = None  # whether torch would compute each iteration without an error; None: it does


def block_of(binding: Binding, argument: Train, computed: Computed, shared: bool) -> Block:
    """Returns the values of the rows: the results of the iterations, and the columns that did not change.

    Args:
        shared: whether rows may share memory with the run and with each other.
    """
    built, numbers = computed.built, computed.numbers
    found = dict(zip(built.columns, computed.outputs, strict=False))
    found.update(numbers_of_rows(built, numbers))
    return stacked_block(binding, argument, found, shared)


def numbers_of_rows(built: Built, numbers: Tensor) -> dict[int, Tensor]:
    """The columns that are numbers of the iterations, by position: `(rows,)`, from `numbers` `(rows, n)`."""
    found = {column: numbers[:, number] for column, number in built.scalars}
    return found | {column: numbers[:, number] + 1 for column, number in built.counts}


def stacked_block(binding: Binding, argument: Train, found: Mapping[int, Tensor], shared: bool) -> Block:
    """A block with the stacked values of some columns, by position; the others are as they were before it."""
    columns = list(binding.layout.values(tuple(binding.latest)))
    stacked = [False] * len(columns)
    for name in argument.parameters:
        position = binding.layout.positions.get(f"{name}.grad")
        if position is not None:
            columns[position] = None
    for position, value in found.items():
        columns[position], stacked[position] = value.to(binding.plan.columns[position].dtype), True
    return Block(columns, stacked, shared)


def finite_iterations(computed: Computed) -> int:
    """Returns the number of iterations before the first one with a non-finite watched value."""
    if not computed.built.training.watched:
        return computed.iterations
    return _until_false(computed.outputs[-1], computed.iterations)


def sound_iterations(computed: Computed) -> int:
    """Returns the number of iterations before the first one in which torch raises an error."""
    return computed.iterations if computed.sound is None else _until_false(computed.sound, computed.iterations)


def _until_false(found: Tensor, iterations: int) -> int:
    return iterations if bool(found.all()) else found.tolist().index(False)


def write_back(binding: Binding, argument: Train, computed: Computed, block: Block) -> None:
    """Sets the state to that after the last iteration. The caller updates the iteration count of the loop."""
    state, training = binding.state, computed.built.training
    for name, weight in zip(training.stepped, computed.after, strict=False):
        parameter = state.parameters[name]
        parameter.data = weight if parameter.is_contiguous() else torch.empty_like(parameter).copy_(weight)
    _write_optimizers(binding, argument, computed)
    _write_values(binding, argument, computed)
    for position, column in enumerate(binding.plan.columns):
        if column.role not in ("value", "norm"):
            value = block.columns[position]
            binding.latest[position] = value[-1] if block.stacked[position] and value is not None else value
    for name, cursor in computed.cursors.items():
        state.batches[name].catch_up(cursor)


def _write_optimizers(binding: Binding, argument: Train, computed: Computed) -> None:
    state, training = binding.state, computed.built.training
    entries: dict[str, dict[str, Tensor]] = {name: {} for name in training.stepped}
    for (name, entry), value in zip(training.states, computed.after[len(training.stepped) :], strict=False):
        entries[name][entry] = value
    for optimizer in argument.optimizers:
        stepper = state.steppers[optimizer]
        if isinstance(stepper, Stepper):
            for schedule in state.schedules[optimizer]:
                last = schedule.value(stepper.steps + computed.iterations)
                stepper.set_option(schedule.group, schedule.option, last)
        own = {name: value for name, value in entries.items() if stepper.holds(name)}
        stepper.advance(own, computed.iterations)


def _write_values(binding: Binding, argument: Train, computed: Computed) -> None:
    """Sets gradients and named values to those after the last iteration."""
    state, built = binding.state, computed.built
    training = built.training
    last = {
        (output.kind, output.name): value
        for output, value in zip(
            training.finals, computed.after[len(computed.after) - len(training.finals) :], strict=True
        )
    }
    for output, value in zip(training.outputs, computed.outputs, strict=False):
        if output.kind == "gradient":
            last["gradient", output.name] = value[-1].clone()
    for name in argument.parameters:
        state.parameters[name].grad = None
    for name in built.gradients:
        state.parameters[name].grad = last["gradient", name]
    for name, place in built.results.items():
        state.values[name] = last["result", name] if place is None else computed.outputs[place][-1]
    for name, (number, kind) in built.numbers_kept.items():
        state.values[name] = kind(computed.numbers[-1, number])
