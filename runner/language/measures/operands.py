"""Checks the operands of metrics, and converts them: classes to int64, numbers to float64."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name

_is_of_functorch: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor

OF_COLUMNS = "give `score` a column for each class"
"""The hint for a class that has no score."""

AVERAGES = ("binary", "macro", "micro", "weighted")


class OperandError(ValueError):
    """An operand that a metric does not take; `hint` says what to write."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def wide(x: Tensor) -> Tensor:
    """Returns `x` in float64, without its history; in float32 on devices that have no float64."""
    return x.detach().to(torch.float32 if x.device.type == "mps" else torch.float64)


def check_average(average: str, known: Sequence[str] = AVERAGES) -> None:
    """Rejects an average that a metric does not have.

    Raises:
        OperandError: it is not one of `known`.
    """
    if average not in known:
        raise OperandError(f"there is no average '{average}'", f"write {', '.join(known[:-1])} or {known[-1]}")


def classes(x: Tensor, name: str, samples: int | None = None, *, count: int | None = None, more: str = "") -> Tensor:
    """Returns class indices as int64 `(samples,)`.

    Args:
        x: `(samples,)`, integer or boolean; a target may be floating-point, as data for a loss is.
        name: what the message calls it.
        samples: the number of samples of the other operand.
        count: the number of classes; a class outside `[0, count)` is an error when it is computed on the CPU.
        more: the hint for such a class.
    Raises:
        OperandError: the shape or dtype is wrong, or a class is outside the range.
    """
    if x.dim() != 1:
        hint = "reduce it to one class a sample: `x.argmax(1)`, or `x.flatten()`"
        raise OperandError(f"`{name}` has shape {tuple(x.shape)}, and takes classes of shape (samples,)", hint)
    if samples is not None and x.shape[0] != samples:
        raise OperandError(
            f"`{name}` has {x.shape[0]} samples, and the other operand {samples}", "give both one length"
        )
    if x.is_complex() or (x.is_floating_point() and name == "prediction"):
        hint = "write `x > 0.5` for two classes, `x.argmax(1)` for several"
        raise OperandError(f"`{name}` takes classes, not {dtype_name(x.dtype)} numbers", hint)
    found = x if x.dtype == torch.int64 else x.detach().to(torch.int64)
    whole = found == x if x.is_floating_point() else None
    if whole is None and count is None:
        return found
    if not has_values(x):
        inside = None if count is None else (found >= 0) & (found < count)
        for holds in (whole, inside):
            if holds is not None:
                torch._assert_async(holds.all(), f"`{name}` has a class that is none of them")
        return found
    if whole is not None and not bool(whole.all()):
        wrong = x[~whole][0].item()
        raise OperandError(f"`{name}` has {wrong:g}, which is not a class", "classes are whole numbers, from 0")
    if count is not None and not _all_below(found, count):
        wrong = int(found[(found < 0) | (found >= count)][0])
        raise OperandError(f"`{name}` has the class {wrong}, and the classes are 0 to {count - 1}", more)
    return found


def _all_below(x: Tensor, count: int) -> bool:
    """Whether all elements are from 0 to `count - 1`. Of small tensors, each operation takes time."""
    return x.numel() == 0 or (x.min().item() >= 0 and x.max().item() < count)


def has_values(x: Tensor) -> bool:
    """Whether elements can be read at once.

    They cannot while tracing or planning without memory, on another device, or under `torch.func.vmap` and `grad`.
    """
    return x.is_cpu and not torch._C._len_torch_dispatch_stack() and not _is_of_functorch(x)


FEW = 32
"""The most elements that Python's lists compare in less time than two operations of torch."""

SORTED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes whose elements torch sorts, in the order that they have in float64."""


def scores(x: Tensor, name: str = "score", *, widen: bool = True) -> Tensor:
    """Returns scores `(samples,)` or `(samples, classes)` in a dtype that torch sorts, without their history.

    Args:
        widen: whether to convert dtypes that torch sorts, too.
    Raises:
        OperandError: the shape is wrong, or the scores are complex.
    """
    if x.dim() not in (1, 2):
        message = f"`{name}` has shape {tuple(x.shape)}, and takes (samples,) or (samples, classes)"
        raise OperandError(message, "flatten it")
    if x.is_complex():
        raise OperandError(f"`{name}` is complex, and scores are real", "take its `.real`")
    if widen or x.dtype not in SORTED:
        return wide(x)
    return x.detach() if x.requires_grad else x


def any_nan(x: Tensor) -> Tensor | bool:
    """Returns whether an element is NaN: as a bool where elements can be read at once."""
    if has_values(x):
        return x.numel() > 0 and math.isnan(x.max())  # a NaN is the maximum; this takes a third of the time
    return x.isnan().any()


def share(holds: Tensor, samples: int, undefined: Tensor | bool) -> Tensor:
    """Returns the number of true elements divided by `samples`; NaN if that is 0, or if `undefined`.

    Returns:
        0-d float64.
    """
    if isinstance(undefined, bool) and has_values(holds):
        return _quotient(int(torch.count_nonzero(holds).item()), samples, undefined)
    none = torch.tensor(samples == 0, device=holds.device)
    return or_nan(wide(holds.sum()) / max(1, samples), none, torch.as_tensor(undefined, device=holds.device))


def share_of_equal(x: Tensor, y: Tensor, undefined: Tensor | bool) -> Tensor:
    """Returns the share of equal elements of two integer tensors `(samples,)`, as `share` does."""
    samples = x.shape[0]
    if samples <= FEW and isinstance(undefined, bool) and has_values(x):
        return _quotient(sum(map(operator.eq, x.tolist(), y.tolist())), samples, undefined)
    return share(x == y, samples, undefined)


def _quotient(count: int, samples: int, undefined: bool) -> Tensor:
    value = math.nan if undefined or samples == 0 else count / samples
    return torch.scalar_tensor(value, dtype=torch.float64)


def or_nan(value: Tensor, *undefined: Tensor) -> Tensor:
    """Returns `value`, or NaN if any of the conditions holds."""
    for condition in undefined:
        value = torch.where(condition, torch.full_like(value, torch.nan), value)
    return value
