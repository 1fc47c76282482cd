"""The rules of all operators, and why some operators have none."""

from __future__ import annotations

from collections.abc import Mapping

from runner.language.xla.operators import (
    activations,
    choices,
    elementwise,
    indexing,
    matrices,
    reductions,
    shapes,
)
from runner.language.xla.operators.facts import Refusal, Rule

_TOPICS = (activations, choices, elementwise, indexing, matrices, reductions, shapes)

RULES: Mapping[str, Rule] = {name: rule for topic in _TOPICS for name, rule in topic.RULES.items()}
"""By the name of the operator in torch."""

REFUSALS: Mapping[str, Refusal] = {**indexing.REFUSALS}
"""Rules that cannot run every node of their operator."""

RANDOM = (
    "aten.bernoulli.default",
    "aten.bernoulli.p",
    "aten.exponential.default",
    "aten.geometric.default",
    "aten.log_normal.default",
    "aten.multinomial.default",
    "aten.native_dropout.default",
    "aten.normal.Tensor_Tensor",
    "aten.normal.Tensor_float",
    "aten.normal.float_Tensor",
    "aten.normal.float_float",
    "aten.normal_functional.default",
    "aten.poisson.default",
    "aten.rand.default",
    "aten.rand_like.default",
    "aten.randint.default",
    "aten.randint.low",
    "aten.randint_like.default",
    "aten.randint_like.low_dtype",
    "aten.randn.default",
    "aten.randn_like.default",
    "aten.randperm.default",
    "aten.rrelu_with_noise_functional.default",
    "aten.uniform.default",
)
"""Operators that draw random numbers. The engine draws before the loop, so that torch's streams stay the same."""

DATA_DEPENDENT = (
    "aten._local_scalar_dense.default",
    "aten._unique.default",
    "aten._unique2.default",
    "aten.bincount.default",
    "aten.equal.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten.repeat_interleave.Tensor",
    "aten.unique_consecutive.default",
    "aten.unique_dim.default",
)
"""Operators whose result has another shape, or is another number of Python, for other data."""

REASONS: Mapping[str, str] = {
    **dict.fromkeys(RANDOM, "it draws random numbers"),
    **dict.fromkeys(DATA_DEPENDENT, "its result has a shape that depends on data"),
}
