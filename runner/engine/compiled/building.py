"""A `train` instruction made into a step over tensors: what it reads, what it carries, what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.binding import Binding
from runner.engine.compiled.differentiated import Differentiated, differentiated
from runner.engine.compiled.numbers import Numbers, computed, counted, flat
from runner.engine.compiled.training import Batch, Held, Micro, Output, Training
from runner.engine.compiled.updates import STEP, Changing, rule_update, torch_update
from runner.engine.steps.micro_batches import Share, Shares, shares_by_length
from runner.engine.watch.checks import has_elements
from runner.engine.watch.watch import HANDING_ON
from runner.language.graph.computation import Computation
from runner.language.graph.scalar_split import SplitComputation, set_apart
from runner.optim import Stepper
from runner.optim.plans import OptimizerPlan
from runner.plan.program.instructions import Train

Lengths = tuple[tuple[int, ...], ...]
"""The lengths of the batches of each micro-batch's sources."""


@dataclass(frozen=True, slots=True)
class Built:
    """A step over tensors, and how a run's state is laid out for it."""

    training: Training
    numbers: Numbers
    fixed: tuple[str, ...]  # inputs that no iteration changes
    drawn: tuple[tuple[str, int], ...]  # (batch column, micro-batch) of each tensor that every iteration has its own of
    gradients: tuple[str, ...]  # parameters with a gradient
    columns: tuple[int, ...]  # of the row, of each output
    counts: tuple[tuple[int, int], ...]  # (column, number) of the counts of steps before an iteration
    scalars: tuple[tuple[int, int], ...]  # (column, number) of named values that are numbers
    results: Mapping[str, int | None]  # kept values that are tensors → which output holds them; None: a final
    numbers_kept: Mapping[str, tuple[int, type]]  # kept values that are numbers
    finals: tuple[Tensor, ...]  # zeros of the shape and dtype of each final
    bytes: int  # of one iteration, an estimate of what it costs


@dataclass(frozen=True, slots=True)
class Drawn:
    """The batch columns of a step: those of each micro-batch as examples, and which stay the same."""

    examples: Sequence[Mapping[str, Tensor]]
    moving: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Part:
    """One evaluation of a step: its numbers stand at `where` among those of an iteration."""

    computation: Computation
    apart: SplitComputation
    function: Differentiated
    where: slice


def build(binding: Binding, argument: Train, lengths: Lengths, drawn: Drawn, iteration: Callable[[], int]) -> Built:
    """The step for batches of some lengths.

    Args:
        iteration: of the innermost loop, as it is when a region begins.
    """
    plan, state, evaluation = binding.plan, binding.state, argument.evaluation
    numbers = Numbers()
    parts = _parts(binding, argument, lengths, drawn, iteration, numbers)
    last = parts[-1]
    gradients = tuple(name for name in plan.trainable if any(name in part.function.reached for part in parts))
    optimizers = [plan.optimizers[name] for name in argument.optimizers]
    holds = [hold for optimizer in optimizers for hold in _holds(binding, optimizer, gradients, numbers)]
    stepped = tuple(name for hold in holds for name in hold.parameters)
    fixed: dict[str, int] = {}
    each: dict[tuple[str, int], int] = {}

    def source(name: str, place: int) -> tuple[str, int]:
        if name in stepped:
            return "weight", stepped.index(name)
        if name in drawn.moving:
            return "each", 1 + each.setdefault((name, place), len(each))
        return "fixed", fixed.setdefault(name, len(fixed))

    batches = tuple(
        Batch(
            part.function,
            tuple(source(name, place) for name in part.apart.inputs),
            slice(part.where.start, part.where.start + part.apart.read),
        )
        for place, part in enumerate(parts)
    )
    outputs, positions, counts = _outputs(binding, argument, gradients, holds, last.apart)
    scalars = {output: last.where.start + number for output, number in last.apart.scalars}
    results, finals = _kept(argument, last, outputs, gradients)
    objective = last.apart.tensors.index(evaluation.objective)
    watched = _watched(binding, argument, last, gradients, stepped)
    taken = sum(part.function.bytes for part in parts)
    accumulation = argument.accumulation
    micro = None
    if accumulation is not None:
        micro = Micro(tuple(accumulation.parts[output] for output in last.apart.tensors), _shares(argument, lengths))
    weights = sum(state.parameters[name].nbytes for name in stepped)
    return Built(
        training=Training(
            batches, objective, argument.clips, tuple(holds), stepped, tuple(outputs), tuple(finals), watched, micro
        ),
        numbers=numbers,
        fixed=tuple(fixed),
        drawn=tuple(each),
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
        bytes=2 * taken + 4 * weights,  # read and written; weights with their gradients and state
    )


def _watched(
    binding: Binding, argument: Train, last: _Part, gradients: Sequence[str], stepped: Sequence[str]
) -> tuple[Output, ...]:
    """What is looked at in every iteration: what the eager engine looks at, so that its step can tell what it is."""
    plan = binding.plan
    if plan.on_nonfinite == "ignore":
        return ()
    hand_on = not argument.clips and all(plan.optimizers[name].kind in HANDING_ON for name in argument.optimizers)
    found = [
        Output("result", place)
        for place, output in enumerate(last.apart.tensors)
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
"""Of the dtypes in which numbers are logged."""


def _parts(
    binding: Binding,
    argument: Train,
    lengths: Lengths,
    drawn: Drawn,
    iteration: Callable[[], int],
    numbers: Numbers,
) -> list[_Part]:
    """The evaluations of a step; one computation is recorded once."""
    trainable = argument.inputs or binding.plan.trainable
    variants = dict(argument.evaluation.variants)
    recorded: dict[tuple[int, Share], _Part] = {}
    parts: list[_Part] = []
    for place, (found, share) in enumerate(zip(lengths, _shares(argument, lengths).objective, strict=True)):
        computation = variants.get(found, argument.evaluation.computation)
        key = (id(computation), share)
        if key not in recorded:
            apart = set_apart(computation)
            function = _record(binding, apart, argument, trainable, drawn.examples[place], iteration(), share)
            ahead = computed(lambda count, apart=apart: apart.numbers(None, count), iteration)  # type: ignore[misc]
            recorded[key] = _Part(computation, apart, function, numbers.add(apart.count, ahead))
        parts.append(recorded[key])
    return parts


def _shares(argument: Train, lengths: Lengths) -> Shares:
    """The share of each micro-batch in the step."""
    if argument.accumulation is None:
        return Shares([(1, 1)], [(1, 1)])
    sources = argument.evaluation.sources
    places = [place for place, name in enumerate(sources) if name in argument.draws_again]
    return shares_by_length(argument, [found[places[0]] if found and places else 1 for found in lengths])


def _kept(
    argument: Train, last: _Part, outputs: Sequence[Output], gradients: Sequence[str]
) -> tuple[dict[str, int | None], list[Output]]:
    """Where the named values that later steps read are found, and what the last iteration gives besides the outputs."""
    logged = {(output.kind, output.place, output.name): place for place, output in enumerate(outputs)}
    results: dict[str, int | None] = {}
    finals: list[Output] = []
    for output, name in argument.evaluation.kept:
        if output in last.apart.tensors:
            result = last.apart.tensors.index(output)
            results[name] = logged.get(("result", result, ""))
            if results[name] is None:
                finals.append(Output("result", result, name))
    finals += [Output("gradient", 0, name) for name in gradients if ("gradient", 0, name) not in logged]
    return results, finals


def _zeros(binding: Binding, output: Output, last: _Part) -> Tensor:
    if output.kind == "gradient":
        return torch.zeros_like(binding.state.parameters[output.name], memory_format=torch.contiguous_format)
    found = last.computation.outputs[last.apart.tensors[output.place]]
    assert found.shape is not None
    return torch.zeros(found.shape, dtype=found.dtype, device=binding.plan.device)


def _record(
    binding: Binding,
    apart: SplitComputation,
    argument: Train,
    trainable: Sequence[str],
    batch: Mapping[str, Tensor],
    iteration: int,
    share: Share,
) -> Differentiated:
    state = binding.state
    examples = [
        batch[name] if name in batch else state.constants[name] if name in state.constants else state.parameters[name]
        for name in apart.inputs
    ]
    given = apart.numbers(None, *[iteration for _ in apart.running])[: apart.read] if apart.running else ()
    numbers = [torch.tensor(float(value), dtype=torch.float64, device=binding.plan.device) for value in given]
    return differentiated(
        apart,
        apart.tensors.index(argument.evaluation.objective),
        trainable,
        share,
        [value.detach() for value in (*examples, *numbers)],
    )


def _holds(binding: Binding, optimizer: OptimizerPlan, gradients: Sequence[str], numbers: Numbers) -> list[Held]:
    """The updates of an optimizer: one for each group, or for each parameter of a rule."""
    stepper = binding.state.steppers[optimizer.name]
    if isinstance(stepper, Stepper):
        return [
            _group(binding, optimizer, stepper, number, held, numbers)
            for number, group in enumerate(optimizer.groups)
            if (held := tuple(name for name in group.parameters if name in gradients))
        ]
    assert optimizer.rule is not None
    holds: list[Held] = []
    shared: dict[int, tuple[SplitComputation, slice]] = {}
    for name in optimizer.parameters:
        if name not in gradients:
            continue
        computation = optimizer.rule.update[name]
        if id(computation) not in shared:
            apart = set_apart(computation)
            ahead = computed(lambda t, apart=apart: apart.numbers(None, t), lambda: stepper.steps + 1)  # type: ignore[misc]
            shared[id(computation)] = (apart, numbers.add(apart.count, ahead))
        apart, where = shared[id(computation)]
        dtypes = {entry.name: entry.dtype for entry in optimizer.state[name]}
        update = rule_update(apart, computation.names, dtypes)
        holds.append(Held(update, (name,), (tuple(dtypes),), (), where))
    return holds


def _group(
    binding: Binding, optimizer: OptimizerPlan, stepper: Stepper, number: int, names: tuple[str, ...], numbers: Numbers
) -> Held:
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
    return Held(torch_update(optimizer.class_name, options, changing), names, entries, tuple(steps), where)


def _taken(stepper: Stepper, name: str) -> float:
    return float(stepper.state(name)[STEP])  # type: ignore[arg-type]


def _outputs(
    binding: Binding, argument: Train, gradients: Sequence[str], holds: Sequence[Held], apart: SplitComputation
) -> tuple[list[Output], list[int], list[tuple[int, int]]]:
    """What of a step the rows hold: the outputs, their columns, and the columns of counts of steps."""
    plan = binding.plan
    outputs: list[Output] = []
    columns: list[int] = []
    counts: list[tuple[int, int]] = []
    tensors = {output: result for result, output in enumerate(apart.tensors)}
    for output, column in argument.evaluation.columns:
        if output in tensors:
            outputs.append(Output("result", tensors[output]))
            columns.append(column)
    for place, clip in enumerate(argument.clips):
        if clip.column is not None:
            outputs.append(Output("norm", place, dtype=plan.columns[clip.column].dtype))
            columns.append(clip.column)
    entries = {name: own for hold in holds for name, own in zip(hold.parameters, hold.entries, strict=True)}
    taken = {name: step for hold in holds for name, step in zip(hold.parameters, hold.steps, strict=False)}
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
