"""A case's optimizer: the nearest class of torch.optim, or the case's own equations as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .cases import Case
from .drafting import Draft
from .expressions import UnsayableError
from .models import Model
from .reference import evaluated


def optimizer_of(case: Case, draft: Draft, model: Model, which: str) -> dict[str, Any]:
    spec = case.record["optimizer"]
    schedule = spec.get("lr_schedule")
    rates = draft.numbers("learning_rates", schedule) if schedule else None
    if which == "rule":
        return _rule(case, draft, model, rates)
    known = spec["torch"]
    arguments = dict(known["kwargs"])
    if rates is not None:
        arguments["lr"] = f"{rates}[t - 1]"
    return {known["class"].lower(): arguments} | _state(case, draft, model, known.get("init_state") or {})


def _state(case: Case, draft: Draft, model: Model, initial: Mapping[str, Any]) -> dict[str, Any]:
    """`state:` beside an optimizer: tensors are constants, counts are numbers."""
    declared = {
        model.parameters[name]: {
            key: draft.constant(f"{name}_{key}", case.array(value)) if isinstance(value, Mapping) else value
            for key, value in state.items()
        }
        for name, state in initial.items()
        if name in model.reaching
    }
    return {"state": declared} if declared else {}


def _rule(case: Case, draft: Draft, model: Model, rates: str | None) -> dict[str, Any]:
    """The case's own equations, with `p`, `g` and `t` in the language's words."""
    spec = case.record["optimizer"]
    rule, draft.state_logged = spec["rule"], True
    scope = draft.scope()
    for name, value in spec["hyper"].items():
        if value is None or (name == "lr" and rates is not None):
            continue
        if isinstance(value, list):
            scope.bind(name, draft.numbers(name, value))
        else:
            constant = draft.names.give(name)
            draft.constants[constant] = value
            scope.bind(name, constant, tensor=False)
    first = int(spec.get("initial_step", 0))
    scope.bind("p", "param")
    for name, expression in rule.get("state", {}).items():
        for parameter in model.reaching & model.tensors.keys():
            shape = tuple(model.tensors[parameter].shape)
            started = evaluated(str(expression), {**spec["hyper"], "p": model.tensors[parameter]})
            if isinstance(started, Tensor) and tuple(started.shape) not in ((), shape):
                raise UnsayableError(f"the state `{name}`, of another shape than its parameter's")
    initial = {name: scope.translate(str(expression)) for name, expression in rule.get("state", {}).items()}
    scope.bind("g", "grad")
    scope.bind("t", f"t + {first}" if first else "t", tensor=False)
    for name in initial:
        scope.bind(name, name)
    update = []
    if rates is not None:
        update.append(f"lr = {rates}[t - 1]")
        scope.bind("lr", "lr", tensor=False)
    for name, expression in rule["update"]:
        text, tensor = scope.translate(expression), scope.is_tensor(expression)
        target = {"p": "param", "g": "grad"}.get(name, name)
        update.append(f"{target} = {text}")
        scope.bind(name, target, tensor=tensor or name in initial)
    body: dict[str, Any] = {"update": "\n".join(update)}
    return {"rule": ({"state": initial} if initial else {}) | body} | _state(
        case, draft, model, spec.get("initial_state") or {}
    )
