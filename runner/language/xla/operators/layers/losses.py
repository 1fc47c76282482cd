"""The CTC loss, and gradients of losses of margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy
from jax import lax

from runner.language.xla.operators.facts import Array, Facts, Rule, cast

_NEVER = -1e30
"""The logarithm of a probability of 0: finite, so that gradients are not NaN."""

Lengths = Sequence[int] | Array


def _labels(targets: Array, lengths: Array, most: int, blank: int) -> Array:
    """Returns the labels of each sequence with blanks around them, `(N, 2 * most + 1)`."""
    rows = lengths.shape[0]
    if targets.ndim == 1:
        begins = jnp.cumsum(lengths) - lengths
        places = jnp.clip(begins[:, None] + numpy.arange(most), 0, max(targets.shape[0] - 1, 0))
        padded = targets[places] if targets.size else jnp.zeros((rows, most), jnp.int64)
    else:
        padded = targets[:, :most]
    return jnp.full((rows, 2 * most + 1), blank, jnp.int64).at[:, 1::2].set(padded)


def _negative_log_likelihood(log_probs: Array, labels: Array, times: Array, lengths: Array, blank: int) -> Array:
    """The forward algorithm. Source: Graves et al. 2006, section 4.1."""
    rows, width = labels.shape
    emitted = jnp.take_along_axis(log_probs, jnp.broadcast_to(labels, (log_probs.shape[0], rows, width)), -1)
    before_last = jnp.concatenate([jnp.full((rows, 2), -1, labels.dtype), labels[:, :-2]], 1)[:, :width]
    skips = (labels != blank) & (labels != before_last)
    column = numpy.arange(width)

    def shifted(alpha: Array, count: int) -> Array:
        return jnp.concatenate([jnp.full((rows, count), _NEVER, alpha.dtype), alpha], 1)[:, :width]

    def step(alpha: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
        time, now = given
        two = jnp.where(skips, shifted(alpha, 2), _NEVER)
        reached = jnp.logaddexp(jnp.logaddexp(alpha, shifted(alpha, 1)), two) + now
        return jnp.where((time < times)[:, None], reached, alpha), None

    start = jnp.where(column == 0, 0.0, _NEVER).astype(log_probs.dtype)
    start = jnp.broadcast_to(start, (rows, width))  # a blank before the first time, which costs nothing
    first = jnp.where(column < 2, emitted[0], _NEVER)
    first = jnp.where((times > 0)[:, None], first, start)
    alpha, _ = lax.scan(step, first, (jnp.arange(1, log_probs.shape[0]), emitted[1:]))
    last = jnp.take_along_axis(alpha, 2 * lengths[:, None], 1)[:, 0]
    earlier = jnp.take_along_axis(alpha, jnp.maximum(2 * lengths - 1, 0)[:, None], 1)[:, 0]
    return -jnp.where(lengths == 0, last, jnp.logaddexp(last, earlier))


def _ctc(
    facts: Facts, log_probs: Array, targets: Array, times: Lengths, lengths: Lengths, blank: int, zero_infinity: bool
) -> tuple[Array, Array]:
    alpha_like = facts.results[1]
    assert alpha_like is not None
    wide = log_probs if log_probs.ndim == 3 else log_probs[:, None]
    times, lengths = (jnp.atleast_1d(jnp.asarray(each, jnp.int64)) for each in (times, lengths))
    labels = _labels(targets, lengths, (alpha_like.shape[-1] - 1) // 2, blank)
    loss = _negative_log_likelihood(wide, labels, times, lengths, blank)
    loss = jnp.where(loss > -_NEVER / 2, jnp.inf, loss)  # `zero_infinity` is for its caller and its gradient
    return loss.reshape(facts.shape), jnp.zeros(tuple(alpha_like.shape), log_probs.dtype)


def _ctc_backward(
    facts: Facts,
    grad: Array,
    log_probs: Array,
    targets: Array,
    times: Lengths,
    lengths: Lengths,
    loss: Array,
    log_alpha: Array,
    blank: int,
    zero_infinity: bool,
) -> Array:
    """Returns torch's gradient, which holds behind `log_softmax`: the probabilities less the expected counts."""
    wide = log_probs if log_probs.ndim == 3 else log_probs[:, None]
    times, lengths = (jnp.atleast_1d(jnp.asarray(each, jnp.int64)) for each in (times, lengths))
    labels = _labels(targets, lengths, (log_alpha.shape[-1] - 1) // 2, blank)
    _, backward = jax.vjp(lambda x: _negative_log_likelihood(x, labels, times, lengths, blank), wide)
    (counts,) = backward(jnp.ones(wide.shape[1], wide.dtype))
    found = (jnp.exp(wide) + counts) * grad.reshape(-1)[:, None]
    found = jnp.where(jnp.arange(wide.shape[0])[:, None, None] < times[:, None], found, 0)
    if zero_infinity:
        found = jnp.where(jnp.isinf(loss).reshape(-1)[:, None], 0, found)
    return found.reshape(facts.shape)


def _shared(grad: Array, reduction: int, rows: int) -> Array:
    """Returns the gradient of each row: 0 no reduction, 1 the mean, 2 the sum."""
    return jnp.broadcast_to(grad / rows if reduction == 1 else grad, (rows,))[:, None]


def _multi_margin_backward(
    facts: Facts, grad: Array, x: Array, target: Array, order: Any, margin: Any, weight: Array | None, reduction: int
) -> Array:
    wide = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    rows, classes = wide.shape
    target = target.reshape(-1)
    facts.fails_if((target < 0) | (target >= classes))
    chosen = jnp.arange(classes) == target[:, None]
    gap = cast(margin, facts.dtype) - jnp.where(chosen, wide, 0).sum(-1, keepdims=True) + wide
    slope = jnp.ones_like(gap) if order == 1 else 2 * gap
    if weight is not None:
        slope = slope * weight[target][:, None]
    found = jnp.where((gap > 0) & ~chosen, slope / classes, 0) * _shared(grad, reduction, rows)
    return jnp.where(chosen, -found.sum(-1, keepdims=True), found).reshape(facts.shape)


def _multilabel_margin_backward(
    facts: Facts, grad: Array, x: Array, target: Array, reduction: int, is_target: Array
) -> Array:
    wide = x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
    rows, classes = wide.shape
    labels, is_label = target.reshape(rows, classes), is_target.reshape(rows, classes) != 0
    listed = jnp.cumprod(labels >= 0, -1).astype(bool)
    label = jnp.clip(labels, 0, classes - 1)
    at_label = jnp.take_along_axis(wide, label, -1)
    gap = 1 - at_label[:, :, None] + wide[:, None, :]
    active = (gap > 0) & listed[:, :, None] & ~is_label[:, None, :]
    step = active.astype(wide.dtype) / classes
    found = step.sum(1).at[jnp.arange(rows)[:, None], label].add(-step.sum(2))
    return (found * _shared(grad, reduction, rows)).reshape(facts.shape)


RULES: Mapping[str, Rule] = {
    "aten._ctc_loss.Tensor": _ctc,
    "aten._ctc_loss.default": _ctc,
    "aten._ctc_loss_backward.Tensor": _ctc_backward,
    "aten._ctc_loss_backward.default": _ctc_backward,
    "aten.multi_margin_loss_backward.default": _multi_margin_backward,
    "aten.multilabel_margin_loss_backward.default": _multilabel_margin_backward,
}
