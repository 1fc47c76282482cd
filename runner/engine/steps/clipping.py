"""`torch.nn.utils.clip_grad_norm_` and `clip_grad_value_`, without importing `torch._dynamo`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

_by_norm = inspect.unwrap(clip_grad_norm_)
_by_value = inspect.unwrap(clip_grad_value_)


def by_norm(parameters: Sequence[Parameter], max_norm: float, norm_type: float) -> Tensor:
    """Scale the gradients so that their joint norm is at most `max_norm`; returns the norm before, a 0-d tensor."""
    with torch.no_grad():
        norm: Tensor = _by_norm(parameters, max_norm, norm_type)
    return norm


def by_value(parameters: Sequence[Parameter], value: float) -> None:
    """Clamp every element of the gradients to `-value … value`."""
    existing = [parameter for parameter in parameters if parameter.grad is not None]
    if existing:  # torch's function fails if there are no gradients
        with torch.no_grad():
            _by_value(existing, value)
