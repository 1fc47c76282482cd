"""The computed order against a plain implementation of its published description, one number at a time."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.plan.data.selection.order import AT_ONCE, Order
from tests.tables import over

WORD = 2**64 - 1


def keys(seed: int) -> list[int]:
    """The first eight outputs of SplitMix64."""
    found, state = [], seed
    for _ in range(8):
        state = (state + 0x9E3779B97F4A7C15) & WORD
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        found.append(z ^ (z >> 31))
    return found


def row_at(position: int, seed: int, count: int) -> int:
    a = math.ceil(math.sqrt(count))
    b = -(-count // a)
    x = position
    while True:
        left, right = x % a, x // a
        for turn, key in enumerate(keys(seed)):
            size, read = (a, right) if turn % 2 == 0 else (b, left)
            w = ((read + key) * 0xBF58476D1CE4E5B9) & WORD
            w = ((w ^ (w >> 27)) * 0x94D049BB133111EB) & WORD
            drawn = ((w >> 32) * size) >> 32
            if turn % 2 == 0:
                left = (left + drawn) % a
            else:
                right = (right + drawn) % b
        x = left + right * a
        if x < count:
            return x


VECTORS = {
    (0, 10): [7, 1, 2, 9, 0, 4, 6, 8, 5, 3],
    (1, 10): [9, 5, 1, 8, 6, 4, 0, 3, 7, 2],
    (2**63 - 1, 7): [4, 6, 0, 1, 5, 2, 3],
}
"""Published: the rows in order, by seed and number of rows. They never change, or splits would."""


@over("seed_and_count", VECTORS)
def test_published_orders(seed_and_count: tuple[int, int]) -> None:
    seed, count = seed_and_count
    expected = [row_at(position, seed, count) for position in range(count)]
    assert Order(seed, count).rows(numpy.arange(count)).tolist() == expected == VECTORS[seed_and_count]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**31), st.data())
def test_every_position_has_the_row_of_the_plain_implementation(seed: int, count: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5))
    rows = Order(seed, count).rows(numpy.array(positions))
    assert rows.tolist() == [row_at(position, seed, count) for position in positions]


@given(st.integers(0, 2**64 - 1), st.one_of(st.integers(1, 300), st.just(AT_ONCE + 1)))
def test_every_row_is_at_one_position(seed: int, count: int) -> None:
    order, all_rows = Order(seed, count), numpy.arange(count)
    rows = order.rows(all_rows)
    assert numpy.array_equal(numpy.sort(rows), all_rows)
    assert numpy.array_equal(order.positions(rows), all_rows)


@pytest.mark.parametrize("count", [2**40 + 7, 2**62])
def test_large_orders_are_inverted_exactly(count: int) -> None:
    order = Order(5, count)
    rows = numpy.array([0, 1, count // 2, count - 1])
    assert order.positions(order.rows(rows)).tolist() == rows.tolist()


def test_rows_are_equally_likely_at_every_position() -> None:
    """A chi-squared statistic over 2,000 seeds, with 49^2 degrees of freedom and a standard deviation of 69."""
    seeds, count = 2_000, 50
    counts = numpy.zeros((count, count))
    for seed in range(seeds):
        counts[numpy.arange(count), Order(seed, count).rows(numpy.arange(count))] += 1
    expected = seeds / count
    assert abs(((counts - expected) ** 2 / expected).sum() - 49**2) < 6 * 69


def test_neighbours_in_the_file_are_not_neighbours_in_the_order() -> None:
    rows = Order(3, 100_000).rows(numpy.arange(100_000))
    assert abs(numpy.corrcoef(rows[1:], rows[:-1])[0, 1]) < 0.02
    assert abs(numpy.corrcoef(rows, numpy.arange(100_000))[0, 1]) < 0.02
