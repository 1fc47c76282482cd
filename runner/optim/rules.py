"""Optimizers written as equations: plans them for each parameter, and runs them.

state: {m: 0, v: 0}
update: |
  m = beta1 * m + (1 - beta1) * grad
  v = beta2 * v + (1 - beta2) * grad ** 2
  param = param - lr * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + eps)
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import Parameter

from runner.errors import nearest
from runner.faults import PlacedFault
from runner.language.dtypes import dtype_name
from runner.language.graph.computation import Computation, Output, extract, forget_examples
from runner.language.graph.lowered import Lowered
from runner.language.inference.inference import Inference
from runner.language.lowering.lower import lower_expression, lower_statements, uses_grad
from runner.language.lowering.scope import Scope
from runner.language.lowering.values import describe
from runner.language.text.faults import START, LanguageError, Place, place_of
from runner.language.text.parse import assigned_names, parse_statements
from runner.optim.measured import STEP_COUNT, own_names
from runner.optim.plans import Path, Rule, Shaped, StateEntry, broadcasts
from runner.optim.updates import total

Number = int | float | bool


@dataclass(frozen=True, slots=True)
class RuleContext:
    """The parts of a config that planning a rule uses."""

    # of `scope`, `tensors` are examples, and `elsewhere` names what a rule cannot read
    scope: Scope = field(default_factory=lambda: Scope({}))
    measured: Mapping[str, Number] = field(default_factory=dict)  # an example of each parameter that rules can read
    infer: Callable[[bool, Path], Inference] = lambda gradients, path: Inference(gradients=gradients)
    again: Callable[[LanguageError], None] = lambda error: None  # plans again if the fault is one of inference


def plan_rule(
    state: Mapping[str, object], update: str, parameters: Mapping[str, Shaped], context: RuleContext, path: Path
) -> tuple[Rule, dict[str, tuple[StateEntry, ...]]]:
    """Lower a rule once for each shape and dtype among the parameters.

    Args:
        state: the initial value of each entry, a number or an expression that may read `param`.
        update: statements over `param`, `grad`, `t`, the state entries and the scalar constants.
        parameters: the parameters of the optimizer.
        path: the rule's path in the config.
    Returns:
        the rule, and the state entries of each parameter. An entry has the parameter's shape, and the dtype of its
        initial expression, or the parameter's dtype if the initial value is a number.
    Raises:
        PlacedFault: the rule is not valid, or does not fit a parameter.
    """
    planned: dict[tuple[tuple[int, ...], torch.dtype], _PlannedRule] = {}
    kinds: dict[str, _PlannedRule] = {}
    for name, parameter in parameters.items():
        kind = (tuple(parameter.shape), parameter.dtype)
        if kind not in planned:
            planned[kind] = _Planner(name, parameter, context, path).plan(state, update)
        kinds[name] = planned[kind]
    updates = {name: kind.update for name, kind in kinds.items()}
    reads = {read for update in updates.values() for read in update.inputs} & context.measured.keys() - own_names(state)
    rule = Rule({name: kind.initial for name, kind in kinds.items()}, updates, tuple(sorted(reads)))
    return rule, {name: kind.state for name, kind in kinds.items()}


@dataclass(frozen=True, slots=True)
class _PlannedRule:
    """A rule lowered for the parameters of one shape and dtype."""

    initial: Mapping[str, Computation]
    update: Computation
    state: tuple[StateEntry, ...]


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans a rule for one parameter."""

    name: str
    parameter: Shaped
    context: RuleContext
    path: Path

    def plan(self, state: Mapping[str, object], update: str) -> _PlannedRule:
        outer, context = self.context.scope, self.context
        own = own_names(state)
        scope = replace(
            outer,
            scalars={name: value for name, value in outer.scalars.items() if name not in own},
            tables={name: value for name, value in outer.tables.items() if name not in own},
            roles={},
            running={},
            fixed={},
            fields={},
            writable=False,
            by_element=frozenset(outer.tables),
        )
        indexed = {name: outer.tensors[name] for name in scope.tables if name in outer.tensors}
        param = self.example()
        entries: dict[str, Tensor] = {}
        initial: dict[str, Computation] = {}
        for entry, written in state.items():
            text, path = str(written), (*self.path, "state", entry)
            inner = replace(scope, tensors={**indexed, "param": param})
            try:
                lowered = lower_expression(text, inner, context.infer(uses_grad(text, inner), path))
                initial[entry] = extract(lowered, ["value"], path)
                self.check_inputs(initial[entry], indexed)
                entries[entry] = self.start(lowered, entry, param)
            except LanguageError as error:
                context.again(error)
                raise PlacedFault.within(path, error) from None
            forget_examples(lowered)
        inner = replace(
            scope,
            tensors={**indexed, "param": param, "grad": _example_like(param), **entries},
            running={**{name: value for name, value in context.measured.items() if name not in own}, STEP_COUNT: 1},
        )
        path = (*self.path, "update")
        try:
            lowered = lower_statements(update, inner, context.infer(uses_grad(update, inner), path))
            results = ["param", *(entry for entry in state if entry in lowered.values)]
            if "param" in lowered.values:
                for result in results:
                    self.check_result(lowered, result, entries, update)
                computation = extract(lowered, results, path)
                self.check_inputs(computation, indexed)
        except LanguageError as error:
            context.again(error)
            raise PlacedFault.within(path, error) from None
        if "param" not in lowered.values:
            meant = nearest("param", lowered.values)
            hint = f"it assigns `{meant}`; did you mean `param`?" if meant else "write `param = param - lr * grad`"
            raise PlacedFault(path, "the rule never assigns `param`", hint, key=True)
        forget_examples(lowered)
        shape = tuple(self.parameter.shape)
        kept = tuple(StateEntry(entry, shape, example.dtype) for entry, example in entries.items())
        return _PlannedRule(initial, computation, kept)

    def example(self) -> Tensor:
        """An example of the parameter: its initial values if known, else values other than zero."""
        known = self.context.scope.tensors.get(self.name)
        if known is not None:
            return known.detach()
        device = self.context.scope.device
        return _example_like(torch.zeros(tuple(self.parameter.shape), dtype=self.parameter.dtype, device=device))

    def start(self, lowered: Lowered, entry: str, param: Tensor) -> Tensor:
        """The example of a state entry at its initial value."""
        value = lowered.values["value"]
        example = value.meta["example"] if isinstance(value, fx.Node) else value
        shape = tuple(param.shape)
        if isinstance(example, Tensor) and broadcasts(example.shape, shape) and not value.meta.get("dynamic"):
            return example.expand(shape).clone()
        if isinstance(example, (bool, int, float)):
            return torch.full_like(param, example)
        found = f"has the shape {tuple(example.shape)}" if isinstance(example, Tensor) else f"is {describe(value)}"
        message = f"`{entry}` {found}, which does not broadcast to {shape} of `{self.name}`"
        raise LanguageError(message, "start it from a number, or from `zeros_like(param)`")

    def check_result(self, lowered: Lowered, result: str, entries: Mapping[str, Tensor], update: str) -> None:
        """Raise LanguageError if an assigned value does not fit the weight or state entry that it is written to."""
        value = lowered.values[result]
        example = value.meta["example"] if isinstance(value, fx.Node) else value
        shape = tuple(self.parameter.shape)
        place = _assignment(update, result)
        if isinstance(example, Tensor):
            fits = tuple(example.shape) == shape if result == "param" else broadcasts(example.shape, shape)
            if not fits or value.meta.get("dynamic"):
                found = "a shape that depends on data" if value.meta.get("dynamic") else f"shape {tuple(example.shape)}"
                message = f"the rule assigns {found} to `{result}`, and `{self.name}` has shape {shape}"
                raise LanguageError(message, "give it the shape of `param`", place)
        elif result == "param" or not isinstance(example, (bool, int, float)):
            message = f"the rule assigns {describe(value)} to `{result}`"
            hint = "write for instance `param = param - lr * grad`" if result == "param" else "make it a tensor"
            raise LanguageError(message, hint, place)
        wanted = self.parameter.dtype if result == "param" else entries[result].dtype
        found_dtype = example.dtype if isinstance(example, Tensor) else torch.tensor(example).dtype
        if not torch.can_cast(found_dtype, wanted):
            message = f"the rule assigns {dtype_name(found_dtype)} to `{result}`, which is {dtype_name(wanted)}"
            hint = "take its `.real` part, or its `.abs()`" if found_dtype.is_complex else "start it from another dtype"
            raise LanguageError(message, hint, place)

    def check_inputs(self, computation: Computation, indexed: Mapping[str, Tensor]) -> None:
        """Raise LanguageError if the rule reads a whole 1-d constant instead of its elements."""
        for node in computation.nodes:
            for name in {operand.meta.get("input") for operand in node.all_input_nodes} & indexed.keys():
                if "place" in node.meta:
                    message = f"`{name}` is a constant of {indexed[str(name)].numel()} elements"
                    hint = f"a rule reads one of them: `{name}[t - 1]`"
                    raise LanguageError(message, hint, node.meta["place"], node.meta.get("origin"))
        if not indexed.keys().isdisjoint(computation.inputs):
            raise LanguageError("this is a whole constant", "index it, for instance with `t - 1`")


def _example_like(like: Tensor) -> Tensor:
    """Distinct values other than zero, in the shape and dtype of `like`."""
    count = torch.arange(1, like.numel() + 1, device=like.device)
    return count.sin().reshape(like.shape).to(like.dtype)


def _assignment(update: str, name: str) -> Place:
    """The place of the right-hand side in the last assignment of a name."""
    found = START
    for statement in parse_statements(update):
        for node in ast.walk(statement):
            if isinstance(node, ast.Assign) and name in [target.id for target in assigned_names(node, update)]:
                found = place_of(node.value, update)
    return found


class RuleStepper:
    """An optimizer that runs a rule. `steps` counts the finished steps; the next one has `t = steps + 1`."""

    __slots__ = (
        "_before",
        "_measured",
        "_parameters",
        "_random",
        "_seed",
        "_states",
        "_updates",
        "remembers",
        "steps",
        "sums",
    )

    def __init__(
        self,
        rule: Rule,
        state: Mapping[str, tuple[StateEntry, ...]],
        parameters: Mapping[str, Parameter],
        initial: Mapping[str, Mapping[str, Tensor | Number]],
        seed: Callable[[int], None],
    ) -> None:
        """Make the rule's initial state.

        Args:
            state: the state entries of each parameter.
            parameters: at least those of the rule, and those that it reads, on their device.
            initial: initial values that replace those of the rule.
            seed: seeds the generator for a step, or for the initial state (0), if these draw random numbers.
        """
        self.steps = 0
        self.remembers = self.sums = False
        self._before: dict[str, Tensor] = {}
        self._seed = seed
        self._random = any(update.random for update in rule.update.values())
        self._parameters = {name: parameters[name] for name in rule.update}
        self._measured = {name: parameters[name] for name in rule.reads}
        self._states: dict[str, dict[str, Tensor]] = {}
        self._updates: list[Callable[[Mapping[str, Number]], None]] = []
        if any(computation.random for entries in rule.initial.values() for computation in entries.values()):
            seed(0)
        for name, parameter in self._parameters.items():
            given = initial.get(name, {})
            self._states[name] = {}
            for entry in state[name]:
                computation = rule.initial[name][entry.name]
                value = given[entry.name] if entry.name in given else _run(computation, {"param": parameter})[0]
                self._states[name][entry.name] = _copy_like(value, parameter, entry.dtype)
            self._updates.append(_bind(rule.update[name], parameter, self._states[name]))

    def keep(self, names: Iterable[str]) -> None:
        """Do nothing: each step allocates new storage for the parameters."""

    @property
    def remembers_cheaply(self) -> bool:
        return True

    def before(self, name: str) -> Tensor:
        """The weight `(*s)` of a parameter before the last step; available while `remembers` is true."""
        return self._before[name]

    def forget(self) -> None:
        """Release the weights from before the last step."""
        self._before = {}

    @property
    def sums_cheaply(self) -> bool:
        return False

    def total(self) -> float:
        """The sum of all weights, which is finite only if all weights are."""
        return total(self._parameters.values())

    def holds(self, name: str) -> bool:
        """Whether this optimizer has the parameter."""
        return name in self._parameters

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        if self.remembers:
            self._before = {name: parameter.detach() for name, parameter in self._parameters.items()}
        if self._random:
            self._seed(self.steps)
        numbers = self.numbers(self.steps)
        for update in self._updates:
            update(numbers)

    def step_in_place(self) -> None:
        """Take a step in place: weights and state keep their storage, even if it is shared."""
        self.update_in_place()
        self.steps += 1

    def update_in_place(self) -> None:
        """As `step_in_place`, for `t = steps + 1`, without counting the step, so that a CUDA graph can capture it."""
        t = self.steps + 1
        if self._random:
            self._seed(t)
        numbers = self.numbers(t)
        for (name, parameter), update in zip(self._parameters.items(), self._updates, strict=True):
            state = self._states[name]
            weight, kept = parameter.detach(), dict(state)
            update(numbers)
            if parameter.data_ptr() != weight.data_ptr():
                weight.copy_(parameter.detach())
                parameter.data = weight
            for entry, tensor in kept.items():
                if state[entry] is not tensor:
                    tensor.copy_(state[entry])
                    state[entry] = tensor

    def numbers(self, t: int) -> dict[str, Number]:
        """The numbers that the rule reads in step `t`: that count, and the current values of parameters."""
        return {STEP_COUNT: t, **{name: parameter.item() for name, parameter in self._measured.items()}}

    def state(self, name: str) -> Mapping[str, Tensor]:
        """The state entries of a parameter, each in the parameter's shape."""
        return self._states[name]

    def load_state(self, state: Mapping[str, Mapping[str, Any]], steps: int) -> None:
        """Restore what `state` returned for each parameter, and the step count. Tensors are used without a copy."""
        for name, entries in state.items():
            self._states[name].update(entries)
        self.steps = steps

    def assign_state(self, name: str, entry: str, value: Tensor) -> None:
        """Replace an entry of a parameter's state. The tensor is used without a copy."""
        self._states[name][entry] = value

    def advance(self, state: Mapping[str, Mapping[str, Tensor]], steps: int) -> None:
        """Set the state of some parameters after `steps` further steps, which other code has computed."""
        self.load_state(state, self.steps + steps)


def _bind(
    computation: Computation, parameter: Parameter, state: dict[str, Tensor]
) -> Callable[[Mapping[str, Number]], None]:
    writes = [
        (position, output.name, state[output.name].dtype, _is_fresh(output, state[output.name]))
        for position, output in enumerate(computation.outputs)
        if position
    ]
    fresh_weight = _is_fresh(computation.outputs[0], parameter)

    def update(numbers: Mapping[str, Number]) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        results = _run(computation, {**numbers, **state, "param": parameter, "grad": gradient})
        written = [
            (name, results[position] if fresh else _copy_like(results[position], parameter, dtype))
            for position, name, dtype, fresh in writes
        ]
        weight = results[0]
        reusable = fresh_weight and weight.stride() == parameter.stride()
        parameter.data = weight if reusable else _copy_like(weight, parameter, parameter.dtype)
        state.update(written)

    return update


def _is_fresh(output: Output, entry: Tensor) -> bool:
    """Whether a result can be stored without a copy: a tensor without aliases, of the entry's shape and dtype."""
    same = output.shape == tuple(entry.shape) and output.dtype == entry.dtype
    return same and not output.aliases and not output.scalar


def _run(computation: Computation, known: Mapping[str, Any]) -> tuple[Any, ...]:
    with torch.set_grad_enabled(computation.gradients):
        inputs = [known[name] for name in computation.inputs]
        given = [value.detach() if isinstance(value, Tensor) else value for value in inputs]
        results = computation.function(None, *given)
    if not computation.gradients:
        return results
    return tuple(result.detach() if isinstance(result, Tensor) else result for result in results)


def _copy_like(value: Tensor | Number, parameter: Parameter, dtype: torch.dtype) -> Tensor:
    """A value as a new tensor with a parameter's shape and strides."""
    made = torch.empty_like(parameter, dtype=dtype, requires_grad=False)
    return made.copy_(value.detach()) if isinstance(value, Tensor) else made.fill_(value)
