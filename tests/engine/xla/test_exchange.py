"""Tensors on their way to JAX and back: shared memory, and the arrays that are kept for the next call."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")

import jax.numpy as jnp
import torch

from runner.engine.xla.exchange import Exchange


def test_a_result_goes_into_the_next_call_as_the_array_it_came_from() -> None:
    exchange = Exchange()
    array, other = jnp.arange(6.0).reshape(2, 3), jnp.ones(2)
    first, second = exchange.to_torch([array, other], [torch.zeros(2, 3), torch.zeros(2)])
    again, given, view = exchange.to_jax([first.detach(), torch.zeros(2), first.view(-1)])
    assert again is array
    assert given.tolist() == [0, 0]
    assert view.tolist() == [0, 1, 2, 3, 4, 5]
    exchange.to_torch([other], [second])
    assert exchange.to_jax([first])[0] is not array  # only those of the last call are kept


def test_what_torch_writes_into_a_result_is_what_jax_reads() -> None:
    exchange = Exchange()
    (weight,) = exchange.to_torch([jnp.arange(4.0).reshape(2, 2)], [torch.zeros(2, 2)])
    weight.add_(10)
    assert exchange.to_jax([weight])[0].tolist() == [[10, 11], [12, 13]]
    assert exchange.to_jax([weight.mT])[0].tolist() == [[10, 12], [11, 13]]  # the same address and shape


def test_conjugates_and_other_dtypes_at_the_same_address_are_told_apart() -> None:
    exchange = Exchange()
    (value,) = exchange.to_torch([jnp.array([1 + 2j, 3 - 1j])], [torch.zeros(2, dtype=torch.complex64)])
    assert exchange.to_jax([value.conj()])[0].tolist() == [1 - 2j, 3 + 1j]
    assert exchange.to_jax([value.conj().imag])[0].tolist() == [-2, 1]
    assert exchange.to_jax([torch.view_as_real(value)])[0].tolist() == [[1, 2], [3, -1]]


def test_an_input_that_jax_hands_on_is_copied_and_not_kept() -> None:
    exchange, given = Exchange(), torch.ones(3)
    (array,) = exchange.to_jax([given])
    (left,) = exchange.to_torch([array], [given])
    assert left.data_ptr() != given.data_ptr()
    given.zero_()
    assert left.tolist() == [1, 1, 1]
    assert exchange.to_jax([left])[0].tolist() == [1, 1, 1]
    assert exchange.to_jax([given])[0].tolist() == [0, 0, 0]
