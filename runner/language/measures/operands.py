"""Checks the operands of metrics, and converts them: classes to int64, numbers to float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AVERAGES = ("binary", "macro", "micro", "weighted")


def wide(x: Tensor) -> Tensor:
    """Returns `x` in float64, without its history; in float32 on devices that have no float64."""
    return x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)


def check_average(average: str, known: Sequence[str] = AVERAGES) -> None:
    """Rejects an average that a metric does not have.

    Raises:
        ValueError: it is not one of `known`.
    """
    if average not in known:
        raise ValueError(f"`average` is {', '.join(known[:-1])} or {known[-1]}, not '{average}'")


def classes(x: Tensor, name: str, samples: int | None = None, *, count: int | None = None, advice: str = "") -> Tensor:
    """Returns class indices as int64 `(samples,)`.

    Args:
        x: `(samples,)`, integer or boolean; a target may be floating-point, as data for a loss is.
        name: what the message calls it.
        samples: the number of samples of the other operand.
        count: the number of classes; a class outside `[0, count)` is an error when it is computed on the CPU.
        advice: the end of the message about such a class.
    Raises:
        ValueError: the shape or dtype is wrong, or a class is outside the range.
    """
    if x.dim() != 1:
        raise ValueError(f"`{name}` has shape {tuple(x.shape)}, and takes a class for each sample")
    if samples is not None and len(x) != samples:
        raise ValueError(f"`{name}` has {len(x)} samples, and the other operand {samples}")
    if x.is_complex() or (x.is_floating_point() and name == "prediction"):
        raise ValueError(f"`{name}` takes classes: write `x > 0.5` or `x.argmax(1)`")
    found = x.detach().to(torch.int64)
    if not has_values(x):
        return found
    if x.is_floating_point() and bool((found != x).any()):
        wrong = x[found != x][0].item()
        raise ValueError(f"`{name}` has {wrong:g}, which is not a class")
    if count is not None and bool(((found < 0) | (found >= count)).any()):
        wrong = int(found[(found < 0) | (found >= count)][0])
        raise ValueError(f"`{name}` has the class {wrong}, and the classes are 0 to {count - 1}{advice}")
    return found


def has_values(x: Tensor) -> bool:
    """Whether elements can be read at once: not while tracing or planning without memory, nor on another device."""
    return type(x) is Tensor and x.device.type == "cpu"


def scores(x: Tensor, name: str = "score") -> Tensor:
    """Returns scores `(samples,)` or `(samples, classes)` in a dtype that torch sorts.

    Raises:
        ValueError: the shape is wrong, or the scores are complex.
    """
    if x.dim() not in (1, 2):
        raise ValueError(f"`{name}` has shape {tuple(x.shape)}, and takes (samples,) or (samples, classes)")
    if x.is_complex():
        raise ValueError(f"`{name}` is complex, and scores are real")
    return wide(x)


def or_nan(value: Tensor, *undefined: Tensor) -> Tensor:
    """Returns `value`, or NaN if any of the conditions holds."""
    for condition in undefined:
        value = torch.where(condition, torch.full_like(value, torch.nan), value)
    return value
