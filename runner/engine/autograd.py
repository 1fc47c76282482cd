"""`.backward()` of one-element objectives, without what it decides anew at every call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Variable


class Differentiate:
    """`value.backward(inputs=inputs)` for objectives that keep their shape, dtype and device from call to call.

    The gradient of the objective, a one, is made once; torch makes it at every call, and checks it in Python.
    Everything after that is the same call of the same engine. With `share`, it is `(value / share).backward()`.
    """

    __slots__ = ("_engine", "_one", "_share", "_targets", "inputs")

    def __init__(self, inputs: Sequence[Tensor] | None = None, share: int = 1) -> None:
        self._share = share
        self.inputs = None if inputs is None else list(inputs)
        self._targets = () if inputs is None else tuple(inputs)
        self._engine = Variable._execution_engine.run_backward
        self._one: Tensor | None = None

    def __call__(self, value: Tensor) -> None:
        """Accumulate the gradients of `value`."""
        one = self._one
        if one is None or one.shape != value.shape:
            one = torch.ones_like(value, memory_format=torch.preserve_format)
            one = self._one = one if self._share == 1 else one / self._share
        self._engine((value,), (one,), False, False, self._targets, allow_unreachable=True, accumulate_grad=True)
