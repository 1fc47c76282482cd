"""`.backward()` of one-element objectives, without the decisions that torch takes at every call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Variable


class Differentiate:
    """Calls `value.backward(inputs=inputs)`, for objectives that keep their shape, dtype and device.

    torch creates and checks the gradient of the objective, a one, at every call. Here it is created once, and then
    torch's autograd engine is called directly. With a share, this is the backward pass of that share of the value.
    """

    __slots__ = ("_engine", "_one", "_targets", "inputs")

    def __init__(self, inputs: Sequence[Tensor] | None = None) -> None:
        self.inputs = None if inputs is None else list(inputs)
        self._targets = () if inputs is None else tuple(inputs)
        self._engine = Variable._execution_engine.run_backward
        self._one: Tensor | None = None

    def __call__(self, value: Tensor, share: tuple[float, float] | None = None) -> None:
        """Accumulate the gradients of `value`, or of its share `(numerator, denominator)`."""
        one = self._one
        if one is None or one.shape != value.shape:
            one = self._one = torch.ones_like(value, memory_format=torch.preserve_format)
        if share is not None:
            numerator, denominator = share
            one = one if numerator == 1 else one * numerator
            one = one if denominator == 1 else one / denominator
        self._engine((value,), (one,), False, False, self._targets, allow_unreachable=True, accumulate_grad=True)
