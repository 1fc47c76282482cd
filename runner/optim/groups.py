"""Ways to update all parameters of a group at once: by new tensors, joined into one, or piece by piece.

Each goes on from the state that torch has made for the parameters, and keeps it as `torch.optim` would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

ALIGNMENT = 64
"""Bytes at whose multiples tensors begin, joined or not: what torch computes may depend on it in the last place."""

PIECE = 1 << 16
"""Elements of a piece for each thread: with what is updated beside them, and in between, they stay in the cache."""

Tensors = tuple[Tensor, ...] | list[Tensor]
Options = Mapping[str, Any]
Replace = Callable[[Options, Tensors, Tensors, Sequence[Tensors], int], Tensors]
"""`(options, weights, gradients, entries, t)` to new weights; the entries of the state are written."""

Write = Callable[[Options, Tensor, Tensor, Sequence[Tensor], int, bool], Tensor]
"""The same for one tensor, and whether its weights are to be kept: the new ones are a new tensor, else the same."""


class Way(Protocol):
    """How the parameters of a group take their steps."""

    def step(self, gradients: list[Tensor], t: int, *, preserves: bool, remembers: bool) -> None:
        """Give each parameter its next weight.

        Args:
            t: the number of the step, from 1.
            preserves: what shares the storage of a weight stays as it is.
            remembers: `before` will be asked for.
        """
        ...

    def weights(self) -> Sequence[Tensor]:
        """The weights after a step, as few tensors as hold them, with something finite between them."""
        ...

    def before(self) -> Sequence[Tensor]:
        """What the weights were before the last step, for each parameter; nothing before the first."""
        ...

    def forget(self) -> None:
        """Let go of what weights were."""
        ...


class Replacing:
    """New weights are new tensors, made for all parameters at once."""

    __slots__ = ("_before", "_entries", "_options", "_parameters", "_replace", "_weights")

    def __init__(self, replace: Replace, options: Options, entries: Sequence[Tensors]) -> None:
        self._replace = replace
        self._options = options
        self._parameters: list[Parameter] = options["params"]
        self._entries = entries
        self._weights: Tensors = ()
        self._before: Tensors = ()

    def step(self, gradients: list[Tensor], t: int, *, preserves: bool, remembers: bool) -> None:
        parameters, weights = self._parameters, self._weights
        for parameter, weight in zip(parameters, weights, strict=False):
            if weight.data_ptr() != parameter.data_ptr():  # somebody else gave it another weight
                weights = ()
                break
        if not weights:
            weights = [parameter.detach() for parameter in parameters]
        self._before = weights if remembers else ()
        self._weights = updated = self._replace(self._options, weights, gradients, self._entries, t)
        for parameter, weight in zip(parameters, updated, strict=True):
            parameter.data = weight

    def weights(self) -> Sequence[Tensor]:
        return self._parameters

    def before(self) -> Sequence[Tensor]:
        return self._before

    def forget(self) -> None:
        self._before = ()


class Joined:
    """The parameters, contiguous and of one dtype, are updated as one tensor, as if that were the only one.

    They lie in it one after another, each aligned as a tensor of its own would be. Where they may be written they stay
    there: taking them apart costs as much as a whole operation.
    """

    __slots__ = (
        "_before",
        "_entries",
        "_gathered",
        "_options",
        "_parameters",
        "_parts",
        "_places",
        "_pointers",
        "_weights",
        "_write",
    )

    def __init__(
        self, write: Write, options: Options, states: Sequence[dict[str, Tensor]], names: Sequence[str]
    ) -> None:
        self._write = write
        self._options = options
        self._parameters: list[Parameter] = options["params"]
        self._places: list[tuple[Sequence[int], Sequence[int], int]] = []  # shape, strides, offset
        end = 0
        for parameter in self._parameters:
            self._places.append((parameter.shape, parameter.stride(), end))
            end += parameter.numel() + -parameter.numel() % (ALIGNMENT // parameter.itemsize)
        self._gathered: Tensor = self._parameters[0].new_ones(end)  # what is between the parameters stays finite
        self._parts = self._split(self._gathered)
        self._entries: list[Tensor] = []
        for name in names:
            joined = self._gather([state[name] for state in states]).clone()
            self._entries.append(joined)
            for state, part in zip(states, self._split(joined), strict=True):
                state[name] = part
        self._weights: Tensor | None = None
        self._pointers: list[int] = []  # of the parameters in it
        self._before: Tensor | None = None

    def step(self, gradients: list[Tensor], t: int, *, preserves: bool, remembers: bool) -> None:
        weights = self._weights
        if weights is None or [parameter.data_ptr() for parameter in self._parameters] != self._pointers:
            weights = self._gather([parameter.detach() for parameter in self._parameters]).clone()
            self._put(weights)
        before = weights if preserves or not remembers else weights.clone()
        self._before = before if remembers else None
        after = self._write(self._options, weights, self._gather(gradients), self._entries, t, preserves)
        if preserves:
            self._put(after)

    def weights(self) -> Sequence[Tensor]:
        return self._parameters if self._weights is None else [self._weights]

    def before(self) -> Sequence[Tensor]:
        return [] if self._before is None else self._split(self._before)

    def forget(self) -> None:
        self._before = None

    def _gather(self, tensors: list[Tensor]) -> Tensor:
        """The tensors as one, in memory that the next call writes again."""
        torch._foreach_copy_(self._parts, tensors)
        return self._gathered

    def _split(self, joined: Tensor) -> list[Tensor]:
        return [joined.as_strided(shape, strides, offset) for shape, strides, offset in self._places]

    def _put(self, weights: Tensor) -> None:
        """Let the parameters be what lies in a joined tensor."""
        self._weights = weights
        parts = self._split(weights)
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part
        self._pointers = [part.data_ptr() for part in parts]


class Pieces:
    """Large contiguous parameters are written piece by piece: all operations on one piece, then on the next."""

    __slots__ = ("_before", "_entries", "_options", "_parameters", "_size", "_write")

    def __init__(
        self, write: Write, options: Options, states: Sequence[dict[str, Tensor]], names: Sequence[str]
    ) -> None:
        self._write = write
        self._options = options
        self._parameters: list[Parameter] = options["params"]
        self._size = PIECE * torch.get_num_threads()
        self._entries = [list(zip(*[self._pieces(state[name]) for name in names], strict=True)) for state in states]
        self._before: list[Tensor] = []

    def step(self, gradients: list[Tensor], t: int, *, preserves: bool, remembers: bool) -> None:
        parameters = self._parameters
        weights = [parameter.detach() for parameter in parameters]
        before, after = weights, weights
        if preserves:
            after = [weight.clone() for weight in weights]
            for parameter, weight in zip(parameters, after, strict=True):
                parameter.data = weight
        elif remembers:
            before = [weight.clone() for weight in weights]
        self._before = before if remembers else []
        write, options = self._write, self._options
        for weight, gradient, entries in zip(after, gradients, self._entries, strict=True):
            for piece, of_gradient, of_entries in zip(
                self._pieces(weight), self._pieces(gradient), entries, strict=True
            ):
                write(options, piece, of_gradient, of_entries, t, False)

    def weights(self) -> Sequence[Tensor]:
        return self._parameters

    def before(self) -> Sequence[Tensor]:
        return self._before

    def forget(self) -> None:
        self._before = []

    def _pieces(self, tensor: Tensor) -> tuple[Tensor, ...]:
        return torch.split(tensor.reshape(-1), self._size)
