"""A case's optimizer: the nearest class of torch.optim, or the case's own equations as a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .cases import Case
from .drafting import Draft
from .evaluation import evaluated
from .expressions import Names, Scope, UnsayableError
from .models import Model, Views
from .states import View, stated_entries, torch_views

RULE_WORDS = ("param", "grad", "t", "iteration")
"""What a rule may not take for a name of its own."""


def optimizer_of(case: Case, draft: Draft, model: Model, which: str) -> tuple[dict[str, Any], Views]:
    """The config's optimizer, and how the state that the case expects is read from what it keeps."""
    spec = case.record["optimizer"]
    schedule = spec.get("lr_schedule")
    rates = draft.numbers("learning_rates", schedule) if schedule else None
    draft.state_logged = bool(stated_entries(case))
    if which == "rule":
        return _rule(case, draft, model, rates)
    known = spec["torch"]
    arguments = dict(known["kwargs"])
    if rates is not None:
        arguments["lr"] = f"{rates}[t - 1]"
    started = _state(draft, model, _started(case, known.get("init_state")))
    views = {name: torch_views(case, name, entries) for name, entries in stated_entries(case).items()}
    return {known["class"].lower(): arguments} | started, views


def _state(draft: Draft, model: Model, initial: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`state:` beside an optimizer: tensors are constants, counts are numbers."""
    declared = {
        model.parameters[name]: {
            key: draft.constant(f"{name}_{key}", value) if isinstance(value, Tensor) else value
            for key, value in state.items()
        }
        for name, state in initial.items()
        if name in model.reaching
    }
    return {"state": declared} if declared else {}


def _started(case: Case, initial: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The state that a case starts from, its arrays as tensors."""
    return {
        name: {key: case.array(value) if isinstance(value, Mapping) else value for key, value in state.items()}
        for name, state in (initial or {}).items()
    }


def _rule(case: Case, draft: Draft, model: Model, rates: str | None) -> tuple[dict[str, Any], Views]:
    """The case's own equations, with `p`, `g` and `t` in the language's words."""
    spec = case.record["optimizer"]
    rule = spec["rule"]
    scope = Scope({}, (), _literal_of_a_rule)
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
    names = Names(RULE_WORDS)
    states = {name: names.give(name) for name in rule.get("state", {})}
    shapes = _shapes_of_state(case, model)
    initial = {
        states[name]: _packed(scope.translate(str(expression)), shapes.get(name))
        for name, expression in rule.get("state", {}).items()
    }
    scope.bind("g", "grad")
    scope.bind("t", f"t + {first}" if first else "t", tensor=False)
    targets = {"p": "param", "g": "grad"} | states
    update = []
    for name, kept in states.items():
        if name in shapes:
            targets[name] = names.give(name)
            update.append(f"{targets[name]} = {_unpacked(kept, shapes[name])}")
        scope.bind(name, targets[name])
    if rates is not None:
        targets["lr"] = names.give("lr")
        update.append(f"{targets['lr']} = {rates}[t - 1]")
        scope.bind("lr", targets["lr"], tensor=False)
    for name, expression in rule["update"]:
        text, tensor = scope.translate(expression), scope.is_tensor(expression)
        target = targets.setdefault(name, "") or names.give(name)
        targets[name] = target
        update.append(f"{target} = {text}")
        scope.bind(name, target, tensor=tensor or name in states)
    update += [f"{states[name]} = {_packed(targets[name], shape)}" for name, shape in shapes.items()]
    body: dict[str, Any] = {"update": "\n".join(update)}
    given = {
        parameter: {
            states[name]: _padded(value, model.tensors[parameter]) if name in shapes else value
            for name, value in entries.items()
        }
        for parameter, entries in _started(case, spec.get("initial_state")).items()
    }
    views = {
        parameter: {
            name: (states[name], View(tuple(case.array(value).shape), packed=name in shapes))
            for name, value in entries.items()
            if name in states
        }
        for parameter, entries in stated_entries(case).items()
    }
    return {"rule": ({"state": initial} if initial else {}) | body} | _state(draft, model, given), views


def _literal_of_a_rule(values: Any, dtype: str | None) -> str:
    """A tensor that the equations write out; a rule reads no constants that are tensors."""
    own = str(torch.tensor(values, dtype=getattr(torch, dtype) if dtype else None).dtype).removeprefix("torch.")
    return f"tensor({values!r}, dtype={'param.dtype' if dtype == '' else own})"


def _shapes_of_state(case: Case, model: Model) -> dict[str, tuple[int, ...]]:
    """The shapes of state that does not have its parameter's: a rule keeps it as the first elements of one that has.

    Raises:
        UnsayableError: the state is larger than its parameter, or of another shape for another parameter.
    """
    spec, shapes = case.record["optimizer"], {}
    trained = {name: value for name, value in model.tensors.items() if name in model.reaching}
    for name, expression in spec["rule"].get("state", {}).items():
        started = {
            parameter: evaluated(str(expression), {**spec["hyper"], "p": value}) for parameter, value in trained.items()
        }
        own = {
            parameter: tuple(value.shape)
            for parameter, value in started.items()
            if isinstance(value, Tensor) and tuple(value.shape) not in ((), tuple(trained[parameter].shape))
        }
        if not own:
            continue
        alike = len(own) == len(trained) and len(set(own.values())) == 1
        if not alike or any(torch.Size(shape).numel() > trained[parameter].numel() for parameter, shape in own.items()):
            raise UnsayableError(f"the state `{name}`, of another shape than its parameter's")
        shapes[name] = next(iter(own.values()))
    return shapes


def _packed(text: str, shape: tuple[int, ...] | None) -> str:
    """A tensor of `shape` as the first elements of one of the parameter's shape, behind them zeros."""
    if shape is None:
        return text
    behind = f"zeros(param.numel() - {torch.Size(shape).numel()}, dtype=param.dtype)"
    return f"cat([({text}).reshape(-1), {behind}]).reshape(param.shape)"


def _padded(value: Tensor, parameter: Tensor) -> Tensor:
    behind = torch.zeros(parameter.numel() - value.numel(), dtype=value.dtype)
    return torch.cat([value.flatten(), behind]).reshape(parameter.shape)


def _unpacked(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}.reshape(-1)[:{torch.Size(shape).numel()}].reshape({shape!r})"
