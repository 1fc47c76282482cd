"""Functions that compiled expressions call besides torch's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def watch(x: Tensor) -> Tensor:
    """Returns `x` so that `gradient` can differentiate by it: as a new leaf if it has no autograd history."""
    if not (x.is_floating_point() or x.is_complex()):
        return x
    return x if x.requires_grad else x.detach().requires_grad_()


def gradient(y: Tensor, xs: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Computes the derivative of the one-element `y` with respect to `xs`; the result is differentiable.

    Args:
        y: one element, any shape.
        xs: a tensor, or several.
    Returns:
        A tensor of the shape of `xs`, or a tuple of them; zeros if `y` does not depend on it.
    """
    single = isinstance(xs, Tensor)
    targets: tuple[Tensor, ...] = (xs,) if isinstance(xs, Tensor) else tuple(xs)
    if not y.requires_grad:
        zeros = tuple(torch.zeros_like(target) for target in targets)
        return zeros[0] if single else zeros
    gradients = torch.autograd.grad(y, targets, create_graph=True, allow_unused=True, materialize_grads=True)
    return gradients[0] if single else gradients


def branch(chosen: Callable[..., Any], otherwise: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Returns `a if condition else b` as a function `(condition, *captured)`; the first `count` captures are `a`'s."""

    def choose(condition: Any, *captured: Any) -> Any:
        return chosen(None, *captured[:count]) if condition else otherwise(None, *captured[count:])

    choose.__module__ = __name__
    return choose


def power(base: Any, exponent: Any) -> Any:
    """Returns `base ** exponent`."""
    return base**exponent


def quotient(total: Tensor, over: Tensor) -> Tensor:
    """Returns `total / over`, and NaN for a division by 0."""
    divided = total / over
    return torch.where(over == 0, torch.full_like(divided, torch.nan), divided)


def of_kind(function: Callable[..., Any], kind: type[int] | type[float]) -> Callable[..., Any]:
    """Returns a function of scalars whose results are of one type, whatever the type of those of `function`.

    Raises:
        ValueError: `kind` is int, and a result has a fraction.
    """

    def converted(*arguments: Any) -> Any:
        result = function(*arguments)
        if kind is int and isinstance(result, float):
            raise ValueError(f"the result is {result}, and before the run it was an integer: write a base like `2.0`")
        return kind(result)

    converted.__name__ = function.__name__
    converted.__module__ = __name__
    return converted


def number_as(number: float, dtype: torch.dtype, device: str) -> Tensor:
    """Returns a number as a 0-d tensor."""
    return torch.scalar_tensor(number, dtype=dtype, device=device)


def lookup(name: str, values: tuple[Any, ...]) -> Callable[[int], Any]:
    """Returns a function from a running index to the element of the 1-d constant `name`, as a Python number."""

    def item(index: int) -> Any:
        if not -len(values) <= index < len(values):
            raise IndexError(f"index {index} is outside `{name}`, which has {len(values)} elements")
        return values[index]

    item.__module__ = __name__
    return item
