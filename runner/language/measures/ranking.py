"""Metrics of scores: `roc_auc` and `average_precision`. Equal scores are one threshold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from runner.language.measures.operands import OF_COLUMNS, check_average, classes, or_nan, scores, wide

_OF_TWO = "give `score` a column for each class: (samples, classes)"
_AVERAGES = ("macro", "micro", "weighted")


def roc_auc(score: Tensor, target: Tensor, average: str = "macro") -> Tensor:
    """Computes the area under the ROC curve.

    Args:
        score: `(samples,)`, larger for class 1; or `(samples, classes)`, for each class against all others.
        target: classes `(samples,)`: 0 and 1, or as many as `score` has columns.
        average: over classes `macro`, `micro` or `weighted` by their number of samples.
    Returns:
        0-d float64; NaN if a class has no sample, or all samples, and if a score is NaN.
    Source: `sklearn.metrics.roc_auc_score`, with `multi_class="ovr"`. The area is the Mann-Whitney statistic with
        mean ranks for ties; Hanley and McNeil 1982.
    """
    return _over_classes(_area, score, target, average)


def average_precision(score: Tensor, target: Tensor, average: str = "macro") -> Tensor:
    """Computes the mean precision over the positive samples, each at the threshold of its own score.

    Args:
        score, target, average: as for `roc_auc`.
    Returns:
        0-d float64; NaN if a class has no sample, and if a score is NaN.
    Source: `sklearn.metrics.average_precision_score`.
    """
    return _over_classes(_mean_precision, score, target, average)


def _over_classes(of_one: Callable[[Tensor, Tensor], Tensor], score: Tensor, target: Tensor, average: str) -> Tensor:
    check_average(average, _AVERAGES)
    given = scores(score)
    undefined = given.isnan().any()
    if given.dim() == 1:
        positive = classes(target, "target", len(given), count=2, more=_OF_TWO) == 1
        return or_nan(of_one(given, positive), undefined)
    count = given.shape[1]
    wanted = classes(target, "target", len(given), count=count, more=OF_COLUMNS)
    positive = wanted[:, None] == torch.arange(count, device=wanted.device)
    if average == "micro":
        return or_nan(of_one(given.reshape(-1), positive.reshape(-1)), undefined)
    found = torch.stack([of_one(given[:, each].contiguous(), positive[:, each]) for each in range(count)])
    weight = wide(positive.sum(0)) if average == "weighted" else torch.ones_like(found)
    return or_nan((found * weight).sum() / weight.sum(), undefined)


def _area(score: Tensor, positive: Tensor) -> Tensor:
    """Returns the area for scores and booleans `(samples,)`: the sum of the ranks of the positives, rescaled."""
    ordered = score.sort().values
    below = torch.searchsorted(ordered, score)
    up_to = torch.searchsorted(ordered, score, right=True)
    ones = positive.sum()
    zeros = len(score) - ones
    doubled = ((below + up_to + 1) * positive).sum() - ones * (ones + 1)  # integers, so the sum is exact
    return wide(doubled) / wide(2 * ones * zeros)


def _mean_precision(score: Tensor, positive: Tensor) -> Tensor:
    ordered, order = score.sort()
    ones = positive.sum()
    before = torch.cat([torch.zeros_like(ones)[None], positive[order].to(torch.int64).cumsum(0)])
    below = torch.searchsorted(ordered, score)  # how many scores are smaller
    precision = wide(ones - before[below]) / wide(len(score) - below)
    return (precision * positive).sum() / wide(ones)
