"""What torch knows about a node before it runs, and how its dtypes are called in JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy
import torch
from jax import lax
from torch import Tensor

from runner.language.xla.operators.rewriting import literal

Array = jax.Array

DTYPES: Mapping[torch.dtype, Any] = {
    torch.bool: jnp.bool_,
    torch.uint8: jnp.uint8,
    torch.int8: jnp.int8,
    torch.int16: jnp.int16,
    torch.int32: jnp.int32,
    torch.int64: jnp.int64,
    torch.bfloat16: jnp.bfloat16,
    torch.float16: jnp.float16,
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
    torch.complex64: jnp.complex64,
    torch.complex128: jnp.complex128,
}
"""The dtypes that both libraries have."""

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Facts:
    """The results and arguments of a node as tensors without values, and the checks that its rule adds.

    Args:
        results: its results; a result that is not a tensor is None.
        arguments: its arguments in the order of the schema, defaults included.
    """

    results: tuple[Tensor | None, ...]
    arguments: tuple[Any, ...]
    failures: list[Array] = field(default_factory=list)

    @property
    def result(self) -> Tensor:
        """The first result."""
        first = self.results[0]
        assert first is not None
        return first

    @property
    def dtype(self) -> torch.dtype:
        return self.result.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.result.shape)

    def fails_if(self, failure: Array) -> None:
        """Adds a check: the node fails if any element of `failure` is true."""
        self.failures.append(jnp.any(failure))


Rule = Callable[..., Any]
"""Maps `(facts, *arguments)` to the results of a node; arguments in the order of the schema, defaults included."""

Refusal = Callable[[Facts], str | None]
"""Returns why a rule cannot run a node; None if it can."""


def cast(value: Any, dtype: torch.dtype) -> Array:
    """Converts an array or number as `Tensor.to(dtype)` does.

    A complex number loses its imaginary part. A float becomes a narrow integer through int64, as on a CPU.
    """
    if not isinstance(value, jax.Array):
        number = value.real if isinstance(value, complex) and not dtype.is_complex else value
        with numpy.errstate(over="ignore"):  # a number beyond the dtype is infinite, as in torch
            return literal(numpy.asarray(number).astype(DTYPES[dtype]))
    if value.dtype == DTYPES[dtype]:
        return value
    if dtype == torch.bool:
        return value != 0
    if jnp.issubdtype(value.dtype, jnp.complexfloating) and not dtype.is_complex:
        value = lax.real(value)
    if jnp.issubdtype(value.dtype, jnp.floating) and not (dtype.is_floating_point or dtype.is_complex):
        value = lax.convert_element_type(value, jnp.int64)
    return lax.convert_element_type(value, DTYPES[dtype])


def computing(dtype: torch.dtype) -> torch.dtype:
    """Returns the dtype that torch computes with on a CPU for arguments of `dtype`: float32 for half precision."""
    return torch.float32 if dtype in HALF else dtype


def as_array(tensor: Tensor) -> Array:
    """Copies a tensor to JAX."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return jnp.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    return jnp.asarray(tensor.numpy())


def positive(dim: int, ndim: int) -> int:
    """Returns a dimension counted from the front; 0 for a tensor without dimensions."""
    return dim % ndim if ndim else 0


def dimensions(dims: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Returns dimensions counted from the front; all of them for None or an empty list."""
    if isinstance(dims, int):
        dims = (dims,)
    return tuple(range(ndim)) if not dims else tuple(positive(dim, ndim) for dim in dims if ndim)
