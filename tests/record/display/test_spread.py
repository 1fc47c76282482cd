from __future__ import annotations

import itertools
from collections.abc import Iterable

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from runner.record.display.spread import Spread
from tests.effort import tried


def chosen(kinds: Iterable[object], total: int, may_end_early: bool = False, first: int = 0) -> list[int]:
    spread: Spread[int] = Spread(total, may_end_early)
    found: list[int] = []
    for number, kind in enumerate(kinds, first):
        found += spread.chosen(number, kind, number)
    return [*found, *spread.rest()]


def test_a_short_run_has_a_line_for_each_row() -> None:
    assert chosen("t" * 20, 20) == list(range(20))


@pytest.mark.parametrize("total", [1_000, 999, 100_000])
def test_lines_of_a_long_run_lie_apart_by_a_twentieth(total: int) -> None:
    found = chosen("t" * total, total)
    assert found[0] == 0
    assert found[-1] == total - 1
    assert 20 <= len(found) <= 22
    gaps = [later - earlier for earlier, later in itertools.pairwise(found[:-1])]
    assert set(gaps) == {total // 20}


def test_each_kind_of_row_has_lines_also_where_it_is_rare() -> None:
    epochs = ("t" * 99 + "e") * 10
    found = chosen(epochs, len(epochs))
    assert [number for number in found if epochs[number] == "e"] == [*range(99, 1000, 100)]
    assert len([number for number in found if epochs[number] == "t"]) < 20


def test_lines_of_a_run_that_may_end_early_come_often_first() -> None:
    assert chosen("t" * 40, 1_000_000, may_end_early=True) == [0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 39]
    assert len(chosen("t" * 100_000, 100_000, may_end_early=True)) < 45


def test_a_resumed_run_has_lines_over_what_is_left() -> None:
    assert chosen("t" * 100, 1_100, first=1_000) == [1_000, *range(1_005, 1_100, 5), 1_099]


@settings(max_examples=tried(100), deadline=None)
@given(st.lists(st.integers(0, 9), max_size=300), st.integers(0, 1000), st.booleans())
def test_rows_come_in_order_and_once_and_the_last_is_among_them(kinds: list[int], total: int, early: bool) -> None:
    found = chosen(kinds, total, early)
    assert found == sorted(set(found))
    assert found[-1:] == [len(kinds) - 1][: len(kinds)]
    assert found[:1] == [0][: len(kinds)]
