"""Selections against masks and lists of rows."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.plan.data.selection.selection import Selection, all_rows, packed, selected_range, selection_of

masks = st.one_of(
    st.lists(st.booleans(), min_size=1, max_size=200),
    st.tuples(st.integers(500, 2000), st.integers(0, 2**32), st.sampled_from([0.001, 0.3, 0.99])).map(
        lambda drawn: (numpy.random.default_rng(drawn[1]).random(drawn[0]) < drawn[2]).tolist()
    ),
)


def selection(mask: list[bool]) -> Selection:
    return selection_of(packed(numpy.array(mask)), len(mask))


@given(masks, st.data())
def test_a_selection_has_the_rows_of_its_mask(mask: list[bool], data: st.DataObject) -> None:
    rows, found = numpy.flatnonzero(mask).tolist(), selection(mask)
    assert (found.rows, found.samples) == (len(mask), len(rows))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    assert found.between(start, end).tolist() == rows[start:end]
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(mask))] * 2)))
    assert found.mask(first, last).tolist() == mask[first:last]
    assert found.counts((first, last - first, len(mask) - last)) == (
        sum(mask[:first]), sum(mask[first:last]), sum(mask[last:]),
    )  # fmt: skip
    if rows:
        samples = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
        assert found.of(numpy.array(samples)).tolist() == [rows[sample] for sample in samples]


@pytest.mark.parametrize("found", [all_rows(10), selected_range(10, 0, 10), selection([True] * 10)])
def test_all_rows_take_no_memory(found: Selection) -> None:
    assert found.is_range
    assert found.bytes == 0
    assert found.between(2, 5).tolist() == [2, 3, 4]


def test_scattered_rows_take_a_seventh_of_a_byte_for_each_row_of_the_file() -> None:
    found = selection([True, False] * 500_000)
    assert found.samples == 500_000
    assert found.bytes < 0.15 * 1_000_000
