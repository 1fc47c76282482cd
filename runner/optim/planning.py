"""From the optimizers of a config to frozen plans, with torch's own validation."""

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
from runner.optim.membership import Membership, held_by, report_twice
from runner.optim.plans import (
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
    resolve,
)
from runner.optim.rules import RuleSurroundings, plan_rule
from runner.optim.schedules import STEP_COUNT, compile_schedule
from runner.optim.trial_step import REFUSALS, culprit, take_a_step

if TYPE_CHECKING:
    from runner.config import Config, OptimizerDeclaration, RuleDeclaration
    from runner.config.models import Step

_ONLY_FOR_ALL = {"adagrad": frozenset({"initial_accumulator_value"})}
"""Arguments that torch reads from the constructor alone: in a group they would be ignored."""


_LARGEST = {"lbfgs": {"history_size": 100_000}}
"""Integers by which torch allocates before anything else."""


def plan_optimizers(
    config: Config,
    parameters: Mapping[str, Shaped],
    scalars: Names,
    problems: list[Problem],
    warnings: list[Problem],
    *,
    constants: Mapping[str, Shaped] | None = None,
    rules: RuleSurroundings | None = None,
    unread: Collection[str] = (),
) -> dict[str, OptimizerPlan]:
    """Every optimizer of a config that is valid, by name.

    Args:
        config: its `optimizers` are read, and its document places the faults.
        parameters: shape, dtype and `requires_grad` of every parameter, in order.
        scalars: scalar constants, and 1-d constants that are known while planning, as tuples.
        problems: every fault is appended.
        warnings: a trainable parameter that no optimizer holds is appended.
        constants: shape and dtype of the constant tensors: an initial state may read them, and a hyperparameter
            that reads one is evaluated at each step.
        rules: what rules may read besides their own names; nothing unless given.
        unread: those of `constants` that no hyperparameter can read, because they are no list of numbers.
    """
    tensors = dict(constants or {})
    faults = Faults(config.document, problems)
    unreadable = frozenset(name for name in unread if name not in scalars)
    unknown = frozenset(name for name in tensors if name not in scalars) - unreadable
    around = _Around(
        faults,
        parameters,
        tensors,
        Scope(scalars, unknown | {STEP_COUNT}, unknown, unreadable),
        rules or RuleSurroundings(),
    )
    alone = len(config.optimizers) == 1
    plans: dict[str, OptimizerPlan] = {}
    holders: dict[str, str] = {}
    complete = True
    for name, declared in config.optimizers.items():
        held = held_by(declared, parameters, alone, faults)
        if held is None:
            complete = False
        else:
            report_twice(name, declared, held, holders, faults)
        with faults.collecting():
            plan = _plan(name, declared, held, around)
            if plan is not None:
                plans[name] = plan
    if complete and plans:
        assigned = _assigned(config.steps)
        for parameter, shaped in parameters.items():
            if shaped.requires_grad and parameter not in holders and parameter not in assigned:
                hint = "name it in an optimizer, or freeze it with `requires_grad: false`"
                message = f"no optimizer holds the trainable parameter `{parameter}`"
                warnings.append(config.document.problem(("parameters", parameter), message, hint, key=True))
    return plans


def _assigned(steps: Iterable[Step]) -> set[str]:
    """What `assign` steps write, wherever they stand."""
    found: set[str] = set()
    for step in steps:
        if step.kind == "assign":
            found.update(step.argument.values)
        found |= _assigned(getattr(step.argument, "steps", ()))
    return found


@dataclass(frozen=True, slots=True)
class _Around:
    """What planning one optimizer needs to know of the config."""

    faults: Faults
    parameters: Mapping[str, Shaped]
    constants: Mapping[str, Shaped]
    scope: Scope
    rules: RuleSurroundings

    def at_first_step(self, scheduled: Scheduled) -> Scalar:
        try:
            return compile_schedule(scheduled.text, self.scope.names)(1)
        except LanguageError as error:
            raise PlacedFault.within(scheduled.path, error) from None


@dataclass(frozen=True, slots=True)
class _Written:
    """Arguments as one place of the config writes them."""

    options: Mapping[str, Option]
    places: Mapping[str, Path]

    @classmethod
    def at(cls, place: Path, options: Mapping[str, Option]) -> _Written:
        return cls(options, {name: (*place, name) for name in options})


def _plan(name: str, declared: OptimizerDeclaration, held: Membership | None, around: _Around) -> OptimizerPlan | None:
    if declared.rule is not None:
        return _plan_rule(name, declared, declared.rule, held, around)
    faults = around.faults
    before = len(faults.problems)
    kind = installed(optimizers()[declared.kind])
    place = (*declared.path, declared.kind)
    options = _options(kind, declared.arguments, place, around)
    written = [_Written.at(place, options)]
    rest = _Written.at(place, {})
    of_groups = []
    for position, group in enumerate(declared.groups):
        at = (*declared.path, "groups", position)
        own = _options(kind, group.arguments, at, around, _ONLY_FOR_ALL.get(kind.name, frozenset()))
        of_groups.append(_Written.at(at, own))
    if held is None or len(faults.problems) > before:
        return None
    groups = [(names, part) for names, part in zip((held.rest, *held.groups), (rest, *of_groups), strict=True) if names]
    names = [names for names, _ in groups]
    state = _tried(kind, [*written, *(part for _, part in groups)], names, place, around)
    initial: dict[str, dict[str, InitialState]] = {}
    for parameter, entries in declared.state.items():
        with faults.collecting():
            initial[parameter] = _initial_state(
                f"{kind.name} with these arguments", parameter, entries, state, held, declared.path, around
            )
    if len(faults.problems) > before:
        return None
    planned = tuple(GroupPlan(names, {**options, **part.options}) for names, part in groups)
    return OptimizerPlan(name, kind.name, kind.class_name, options, planned, initial, state, declared.path)


def _plan_rule(
    name: str, declared: OptimizerDeclaration, written: RuleDeclaration, held: Membership | None, around: _Around
) -> OptimizerPlan | None:
    faults = around.faults
    before = len(faults.problems)
    if held is None:
        return None
    parameters = {parameter: around.parameters[parameter] for parameter in held.all}
    place = (*declared.path, declared.kind)
    rule, state = plan_rule(written.state, written.update, parameters, around.rules, place)
    initial: dict[str, dict[str, InitialState]] = {}
    for parameter, entries in declared.state.items():
        with faults.collecting():
            initial[parameter] = _initial_state("the rule", parameter, entries, state, held, declared.path, around)
    if len(faults.problems) > before:
        return None
    return OptimizerPlan(name, declared.kind, "", {}, (GroupPlan(held.all, {}),), initial, state, declared.path, rule)


def _options(
    kind: Optimizer, arguments: Mapping[str, Any], place: Path, around: _Around, ignored: frozenset[str] = frozenset()
) -> dict[str, Option]:
    table = {argument.name: argument for argument in kind.arguments}
    options: dict[str, Option] = {}
    for name, value in arguments.items():
        at = (*place, name)
        with around.faults.collecting():
            if name in ignored:
                message = f"{kind.name} reads `{name}` once for all parameters, never from a group"
                raise PlacedFault(at, message, "write it beside the other arguments of the class", key=True)
            if name not in table:
                raise PlacedFault(at, *argument_absence(kind, name, torch.__version__), key=True)
            option = argument_value(table[name], value, at, around.scope)
            if name in _ONLY_FOR_ALL.get(kind.name, ()) and changes(option):
                raise PlacedFault(at, f"{kind.name} reads `{name}` once, before the first step", "write a number")
            largest = _LARGEST.get(kind.name, {}).get(name)
            if largest is not None and not (isinstance(option, int) and 1 <= option <= largest):
                message = f"`{name}` takes an integer from 1 to {largest:,}, not {value}"
                raise PlacedFault(at, message, f"its default is {table[name].default}")
            options[name] = option
    return options


def _tried(
    kind: Optimizer, written: Sequence[_Written], names: Sequence[tuple[str, ...]], place: Path, around: _Around
) -> dict[str, tuple[StateEntry, ...]]:
    """The state that an optimizer keeps, found by a first step on stand-ins.

    Args:
        written: the arguments of the class, then those of each group.
        names: the parameters of each group.
    Raises:
        PlacedFault: torch refuses an argument, a combination of them, or a parameter.
    """
    values = [_first_values(part, around) for part in written]
    everything = [(source, name) for source, options in enumerate(values) for name in options]

    def attempt(chosen: Collection[tuple[int, str]]) -> dict[str, tuple[StateEntry, ...]]:
        whole, *own = (
            {name: value for name, value in options.items() if (source, name) in chosen}
            for source, options in enumerate(values)
        )
        return take_a_step(kind.class_name, whole, list(zip(names, own, strict=True)), around.parameters)

    try:
        return attempt(everything)
    except REFUSALS as error:
        blamed = culprit(attempt, everything)
        if blamed is not None:
            source, name = blamed
            hint = f"torch's `{kind.class_name}` refuses it; its defaults are in `steprun schema`"
            raise PlacedFault(written[source].places[name], sentence(error), hint) from None
        raise _unheld(kind, [name for group in names for name in group], place, around, error) from None


def _unheld(kind: Optimizer, names: Sequence[str], place: Path, around: _Around, error: BaseException) -> PlacedFault:
    """The fault of an optimizer that fails with its defaults: there is a parameter that it cannot hold."""
    for name in names:
        try:
            take_a_step(kind.class_name, {}, [((name,), {})], around.parameters)
        except REFUSALS as reason:
            shaped = around.parameters[name]
            shape, dtype = list(shaped.shape), dtype_name(shaped.dtype)
            text = sentence(reason).split(" whereas ")[0]  # what follows tells the shape of the stand-in
            message = f"{kind.name} cannot hold `{name}`, {dtype} of shape {shape}: {text}"
            return PlacedFault(place, message, "name other parameters under `parameters`", key=True)
    return PlacedFault(place, sentence(error), "use another optimizer", key=True)


def _first_values(written: _Written, around: _Around) -> dict[str, Any]:
    """Options as they are at t = 1; those that read tensors not known yet are left out."""
    values: dict[str, Any] = {}
    for name, option in written.options.items():
        elements = option if isinstance(option, tuple) else (option,)
        texts = [element.text for element in elements if isinstance(element, Scheduled)]
        if all(names_in(text).isdisjoint(around.scope.unknown) for text in texts):
            values[name] = resolve(option, around.at_first_step)
    return values


def _initial_state(
    keeper: str,
    parameter: str,
    entries: Mapping[str, Any],
    state: Mapping[str, tuple[StateEntry, ...]],
    held: Membership,
    path: Path,
    around: _Around,
) -> dict[str, InitialState]:
    place = (*path, "state", parameter)
    if parameter not in held.all:
        what = "does not hold" if parameter in around.parameters else "knows no parameter"
        hint = did_you_mean(parameter, held.all, f"it holds {listing(held.all)}")
        raise PlacedFault(place, f"this optimizer {what} `{parameter}`", hint, key=True)
    kept = {entry.name: entry for entry in state.get(parameter, ())}
    found: dict[str, InitialState] = {}
    for name, value in entries.items():
        with around.faults.collecting():
            if name not in kept:
                message = f"{keeper} keeps no `{name}` for `{parameter}`"
                otherwise = f"it keeps {listing(kept)}" if kept else "it keeps nothing for a single parameter"
                raise PlacedFault((*place, name), message, did_you_mean(name, kept, otherwise), key=True)
            found[name] = _entry(kept[name], value, (*place, name), around)
    return found


def _entry(entry: StateEntry, value: object, path: Path, around: _Around) -> InitialState:
    if isinstance(value, (int, float)):
        return InitialState(value, path)
    assert isinstance(value, str)
    tensors = {**around.constants, **around.parameters}
    try:
        names = names_in(value)
    except LanguageError as error:
        raise PlacedFault.within(path, error) from None
    if names.isdisjoint(tensors):
        return InitialState(scalar(value, path, around.scope.names), path)
    tensor = tensors.get(value.strip())
    if tensor is not None and not broadcasts(tensor.shape, entry.shape):
        message = f"`{value.strip()}` has shape {list(tensor.shape)} and `{entry.name}` has shape {list(entry.shape)}"
        raise PlacedFault(path, message, "give it the same shape")
    return InitialState(value, path)
