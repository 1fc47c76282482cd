"""Plans of optimizers: frozen values with their groups, options and initial state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from runner.language.graph.computation import Computation

Path = tuple[str | int, ...]
Value = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A hyperparameter whose value is an expression of `t`, the optimizer's step count from 1, or of parameters."""

    text: str
    path: Path  # of the expression in the config
    reads: tuple[str, ...] = ()  # the parameters that it reads


Element = Value | Scheduled
Option = Element | tuple[Element, ...]


ON: Mapping[str, Value] = {"momentum": 0.5, "amsgrad": True, "centered": True}
"""A stand-in for the value of each option for which torch keeps state, if its value is not known yet."""


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One parameter group."""

    parameters: tuple[str, ...]
    options: Mapping[str, Option]  # the optimizer's, overridden by the group's; the rest keep the class's defaults


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One tensor that an optimizer keeps for a parameter."""

    name: str  # "exp_avg"
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class InitialState:
    """The initial value of one entry of a parameter's state: a number, or an expression over tensors."""

    value: int | float | bool | str
    path: Path


@dataclass(frozen=True, slots=True)
class Rule:
    """The equations of an optimizer, lowered for each of its parameters."""

    initial: Mapping[str, Mapping[str, Computation]]  # parameter → state entry → its initial value, over `param`
    update: Mapping[str, Computation]  # parameter → the new `param` and the state entries that the rule assigns
    reads: tuple[str, ...] = ()  # the other parameters that `update` reads, as numbers

    @property
    def random(self) -> bool:
        """Whether a step draws random numbers."""
        return any(update.random for update in self.update.values())


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """One optimizer of a run."""

    name: str  # its name in the config; "optimizer" for a single one
    kind: str  # "adamw", or "rule"
    class_name: str  # "AdamW"; empty for a rule
    options: Mapping[str, Option]  # the arguments of the class
    groups: tuple[GroupPlan, ...]
    initial_state: Mapping[str, Mapping[str, InitialState]]  # parameter -> entry -> value
    state: Mapping[str, tuple[StateEntry, ...]]  # parameter -> its entries; empty for lbfgs, whose state is global
    path: Path
    rule: Rule | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The optimizer's parameters, in the order of its groups."""
        return tuple(name for group in self.groups for name in group.parameters)

    @property
    def needs_closure(self) -> bool:
        """Whether a step evaluates the objective again, through a closure."""
        return self.kind == "lbfgs"

    @property
    def reads(self) -> frozenset[str]:
        """The parameters that its hyperparameters or its rule read."""
        found = {name for _, _, option in self.scheduled() for element in elements(option) for name in _reads(element)}
        return frozenset(found if self.rule is None else {*found, *self.rule.reads})

    def scheduled(self) -> Iterator[tuple[int, str, Option]]:
        """The options that change during a run, each as `(group number, option name, option)`."""
        for number, group in enumerate(self.groups):
            for name, option in group.options.items():
                if changes(option):
                    yield number, name, option


class Shaped(Protocol):
    """The properties of a parameter that planning an optimizer uses."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def requires_grad(self) -> bool: ...


def elements(option: Option) -> tuple[Element, ...]:
    """The elements of an option, or the option itself."""
    return option if isinstance(option, tuple) else (option,)


def _reads(element: Element) -> tuple[str, ...]:
    return element.reads if isinstance(element, Scheduled) else ()


def changes(option: Option) -> bool:
    """Whether an option contains an expression that is evaluated at each step."""
    return any(isinstance(element, Scheduled) for element in elements(option))


def resolve(option: Option, evaluate: Callable[[Scheduled], int | float | bool]) -> Value | tuple[Value, ...]:
    """The value of an option, with each expression replaced by its value from `evaluate`.

    Expressions in a tuple (`betas`) become floats, which torch requires there.
    """
    if isinstance(option, tuple):
        return tuple(float(evaluate(element)) if isinstance(element, Scheduled) else element for element in option)
    return evaluate(option) if isinstance(option, Scheduled) else option


def broadcasts(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether a tensor of `shape` expands to `target`."""
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(length in (1, wanted) for length, wanted in aligned)
