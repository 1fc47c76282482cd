"""Metrics of predicted classes: `accuracy`, `confusion_matrix`, `precision`, `recall`, `f1`."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.language.measures.operands import (
    OF_COLUMNS,
    OperandError,
    any_nan,
    check_average,
    classes,
    has_values,
    or_nan,
    scores,
    share,
    share_of_equal,
    wide,
)

_OF_TWO = "write `average='macro', num_classes=…` for more than two"
_OF_MORE = "give `num_classes` their number"


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Computes the share of samples whose class is predicted.

    Args:
        prediction: classes `(samples,)`, or scores `(samples, classes)`, whose largest entry is the class.
        target: classes `(samples,)`.
    Returns:
        0-d float64; NaN without samples, and if a score is NaN.
    Source: `sklearn.metrics.accuracy_score`.
    """
    undefined: Tensor | bool = False
    if prediction.dim() == 2:
        given = scores(prediction, "prediction", widen=False)
        undefined, found = any_nan(given), given.argmax(1)
    else:
        found = classes(prediction, "prediction")
    return share_of_equal(found, classes(target, "target", found.shape[0]), undefined)


def top_k_accuracy(score: Tensor, target: Tensor, k: int = 2) -> Tensor:
    """Computes the share of samples whose class has one of the `k` largest scores.

    Args:
        score: `(samples, classes)`. Of equal scores, the later class counts as larger.
        target: classes `(samples,)`.
    Returns:
        0-d float64; NaN without samples, and if a score is NaN.
    Source: `sklearn.metrics.top_k_accuracy_score`.
    """
    given = scores(score, widen=False)
    if given.dim() != 2:
        message = f"`score` has shape {tuple(score.shape)}, and takes (samples, classes)"
        raise OperandError(message, "give it a score for each class")
    count = given.shape[1]
    if k < 1:
        raise OperandError(f"`k` is {k}, and takes 1 or more", "write a larger one")
    wanted = classes(target, "target", len(given), count=count, more=OF_COLUMNS)
    largest = torch.argsort(given, dim=1, stable=True)[:, -k:]
    return share(largest == wanted[:, None], len(given), any_nan(given))


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Counts the samples of each class (rows) by the predicted class (columns).

    Args:
        prediction, target: classes `(samples,)`.
    Returns:
        int64 `(num_classes, num_classes)`.
    Source: `sklearn.metrics.confusion_matrix`, with `labels=range(num_classes)`.
    """
    if num_classes < 1:
        raise OperandError(f"`num_classes` is {num_classes}, and takes 1 or more", "give it the number of classes")
    return _matrix(prediction, target, num_classes)


def _matrix(prediction: Tensor, target: Tensor, num_classes: int, more: str = _OF_MORE) -> Tensor:
    found = classes(prediction, "prediction", count=num_classes, more=more)
    wanted = classes(target, "target", len(found), count=num_classes, more=more)
    if has_values(found):
        cells = wanted * num_classes + found
        return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    valid = (found >= 0) & (found < num_classes) & (wanted >= 0) & (wanted < num_classes)
    cell = torch.where(valid, wanted * num_classes + found, -1)  # torch rejects -1 where no check could read values
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=found.device)
    return counts.scatter_add(0, cell, torch.ones_like(cell)).reshape(num_classes, num_classes)


def precision(prediction: Tensor, target: Tensor, average: str = "binary", num_classes: int = 2) -> Tensor:
    """Computes which share of the samples predicted as a class belongs to it.

    Args:
        prediction, target: classes `(samples,)`.
        average: `binary` for class 1 of 0 and 1; over several classes `macro`, `micro` or `weighted`.
        num_classes: the number of classes. One that occurs neither as prediction nor as target is left out.
    Returns:
        0-d float64; NaN without samples, and for `binary` if nothing is predicted as 1.
    Source: `sklearn.metrics.precision_score`.
    """
    hits, predicted, wanted = _counts(prediction, target, average, num_classes)
    return _averaged(hits, predicted, predicted, wanted, average)


def recall(prediction: Tensor, target: Tensor, average: str = "binary", num_classes: int = 2) -> Tensor:
    """Computes which share of the samples of a class is predicted as it; arguments as for `precision`.

    Returns:
        0-d float64; NaN without samples, and for `binary` without a target 1.
    Source: `sklearn.metrics.recall_score`.
    """
    hits, predicted, wanted = _counts(prediction, target, average, num_classes)
    return _averaged(hits, wanted, predicted, wanted, average)


def f1(prediction: Tensor, target: Tensor, average: str = "binary", num_classes: int = 2) -> Tensor:
    """Computes the harmonic mean of precision and recall; arguments as for `precision`.

    Returns:
        0-d float64; NaN without samples, and for `binary` without a 1 among predictions and targets.
    Source: `sklearn.metrics.f1_score`.
    """
    hits, predicted, wanted = _counts(prediction, target, average, num_classes)
    return _averaged(2 * hits, predicted + wanted, predicted, wanted, average)


def _counts(prediction: Tensor, target: Tensor, average: str, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the number of correct predictions, of predictions and of targets of each class."""
    check_average(average)
    if average == "binary" and num_classes != 2:
        message = f"`average='binary'` is for 2 classes, and `num_classes` is {num_classes}"
        raise OperandError(message, "write `average='macro'`, 'micro' or 'weighted'")
    matrix = wide(_matrix(prediction, target, num_classes, _OF_TWO if average == "binary" else _OF_MORE))
    return matrix.diagonal(), matrix.sum(0), matrix.sum(1)


def _averaged(part: Tensor, whole: Tensor, predicted: Tensor, wanted: Tensor, average: str) -> Tensor:
    """Averages `part / whole` over classes, with 0 for 0 / 0 as scikit-learn's default has it; `binary` has NaN."""
    empty = wanted.sum() == 0
    if average == "binary":
        return part[1] / whole[1]
    if average == "micro":
        return part.sum() / whole.sum()
    of_class = torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))
    weight = wanted if average == "weighted" else wide((predicted + wanted) > 0)
    return or_nan((of_class * weight).sum() / weight.sum(), empty)
