"""Optimizers as frozen values: who is held by which group, with which options, from which state."""

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
    """A hyperparameter whose value is an expression of `t`, the optimizer's step count from 1."""

    text: str
    path: Path  # of the expression in the config


Element = Value | Scheduled
Option = Element | tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One parameter group."""

    parameters: tuple[str, ...]
    options: Mapping[str, Option]  # the optimizer's and, over them, the group's own; others keep the class's default


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One tensor that an optimizer keeps for a parameter."""

    name: str  # "exp_avg"
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class InitialState:
    """What one entry of a parameter's state starts from: a number, or an expression over tensors."""

    value: int | float | bool | str
    path: Path


@dataclass(frozen=True, slots=True)
class Rule:
    """The equations of an optimizer, for every parameter that it holds."""

    initial: Mapping[str, Mapping[str, Computation]]  # parameter → state entry → its first value, over `param`
    update: Mapping[str, Computation]  # parameter → `param` and the state entries that the rule assigns

    @property
    def random(self) -> bool:
        """Whether a step draws random numbers."""
        return any(update.random for update in self.update.values())


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """One optimizer of a run."""

    name: str  # as the config calls it; "optimizer" for the single one
    kind: str  # "adamw", or "rule"
    class_name: str  # "AdamW"; nothing for a rule
    options: Mapping[str, Option]  # the arguments of the class
    groups: tuple[GroupPlan, ...]
    initial_state: Mapping[str, Mapping[str, InitialState]]  # parameter -> entry -> value
    state: Mapping[str, tuple[StateEntry, ...]]  # parameter -> what is kept; nothing for lbfgs, whose state is global
    path: Path
    rule: Rule | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Every parameter it holds, in the order of its groups."""
        return tuple(name for group in self.groups for name in group.parameters)

    @property
    def needs_closure(self) -> bool:
        """Whether a step evaluates the objective again by itself."""
        return self.kind == "lbfgs"

    def scheduled(self) -> Iterator[tuple[int, str, Option]]:
        """The options that change with `t`: group's number, option's name, option."""
        for number, group in enumerate(self.groups):
            for name, option in group.options.items():
                if changes(option):
                    yield number, name, option


class Shaped(Protocol):
    """What planning an optimizer needs to know of a parameter."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def requires_grad(self) -> bool: ...


def changes(option: Option) -> bool:
    """Whether an option holds an expression of `t`."""
    return any(isinstance(element, Scheduled) for element in (option if isinstance(option, tuple) else (option,)))


def resolve(option: Option, evaluate: Callable[[Scheduled], int | float | bool]) -> Value | tuple[Value, ...]:
    """The value of an option, its expressions of `t` replaced by what `evaluate` gives for them.

    The elements of a tuple (`betas`) become floats, which torch demands of them.
    """
    if isinstance(option, tuple):
        return tuple(float(evaluate(element)) if isinstance(element, Scheduled) else element for element in option)
    return evaluate(option) if isinstance(option, Scheduled) else option


def broadcasts(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether a tensor of `shape` expands to `target`."""
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(length in (1, wanted) for length, wanted in aligned)
