"""The state of all lanes before step 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.lanes.data import LaneBatches
from runner.engine.lanes.following import LaneTracker
from runner.engine.lanes.operations.choosing import Choosing
from runner.engine.lanes.operations.tensor import LaneNumber, LaneTensor, NotStackable
from runner.engine.lanes.stepper import LaneStepper, rate_of_each
from runner.engine.state import State, initial_state
from runner.language.inference.inference import Bounds
from runner.optim import Option, RuleStepper, Scheduled, build, elements
from runner.plan.data.dtypes import Number
from runner.plan.plan import Plan
from runner.plan.streams import stream_seed
from runner.plan.tensors.initial import Computed, Drawn, Fill
from runner.plan.tensors.initial_values import InitialContext, computed_value
from runner.plan.tensors.tensors import TensorPlan, initial_order, materialise


@dataclass(frozen=True, slots=True)
class Lane:
    """What one lane has of its own."""

    seed: int
    fills: Mapping[str, Number] = field(default_factory=dict)  # tensors whose elements have one initial value
    rates: Mapping[str, float] = field(default_factory=dict)  # the learning rate of some optimizers
    numbers: Mapping[str, float] = field(default_factory=dict)  # inputs of the expression, the same names in each lane


def lane_state(plan: Plan, lanes: Sequence[Lane], choosing: Choosing) -> State:
    """The state of all lanes, with tensors of lanes.

    Args:
        plan: a plan that differs from those of the lanes only in what they have of their own.
        choosing: handles the operations on tensors of lanes.
    Raises:
        RunError: an initial value cannot be computed.
    """
    state = initial_state(plan)
    varying = _varying(plan, lanes)
    first = {**state.constants, **{name: parameter.detach() for name, parameter in state.parameters.items()}}
    values = _initial(plan, lanes, first, varying)
    for name, tensor in plan.tensors.items():
        if tensor.role == "parameter":
            own = LaneTensor(values[name].contiguous())
            state.parameters[name] = Parameter(own, requires_grad=tensor.requires_grad)
        elif name in varying:
            state.constants[name] = LaneTensor(values[name])
    for name in lanes[0].numbers:
        numbers = torch.tensor([lane.numbers[name] for lane in lanes], dtype=torch.float64)
        state.constants[name] = LaneNumber(numbers, plan.dtype)
    for name, optimizer in plan.optimizers.items():
        if optimizer.rule is not None:
            given = optimizer.initial_state.items()
            entries: Any = {each: {key: entry.value for key, entry in found.items()} for each, found in given}
            state.steppers[name] = RuleStepper(optimizer.rule, optimizer.state, state.parameters, entries, _no_draws)
            continue
        schedules = tuple(
            rate_of_each(plan, state, optimizer, group, value) if _reads(value) else each
            for (group, _, value), each in zip(optimizer.scheduled(), state.schedules[name], strict=True)
        )
        stepper = build(
            optimizer,
            state.parameters,
            lambda option: 0.1,  # replaced before the first step
            lambda entry: entry.value if not isinstance(entry.value, str) else 0.0,
        )
        rates = [lane.rates[name] for lane in lanes if name in lane.rates]
        shared = {group["lr"] for group in stepper.optimizer.param_groups if "lr" in group} if rates else set()
        varied = torch.tensor(rates, dtype=torch.float64) if {*rates} != shared else None
        held = {each: state.parameters[each] for each in optimizer.parameters}
        made = LaneStepper(stepper.optimizer, held, schedules, varied, choosing.exact)
        if optimizer.reads and not made.rated:
            raise NotStackable(f"`lr` of `{optimizer.kind}` reads a parameter")
        state.steppers[name] = made
    seeds = [lane.seed for lane in lanes]
    state.trackers = {place: cast(Any, LaneTracker(each, len(lanes))) for place, each in state.trackers.items()}
    if any(seed != plan.seed for seed in seeds):
        for name, source in plan.sources.items():
            if source.shuffle:
                state.batches[name] = LaneBatches(state.batches[name], seeds)
    return state


def _varying(plan: Plan, lanes: Sequence[Lane]) -> frozenset[str]:
    """The tensors whose initial values may differ between lanes."""
    seeded = any(lane.seed != plan.seed for lane in lanes)
    found = {name for lane in lanes for name in lane.fills}
    for name in initial_order(plan.tensors):
        init = plan.tensors[name].init
        if (isinstance(init, Drawn) and seeded) or (isinstance(init, Computed) and (seeded or found & set(init.reads))):
            found.add(name)
    return frozenset(found)


def _initial(
    plan: Plan, lanes: Sequence[Lane], first: Mapping[str, Tensor], varying: frozenset[str]
) -> dict[str, Tensor]:
    """The initial values of all lanes: `(lanes, *s)` for each tensor; those that do not vary share their memory."""
    values = {name: value.expand(len(lanes), *value.shape) for name, value in first.items() if name not in varying}
    for name in (each for each in initial_order(plan.tensors) if each in varying):
        tensor = plan.tensors[name]
        computed = isinstance(tensor.init, Computed)
        own = []
        for place, lane in enumerate(lanes):
            known = {read: value[place] for read, value in values.items()} if computed else {}
            own.append(_value(plan, tensor, lane, known))
        values[name] = torch.stack(own)
    return values


def _value(plan: Plan, tensor: TensorPlan, lane: Lane, values: Mapping[str, Tensor]) -> Tensor:
    init = tensor.init
    if tensor.name in lane.fills:
        tensor = replace(tensor, init=Fill(lane.fills[tensor.name]))
    elif isinstance(init, Drawn):
        tensor = replace(tensor, init=replace(init, seed=stream_seed(lane.seed, "init", tensor.name)))
    context = InitialContext(lane.seed, plan.environment, Bounds())
    return materialise(tensor, partial(computed_value, name=tensor.name, values=values, context=context))


def _reads(option: Option) -> bool:
    """Whether an option reads a parameter."""
    return any(isinstance(element, Scheduled) and element.reads for element in elements(option))


def _no_draws(t: int) -> None:
    """Do nothing: rules that draw random numbers are refused."""
