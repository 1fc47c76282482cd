"""Regions: many iterations of a step in one call of code that XLA compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy
from jax import lax
from torch import Tensor, fx

from runner.engine.compiled.training import Tensors
from runner.engine.xla.exchange import Exchange, padded, to_torch
from runner.language.xla.operators.rewriting import Literals
from runner.language.xla.operators.translate import translate_checked

Arrays = list[jax.Array]

LONGEST_FUSED = 1500
"""Operations that depend on one another, up to which XLA fuses those of a step. In a longer chain it computes values
again and again: a chain of 2,200 took 4.4 s to compile with fusion and 0.7 s without it, and one of 8,800 ran ten times
slower. A transformer of 10 million parameters, 5,600 operations, takes 0.67 of the time with it."""

Given = tuple[Any, Arrays, Arrays, Arrays, Arrays]
"""The numbers of iterations and of those passed before, the numbers of the graph, the carry, the stacked inputs, and
the fixed inputs."""


class Region:
    """Runs any number of iterations up to `longest`, all of them in one loop of compiled code.

    Any number runs the same code, so a run computes the same bits however its iterations are divided into calls.

    Args:
        graph: one iteration. Its inputs are the carry, the fixed inputs, and the inputs of the iteration.
        carried, fixed: the lengths of the carry and of the fixed inputs.
        exchange: passes tensors to JAX; that of all regions that carry the same state.
        lanes: of a step of several runs, the dimension of the runs in each input of the graph; None where all runs
            have the same. Outputs have it first.
        every: which iterations are stacked: only those that end `every` of them, and the last.
        flags: the number of outputs that are stacked in each iteration: the last ones.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        carried: int,
        fixed: int,
        longest: int,
        exchange: Exchange,
        *,
        lanes: Sequence[int | None] = (),
        every: int = 1,
        flags: int = 1,
    ) -> None:
        self._literals = Literals()
        self._step, checks = translate_checked(graph, self._literals)
        if lanes:
            self._step = jax.vmap(self._step, in_axes=tuple(lanes))
        self._checks = bool(checks)
        self._options: dict[str, str | bool] = (
            {} if _longest_chain(graph) <= LONGEST_FUSED else {"xla_disable_hlo_passes": "fusion"}
        )
        self._carried = carried
        self._fixed = fixed
        self._longest = longest
        self._exchange = exchange
        self._every = every
        self._flags = flags
        self._compiled: Callable[..., tuple[Arrays, Arrays]] | None = None

    def compile(self, carry: Tensors, each: Tensors, fixed: Tensors) -> None:
        """Compiles the loop for the shapes and dtypes of these inputs."""
        with jax.enable_x64(True):
            run = jax.jit(self._once if self._longest == 1 else self._several)
            self._compiled = run.lower(*self._given(carry, each, fixed, 0)).compile(compiler_options=self._options)

    def __call__(
        self, carry: Tensors, each: Tensors, fixed: Tensors, passed: int = 0
    ) -> tuple[Tensors, Tensors, Tensor | None]:
        """Runs the iterations in `each`.

        Returns the carry after them, their stacked outputs, and whether torch would compute each without an error.

        Args:
            passed: the number of iterations since the last one that was stacked, less than `every`.
        """
        assert self._compiled is not None
        count = each[0].shape[0]
        with jax.enable_x64(True):
            after, outputs = self._compiled(*self._given(carry, each, fixed, passed))
            for value in (*after, *outputs):
                value.block_until_ready()
            left = self._exchange.to_torch(after, carry)
            kept, found = (passed + count - 1) // self._every + 1, to_torch(outputs)
            flags = len(found) - self._flags
            stacked = [value[: kept if place < flags else count] for place, value in enumerate(found)]
        return left, stacked[:-1], stacked[-1] if self._checks else None

    def _given(self, carry: Tensors, each: Tensors, fixed: Tensors, passed: int) -> Given:
        stacked = [padded(value, self._longest) for value in each]
        counts, to_jax = numpy.array([each[0].shape[0], passed], numpy.int32), self._exchange.to_jax
        return counts, self._literals.arrays, to_jax(carry), to_jax(stacked), to_jax(fixed)

    def _once(self, counts: Any, literals: Arrays, *given: Arrays) -> tuple[Arrays, Arrays]:
        carry, each, fixed = given
        with self._literals.given(literals):
            after, outputs = self._iteration(carry, [value[0] for value in each], fixed)
        return after, [value[None] for value in outputs]

    def _several(self, counts: Any, literals: Arrays, *given: Arrays) -> tuple[Arrays, Arrays]:
        with self._literals.given(literals):
            return self._looped(counts, *given)

    def _looped(self, counts: Any, carry: Arrays, each: Arrays, fixed: Arrays) -> tuple[Arrays, Arrays]:
        count, passed = counts
        _, shapes = jax.eval_shape(self._iteration, carry, [value[0] for value in each], fixed)
        flags, kept = len(shapes) - self._flags, self._longest // self._every + (self._every > 1) * 2
        sizes = [kept if place < flags else self._longest for place in range(len(shapes))]
        room = [jnp.zeros((size, *shape.shape), shape.dtype) for size, shape in zip(sizes, shapes, strict=True)]

        def body(place: Any, state: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
            before, written = state
            given = [lax.dynamic_index_in_dim(value, place, keepdims=False) for value in each]
            after, outputs = self._iteration(before, given, fixed)
            row = place if self._every == 1 else (passed + place) // self._every
            places = [row] * flags + [place] * self._flags
            return after, [
                lax.dynamic_update_index_in_dim(stack, value, at, 0)
                for stack, value, at in zip(written, outputs, places, strict=True)
            ]

        found: tuple[Arrays, Arrays] = lax.fori_loop(0, count, body, (carry, room))
        return found

    def _iteration(self, carry: Arrays, each: Arrays, fixed: Arrays) -> tuple[Arrays, Arrays]:
        """One iteration: the next carry, and its outputs, the last of which is whether all checks hold."""
        found, failed = self._step(*carry, *fixed, *each)
        after = [value.astype(before.dtype) for value, before in zip(found, carry, strict=False)]
        return after, [*found[self._carried :], jnp.logical_not(jnp.any(failed, -1))]


def _longest_chain(graph: fx.GraphModule) -> int:
    """Returns the largest number of nodes of which each reads the one before."""
    lengths: dict[fx.Node, int] = {}
    for node in graph.graph.nodes:
        lengths[node] = 1 + max((lengths[read] for read in node.all_input_nodes), default=0)
    return max(lengths.values())
