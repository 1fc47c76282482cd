"""Takes a first step on small stand-ins during planning, to let torch validate and to find the optimizer's state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from runner.optim.plans import Shaped, StateEntry, Value
from runner.optim.stepper import construct

Options = Mapping[str, Value | tuple[Value, ...]]

REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError)
"""The exceptions that torch raises for an argument or a parameter that an optimizer does not support."""

_REMEMBERED = 64
"""The number of first steps that are remembered: those of equal optimizers over equal parameters are equal."""

_STAND_IN = 2
"""Length of a stand-in's dimensions: the smallest that differs from a reduced dimension."""


def try_first_step(
    class_name: str, options: Options, groups: Sequence[tuple[Sequence[str], Options]], parameters: Mapping[str, Shaped]
) -> dict[str, tuple[StateEntry, ...]]:
    """Construct an optimizer over stand-ins of the parameters and take one step with gradients of zero.

    Equal optimizers over equal parameters are tried once.

    Args:
        class_name: a class of `torch.optim`.
        options: arguments of the class.
        groups: the names of each group's parameters, and its arguments.
        parameters: shapes and dtypes.
    Returns:
        the state entries of each parameter, with their real shapes.
    Raises:
        one of `REFUSALS`: torch rejects an argument or a parameter.
    """
    shaped = {name: (parameters[name].shape, parameters[name].dtype) for names, _ in groups for name in names}
    default = torch.get_default_dtype()  # in which torch counts steps
    key = repr((class_name, options, groups, shaped, default))  # where 1 is not True, nor 1.0
    if key not in _steps:
        with _disable_current_modes():  # the planner may use fake tensors, and some steps read numbers
            found = _step(class_name, options, groups, parameters)
        if len(_steps) >= _REMEMBERED:
            _steps.pop(next(iter(_steps)), None)
        _steps[key] = found
    return {**_steps[key]}


_steps: dict[str, dict[str, tuple[StateEntry, ...]]] = {}
"""The state after each first step, by what it depends on."""


def _step(
    class_name: str, options: Options, groups: Sequence[tuple[Sequence[str], Options]], parameters: Mapping[str, Shaped]
) -> dict[str, tuple[StateEntry, ...]]:
    stand_ins = {name: _stand_in(parameters[name]) for names, _ in groups for name in names}
    for names, own in groups if len(groups) > 1 else ():  # of groups, torch checks no arguments
        construct(class_name, {}, [([stand_ins[name] for name in names], {**options, **own})])
    optimizer = construct(class_name, options, [([stand_ins[name] for name in names], own) for names, own in groups])
    if class_name == "LBFGS":
        _evaluate_twice(optimizer, list(stand_ins.values()))
        return {}
    optimizer.step()
    return {
        name: tuple(
            StateEntry(key, _real_shape(value, stand_in, parameters[name].shape), value.dtype)
            for key, value in optimizer.state.get(stand_in, {}).items()
            if isinstance(value, Tensor)
        )
        for name, stand_in in stand_ins.items()
    }


def _evaluate_twice(optimizer: Optimizer, stand_ins: Sequence[Tensor]) -> None:
    """Take a step of L-BFGS on a parabola, with few iterations regardless of its arguments."""
    for group in optimizer.param_groups:
        group.update(max_iter=min(group["max_iter"], 2), max_eval=min(group["max_eval"], 4))

    def closure() -> Tensor:
        for stand_in in stand_ins:
            stand_in.grad = None
        with torch.enable_grad():
            loss = sum((stand_in.abs() - 1).square().sum() for stand_in in stand_ins)
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.no_grad():
        for stand_in in stand_ins:
            stand_in.fill_(2)
    optimizer.step(closure)  # type: ignore[arg-type]  # torch declares float and accepts a tensor


def refused_argument(attempt: Callable[[Collection[Any]], object], arguments: Sequence[Any]) -> Any | None:
    """The argument that torch rejects: one that fails alone, else one without which the rest succeeds, else None.

    Args:
        attempt: tries a set of the arguments, and raises one of `REFUSALS` if torch does.
        arguments: all of them, in the order of the config.
    """
    for argument in arguments:
        if not _succeeds(attempt, {argument}):
            return argument if _succeeds(attempt, set()) else None
    for argument in arguments:
        if _succeeds(attempt, set(arguments) - {argument}):
            return argument
    return None


def _succeeds(attempt: Callable[[Collection[Any]], object], arguments: Collection[Any]) -> bool:
    try:
        attempt(arguments)
    except REFUSALS:
        return False
    return True


def _stand_in(parameter: Shaped) -> Tensor:
    tensor = torch.zeros(
        [min(length, _STAND_IN) for length in parameter.shape], dtype=parameter.dtype, requires_grad=True
    )
    tensor.grad = torch.zeros_like(tensor)
    return tensor


def _real_shape(entry: Tensor, stand_in: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    if entry.dim() != stand_in.dim():
        return tuple(entry.shape)
    return tuple(
        length if entry_length == stand_in_length else entry_length
        for entry_length, stand_in_length, length in zip(entry.shape, stand_in.shape, shape, strict=True)
    )
