"""Keeps XLA from rewriting arithmetic: numbers of a graph are inputs of its function, and barriers part operations.

With constants that it sees, XLA computes `(x + c) - c` as `x`, and `x * a * b` as `x * (a * b)`. It also computes
`x / y` of one number `y` as `x * (1 / y)`, `x / y / z` as `x / (y * z)`, and `log(exp(x))` as `x`. Such results differ
from torch's by more than rounding, and overflow or vanish where torch's do not.

Its pass `algsimp` does this, and cannot be left out: without it, code of JAX 0.10.2 for the gradient of a `logsumexp`
of 160,000 numbers crashed the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy
from jax import lax

FLOATS = (numpy.dtype("float32"), numpy.dtype("float64"))


class Literals:
    """The numbers of a graph: collected while it is traced once, and given as arrays when it is traced again."""

    def __init__(self) -> None:
        self._places: dict[tuple[numpy.dtype[Any], bytes], int] = {}
        self._values: dict[numpy.dtype[Any], list[Any]] = {dtype: [] for dtype in FLOATS}
        self._given: dict[numpy.dtype[Any], Any] | None = None

    @property
    def arrays(self) -> list[Any]:
        """The numbers: one vector for each floating dtype."""
        return [numpy.array(values, dtype) for dtype, values in self._values.items()]

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collects the numbers of what is traced in the block."""
        with _active(self):
            yield

    @contextmanager
    def given(self, arrays: Sequence[jax.Array]) -> Iterator[None]:
        """What is traced in the block reads its numbers from these arrays."""
        self._given = dict(zip(FLOATS, arrays, strict=True))
        try:
            with _active(self):
                yield
        finally:
            self._given = None

    def of(self, number: numpy.ndarray[Any, Any]) -> jax.Array:
        """The number as an array of JAX."""
        key = number.dtype, number.tobytes()
        if self._given is not None and key in self._places:
            found: jax.Array = self._given[number.dtype][self._places[key]]
            return found
        if self._given is None and key not in self._places:
            self._places[key] = len(self._values[number.dtype])
            self._values[number.dtype].append(number)
        return jnp.asarray(number)


_ACTIVE: ContextVar[Literals | None] = ContextVar("literals", default=None)


@contextmanager
def _active(literals: Literals) -> Iterator[None]:
    token = _ACTIVE.set(literals)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def as_written(value: jax.Array) -> jax.Array:
    """Returns a value that XLA does not join with what reads it, as in `log(exp(x))` or `(x / y) / z`."""
    found: jax.Array = lax.optimization_barrier(value)  # type: ignore[no-untyped-call]
    return found


def literal(number: numpy.ndarray[Any, Any]) -> jax.Array:
    """A number as an array of JAX: an input of the function that is traced, if it has such inputs."""
    literals = _ACTIVE.get()
    if literals is None or number.ndim or number.dtype not in FLOATS or number == 0:
        return jnp.asarray(number)
    return literals.of(number)
