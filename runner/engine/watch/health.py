"""The health rules: thresholds for gradients and updates, each reported once per parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from runner.engine.state import State
from runner.engine.watch.reports import where
from runner.errors import Problem
from runner.plan.plan import Plan

Measure = Callable[[], None]

_ACTIONS: Mapping[str, str] = {
    "vanishing_gradient": "look at what saturates between `{}` and the objective, or start it from larger values",
    "exploding_gradient": "clip it (`clip_grad_norm`), or start `{}` from smaller values",
    "unchanged": "see that the objective depends on `{}`, or freeze it: `requires_grad: false`",
    "update_ratio: small": "raise the learning rate of `{}`",
    "update_ratio: large": "lower the learning rate of `{}`",
}


@dataclass(slots=True)
class _Held:
    """A rule that was reported for a parameter."""

    action: str
    further: int = 0  # later steps in which the rule applied too


class Health:
    """Measures the gradient and the update of each parameter, and reports what passes a threshold.

    Each rule is reported once per parameter; `conclude` reports how often it applied after that.
    """

    def __init__(self, plan: Plan, state: State, report: Callable[[Problem], None]) -> None:
        self._plan = plan
        self._rules = plan.health
        self._state = state
        self._report = report
        self._held: dict[tuple[str, str], _Held] = {}  # by rule and parameter
        self._still: dict[str, int] = {}  # parameter → updates in a row that did not change it

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
            for name, parameter in parameters.items():
                self._compare(name, before[name], parameter.detach())

        return [remember, *takes, compare]

    def conclude(self) -> None:
        """Report how often each rule applied after its first report."""
        for (rule, name), held in self._held.items():
            if held.further:
                times = "1 more step" if held.further == 1 else f"{held.further:,} more steps"
                self._warn(rule, f"it held for `{name}` in {times}", held.action)
        self._held.clear()

    def _measure(self, parameters: Mapping[str, Parameter]) -> None:
        held = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
        norms = torch._foreach_norm(list(held.values())) if held else ()
        least, most = self._rules.vanishing_gradient, self._rules.exploding_gradient
        for name, norm in zip(held, norms, strict=True):
            value = norm.item()
            if least is not None and value < least:
                self._hold("vanishing_gradient", name, f"`{name}.grad` has the norm {value:.3g}, below {least:.3g}")
            if most is not None and value > most:
                self._hold("exploding_gradient", name, f"`{name}.grad` has the norm {value:.3g}, above {most:.3g}")

    def _compare(self, name: str, before: Tensor, after: Tensor) -> None:
        times = self._rules.unchanged
        if times is not None:
            self._still[name] = self._still.get(name, 0) + 1 if torch.equal(before, after) else 0
            if self._still[name] >= times:
                self._hold(
                    "unchanged", name, f"`{name}` has not changed in {times} update{'' if times == 1 else 's'} in a row"
                )
        if self._rules.update_ratio is not None:
            least, most = self._rules.update_ratio
            change, size = (norm.item() for norm in torch._foreach_norm([after - before, before]))
            ratio = change / size if size else math.nan  # undefined for a parameter that is zero
            message = f"the update of `{name}` is {ratio:.3g} of its norm"
            if ratio < least:
                self._hold("update_ratio", name, f"{message}, below {least:.3g}", ": small")
            elif ratio > most:
                self._hold("update_ratio", name, f"{message}, above {most:.3g}", ": large")

    def _hold(self, rule: str, name: str, message: str, side: str = "") -> None:
        """Record that a rule applies to a parameter in this step."""
        held = self._held.get((rule, name))
        if held is not None:
            held.further += 1
            return
        action = _ACTIONS[rule + side].format(name)
        self._held[rule, name] = _Held(action)
        self._warn(rule, f"{message} {where(self._plan, self._state)}", action)

    def _warn(self, rule: str, message: str, action: str) -> None:
        said = f"{rule.replace('_', '-')}: {message}"
        self._report(self._plan.config.document.problem(("health", rule), said, action, key=True))
