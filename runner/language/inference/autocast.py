"""Mixed precision: runs operations under `torch.autocast`, which computes some of them in a narrower dtype."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import fx

KEY = "autocast"
"""The key of a node's `meta` with its `Autocast`; a node without it computes as its operands are."""


@dataclass(frozen=True, slots=True)
class Autocast:
    """`torch.autocast` for a type of device and a dtype."""

    device: str  # "cpu"
    dtype: torch.dtype

    def __call__(self) -> AbstractContextManager[object]:
        """A new context, under which torch casts the operands of operations."""
        return torch.autocast(self.device, dtype=self.dtype)


def as_in_a_run(node: fx.Node) -> AbstractContextManager[object]:
    """The context in which a node runs."""
    found: Autocast | None = node.meta.get(KEY)
    return contextlib.nullcontext() if found is None else found()
