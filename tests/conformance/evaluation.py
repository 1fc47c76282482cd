"""A case's expressions as Python and torch find them."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from .parsing import parsed

WORDS = {
    "torch": torch,
    "F": F,
    "math": math,
    "pi": math.pi,
    "float": float,
    "int": int,
    "max": max,
    "min": min,
    "len": len,
    "abs": abs,
    "range": range,
    "slice": slice,
}
"""What a case's expression may name besides its own values."""


def evaluated(expression: str, names: Mapping[str, Any]) -> Any:
    """A case's expression as Python and torch find it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")  # float(x)
        code = compile(ast.Expression(parsed(expression)), "<case>", "eval")
        return eval(code, {**WORDS, **names})
