"""The health rules: thresholds for gradients and updates of parameters, and of the slices of stacked ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.state import State
from runner.engine.watch.reports import where
from runner.errors import Problem
from runner.plan.plan import Plan

Measure = Callable[[], None]

MOST_REPORTED = 8
"""The most slices of one parameter that a rule reports by name."""

_ACTIONS: Mapping[str, str] = {
    "vanishing_gradient": "look at what saturates between `{}` and the objective, or start it from larger values",
    "exploding_gradient": "clip it (`clip_grad_norm`), or start `{}` from smaller values",
    "unchanged": "see that the objective depends on `{}`, or freeze it: `requires_grad: false`",
    "update_ratio: small": "raise the learning rate of `{}`",
    "update_ratio: large": "lower the learning rate of `{}`",
}

_SLICE_ACTIONS: Mapping[str, str] = {
    "unchanged": "see that the objective depends on `{}`",
    "update_ratio: small": "raise the learning rate of `{1}`, which its slices share",
    "update_ratio: large": "lower the learning rate of `{1}`, which its slices share",
}
"""Where a slice of a parameter needs another action than a parameter."""


@dataclass(slots=True)
class _Held:
    """A rule that was reported for a parameter or a slice."""

    action: str
    reported: bool  # false for the slices past `MOST_REPORTED`
    further: int = 0  # later steps in which the rule applied too


class Health:
    """Measures the gradient and the update of each parameter and slice, and reports what passes a threshold.

    Each rule is reported once per parameter or slice; `conclude` reports how often it applied after that.
    """

    def __init__(self, plan: Plan, state: State, report: Callable[[Problem], None]) -> None:
        self._plan = plan
        self._rules = plan.health
        self._state = state
        self._report = report
        self._held: dict[tuple[str, str], _Held] = {}  # by rule, and parameter or slice
        self._slices: dict[tuple[str, str], int] = {}  # by rule and parameter: to how many slices it has applied
        self._still: dict[str, int] = {}  # parameter or slice → updates in a row that did not change it

    def gradients(self, parameters: Mapping[str, Parameter]) -> list[Measure]:
        """Functions that measure the current gradients of some parameters; none if no rule is about gradients."""
        return [lambda: self._measure(parameters)] if self._rules.of_gradients and parameters else []

    def updates(self, takes: Sequence[Measure], parameters: Mapping[str, Parameter]) -> list[Measure]:
        """Steps of optimizers that also compare the weights before and after; unchanged if no rule is about updates."""
        if not self._rules.of_updates or not parameters:
            return list(takes)
        before: dict[str, Tensor] = {}

        def remember() -> None:
            before.update((name, parameter.detach().clone()) for name, parameter in parameters.items())

        def compare() -> None:
            self._compare(before, {name: parameter.detach() for name, parameter in parameters.items()})

        return [remember, *takes, compare]

    def conclude(self) -> None:
        """Report how often each rule applied after its first report."""
        for (rule, name), held in self._held.items():
            if held.further and held.reported:
                times = "1 more step" if held.further == 1 else f"{held.further:,} more steps"
                self._warn(rule, f"it held for `{name}` in {times}", held.action)
        self._held.clear()

    def _measure(self, parameters: Mapping[str, Parameter]) -> None:
        held = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
        pieces = self._pieces(held)
        norms = torch._foreach_norm(list(pieces.values())) if pieces else ()
        least, most = self._rules.vanishing_gradient, self._rules.exploding_gradient
        small: dict[str, float] = {}
        large: dict[str, float] = {}
        for piece, norm in zip(pieces, norms, strict=True):
            value = norm.item()
            if least is not None and value < least:
                small[piece] = value
            if most is not None and value > most:
                large[piece] = value
        for name in held if small or large else ():
            for piece in self._applied(name, small):
                message = f"`{piece}.grad` has the norm {small[piece]:.3g}, below {least:.3g}"
                self._hold("vanishing_gradient", name, piece, message)
            for piece in self._applied(name, large):
                message = f"`{piece}.grad` has the norm {large[piece]:.3g}, above {most:.3g}"
                self._hold("exploding_gradient", name, piece, message)

    def _compare(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        old, new = self._pieces(before), self._pieces(after)
        times, (least, most) = self._rules.unchanged, self._rules.update_ratio or (None, None)
        still: dict[str, int] = {}
        small: dict[str, float] = {}
        large: dict[str, float] = {}
        for piece, tensor in old.items():
            if times is not None:
                count = self._still[piece] = self._still.get(piece, 0) + 1 if torch.equal(tensor, new[piece]) else 0
                if count >= times:
                    still[piece] = count
            if least is not None and most is not None:
                change, size = (norm.item() for norm in torch._foreach_norm([new[piece] - tensor, tensor]))
                ratio = change / size if size else math.nan  # undefined for a parameter that is zero
                if ratio < least:
                    small[piece] = ratio
                elif ratio > most:
                    large[piece] = ratio
        for name in before if still or small or large else ():
            for piece in self._applied(name, still):
                updates = f"{times} update{'' if times == 1 else 's'}"
                self._hold("unchanged", name, piece, f"`{piece}` has not changed in {updates} in a row")
            for piece in self._applied(name, small):
                message = f"the update of `{piece}` is {small[piece]:.3g} of its norm, below {least:.3g}"
                self._hold("update_ratio", name, piece, message, ": small")
            for piece in self._applied(name, large):
                message = f"the update of `{piece}` is {large[piece]:.3g} of its norm, above {most:.3g}"
                self._hold("update_ratio", name, piece, message, ": large")

    def _pieces(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of some parameters by name, each stacked one with its slices."""
        if not self._rules.slices:
            return tensors
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            found[name] = tensor
            names = self._rules.slices.get(name, ())
            if names:
                found.update(zip(names, tensor.reshape(len(names), -1).unbind(), strict=True))
        return found

    def _applied(self, name: str, applies: Container[str]) -> Sequence[str]:
        """The names to report: the slices to which a rule applies, or the whole if it applies to all or none of them.

        Args:
            applies: the names to which the rule applies, of the whole parameter and of its slices.
        """
        slices = self._rules.slices.get(name, ())
        found = [piece for piece in slices if piece in applies]
        return (name,) if name in applies and len(found) in (0, len(slices)) else found

    def _hold(self, rule: str, name: str, piece: str, message: str, side: str = "") -> None:
        """Record that a rule applies to a parameter, or to a slice of it, in this step."""
        held = self._held.get((rule, piece))
        if held is not None:
            held.further += 1
            return
        actions = _ACTIONS if piece == name else {**_ACTIONS, **_SLICE_ACTIONS}
        action = actions[rule + side].format(piece, name)
        count = 0
        if piece != name:
            count = self._slices[rule, name] = self._slices.get((rule, name), 0) + 1
        self._held[rule, piece] = _Held(action, reported=count <= MOST_REPORTED)
        if count == MOST_REPORTED + 1:
            message = f"it applies to more than {MOST_REPORTED} slices of `{name}`; the others are not reported"
        if count <= MOST_REPORTED + 1:
            self._warn(rule, f"{message} {where(self._plan, self._state)}", action)

    def _warn(self, rule: str, message: str, action: str) -> None:
        said = f"{rule.replace('_', '-')}: {message}"
        self._report(self._plan.config.document.problem(("health", rule), said, action, key=True))
