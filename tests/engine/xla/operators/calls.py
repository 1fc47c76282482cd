"""Calls of single operators, in torch and in XLA."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from runner.language.xla.operators.facts import Facts, as_array
from runner.language.xla.operators.table import REFUSALS, RULES
from runner.language.xla.operators.translate import IGNORED
from tests.engine.xla.operators.traced import FAST_COMPILATION, TOLERANCES, as_tensor

Call = tuple[Any, ...]
"""The name of an operator and its arguments; a dictionary at the end gives arguments by keyword."""

EITHER_ZERO = ("fmax", "fmin", "maximum", "minimum", "relu")
"""Operators that may choose 0 or -0, which are equal."""


def assert_same(calls: Sequence[Call], *, every: bool = True) -> int:
    """Asserts that XLA, in one compilation, gives torch's results; returns how many calls there are.

    Args:
        every: torch can do all calls; else those that it cannot do are left out.
    """
    done = []
    for call in calls:
        try:
            done.append(_called(call))
        except (RuntimeError, NotImplementedError, TypeError):
            if every:
                raise

    def together(given: Sequence[Any]) -> list[Any]:
        return [RULES[name](facts, *arguments) for (name, facts, _), arguments in zip(done, given, strict=True)]

    with jax.enable_x64(True):
        given = [tree_map(_converted, facts.arguments) for _, facts, _ in done]
        kept = [[each for each in jax.tree.leaves(one) if isinstance(each, jax.Array)] for one in given]

        def with_constants(arrays: Sequence[Sequence[Any]]) -> list[Any]:
            return together([_filled(one, iter(values)) for one, values in zip(given, arrays, strict=True)])

        found = jax.jit(with_constants).lower(kept).compile(FAST_COMPILATION)(kept)
    faults = []
    for (name, facts, expected), results in zip(done, found, strict=True):
        pairs = zip(results, expected, strict=True) if isinstance(expected, tuple) else [(results, expected)]
        signs = name.split(".")[1] not in EITHER_ZERO
        faults += [f"{name}{_shown(facts)}: {fault}" for pair in pairs if (fault := _difference(*pair, signs=signs))]
    if faults:
        raise AssertionError("\n".join(faults))
    return len(done)


def _called(call: Call) -> tuple[str, Facts, Any]:
    """Runs a call in torch."""
    name, *arguments = call
    keywords = arguments.pop() if isinstance(arguments[-1], dict) else {}
    _, packet, overload = name.split(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = operator(*arguments, **keywords)
    complete = [
        arguments[place] if place < len(arguments) else keywords.get(each.name, each.default_value)
        for place, each in enumerate(operator._schema.arguments)
        if each.name not in IGNORED
    ]
    several = isinstance(expected, (tuple, list))
    facts = Facts(tuple(expected) if several else (expected,), tuple(complete))
    assert name not in REFUSALS or REFUSALS[name](facts) is None
    return name, facts, tuple(expected) if several else expected


def _converted(value: Any) -> Any:
    return as_array(value) if isinstance(value, Tensor) else value


def _filled(arguments: Any, values: Any) -> Any:
    return tree_map(lambda each: next(values) if isinstance(each, jax.Array) else each, arguments)


def _shown(facts: Facts) -> str:
    return str(tuple(tuple(each.shape) if isinstance(each, Tensor) else each for each in facts.arguments))


def _difference(array: Any, expected: Tensor, *, signs: bool) -> str | None:
    """Says where a result differs; zeros have signs, and NaN is equal to NaN."""
    found, expected = as_tensor(array), expected.resolve_conj().resolve_neg()
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype} {tuple(found.shape)}, expected {expected.dtype} {tuple(expected.shape)}"
    tolerance = TOLERANCES.get(expected.dtype, 0.0)
    differs = ~torch.isclose(found, expected, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
    if signs and expected.is_floating_point():
        differs |= (found == 0) & (expected == 0) & (found.signbit() != expected.signbit())
    places = [tuple(each) for each in differs.nonzero()[:4].tolist()]
    return ", ".join(f"{place}: {found[place].item()}, expected {expected[place].item()}" for place in places) or None
