"""Lowers metrics and objectives after the statements of an expression, with what they sum over all samples."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from runner.language.inference.runtime import number_as
from runner.language.lowering.context import Lowering
from runner.language.lowering.statements import collecting
from runner.language.lowering.values import describe
from runner.language.text.faults import LanguageError
from runner.language.text.parse import parse_expression

_POOLS: Mapping[str, str] = {"sum": "sum", "over": "sum", "mean": "mean", "max": "max", "min": "min"}
_REDUCTIONS: Mapping[str, str] = {"sum": "sum", "over": "sum", "mean": "mean", "max": "amax", "min": "amin"}


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric or an objective.

    `texts` has its expressions by `sum`, `over`, `mean`, `max`, `min` or `whole`, or one under "" if it is plain.
    """

    path: tuple[str, str]  # ("metrics", "recall")
    texts: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.path[-1]

    def origin(self, key: str) -> tuple[str, ...]:
        """The place in the config of one of its expressions."""
        return (*self.path, key) if key else self.path


def parsed(measured: Measured) -> dict[str, ast.expr]:
    """Parses the expressions of a metric or an objective.

    Raises:
        LanguageError: one of them is invalid.
    """
    found: dict[str, ast.expr] = {}
    for key, text in measured.texts.items():
        try:
            found[key] = parse_expression(text)
        except LanguageError as error:
            error.origin = measured.origin(key)
            raise
    return found


def lower_measured(
    lowering: Lowering,
    measured: Measured,
    trees: Mapping[str, ast.expr],
    parts: dict[str, Any],
    faults: list[LanguageError],
) -> Any:
    """Lowers one metric or objective; returns its value, or None after its problems were collected.

    Args:
        parts: gets the values that are combined over batches by name, such as `loss.sum` and `loss.over`.
    """
    values: dict[str, Any] = {}
    for key, tree in trees.items():
        inner = lowering.inside(measured.texts[key], measured.origin(key), lowering.graph)
        inner.captured = lowering.captured
        with collecting(inner, faults, tree):
            value = inner.plain(inner.value(tree))
            beside = values.get("sum")
            values[key] = _reduced(inner, key, value, tree, beside) if key in _POOLS else value
    if len(values) != len(trees):
        return None
    if "over" not in values:
        return next(iter(values.values()))
    parts |= {f"{measured.name}.{key}": value for key, value in values.items()}
    inner = lowering.inside(measured.texts["over"], measured.origin("over"), lowering.graph)
    ratio = inner.emit(trees["over"], "call_function", operator.truediv, (values["sum"], values["over"]))
    ratio.meta["ratio"] = measured.name
    return ratio


def _reduced(lowering: Lowering, key: str, value: Any, tree: ast.expr, beside: fx.Node | None) -> fx.Node:
    """Reduces a value to one number over all its elements; `meta["pool"]` says how those of batches are combined."""
    example = value.meta["example"] if isinstance(value, fx.Node) else value
    dtype = lowering.scope.dtype.to_real()
    if isinstance(example, (bool, int, float)):
        own = dtype if beside is None else beside.meta["example"].dtype
        made = lowering.emit(tree, "call_function", number_as, (value, own, lowering.scope.device))
    elif isinstance(example, Tensor):
        made = value
        if key in ("sum", "mean") and not (example.is_floating_point() or example.is_complex()):
            made = lowering.emit(tree, "call_method", "to", (made, dtype))
        made = lowering.emit(tree, "call_method", _REDUCTIONS[key], (made,))
    else:
        hint = "write an expression with one value"
        raise lowering.fault(tree, f"`{key}` is {describe(value)}, not a tensor or a number", hint)
    made.meta["pool"] = _POOLS[key]
    return made


def all_trees(measured: Sequence[Mapping[str, ast.expr]]) -> list[ast.expr]:
    return [tree for trees in measured for tree in trees.values()]
