"""Declared tensors, planned and computed."""

from __future__ import annotations

import textwrap

import torch

from runner.config import loads
from runner.errors import Problem
from runner.plan.tensors.initial import Computed
from runner.plan.tensors.tensors import plan_tensors

SCALARS = {"n": 3, "d": 4, "half": 0.5, "wide": True}


def plan(text, base=".", dtype=torch.float32, infer=None, limit=None):
    """Plans, problems and warnings of a config that declares the scalar constants n = 3, d = 4, half = 0.5."""
    text = textwrap.dedent(text)
    if "parameters:" not in text:
        text += "\nparameters: {x: 1}\n"
    header = "constants:\n" if "constants:" not in text else ""
    scalars = "".join(f"  {name}: {str(value).lower()}\n" for name, value in SCALARS.items())
    marker = "constants:\n" if not header else ""
    text = text.replace(marker, marker + scalars) if marker else text + header + scalars
    config = loads(text + "\nexpression: f = 1\n", base)
    problems: list[Problem] = []
    warnings: list[Problem] = []
    plans = plan_tensors(config, SCALARS, dtype, problems, infer=infer, warnings=warnings, limit=limit)
    return plans, problems, warnings


def never(computed: Computed) -> torch.Tensor:
    raise AssertionError(computed)


def only_problem(text, base=".", **options) -> Problem:
    _, problems, _ = plan(text, base, **options)
    assert len(problems) == 1, problems
    return problems[0]
