"""Regions: many iterations of a step in one call of code that XLA compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy
from jax import lax
from torch import Tensor, fx

from runner.engine.compiled.training import Tensors
from runner.engine.xla.exchange import to_jax, to_torch
from runner.engine.xla.operators import translate

Arrays = list[jax.Array]


class Region:
    """Runs a number of iterations that each call chooses, up to `longest`; all of them share one compilation.

    Args:
        graph: one iteration: its placeholders are the carry, the inputs of the iteration, the fixed inputs.
        carried: the length of the carry.
        varying: the number of inputs of an iteration.
    """

    def __init__(self, graph: fx.GraphModule, carried: int, varying: int, longest: int) -> None:
        self._step = translate(graph)
        self._carried = carried
        self._longest = longest
        self._run = jax.jit(self._once if longest == 1 else self._several)
        self._compiled: Callable[..., tuple[Arrays, Arrays]] = self._run

    def __call__(self, carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the carry after the iterations in `each`, and their stacked outputs."""
        count = each[0].shape[0]
        with jax.enable_x64(True):
            after, outputs = self._compiled(*self._given(carry, each, fixed))
            jax.block_until_ready((after, outputs))
            left = [_of_its_own(value, before) for value, before in zip(to_torch(after), carry, strict=True)]
            return left, [value[:count] for value in to_torch(outputs)]

    def compile(self, carry: Tensors, each: Tensors, fixed: Tensors) -> None:
        """Compiles the iterations for the shapes and dtypes of these inputs."""
        with jax.enable_x64(True):
            self._compiled = self._run.lower(*self._given(carry, each, fixed)).compile()

    def _given(self, carry: Tensors, each: Tensors, fixed: Tensors) -> tuple[Any, ...]:
        padded = [_padded(value, self._longest) for value in each]
        return numpy.int32(each[0].shape[0]), to_jax(carry), to_jax(padded), to_jax(fixed)

    def _once(self, count: jax.Array, carry: Arrays, each: Arrays, fixed: Arrays) -> tuple[Arrays, Arrays]:
        found = self._iteration(carry, [value[0] for value in each], fixed)
        return found[: self._carried], [value[None] for value in found[self._carried :]]

    def _several(self, count: jax.Array, carry: Arrays, each: Arrays, fixed: Arrays) -> tuple[Arrays, Arrays]:
        shapes = jax.eval_shape(self._iteration, carry, [value[0] for value in each], fixed)
        empty = [jnp.zeros((self._longest, *shape.shape), shape.dtype) for shape in shapes[self._carried :]]

        def body(place: jax.Array, state: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
            before, outputs = state
            given = [lax.dynamic_index_in_dim(value, place, keepdims=False) for value in each]
            found = self._iteration(before, given, fixed)
            written = [
                lax.dynamic_update_index_in_dim(output, value, place, 0)
                for output, value in zip(outputs, found[self._carried :], strict=True)
            ]
            return found[: self._carried], written

        return lax.fori_loop(0, count, body, (carry, empty))

    def _iteration(self, carry: Arrays, each: Arrays, fixed: Arrays) -> Arrays:
        found = list(self._step(*carry, *each, *fixed))
        after = [value.astype(before.dtype) for value, before in zip(found, carry, strict=False)]
        return [*after, *found[self._carried :]]


def _padded(value: Tensor, longest: int) -> Tensor:
    """A stack with room for `longest` iterations."""
    count = value.shape[0]
    if count == longest:
        return value
    room = value.new_zeros(longest, *value.shape[1:])
    room[:count] = value
    return room


def _of_its_own(after: Tensor, before: Tensor) -> Tensor:
    return after.clone() if after.data_ptr() == before.data_ptr() else after
