"""Optimizers written as equations: planned for each parameter, and at work.

state: {m: 0, v: 0}
update: |
  m = beta1 * m + (1 - beta1) * grad
  v = beta2 * v + (1 - beta2) * grad ** 2
  param = param - lr * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + eps)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx
from torch.nn import Parameter

from runner.errors import did_you_mean
from runner.language.computation import Computation, extract
from runner.language.faults import LanguageError, Place
from runner.language.inference import Bounds, Inference
from runner.language.lowering import Lowered, lower_expression, lower_statements
from runner.language.scope import Scope
from runner.optim.plans import Shaped

IN_SCOPE = ("param", "grad", "t")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for every parameter that it updates."""

    initial: Mapping[str, Mapping[str, Computation]]  # parameter → state entry → its first value, over `param`
    update: Mapping[str, Computation]  # parameter → `param` and the state entries that the rule assigns


class RuleFault(Exception):
    """A rule does not fit a parameter; `entry` is the state entry it is about, None for the update."""

    def __init__(self, error: LanguageError, entry: str | None = None) -> None:
        super().__init__(error.message)
        self.error, self.entry = error, entry


def plan_rule(
    state: Mapping[str, str], update: str, parameters: Mapping[str, Shaped], surroundings: Scope, bounds: Bounds
) -> Rule:
    """Lower a rule once for each shape and dtype among the parameters.

    Args:
        state: what each entry starts from, an expression that may read `param`.
        update: statements over `param`, `grad`, `t`, the state entries and the scalar constants.
        parameters: those that the rule holds.
        surroundings: scalar constants, tables and functions; its tensors are not in scope.
        bounds: how large the rule may become.
    Raises:
        RuleFault: the rule is not valid, or does not fit a parameter's shape.
    """
    planned: dict[tuple[tuple[int, ...], torch.dtype], tuple[dict[str, Computation], Computation]] = {}
    initial: dict[str, Mapping[str, Computation]] = {}
    updates: dict[str, Computation] = {}
    for name, parameter in parameters.items():
        kind = (parameter.shape, parameter.dtype)
        if kind not in planned:
            planned[kind] = _plan(state, update, name, parameter, surroundings, bounds)
        initial[name], updates[name] = planned[kind]
    return Rule(initial, updates)


def _plan(
    state: Mapping[str, str], update: str, name: str, parameter: Shaped, surroundings: Scope, bounds: Bounds
) -> tuple[dict[str, Computation], Computation]:
    param = torch.zeros(parameter.shape, dtype=parameter.dtype, device=surroundings.device)
    scope = replace(surroundings, tensors={"param": param}, roles={}, running={}, fields={}, fixed={}, writable=False)
    initial: dict[str, Computation] = {}
    for entry, text in state.items():
        try:
            lowered = lower_expression(text, scope, Inference(bounds))
            initial[entry] = extract(lowered, ["value"])
            _check_shape(initial[entry], tuple(parameter.shape), f"`{entry}`")
        except LanguageError as error:
            raise RuleFault(error, entry) from None
    entries = {entry: torch.zeros_like(param) for entry in state}
    tensors = {"param": param, "grad": torch.zeros_like(param), **entries}
    scope = replace(scope, tensors=tensors, running={"t": 1})
    try:
        lowered = lower_statements(update, scope, Inference(bounds))
        if "param" not in lowered.values:
            hint = did_you_mean("param", lowered.values, "the last line is for instance `param = param - lr * grad`")
            raise LanguageError("the rule never assigns `param`", hint)
        assigned = [entry for entry in state if entry in lowered.values]
        for result in ("param", *assigned):
            _check_result(lowered, result, name, parameter)
    except LanguageError as error:
        raise RuleFault(error) from None
    return initial, extract(lowered, ["param", *assigned])


def _check_result(lowered: Lowered, result: str, name: str, parameter: Shaped) -> None:
    value = lowered.values[result]
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    place: Place | None = value.meta.get("place") if isinstance(value, fx.Node) else None
    shape = tuple(parameter.shape)
    if result == "param" and not isinstance(example, Tensor):
        raise LanguageError("the rule makes `param` a number", "write for instance `param = param - lr * grad`")
    found = tuple(example.shape) if isinstance(example, Tensor) else ()
    fits = found == shape if result == "param" else _broadcasts(found, shape)
    if not fits:
        message = f"the rule gives `{result}` the shape {found}, and `{name}` has {shape}"
        error = LanguageError(message, "reduce nothing that is assigned to it, or `expand` it")
        error.place = place or error.place
        raise error


def _check_shape(computation: Computation, shape: tuple[int, ...], what: str) -> None:
    found = computation.outputs[0].shape
    if found is None or not _broadcasts(found, shape):
        message = f"{what} starts with the shape {found}, which does not broadcast to {shape}"
        raise LanguageError(message, "start it from a number, or from `zeros_like(param)`")


def _broadcasts(shape: Sequence[int], target: Sequence[int]) -> bool:
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(length in (1, wanted) for length, wanted in aligned)


class RuleStepper:
    """A rule at work. `steps` counts the steps taken; the next one is `t = steps + 1`."""

    __slots__ = ("_parameters", "_states", "_updates", "steps")

    def __init__(
        self,
        rule: Rule,
        parameters: Mapping[str, Parameter],
        initial: Mapping[str, Mapping[str, Tensor | int | float | bool]],
    ) -> None:
        self.steps = 0
        self._parameters = {name: parameters[name] for name in rule.update}
        self._states: dict[str, dict[str, Tensor]] = {}
        self._updates: list[Callable[[int], None]] = []
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                given = initial.get(name, {})
                values = {
                    entry: given[entry] if entry in given else _value(computation, {"param": parameter})
                    for entry, computation in rule.initial[name].items()
                }
                self._states[name] = {entry: _like(value, parameter) for entry, value in values.items()}
                self._updates.append(_bind(rule.update[name], parameter, self._states[name]))

    def holds(self, name: str) -> bool:
        """Whether a parameter is one of its own."""
        return name in self._parameters

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        with torch.no_grad():
            for update in self._updates:
                update(self.steps)

    def state(self, name: str) -> Mapping[str, Tensor]:
        """The state entries of a parameter, each of its shape."""
        return self._states[name]

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Put back what `state` gave for each parameter, and the count of steps."""
        for name, entries in state.items():
            self._states[name].update(entries)
        self.steps = steps


def _bind(computation: Computation, parameter: Parameter, state: dict[str, Tensor]) -> Callable[[int], None]:
    function, inputs = computation.function, computation.inputs
    entries = [(position, output.name) for position, output in enumerate(computation.outputs) if position]

    def update(t: int) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        known = {"param": parameter, "grad": gradient, "t": t}
        results = function(None, *[known[name] if name in known else state[name] for name in inputs])
        written = [_like(results[position], parameter) for position, _ in entries]
        parameter.copy_(results[0])
        for (_, name), value in zip(entries, written, strict=True):
            state[name] = value

    return update


def _value(computation: Computation, known: Mapping[str, Tensor]) -> object:
    return computation.function(None, *[known[name] for name in computation.inputs])[0]


def _like(value: object, parameter: Parameter) -> Tensor:
    """A value as a tensor of its own, of a parameter's shape and dtype."""
    made = torch.empty_like(parameter, requires_grad=False)
    if isinstance(value, Tensor):
        return made.copy_(value)
    return made.fill_(value)  # type: ignore[arg-type]
