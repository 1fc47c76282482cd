"""The rules of all operators, and why some operators have none."""

from __future__ import annotations

from collections.abc import Mapping

from runner.language.xla.operators import choices, elementwise, indexing, ordering, reductions, shapes
from runner.language.xla.operators.facts import Array, Facts, Refusal, Rule
from runner.language.xla.operators.images import convolution, grids, pooling, separable
from runner.language.xla.operators.layers import activations, distances, embedding, losses, normalisation
from runner.language.xla.operators.linear import factors, fourier, products, solving
from runner.language.xla.operators.numerics import bessel, polynomials, special

_TOPICS = (
    activations,
    bessel,
    choices,
    convolution,
    distances,
    elementwise,
    embedding,
    factors,
    fourier,
    grids,
    indexing,
    losses,
    normalisation,
    ordering,
    polynomials,
    pooling,
    products,
    reductions,
    separable,
    shapes,
    solving,
    special,
)


def _assert(facts: Facts, holds: Array, *_message: str) -> None:
    facts.fails_if(holds == 0)


RULES: Mapping[str, Rule] = {
    **{name: rule for topic in _TOPICS for name, rule in topic.RULES.items()},
    "aten._assert_async.default": _assert,
    "aten._assert_async.msg": _assert,
}
"""By the name of the operator in torch."""

REFUSALS: Mapping[str, Refusal] = {
    **embedding.REFUSALS,
    **factors.REFUSALS,
    **indexing.REFUSALS,
    **normalisation.REFUSALS,
}
"""Rules that cannot run every node of their operator."""

RANDOM = (
    "aten.bernoulli.Tensor",
    "aten.bernoulli.default",
    "aten.bernoulli.p",
    "aten.binomial.default",
    "aten.cauchy.default",
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
"""Operators that draw random numbers. `tracing.is_drawn` says which of them the engine draws before the loop."""

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
    "aten._native_batch_norm_legit.default": "it writes into its running statistics",
}
