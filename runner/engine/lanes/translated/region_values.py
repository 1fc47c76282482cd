"""The state of lanes as the input of a region, and the results of a region as their state and rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.compiled.training import Tensors, Training
from runner.engine.compiled.write_back import Computed, numbers_of_rows, stacked_block
from runner.engine.lanes.operations.tensor import LaneTensor
from runner.engine.lanes.watch import LaneWatch
from runner.engine.rows import Block
from runner.engine.state import State
from runner.optim import Stepper
from runner.optim.stepper import STEP
from runner.plan.program.instructions import Train


def of_lanes(value: Tensor) -> Tensor:
    """The memory of a tensor of lanes; any other tensor is the same in each."""
    return value.lanes if isinstance(value, LaneTensor) else value


def of_first(value: Tensor) -> Tensor:
    """The value of the first lane."""
    return value.lanes[0] if isinstance(value, LaneTensor) else value


def synchronise(first: State, state: State, optimizers: Sequence[str]) -> None:
    """Sets the counts of steps of the first lane alone to those of all lanes."""
    for name in optimizers:
        alone, together = first.steppers[name], state.steppers[name]
        alone.steps = together.steps
        if isinstance(alone, Stepper):
            for parameter in (each for each in state.parameters if alone.holds(each)):
                count = together.state(parameter).get(STEP)
                if isinstance(count, Tensor):
                    alone.assign_state(parameter, STEP, count.clone())


def carry_of_lanes(state: State, first: Tensors, training: Training, lanes: int) -> Tensors:
    """The carry of a region of all lanes.

    Args:
        first: the carry of the first lane before its first step: what lanes do not have yet is as there.
    """
    carry = [of_lanes(state.parameters[name].detach()) for name in training.stepped]
    for (name, entry), before in zip(training.states, first[len(carry) :], strict=False):
        stepper = next(stepper for stepper in state.steppers.values() if stepper.holds(name))
        found = stepper.state(name).get(entry)
        value = found if isinstance(found, Tensor) else before
        carry.append(value.lanes if isinstance(value, LaneTensor) else value.expand(lanes, *value.shape))
    carry += [value.expand(lanes, *value.shape) for value in first[len(carry) :]]
    return [value.contiguous() for value in carry]


def block_of_lanes(binding: Binding, argument: Train, computed: Computed, kept: Sequence[int], lanes: int) -> Block:
    """The values of the rows of all lanes: a stacked column is `(rows, lanes, *s)`, as the outputs of `computed` are.

    It has one more row if the last iteration is not among those kept.

    Args:
        kept: the iterations whose rows the log keeps.
    """
    found = dict(zip(computed.built.columns, computed.outputs, strict=False))
    rows = computed.numbers[[*kept, *([] if computed.iterations - 1 in kept else [computed.iterations - 1])]]
    shared = numbers_of_rows(computed.built, rows)
    found.update((column, value[:, None].expand(-1, lanes)) for column, value in shared.items())
    return stacked_block(binding, argument, found, shared=True)


def write_lanes_back(binding: Binding, first: State, argument: Train, computed: Computed, block: Block) -> None:
    """Sets the state of all lanes to that after the last iteration."""
    state, training = binding.state, computed.built.training
    for name, weight in zip(training.stepped, computed.after, strict=False):
        cast(Any, state.parameters[name]).lanes = weight
    _write_optimizers(state, first, argument, computed)
    _write_values(state, argument, computed)
    for position, column in enumerate(binding.plan.columns):
        if column.role not in ("value", "norm"):
            value = block.columns[position]
            binding.latest[position] = LaneTensor(value[-1]) if block.stacked[position] and value is not None else value
    for name, cursor in computed.cursors.items():
        state.batches[name].catch_up(cursor)


def note_lanes(watch: LaneWatch, computed: Computed) -> None:
    """Notes the lanes in which something is not finite, or torch would raise an error."""
    flags = [] if computed.sound is None else [computed.sound]
    if computed.built.training.watched:
        flags.append(computed.outputs[-1])
    for flag in flags:
        watch.doubt((~flag.all(0)).nonzero().flatten().tolist())


def _write_optimizers(state: State, first: State, argument: Train, computed: Computed) -> None:
    training = computed.built.training
    entries: dict[str, dict[str, Tensor]] = {name: {} for name in training.stepped}
    for (name, entry), value in zip(training.states, computed.after[len(training.stepped) :], strict=False):
        entries[name][entry] = LaneTensor(value)
    for optimizer in argument.optimizers:
        stepper, alone = state.steppers[optimizer], first.steppers[optimizer]
        own = {name: value for name, value in entries.items() if stepper.holds(name)}
        for name in own:
            count = alone.state(name).get(STEP)
            if isinstance(alone, Stepper) and isinstance(count, Tensor):
                own[name][STEP] = count + computed.iterations
        stepper.advance(own, computed.iterations)


def _write_values(state: State, argument: Train, computed: Computed) -> None:
    """Sets gradients and named values to those after the last iteration."""
    built, training = computed.built, computed.built.training
    finals = computed.after[len(computed.after) - len(training.finals) :]
    last = {
        (output.kind, output.name): LaneTensor(value) for output, value in zip(training.finals, finals, strict=True)
    }
    for output, value in zip(training.outputs, computed.outputs, strict=False):
        if output.kind == "gradient":
            last["gradient", output.name] = LaneTensor(value[-1].clone())
    for name in argument.parameters:
        state.parameters[name].grad = None
    for name in built.gradients:
        state.parameters[name].grad = last["gradient", name]
    for name, place in built.results.items():
        state.values[name] = last["result", name] if place is None else LaneTensor(computed.outputs[place][-1])
    for name, (number, kind) in built.numbers_kept.items():
        state.values[name] = kind(computed.numbers[-1, number])
