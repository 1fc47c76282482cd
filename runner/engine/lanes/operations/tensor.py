"""A tensor of many runs: it looks like that of one run, and every operation on it computes all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

Handler = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""Computes an operation, given its arguments and keyword arguments, for all lanes."""


class NotStackable(Exception):
    """An operation that lanes cannot compute; the text names it.

    It is no `RuntimeError`, so that it is not taken for a fault of the config.
    """


class LaneTensor(Tensor):
    """A tensor `(*s)` of each of several runs, as `lanes`: one tensor `(runs, *s)`.

    Code that works with the tensor of one run, autograd and `torch.optim` included, works with it unchanged.
    """

    lanes: Tensor
    handler: ClassVar[Handler | None] = None

    @staticmethod
    def __new__(cls, lanes: Tensor) -> LaneTensor:
        made: LaneTensor = Tensor._make_wrapper_subclass(
            cls, lanes.shape[1:], strides=lanes.stride()[1:], dtype=lanes.dtype, device=lanes.device
        )
        made.lanes = lanes
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"LaneTensor({self.lanes!r})"

    def item(self) -> Any:
        """The number of each lane, as a float64 tensor of lanes `()`: sums and products of it are those of floats.

        Whatever needs a Python number of it, such as a comparison in an `if`, raises `NotStackable`.
        """
        if not self.dtype.is_floating_point:
            raise NotStackable("a number is read back from a tensor")
        return self.detach().reshape(()).double()

    @property
    def data(self) -> Tensor:
        """The tensor without its autograd history, as of any tensor."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:  # torch would replace the memory that it knows of, and there is none
        detached = value.detach()
        if not isinstance(detached, LaneTensor):
            raise NotStackable("a value that all runs share replaces a tensor")
        self.lanes = detached.lanes

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert LaneTensor.handler is not None, "there is no handler outside `handled_by`"
        return LaneTensor.handler(operation, args, kwargs or {})


class LaneNumber(LaneTensor):
    """A number of each run, as `lanes`: float64 `(runs,)`. It has the place of a Python number in an operation.

    Args:
        dtype: a floating-point dtype, that of most tensors.
    """

    @staticmethod
    def __new__(cls, lanes: Tensor, dtype: torch.dtype = torch.float32) -> LaneNumber:
        made: LaneNumber = Tensor._make_wrapper_subclass(cls, (), dtype=dtype)
        made.lanes = lanes
        return made


def number_of(value: float, dtype: torch.dtype) -> Tensor:
    """A number of one run as a tensor `()`, in the dtype in which torch computes with a Python number.

    Args:
        dtype: that of most tensors; of 16 bits, torch computes in float32.
    """
    return torch.tensor(value, dtype=dtype if dtype.itemsize >= 4 else torch.float32)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Use a handler for the operations on tensors of lanes."""
    before, LaneTensor.handler = LaneTensor.handler, handler
    try:
        yield
    finally:
        LaneTensor.handler = before


def stacked(tensors: Sequence[Tensor], operation: str = "") -> Tensor:
    """The tensors `(*s)` of all lanes as one tensor `(lanes, *s)` that keeps their strides.

    Raises:
        NotStackable: their shapes differ.
    """
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        raise NotStackable(f"{operation} gives other shapes in each run")
    if first.is_contiguous():
        return torch.stack(list(tensors))
    span = 1 + sum((length - 1) * stride for length, stride in zip(first.shape, first.stride(), strict=True))
    if span != first.numel():  # overlapping or with gaps: strides that a new tensor would not have either
        return torch.stack(list(tensors))
    whole = torch.empty_strided((len(tensors), *first.shape), (span, *first.stride()), dtype=first.dtype)
    for place, tensor in enumerate(tensors):
        whole[place].copy_(tensor)
    return whole


def lane_count(args: Any) -> int:
    """The number of lanes of the tensors among some arguments; 0 without any."""
    for value in args:
        if isinstance(value, LaneTensor):
            return len(value.lanes)
        if isinstance(value, list | tuple) and (found := lane_count(value)):
            return found
    return 0
