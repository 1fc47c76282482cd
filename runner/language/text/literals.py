"""Converts values of a config to text of the expression language."""

from __future__ import annotations

import ast
from typing import Any

import torch

from runner.language.dtypes import dtype_name
from runner.language.text.faults import LanguageError
from runner.language.text.parse import parse_expression


def gradient_name(text: str) -> str | None:
    """The name `x1.grad` if an expression is exactly that, else None."""
    try:
        tree = parse_expression(text)
    except LanguageError:
        return None
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and tree.attr == "grad":
        return f"{tree.value.id}.grad"
    return None


def expression_text(value: Any, dtype: torch.dtype | None = None) -> str:
    """Converts a number, a nested list or an expression of a config to text of the expression language.

    A list becomes a tensor of `dtype` if that is floating-point or complex. A list of fractions becomes float64 if
    `dtype` is integer or boolean, to keep all digits.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex) and _has_fraction(value):
            dtype = torch.float64
        if dtype is not None and (dtype.is_floating_point or dtype.is_complex):
            return f"tensor({_display(value)}, dtype={dtype_name(dtype)})"
        return f"tensor({_display(value)})"
    return _display(value)


def _has_fraction(value: Any) -> bool:
    return any(map(_has_fraction, value)) if isinstance(value, (list, tuple)) else isinstance(value, float)


def _display(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_display(item) for item in value) + "]"
    if isinstance(value, str):
        return f"({value})"
    return repr(value)
