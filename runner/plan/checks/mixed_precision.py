"""Plans and checks mixed precision: `autocast`, and the loss scaler of float16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from runner.config import Config
from runner.faults import Faults
from runner.language.dtypes import dtype_name
from runner.language.text.arithmetic import Scalar
from runner.optim import OptimizerPlan
from runner.plan.checks.whole_steps import EAGER, PARTS
from runner.plan.data.sources import SourcePlan
from runner.plan.program.instructions import Action, Instruction, LossScaling, Train
from runner.plan.scalars import integer, number
from runner.plan.tensors.tensors import TensorPlan

PATH = ("autocast", "loss_scale")
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


def check_autocast(
    config: Config, tensors: Mapping[str, TensorPlan], sources: Mapping[str, SourcePlan], faults: Faults
) -> None:
    """Warn of an `autocast` that changes nothing."""
    dtypes = [tensor.dtype for tensor in tensors.values()]
    dtypes += [column.dtype for source in sources.values() for column in source.columns]
    if config.autocast is not None and not any(dtype in _NARROW for dtype in dtypes):
        message = "`autocast` leaves float64 and complex tensors as they are, and there are no others"
        faults.warn(("autocast",), message, "write `dtype: float32`, or remove `autocast`")


def plan_loss_scaling(config: Config, scalars: Mapping[str, Scalar], faults: Faults) -> LossScaling | None:
    """The loss scaler of a config; None if it has none, or after reporting a problem."""
    declared = None if config.autocast is None else config.autocast.loss_scale
    if declared is None:
        return None

    def factor(name: str, low: float, high: float, what: str) -> float:
        found = number(getattr(declared, name), (*PATH, name), scalars, faults)
        if found is not None and not low < found < high:
            faults.add((*PATH, name), f"expected {what}, found {found!r}", f"its default is {_default(declared, name)}")
        return 1.0 if found is None else float(found)

    infinite = float("inf")
    return LossScaling(
        factor("init_scale", 0, infinite, "a number above 0"),
        factor("growth_factor", 1, infinite, "a factor above 1"),
        factor("backoff_factor", 0, 1, "a factor between 0 and 1"),
        integer(declared.growth_interval, (*PATH, "growth_interval"), scalars, faults, 1) or 1,
    )


def _default(declared: Any, name: str) -> object:
    return type(declared).model_fields[name].default


def check_scaled(
    scaling: LossScaling | None,
    program: Iterable[Instruction],
    optimizers: Mapping[str, OptimizerPlan],
    tensors: Mapping[str, TensorPlan],
    engine: str,
    faults: Faults,
) -> None:
    """Report each step that a loss scaler cannot work with, if there is one."""
    if scaling is None:
        return
    if engine != "eager":
        message = f"`engine: {engine}` takes every step, and `loss_scale` skips some"
        faults.add(PATH, message, f"remove `loss_scale`, or write {EAGER}", key=True)
    actions = [action for action in program if isinstance(action, Action)]
    for action in actions:
        if action.kind in PARTS:
            message = f"`loss_scale` scales whole `train` steps, and `{action.kind}` is a part of one"
            faults.add(action.config_path, message, "write `train`, or remove `loss_scale`", key=True)
        elif isinstance(action.argument, Train) and action.argument.closure:
            message = "`lbfgs` evaluates the objective again within its step, which `loss_scale` cannot skip"
            faults.add(action.config_path, message, "use another optimizer, or remove `loss_scale`", key=True)
    if not any(isinstance(action.argument, Train) for action in actions) and not faults.problems:
        faults.add(PATH, "no `train` step scales its objective", "remove `loss_scale`", key=True)
    for optimizer in optimizers.values():
        for name in optimizer.parameters:
            dtype = tensors[name].dtype
            if dtype == torch.float16:
                message = f"`{name}` is float16, and torch unscales gradients of float32 only"
                faults.add(("parameters", name), message, "write `dtype: float32`: `autocast` casts it", key=True)
            elif dtype.is_complex:
                message = f"`loss_scale` divides real gradients, and `{name}` is {dtype_name(dtype)}"
                faults.add(PATH, message, "remove `loss_scale`", key=True)
