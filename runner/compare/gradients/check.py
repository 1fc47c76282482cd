"""Checks gradients: compares autograd with finite differences of the config's expression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.compare.gradients.known_causes import Cause, causes
from runner.compare.gradients.objectives import Objective, objectives
from runner.compare.numbers.tolerances import root_mean_square
from runner.config import Config, declared_dtypes
from runner.engine import initial_state
from runner.engine.watch.reports import index_of
from runner.language.inference.generators import left_alone
from runner.plan.plan import Plan
from runner.plan.streams import stream_seed

ELEMENTS = 32
"""A parameter with more elements is checked at this many of them, drawn at random."""

NOISE = 16.0
"""The rounding error allowed in a finite difference, in units of rounding of the objective."""

SHRINK = 16.0
"""The second step is this many times smaller, which separates a kink from a curve."""

TINY = torch.finfo(torch.float64).tiny

Outcome = Literal["holds", "kink", "jump", "differs"]
_WORST_FIRST: tuple[Outcome, ...] = ("differs", "jump", "kink", "holds")


@dataclass(frozen=True, slots=True)
class Precision:
    """The precision of the check; the defaults are torch's own.

    An element passes if `|autograd - numeric| <= rtol * |numeric| + atol * norm / sqrt(elements)`, with the norm of the
    parameter's gradient, plus the rounding of the difference.
    """

    step: float = 1e-6
    rtol: float = 1e-3
    atol: float = 1e-5
    elements: int = ELEMENTS


@dataclass(frozen=True, slots=True)
class Element:
    """The derivative with respect to one element, from autograd and from one-sided differences."""

    index: tuple[int, ...]  # for a complex parameter, ends in 0 for the real part or 1 for the imaginary part
    autograd: float
    numeric: float
    left: float
    right: float
    relative: float  # the error relative to the larger of the two; 0 if neither exceeds rounding
    outcome: Outcome

    @property
    def error(self) -> float:
        return abs(self.autograd - self.numeric)


@dataclass(frozen=True, slots=True)
class Checked:
    """The gradient of an objective with respect to one parameter."""

    parameter: str
    elements: int
    checked: int
    outcome: Outcome
    torch_agrees: bool  # the result of `torch.autograd.gradcheck` on the whole gradient, along a random direction
    largest_error: float
    largest_relative: float
    worst: Element | None  # None: the parameter has no elements
    causes: tuple[Cause, ...]  # empty unless the outcome is `differs`


@dataclass(frozen=True, slots=True)
class ObjectiveReport:
    """The gradients of one objective."""

    name: str
    sources: tuple[str, ...]
    value: float
    parameters: tuple[Checked, ...]
    cut: tuple[str, ...]  # trainable parameters that it reads but that no derivative reaches

    @property
    def holds(self) -> bool:
        return all(checked.outcome != "differs" for checked in self.parameters)


def in_double_precision(config: Config) -> list[str]:
    """The overrides that make every floating tensor of a config float64, and every complex one complex128.

    They also remove `autocast`, which leaves such tensors as they are.
    """
    declared = [(path, dtype) for path, dtype in declared_dtypes(config) if _doubled(dtype) != dtype]
    wide = [] if config.autocast is None else ["~autocast"]
    return [*wide, *(f"{path}={_doubled(dtype)}" for path, dtype in (("dtype", config.dtype), *declared))]


def _doubled(name: str) -> str:
    dtype: torch.dtype = getattr(torch, name)
    if dtype.is_complex:
        return "complex128"
    return "float64" if dtype.is_floating_point else name


def check_gradients(plan: Plan, precision: Precision | None = None) -> list[ObjectiveReport]:
    """Compare the gradients of every objective at the initial values with finite differences.

    Random operations draw the same numbers at every evaluation; data sources return their first batch.

    Args:
        plan: in double precision; see `in_double_precision`.
    Raises:
        RunError: an objective cannot be computed.
    """
    precision = precision or Precision()
    state = initial_state(plan)
    with left_alone(plan.device):
        return [_report(plan, objective, state.parameters, precision) for objective in objectives(plan, state)]


def _report(
    plan: Plan, objective: Objective, parameters: dict[str, Parameter], precision: Precision
) -> ObjectiveReport:
    names = objective.parameters
    with torch.enable_grad():
        value = objective.value()
    gradients = torch.autograd.grad(value, [parameters[name] for name in names], materialize_grads=True)
    center = float(value.detach())
    checked = []
    for name, gradient in zip(names, gradients, strict=True):
        sample = _sample(plan.seed, name, _real(gradient).numel(), precision.elements)
        found = _Check(objective.value, parameters[name], gradient, center, precision).checked(name, sample)
        if found.outcome == "differs":
            found = replace(found, causes=tuple(causes(plan, objective, name)))
        checked.append(found)
    return ObjectiveReport(objective.name, objective.sources, center, tuple(checked), objective.cut)


def _sample(seed: int, name: str, elements: int, most: int) -> list[int]:
    """The positions of all elements, or of `most` of them, drawn at random. Each parameter has its own stream."""
    if elements <= most:
        return list(range(elements))
    generator = torch.Generator().manual_seed(stream_seed(seed, "gradcheck", name))
    return sorted(torch.randperm(elements, generator=generator)[:most].tolist())


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


class _Check:
    """Compares the gradient of one parameter with finite differences."""

    def __init__(
        self,
        value: Callable[[], Tensor],
        parameter: Parameter,
        gradient: Tensor,
        center: float,
        precision: Precision,
    ) -> None:
        self.value = value
        self.parameter = parameter
        self.gradient = _real(gradient.resolve_conj())
        self.center = center
        self.precision = precision
        self.weights = _real(parameter.data).view(-1)
        self.floor = precision.atol * root_mean_square(self.gradient)

    def checked(self, name: str, sample: list[int]) -> Checked:
        elements = [self.element(position) for position in sample]
        outcomes = {element.outcome for element in elements}
        agrees = self.torch_agrees(self.precision.step) or self.torch_agrees(self.precision.step / SHRINK)
        if not agrees and outcomes <= {"holds"}:  # the error is in an element that was not drawn
            outcomes.add("differs" if (along := self.along_a_direction()) == "holds" else along)
        return Checked(
            parameter=name,
            elements=self.parameter.numel(),
            checked=len(sample) if not self.parameter.is_complex() else len({position // 2 for position in sample}),
            outcome=next((outcome for outcome in _WORST_FIRST if outcome in outcomes), "holds"),
            torch_agrees=agrees,
            largest_error=max((element.error for element in elements), default=0.0),
            largest_relative=max((element.relative for element in elements), default=0.0),
            worst=max(elements, key=_badness, default=None),
            causes=(),
        )

    def torch_agrees(self, step: float) -> bool:
        """The result of `torch.autograd.gradcheck` on all elements at once; it supports real parameters only."""
        if self.parameter.is_complex() or not self.parameter.numel():
            return True
        with torch.enable_grad():
            return torch.autograd.gradcheck(
                lambda parameter: self.value(),
                (self.parameter,),
                eps=step,
                atol=self.allowed(0.0, step),
                rtol=self.precision.rtol,
                nondet_tol=self.floor,
                check_undefined_grad=False,
                fast_mode=True,
                raise_exception=False,
            )

    def along_a_direction(self) -> Outcome:
        """The outcome for all elements at once, changed along one direction."""
        direction = self.gradient.reshape(-1) / torch.linalg.vector_norm(self.gradient).clamp_min(TINY)
        direction = direction + torch.ones_like(direction) / math.sqrt(direction.numel())
        autograd = float(self.gradient.reshape(-1) @ direction)
        return self.compared(slice(None), direction, autograd)[0]

    def element(self, position: int) -> Element:
        autograd = float(self.gradient.reshape(-1)[position])
        outcome, left, right = self.compared(position, 1.0, autograd)
        numeric = (left + right) / 2
        size = max(abs(autograd), abs(numeric))
        relative = 0.0 if size <= self.allowed(0.0, self.precision.step) else abs(autograd - numeric) / size
        return Element(index_of(position, self.gradient.shape), autograd, numeric, left, right, relative, outcome)

    def compared(self, where: int | slice, direction: Tensor | float, autograd: float) -> tuple[Outcome, float, float]:
        """Compares a derivative with the one-sided differences; returns the outcome and the two differences.

        At a smooth point the one-sided differences approach each other in proportion to the step. At a kink they stay
        apart, and at a jump they move farther apart. So if the first step is inconclusive, a smaller one decides.
        """
        step = self.precision.step
        left, right = self.one_sided(where, direction, step)
        bound = self.allowed((left + right) / 2, step)
        gap = abs(right - left)
        if abs(autograd - (left + right) / 2) <= bound and gap <= bound:
            return "holds", left, right
        smaller = step / SHRINK
        near = self.one_sided(where, direction, smaller)
        near_gap, near_bound = abs(near[1] - near[0]), self.allowed(max(map(abs, near)), smaller)
        if near_gap > near_bound and near_gap > gap / 2:
            if near_gap > gap * SHRINK / 4:
                return "jump", left, right
            inside = min(near) - near_bound <= autograd <= max(near) + near_bound
            return "kink" if inside else "differs", left, right
        if abs(autograd - (left + right) / 2) <= bound:
            return "holds", left, right
        return "holds" if abs(autograd - sum(near) / 2) <= near_bound else "differs", *near

    def allowed(self, numeric: float, step: float) -> float:
        rounding = NOISE * torch.finfo(torch.float64).eps * abs(self.center) / step
        return self.precision.rtol * abs(numeric) + self.floor + rounding

    def one_sided(self, where: int | slice, direction: Tensor | float, step: float) -> tuple[float, float]:
        """The left and right differences when the weights at `where` change by `step` along a direction."""
        before = self.weights[where].clone()
        try:
            self.weights[where] = before - step * direction
            left = (self.center - self.evaluated()) / step
            self.weights[where] = before + step * direction
            right = (self.evaluated() - self.center) / step
        finally:
            self.weights[where] = before
        return left, right

    def evaluated(self) -> float:
        with torch.no_grad():
            return float(self.value().detach())


def _badness(element: Element) -> tuple[int, bool, float]:
    """A sort key that grows with how bad an element is: first by outcome, then a NaN error, then the error."""
    return (-_WORST_FIRST.index(element.outcome), element.error != element.error, element.error)
