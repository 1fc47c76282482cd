"""Builds a step over tensors from a `train` instruction: its inputs, its carry and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.compiled.differentiated import Differentiated, differentiated
from runner.engine.compiled.numbers import Numbers, computed, counted, flat
from runner.engine.compiled.training import Batch, Micro, Output, Training, UpdateGroup
from runner.engine.compiled.updates import STEP, Changing, rule_update, torch_update
from runner.engine.steps.micro_batches import Share, Shares, shares_by_length
from runner.engine.watch.checks import has_elements
from runner.engine.watch.watch import HANDING_ON
from runner.language.graph.computation import Computation
from runner.language.graph.scalar_split import SplitComputation, split_scalars
from runner.optim import RuleStepper, Stepper
from runner.optim.plans import OptimizerPlan
from runner.plan.program.instructions import Accumulation, Part, Train

Lengths = tuple[tuple[int, ...], ...]
"""The batch length of each source, for each micro-batch."""


@dataclass(frozen=True, slots=True)
class Built:
    """A step over tensors, and the layout of the run's state for it."""

    training: Training
    numbers: Numbers
    fixed: tuple[str, ...]  # inputs that no iteration changes
    drawn: tuple[tuple[str, int], ...]  # (batch column, micro-batch) of each tensor that changes with the iteration
    gradients: tuple[str, ...]  # parameters with a gradient
    columns: tuple[int, ...]  # the column of each output in the row
    counts: tuple[tuple[int, int], ...]  # (column, number) of the step counts before an iteration
    scalars: tuple[tuple[int, int], ...]  # (column, number) of named values that are numbers
    results: Mapping[str, int | None]  # kept values that are tensors → the index of their output; None: a final
    numbers_kept: Mapping[str, tuple[int, type]]  # kept values that are numbers
    finals: tuple[Tensor, ...]  # zeros of the shape and dtype of each final
    bytes: int  # an estimate of the bytes that one iteration touches


@dataclass(frozen=True, slots=True)
class Drawn:
    """The batch columns of a step: example batches of each micro-batch, and the columns that change."""

    examples: Sequence[Mapping[str, Tensor]]
    moving: frozenset[str]


class _Inputs:
    """Where the evaluations of a step read their inputs. Collects the tensors that are no weights of the step."""

    def __init__(self, stepped: Sequence[str], moving: Collection[str]) -> None:
        """Args:
        stepped: the parameters that the step updates.
        moving: the batch columns that change with the iteration.
        """
        self.fixed: dict[str, int] = {}  # input → its place among those that no iteration changes
        self.each: dict[tuple[str, int], int] = {}  # (batch column, micro-batch) → its place among those that change
        self._stepped = stepped
        self._moving = moving

    def source(self, name: str, micro_batch: int) -> tuple[str, int]:
        if name in self._stepped:
            return "weight", self._stepped.index(name)
        if name in self._moving:
            return "each", 1 + self.each.setdefault((name, micro_batch), len(self.each))
        return "fixed", self.fixed.setdefault(name, len(self.fixed))


@dataclass(frozen=True, slots=True)
class _Part:
    """One evaluation of a step. Its numbers are at `where` among those of an iteration."""

    computation: Computation
    split: SplitComputation
    function: Differentiated
    where: slice


def build(binding: Binding, argument: Train, lengths: Lengths, drawn: Drawn, iteration: Callable[[], int]) -> Built:
    """Builds the step for certain batch lengths.

    Args:
        iteration: returns the iteration of the innermost loop at the start of a region.
    """
    plan, state, evaluation = binding.plan, binding.state, argument.evaluation
    numbers = Numbers()
    parts = _parts(binding, argument, lengths, drawn, iteration, numbers)
    last = parts[-1]
    gradients = tuple(name for name in plan.trainable if any(name in part.function.reached for part in parts))
    optimizers = [plan.optimizers[name] for name in argument.optimizers]
    update_groups = [
        group for optimizer in optimizers for group in _update_groups(binding, optimizer, gradients, numbers)
    ]
    stepped = tuple(name for group in update_groups for name in group.parameters)
    inputs = _Inputs(stepped, drawn.moving)
    batches = tuple(
        Batch(
            part.function,
            tuple(inputs.source(name, place) for name in part.split.inputs),
            slice(part.where.start, part.where.start + part.split.read),
        )
        for place, part in enumerate(parts)
    )
    outputs, positions, counts = _outputs(binding, argument, gradients, update_groups, last.split)
    scalars = {output: last.where.start + number for output, number in last.split.scalars}
    results, finals = _kept(argument, last, outputs, gradients)
    objective = last.split.tensors.index(evaluation.objective)
    watched = _watched(binding, argument, last, gradients, stepped)
    taken = sum(part.function.bytes for part in parts)
    accumulation = argument.accumulation
    micro = None
    if accumulation is not None:
        micro = Micro(_micro_parts(accumulation, last.split.tensors), _shares(argument, lengths))
    weights = sum(state.parameters[name].nbytes for name in stepped)
    return Built(
        training=Training(
            batches,
            objective,
            argument.clips,
            tuple(update_groups),
            stepped,
            tuple(outputs),
            tuple(finals),
            watched,
            micro,
        ),
        numbers=numbers,
        fixed=tuple(inputs.fixed),
        drawn=tuple(inputs.each),
        gradients=gradients,
        columns=tuple(positions),
        counts=tuple(counts),
        scalars=tuple((column, scalars[output]) for output, column in evaluation.columns if output in scalars),
        results=results,
        numbers_kept={
            name: (scalars[output], _TYPES.get(last.computation.outputs[output].dtype, float))
            for output, name in evaluation.kept
            if output in scalars
        },
        finals=tuple(_zeros(binding, output, last) for output in finals),
        bytes=2 * taken + 4 * weights,  # reads and writes; weights, their gradients and their state
    )


def _micro_parts(accumulation: Accumulation, tensors: Sequence[int]) -> tuple[Part, ...]:
    """Returns how to combine each result that is a tensor; indices refer to these results."""
    parts = [accumulation.parts[output] for output in tensors]
    return tuple(
        part
        if part.ratio is None
        else replace(part, ratio=(tensors.index(part.ratio[0]), tensors.index(part.ratio[1])))
        for part in parts
    )


def _watched(
    binding: Binding, argument: Train, last: _Part, gradients: Sequence[str], stepped: Sequence[str]
) -> tuple[Output, ...]:
    """Returns the tensors to check in every iteration: those that the eager engine checks too."""
    plan = binding.plan
    partial = [
        Output("result", place)
        for place, output in enumerate(last.split.tensors)
        if last.computation.outputs[output].name in plan.partial and has_elements(last.computation.outputs[output])
    ]
    if plan.on_nonfinite == "ignore":
        return tuple(partial)  # the eager step runs an iteration in which one is undefined
    hand_on = not argument.clips and all(plan.optimizers[name].kind in HANDING_ON for name in argument.optimizers)
    found = [
        Output("result", place)
        for place, output in enumerate(last.split.tensors)
        if output == argument.evaluation.objective
        or (
            last.computation.outputs[output].name in plan.lowered.metrics
            and has_elements(last.computation.outputs[output])
        )
    ]
    found += [Output("unclipped", 0, name) for name in gradients if not (hand_on and name in stepped)]
    found += [Output("norm", place) for place, clip in enumerate(argument.clips) if clip.max_norm is not None]
    found += [Output("weight", 0, name) for name in stepped]
    return tuple(output for output in found if not output.name or binding.state.parameters[output.name].numel())


_TYPES: Mapping[torch.dtype, type] = {torch.bool: bool, torch.int64: int}
"""The Python types of the dtypes in which numbers are logged; others are floats."""


def _parts(
    binding: Binding,
    argument: Train,
    lengths: Lengths,
    drawn: Drawn,
    iteration: Callable[[], int],
    numbers: Numbers,
) -> list[_Part]:
    """Returns the evaluations of a step. Each distinct computation is recorded once."""
    trainable = argument.inputs or binding.plan.trainable
    variants = dict(argument.evaluation.variants)
    recorded: dict[tuple[int, Share], _Part] = {}
    parts: list[_Part] = []
    for place, (found, share) in enumerate(zip(lengths, _shares(argument, lengths).objective, strict=True)):
        computation = variants.get(found, argument.evaluation.computation)
        key = (id(computation), share)
        if key not in recorded:
            split = split_scalars(computation)
            function = _record(binding, split, argument, trainable, drawn.examples[place], iteration(), share)
            ahead = computed(lambda count, split=split: split.numbers(None, count), iteration)  # type: ignore[misc]
            recorded[key] = _Part(computation, split, function, numbers.add(split.count, ahead))
        parts.append(recorded[key])
    return parts


def _shares(argument: Train, lengths: Lengths) -> Shares:
    """Returns the share of each micro-batch in the step."""
    if argument.accumulation is None:
        return Shares([(1, 1)], [(1, 1)])
    sources = argument.evaluation.sources
    places = [place for place, name in enumerate(sources) if name in argument.draws_again]
    return shares_by_length(argument, [found[places[0]] if found and places else 1 for found in lengths])


def _kept(
    argument: Train, last: _Part, outputs: Sequence[Output], gradients: Sequence[str]
) -> tuple[dict[str, int | None], list[Output]]:
    """Returns where to find the named values that later steps read, and the extra outputs of the last iteration."""
    logged = {(output.kind, output.place, output.name): place for place, output in enumerate(outputs)}
    results: dict[str, int | None] = {}
    finals: list[Output] = []
    for output, name in argument.evaluation.kept:
        if output in last.split.tensors:
            result = last.split.tensors.index(output)
            results[name] = logged.get(("result", result, ""))
            if results[name] is None:
                finals.append(Output("result", result, name))
    finals += [Output("gradient", 0, name) for name in gradients if ("gradient", 0, name) not in logged]
    return results, finals


def _zeros(binding: Binding, output: Output, last: _Part) -> Tensor:
    if output.kind == "gradient":
        return torch.zeros_like(binding.state.parameters[output.name], memory_format=torch.contiguous_format)
    found = last.computation.outputs[last.split.tensors[output.place]]
    assert found.shape is not None
    return torch.zeros(found.shape, dtype=found.dtype, device=binding.plan.device)


def _record(
    binding: Binding,
    split: SplitComputation,
    argument: Train,
    trainable: Sequence[str],
    batch: Mapping[str, Tensor],
    iteration: int,
    share: Share,
) -> Differentiated:
    state = binding.state
    examples = [
        batch[name] if name in batch else state.constants[name] if name in state.constants else state.parameters[name]
        for name in split.inputs
    ]
    given = split.numbers(None, *[iteration for _ in split.running])[: split.read] if split.running else ()
    numbers = [torch.tensor(float(value), dtype=torch.float64, device=binding.plan.device) for value in given]
    return differentiated(
        split,
        split.tensors.index(argument.evaluation.objective),
        trainable,
        share,
        [value.detach() for value in (*examples, *numbers)],
    )


def _update_groups(
    binding: Binding, optimizer: OptimizerPlan, gradients: Sequence[str], numbers: Numbers
) -> list[UpdateGroup]:
    """Returns the updates of an optimizer: one for each group, or for each parameter of a rule."""
    stepper = binding.state.steppers[optimizer.name]
    if isinstance(stepper, Stepper):
        return [
            _group(binding, optimizer, stepper, number, names, numbers)
            for number, group in enumerate(optimizer.groups)
            if (names := tuple(name for name in group.parameters if name in gradients))
        ]
    assert isinstance(stepper, RuleStepper)
    assert optimizer.rule is not None
    update_groups: list[UpdateGroup] = []
    shared: dict[int, tuple[SplitComputation, slice]] = {}
    for name in optimizer.parameters:
        if name not in gradients:
            continue
        computation = optimizer.rule.update[name]
        if id(computation) not in shared:
            split = split_scalars(computation, rule=True)
            ahead = computed(_numbers_of_rule(split, stepper), lambda: stepper.steps + 1)
            shared[id(computation)] = (split, numbers.add(split.count, ahead))
        split, where = shared[id(computation)]
        dtypes = {entry.name: entry.dtype for entry in optimizer.state[name]}
        update = rule_update(split, computation.names, dtypes)
        update_groups.append(UpdateGroup(update, (name,), (tuple(dtypes),), (), where))
    return update_groups


def _numbers_of_rule(split: SplitComputation, stepper: RuleStepper) -> Callable[[int], tuple[bool | int | float, ...]]:
    """The numbers of a rule as a function of `t`; the parameters that it reads are the same in all iterations."""

    def at(t: int) -> tuple[bool | int | float, ...]:
        known = stepper.numbers(t)
        return split.numbers(None, *[known[name] for name in split.running])

    return at


def _group(
    binding: Binding, optimizer: OptimizerPlan, stepper: Stepper, number: int, names: tuple[str, ...], numbers: Numbers
) -> UpdateGroup:
    kept = [stepper.state(name) for name in names]
    entries = tuple(
        tuple(entry for entry, value in found.items() if entry != STEP and isinstance(value, Tensor)) for found in kept
    )
    steps: list[int] = []
    alike: dict[float, int] = {}
    for name, found in zip(names, kept, strict=True):
        if STEP in found:
            taken = _taken(stepper, name)
            if taken not in alike:
                alike[taken] = numbers.add(1, counted(lambda name=name: _taken(stepper, name))).start  # type: ignore[misc]
            steps.append(alike[taken])
    schedules = [schedule for schedule in binding.state.schedules[optimizer.name] if schedule.group == number]
    first = [schedule.value(stepper.steps + 1) for schedule in schedules]
    changing = [
        Changing(schedule.option, len(value) if isinstance(value, tuple) else None)
        for schedule, value in zip(schedules, first, strict=True)
    ]

    def at(t: int) -> list[bool | int | float]:
        return [element for schedule in schedules for element in flat(schedule.value(t))]

    where = numbers.add(sum(change.count or 1 for change in changing), computed(at, lambda: stepper.steps + 1))
    options = {name: value for name, value in stepper.group(number).items() if name != "params"}
    return UpdateGroup(torch_update(optimizer.class_name, options, changing), names, entries, tuple(steps), where)


def _taken(stepper: Stepper, name: str) -> float:
    return float(stepper.state(name)[STEP])  # type: ignore[arg-type]


def _outputs(
    binding: Binding,
    argument: Train,
    gradients: Sequence[str],
    update_groups: Sequence[UpdateGroup],
    split: SplitComputation,
) -> tuple[list[Output], list[int], list[tuple[int, int]]]:
    """Returns the outputs of a step that rows contain, their columns, and the columns of step counts."""
    plan = binding.plan
    outputs: list[Output] = []
    columns: list[int] = []
    counts: list[tuple[int, int]] = []
    tensors = {output: result for result, output in enumerate(split.tensors)}
    for output, column in argument.evaluation.columns:
        if output in tensors:
            outputs.append(Output("result", tensors[output]))
            columns.append(column)
    for place, clip in enumerate(argument.clips):
        if clip.column is not None:
            outputs.append(Output("norm", place, dtype=plan.columns[clip.column].dtype))
            columns.append(clip.column)
    entries = {name: own for group in update_groups for name, own in zip(group.parameters, group.entries, strict=True)}
    taken = {name: step for group in update_groups for name, step in zip(group.parameters, group.steps, strict=False)}
    for position, quantity in enumerate(plan.columns):
        if quantity.role == "gradient" and (name := quantity.name.removesuffix(".grad")) in gradients:
            outputs.append(Output("gradient", 0, name))
        elif quantity.role == "weight" and quantity.name in entries:
            outputs.append(Output("weight", 0, quantity.name))
        elif quantity.role == "state":
            name, _, entry = quantity.name.partition(".")
            if entry == STEP and name in entries:
                counts.append((position, taken[name]))
            if entry not in entries.get(name, ()):
                continue
            outputs.append(Output("state", 0, name, entry))
        else:
            continue
        columns.append(position)
    return outputs, columns, counts
