"""Plans the optimizers of a config; torch itself validates their arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from runner.catalogue import Optimizer, argument_absence, installed, optimizers
from runner.errors import Problem, did_you_mean, listing
from runner.faults import Faults, PlacedFault, sentence
from runner.language.dtypes import dtype_name
from runner.language.text.arithmetic import Names, Scalar
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import names_in
from runner.optim.arguments import Scope, argument_value, scalar
from runner.optim.measured import STEP_COUNT, readable
from runner.optim.measured import unreadable as parameter_fault
from runner.optim.membership import Membership, membership_of, report_overlap
from runner.optim.plans import (
    ON,
    GroupPlan,
    InitialState,
    OptimizerPlan,
    Option,
    Path,
    Scheduled,
    Shaped,
    StateEntry,
    broadcasts,
    changes,
    elements,
    resolve,
)
from runner.optim.rules import RuleContext, plan_rule
from runner.optim.schedules import compile_schedule
from runner.optim.trial_step import REFUSALS, refused_argument, try_first_step

if TYPE_CHECKING:
    from runner.config import Config, OptimizerDeclaration, RuleDeclaration
    from runner.config.models import Step

_ONLY_FOR_ALL = {"adagrad": frozenset({"initial_accumulator_value"})}
"""Arguments that torch reads from the constructor only, and would ignore in a group."""


_LARGEST = {"lbfgs": {"history_size": 100_000}}
"""The largest values of arguments whose size torch allocates at once."""


def plan_optimizers(
    config: Config,
    parameters: Mapping[str, Shaped],
    scalars: Names,
    problems: list[Problem],
    warnings: list[Problem],
    *,
    constants: Mapping[str, Shaped] | None = None,
    rules: RuleContext | None = None,
    unread: Collection[str] = (),
) -> dict[str, OptimizerPlan]:
    """Plan the optimizers of a config, by name; those with faults are left out.

    Args:
        config: a config; its document provides the places of faults.
        parameters: shape, dtype and `requires_grad` of every parameter, in order.
        scalars: scalar constants, and the 1-d constants known during planning, as tuples.
        problems: receives every fault.
        warnings: receives a warning for each trainable parameter that no optimizer has.
        constants: shape and dtype of the constant tensors. An initial state may read them; a hyperparameter that
            reads one is evaluated at each step.
        rules: the names that rules may read besides their own; none by default.
        unread: those of `constants` that no hyperparameter can read, because they are not lists of numbers.
    """
    tensors = dict(constants or {})
    faults = Faults(config.document, problems)
    unreadable = {name: _tensor_fault(name) for name in unread if name not in scalars}
    unknown = frozenset(name for name in tensors if name not in scalars) - unreadable.keys()
    measured = readable(parameters)
    for name, shaped in parameters.items():
        reason = None if name == STEP_COUNT else parameter_fault(name, shaped)
        unreadable |= {} if reason is None else {name: reason}
    context = _Context(
        faults,
        parameters,
        tensors,
        Scope(scalars, unknown | measured | {STEP_COUNT}, unknown | measured, unreadable, measured),
        rules or RuleContext(),
    )
    alone = len(config.optimizers) == 1
    plans: dict[str, OptimizerPlan] = {}
    owners: dict[str, str] = {}
    complete = True
    for name, declared in config.optimizers.items():
        membership = membership_of(declared, parameters, alone, faults)
        if membership is None:
            complete = False
        else:
            report_overlap(name, declared, membership, owners, faults)
        with faults.collecting():
            plan = _plan(name, declared, membership, context)
            if plan is not None:
                plans[name] = plan
    if complete and plans:
        _warn_of_parameters_left_out(config, parameters, owners, warnings)
    return plans


def _warn_of_parameters_left_out(
    config: Config, parameters: Mapping[str, Shaped], owners: Mapping[str, str], warnings: list[Problem]
) -> None:
    """Warn of each trainable parameter that no optimizer has and no step assigns."""
    assigned = _assigned(config.steps)
    for parameter, shaped in parameters.items():
        if shaped.requires_grad and parameter not in owners and parameter not in assigned:
            hint = "name it in an optimizer, or freeze it with `requires_grad: false`"
            message = f"no optimizer updates the trainable parameter `{parameter}`"
            warnings.append(config.document.problem(("parameters", parameter), message, hint, key=True))


def _tensor_fault(name: str) -> tuple[str, str]:
    message = f"`{name}` is a tensor, but a hyperparameter can read only numbers"
    return message, f"declare it as a bare number: `{name}: 0.1`"


def _assigned(steps: Iterable[Step]) -> set[str]:
    """The names that `assign` steps write, at any depth."""
    found: set[str] = set()
    for step in steps:
        if step.kind == "assign":
            found.update(step.argument.values)
        found |= _assigned(getattr(step.argument, "steps", ()))
    return found


@dataclass(frozen=True, slots=True)
class _Context:
    """The parts of a config that planning an optimizer uses."""

    faults: Faults
    parameters: Mapping[str, Shaped]
    constants: Mapping[str, Shaped]
    scope: Scope
    rules: RuleContext

    def check(self, scheduled: Scheduled) -> None:
        """Compile an expression of parameters, whose values are not known yet."""
        if names_in(scheduled.text).isdisjoint({*self.scope.unknown} - {*scheduled.reads}):
            try:
                compile_schedule(scheduled.text, self.scope.names, dict.fromkeys(scheduled.reads, lambda: 1.0))
            except LanguageError as error:
                raise PlacedFault.within(scheduled.path, error) from None

    def at_first_step(self, scheduled: Scheduled) -> Scalar:
        try:
            return compile_schedule(scheduled.text, self.scope.names)(1)
        except LanguageError as error:
            raise PlacedFault.within(scheduled.path, error) from None


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The arguments at one place of the config: of the class, or of a group."""

    options: Mapping[str, Option]
    places: Mapping[str, Path]

    @classmethod
    def at(cls, place: Path, options: Mapping[str, Option]) -> _Arguments:
        return cls(options, {name: (*place, name) for name in options})


def _plan(
    name: str, declared: OptimizerDeclaration, membership: Membership | None, context: _Context
) -> OptimizerPlan | None:
    if declared.rule is not None:
        return _plan_rule(name, declared, declared.rule, membership, context)
    faults = context.faults
    before = len(faults.problems)
    kind = installed(optimizers()[declared.kind])
    place = (*declared.path, declared.kind)
    options = _options(kind, declared.arguments, place, context)
    arguments = [_Arguments.at(place, options)]
    rest = _Arguments.at(place, {})
    group_arguments = []
    for position, group in enumerate(declared.groups):
        at = (*declared.path, "groups", position)
        own = _options(kind, group.arguments, at, context, _ONLY_FOR_ALL.get(kind.name, frozenset()))
        group_arguments.append(_Arguments.at(at, own))
    if membership is None or len(faults.problems) > before:
        return None
    members = (membership.rest, *membership.groups)
    groups = [(names, part) for names, part in zip(members, (rest, *group_arguments), strict=True) if names]
    names = [names for names, _ in groups]
    state = _state_by_trial(kind, [*arguments, *(part for _, part in groups)], names, place, context)
    initial: dict[str, dict[str, InitialState]] = {}
    for parameter, entries in declared.state.items():
        with faults.collecting():
            initial[parameter] = _initial_state(
                f"{kind.name} with these arguments", parameter, entries, state, membership, declared.path, context
            )
    if len(faults.problems) > before:
        return None
    planned = tuple(GroupPlan(names, {**options, **part.options}) for names, part in groups)
    return OptimizerPlan(name, kind.name, kind.class_name, options, planned, initial, state, declared.path)


def _plan_rule(
    name: str,
    declared: OptimizerDeclaration,
    equations: RuleDeclaration,
    membership: Membership | None,
    context: _Context,
) -> OptimizerPlan | None:
    faults = context.faults
    before = len(faults.problems)
    if membership is None:
        return None
    parameters = {parameter: context.parameters[parameter] for parameter in membership.all}
    place = (*declared.path, declared.kind)
    rule, state = plan_rule(equations.state, equations.update, parameters, context.rules, place)
    initial: dict[str, dict[str, InitialState]] = {}
    for parameter, entries in declared.state.items():
        with faults.collecting():
            initial[parameter] = _initial_state(
                "the rule", parameter, entries, state, membership, declared.path, context
            )
    if len(faults.problems) > before:
        return None
    return OptimizerPlan(
        name, declared.kind, "", {}, (GroupPlan(membership.all, {}),), initial, state, declared.path, rule
    )


def _options(
    kind: Optimizer, arguments: Mapping[str, Any], place: Path, context: _Context, ignored: frozenset[str] = frozenset()
) -> dict[str, Option]:
    table = {argument.name: argument for argument in kind.arguments}
    options: dict[str, Option] = {}
    for name, value in arguments.items():
        at = (*place, name)
        with context.faults.collecting():
            if name in ignored:
                message = f"{kind.name} reads `{name}` once for all parameters, never from a group"
                raise PlacedFault(at, message, "write it next to the other arguments of the class", key=True)
            if name not in table:
                raise PlacedFault(at, *argument_absence(kind, name, torch.__version__), key=True)
            option = argument_value(table[name], value, at, context.scope)
            for element in elements(option):
                if isinstance(element, Scheduled):
                    context.check(element)
            if name in _ONLY_FOR_ALL.get(kind.name, ()) and changes(option):
                raise PlacedFault(at, f"{kind.name} reads `{name}` once, before the first step", "write a number")
            largest = _LARGEST.get(kind.name, {}).get(name)
            if largest is not None and not (isinstance(option, int) and 1 <= option <= largest):
                message = f"`{name}` takes an integer from 1 to {largest:,}, not {value}"
                raise PlacedFault(at, message, f"its default is {table[name].default}")
            options[name] = option
    return options


def _state_by_trial(
    kind: Optimizer, arguments: Sequence[_Arguments], names: Sequence[tuple[str, ...]], place: Path, context: _Context
) -> dict[str, tuple[StateEntry, ...]]:
    """The state that an optimizer keeps, from a first step on stand-ins.

    Args:
        arguments: the arguments of the class, then those of each group.
        names: the parameters of each group.
    Raises:
        PlacedFault: torch rejects an argument, a combination of arguments, or a parameter.
    """
    values = [_first_values(part, context) for part in arguments]
    everything = [(source, name) for source, options in enumerate(values) for name in options]

    def attempt(chosen: Collection[tuple[int, str]]) -> dict[str, tuple[StateEntry, ...]]:
        whole, *own = (
            {name: value for name, value in options.items() if (source, name) in chosen}
            for source, options in enumerate(values)
        )
        return try_first_step(kind.class_name, whole, list(zip(names, own, strict=True)), context.parameters)

    try:
        return attempt(everything)
    except REFUSALS as error:
        blamed = refused_argument(attempt, everything)
        if blamed is not None:
            source, name = blamed
            default = next((each.default for each in kind.arguments if each.name == name), None)
            instead = "write another value" if default is None else f"its default is {default}"
            hint = f"torch's `{kind.class_name}` refuses it; {instead}"
            raise PlacedFault(arguments[source].places[name], sentence(error), hint) from None
        raise _unsupported_parameter(kind, [name for group in names for name in group], place, context, error) from None


def _unsupported_parameter(
    kind: Optimizer, names: Sequence[str], place: Path, context: _Context, error: BaseException
) -> PlacedFault:
    """The fault of an optimizer that fails with its defaults too: it does not support one of the parameters."""
    for name in names:
        try:
            try_first_step(kind.class_name, {}, [((name,), {})], context.parameters)
        except REFUSALS as reason:
            shaped = context.parameters[name]
            shape, dtype = list(shaped.shape), dtype_name(shaped.dtype)
            text = sentence(reason).split(" whereas ")[0]  # the rest is the shape of the stand-in
            message = f"{kind.name} does not support `{name}`, {dtype} of shape {shape}: {text}"
            return PlacedFault(place, message, "name other parameters under `parameters`", key=True)
    return PlacedFault(place, sentence(error), "use another optimizer", key=True)


def _first_values(arguments: _Arguments, context: _Context) -> dict[str, Any]:
    """Options at t = 1. Those that read tensors not known yet are left out, or on if state depends on them."""
    values: dict[str, Any] = {}
    for name, option in arguments.options.items():
        texts = [element.text for element in elements(option) if isinstance(element, Scheduled)]
        if all(names_in(text).isdisjoint(context.scope.unknown) for text in texts):
            values[name] = resolve(option, context.at_first_step)
        elif name in ON:
            values[name] = ON[name]
    return values


def _initial_state(
    keeper: str,
    parameter: str,
    entries: Mapping[str, Any],
    state: Mapping[str, tuple[StateEntry, ...]],
    membership: Membership,
    path: Path,
    context: _Context,
) -> dict[str, InitialState]:
    place = (*path, "state", parameter)
    if parameter not in membership.all:
        what = "does not update" if parameter in context.parameters else "knows no parameter"
        hint = did_you_mean(parameter, membership.all, f"it updates {listing(membership.all)}")
        raise PlacedFault(place, f"this optimizer {what} `{parameter}`", hint, key=True)
    kept = {entry.name: entry for entry in state.get(parameter, ())}
    found: dict[str, InitialState] = {}
    for name, value in entries.items():
        with context.faults.collecting():
            if name not in kept:
                message = f"{keeper} keeps no `{name}` for `{parameter}`"
                otherwise = f"it keeps {listing(kept)}" if kept else "it keeps nothing for a single parameter"
                raise PlacedFault((*place, name), message, did_you_mean(name, kept, otherwise), key=True)
            found[name] = _entry(kept[name], value, (*place, name), context)
    return found


def _entry(entry: StateEntry, value: object, path: Path, context: _Context) -> InitialState:
    if isinstance(value, (int, float)):
        return InitialState(value, path)
    assert isinstance(value, str)
    tensors = {**context.constants, **context.parameters}
    try:
        names = names_in(value)
    except LanguageError as error:
        raise PlacedFault.within(path, error) from None
    if names.isdisjoint(tensors):
        return InitialState(scalar(value, path, context.scope.names), path)
    tensor = tensors.get(value.strip())
    if tensor is not None and not broadcasts(tensor.shape, entry.shape):
        message = f"`{value.strip()}` has shape {list(tensor.shape)} and `{entry.name}` has shape {list(entry.shape)}"
        raise PlacedFault(path, message, "give it the same shape")
    return InitialState(value, path)
