"""Updates as functions: new weights and new state of an optimizer from old ones, out of place."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.language.graph.scalar_split import SplitComputation

Entries = list[dict[str, Tensor]]
"""What an optimizer keeps, for each parameter."""

STEP = "step"
"""The entry in which torch counts the steps of a parameter."""

_ENTRIES: Mapping[str, str] = {
    "momentum_buffer_list": "momentum_buffer",
    "muon_momentum_bufs": "momentum_buffer",
    "exp_avgs": "exp_avg",
    "exp_avg_sqs": "exp_avg_sq",
    "max_exp_avg_sqs": "max_exp_avg_sq",
    "exp_infs": "exp_inf",
    "mu_products": "mu_product",
    "state_sums": "sum",
    "square_avgs": "square_avg",
    "grad_avgs": "grad_avg",
    "acc_deltas": "acc_delta",
    "prevs": "prev",
    "step_sizes": "step_size",
    "axs": "ax",
    "mus": "mu",
    "etas": "eta",
    "state_steps": STEP,
}
"""The lists that torch's functions take, and the entry of a parameter's state that each holds."""

_COUNTERS = (STEP, "mu_product", "mu", "eta")
"""Entries without dimensions, whatever the shape of the parameter."""

_PARTS: Mapping[str, tuple[str, int]] = {
    "beta1": ("betas", 0),
    "beta2": ("betas", 1),
    "etaminus": ("etas", 0),
    "etaplus": ("etas", 1),
    "step_size_min": ("step_sizes", 0),
    "step_size_max": ("step_sizes", 1),
}
"""Arguments of torch's functions that are one element of an option."""

_FIXED: Mapping[str, Any] = {
    "foreach": False,
    "fused": False,
    "capturable": True,
    "differentiable": False,
    "has_sparse_grad": False,
    "grad_scale": None,
    "found_inf": None,
}

Update = Callable[[list[Tensor], Sequence[Tensor], Entries, Sequence[Tensor], Sequence[Tensor]], Any]
"""`(weights, gradients, entries, steps, numbers)` to new weights and new entries; all tensors, none written.

`steps` counts the steps each parameter has taken before; `numbers` are what changes with `t`. All are float64 and
without dimensions.
"""


@dataclass(frozen=True, slots=True)
class Changing:
    """An option of a group that is an expression of `t`, or whose elements are."""

    option: str
    count: int | None  # of elements; None: it is one number


def torch_update(class_name: str, options: Mapping[str, Any], changing: Sequence[Changing]) -> Update:
    """The update of one parameter group by torch's own function for a class of `torch.optim`.

    Args:
        options: of the group, as torch completes them.
        changing: those that `numbers` holds instead, in this order.
    """
    function = _function(class_name)
    names = list(inspect.signature(function).parameters)[2:]
    lists = [(argument, _ENTRIES[argument]) for argument in names if argument in _ENTRIES]
    known = [argument for argument in names if argument not in _ENTRIES and argument != "has_complex"]
    has_complex = "has_complex" in names

    def update(
        weights: list[Tensor],
        gradients: Sequence[Tensor],
        entries: Entries,
        steps: Sequence[Tensor],
        numbers: Sequence[Tensor],
    ) -> tuple[list[Tensor], Entries]:
        given = dict(options)
        position = 0
        for change in changing:
            width = 1 if change.count is None else change.count
            values = tuple(numbers[position : position + width])
            given[change.option] = values[0] if change.count is None else values
            position += width
        arguments = {name: _FIXED[name] if name in _FIXED else _option(given, name) for name in known}
        if has_complex:
            arguments["has_complex"] = any(weight.is_complex() for weight in weights)
        owned = [_own(weight) for weight in weights]
        kept: dict[str, list[Tensor]] = {}
        for argument, entry in lists:
            if entry == STEP:
                kept[argument] = [step.clone() for step in steps]
            else:
                held = [found[entry] for found in entries if entry in found]
                kept[argument] = [value.clone() if entry in _COUNTERS else _own(value) for value in held]
        with torch.no_grad():
            function(owned, [_own(gradient) for gradient in gradients], *kept.values(), **arguments)
        new: Entries = [{} for _ in weights]
        for argument, entry in lists:
            if entry != STEP:
                for place, value in enumerate(kept[argument]):
                    new[place][entry] = value.reshape(entries[place][entry].shape)
        return [value.reshape(weight.shape) for value, weight in zip(owned, weights, strict=True)], new

    return update


def _own(value: Tensor) -> Tensor:
    """A copy to write to; one without dimensions is given one, so that numbers beside it keep their rank."""
    return value.reshape(1).clone() if value.dim() == 0 else value.clone()


def _option(options: Mapping[str, Any], argument: str) -> Any:
    if argument in _PARTS:
        option, place = _PARTS[argument]
        return options[option][place]
    return options[argument]


def _function(class_name: str) -> Callable[..., Any]:
    """`torch.optim.adam.adam` of `Adam`."""
    module = sys.modules[getattr(torch.optim, class_name)._init_group.__module__]
    found: Callable[..., Any] = getattr(module, module.__name__.rpartition(".")[2].removeprefix("_"))
    return found


def rule_update(apart: SplitComputation, outputs: Sequence[str], dtypes: Mapping[str, torch.dtype]) -> Update:
    """The update of one parameter by a rule.

    Args:
        outputs: `param`, and the entries that the rule assigns.
        dtypes: of the entries.
    """

    def update(
        weights: list[Tensor],
        gradients: Sequence[Tensor],
        entries: Entries,
        steps: Sequence[Tensor],
        numbers: Sequence[Tensor],
    ) -> tuple[list[Tensor], Entries]:
        (weight,), (gradient,), (kept,) = weights, gradients, entries
        known = {**kept, "param": weight, "grad": gradient}
        results = apart.function(None, *[known[name] for name in apart.inputs], *numbers[: apart.read])
        new = dict(kept)
        for output, result in zip(apart.tensors, results, strict=True):
            new[outputs[output]] = result
        for output, number in apart.scalars:
            new[outputs[output]] = numbers[number]
        changed = new.pop("param")
        return [_like(changed, weight, weight.dtype)], [
            {name: _like(value, weight, dtypes[name]) for name, value in new.items()}
        ]

    return update


def _like(value: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype).expand(weight.shape).clone(memory_format=torch.contiguous_format)
