"""Optimizers of a config with parameters of known shapes, planned."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import torch

from runner.config import loads
from runner.errors import Problem
from runner.optim import plan_optimizers

SCALARS = {"base": 0.1, "width": 4, "fast": True, "rates": (0.1, 0.2)}


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    requires_grad: bool = True


PARAMETERS = {
    "w1": Tensor((4, 3)),
    "b1": Tensor((3,)),
    "w2": Tensor((3, 2)),
    "frozen": Tensor((2,), requires_grad=False),
}

CONSTANTS = {"m0": Tensor((4, 3), requires_grad=False), "late": Tensor((9,), requires_grad=False)}


def plan(text, parameters=PARAMETERS):
    text = textwrap.dedent(text)
    names = "".join(f"  {name}: 1\n" for name in parameters)
    config = loads(f"{text}\nparameters:\n{names}\nexpression: f = 1\n")
    problems: list[Problem] = []
    warnings: list[Problem] = []
    plans = plan_optimizers(config, parameters, SCALARS, problems, warnings, constants=CONSTANTS)
    return plans, problems, warnings
