"""Shares and folds: disjoint, together all rows, each class within one row, groups whole."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold, train_test_split

from runner.plan.data.selection import cuts
from runner.plan.data.selection.cuts import Cut, Fold, Part, Share, cut_groups, cut_rows, cut_strata
from runner.plan.data.selection.order import Order
from runner.plan.data.selection.strata import prefix_counts, spread_counts
from tests.effort import tried

Rows = NDArray[numpy.int64]

fractions = st.decimals(min_value=0, max_value=1, places=3)
sizes_of_classes = st.lists(st.integers(1, 40), min_size=1, max_size=12)
seeds = st.integers(0, 2**63 - 1)


def rounded(fraction: Decimal, count: int) -> int:
    return int((fraction * count).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def shares_of(ends: list[Decimal]) -> list[Share]:
    bounds = [Decimal(0), *sorted(ends), Decimal(1)]
    return [Share(start, end) for start, end in itertools.pairwise(bounds)]


def rows_of(part: Part, count: int) -> list[int]:
    return numpy.flatnonzero(part(0, count)).tolist()


def labels(sizes: list[int]) -> Rows:
    """Labels of rows in an order of their own."""
    listed = numpy.repeat(numpy.arange(len(sizes)), sizes)
    return listed[numpy.random.default_rng(0).permutation(len(listed))]


@given(seeds, st.integers(1, 500), st.lists(fractions, max_size=4))
def test_consecutive_shares_are_the_order_cut_at_rounded_bounds(seed: int, count: int, ends: list[Decimal]) -> None:
    order = Order(seed, count)
    listed = order.rows(numpy.arange(count)).tolist()
    for share in shares_of(ends):
        expected = listed[rounded(share.start, count) : rounded(share.end, count)]
        assert rows_of(cut_rows(share, order), count) == sorted(expected)


@pytest.mark.slow
@settings(max_examples=tried(30))
@given(seeds, st.integers(1, 500), fractions, fractions, st.integers(2, 5))
def test_cuts_of_any_number_of_rows_are_the_same_rows(
    seed: int, count: int, one: Decimal, other: Decimal, of: int
) -> None:
    """Few rows take a byte each; of more, the position of each row is computed, and blocks take a part of them."""
    order, middle = Order(seed, count), count // 2
    for cut in (Share(min(one, other), max(one, other)), Fold(of - 1, of, True), Fold(0, of, False)):
        marked = rows_of(cut_rows(cut, order), count)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cuts, "MOST_MARKED", 0)
            part = cut_rows(cut, order)
        assert rows_of(part, count) == marked
        assert numpy.flatnonzero(numpy.concatenate([part(0, middle), part(middle, count)])).tolist() == marked
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cuts, "MARKED_AT_ONCE", 7)
            assert rows_of(cut_rows(cut, order), count) == marked


@pytest.mark.parametrize(
    ("end", "count", "expected"), [("0.5", 5, 3), ("0.15", 10, 2), ("0.1", 5, 1), ("0.7", 10, 7), ("0.29", 100, 29)]
)
def test_half_a_row_is_rounded_up_in_decimal_arithmetic(end: str, count: int, expected: int) -> None:
    """0.29 * 100 is 28.999999999999996 in float64."""
    share = Share(Decimal(0), Decimal(end))
    assert len(rows_of(cut_rows(share, Order(0, count)), count)) == expected


@given(seeds, st.integers(2, 200), st.integers(2, 12))
def test_folds_are_disjoint_and_together_all_rows(seed: int, count: int, of: int) -> None:
    order = Order(seed, count)
    held_out = [rows_of(cut_rows(Fold(number, of, True), order), count) for number in range(of)]
    others = [rows_of(cut_rows(Fold(number, of, False), order), count) for number in range(of)]
    assert sorted(row for rows in held_out for row in rows) == list(range(count))
    assert {len(rows) for rows in held_out} <= {count // of, -(-count // of)}
    for inside, outside in zip(held_out, others, strict=True):
        assert sorted(inside + outside) == list(range(count))


@given(seeds, sizes_of_classes, st.lists(fractions, max_size=3))
def test_stratified_shares_are_disjoint_complete_and_near(seed: int, sizes: list[int], ends: list[Decimal]) -> None:
    classes, count = labels(sizes), sum(sizes)
    found: list[int] = []
    for share in shares_of(ends):
        rows = rows_of(cut_strata(share, Order(seed, count), classes), count)
        assert len(rows) == rounded(share.end, count) - rounded(share.start, count)
        most = 1 if share.start == 0 or share.end == 1 else 2
        counts = Counter(classes[rows].tolist())
        for number, size in enumerate(sizes):
            assert abs(counts[number] - size * len(rows) / count) < most
        found += rows
    assert sorted(found) == list(range(count))


@given(seeds, sizes_of_classes, st.integers(2, 6))
def test_stratified_folds_have_each_class_within_one_row(seed: int, sizes: list[int], of: int) -> None:
    classes, count = labels(sizes), sum(sizes)
    found: list[int] = []
    for number in range(of):
        rows = rows_of(cut_strata(Fold(number, of, True), Order(seed, count), classes), count)
        counts = Counter(classes[rows].tolist())
        for each, size in enumerate(sizes):
            assert abs(counts[each] - size / of) < 1
        others = rows_of(cut_strata(Fold(number, of, False), Order(seed, count), classes), count)
        assert sorted(rows + others) == list(range(count))
        found += rows
    assert sorted(found) == list(range(count))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_every_prefix_of_a_stratified_order_has_each_class_within_one_row(sizes: list[int]) -> None:
    total, before = sum(sizes), [0] * len(sizes)
    for length in range(total + 1):
        counts = prefix_counts(sizes, length)
        assert sum(counts) == length
        for count, size, earlier in zip(counts, sizes, before, strict=True):
            assert math.floor(size * length / total) <= count <= math.ceil(size * length / total)
            assert 0 <= count - earlier <= 1
        before = counts
    assert before == sizes


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_the_order_of_very_many_rows_has_each_class_within_two_rows(sizes: list[int]) -> None:
    total, before = sum(sizes), [0] * len(sizes)
    for length in range(total + 1):
        counts = spread_counts(sizes, length)
        assert sum(counts) == length
        for count, size, earlier in zip(counts, sizes, before, strict=True):
            assert abs(count - size * length / total) < 2
            assert count >= earlier
        before = counts
    assert before == sizes


def test_classes_of_many_rows_are_counted_without_dealing_them() -> None:
    sizes = [300_000_001, 700_000_003, 7]
    counts = prefix_counts(sizes, 800_000_009)
    assert sum(counts) == 800_000_009
    assert all(abs(count - size * 0.8) < 2 for count, size in zip(counts, sizes, strict=True))


@given(seeds, sizes_of_classes, st.lists(fractions, max_size=3), st.booleans())
def test_groups_stay_whole_and_parts_are_near(seed: int, sizes: list[int], ends: list[Decimal], strata: bool) -> None:
    groups, count = labels(sizes), sum(sizes)
    classes = numpy.arange(count) % 3 if strata else None
    found: list[int] = []
    for share in shares_of(ends):
        rows = rows_of(cut_groups(share, seed, groups, classes), count)
        inside = Counter(groups[rows].tolist())
        assert all(number == sizes[group] for group, number in inside.items())
        assert abs(len(rows) - float(share.end - share.start) * count) <= max(sizes) + 1
        found += rows
    assert sorted(found) == list(range(count))


@given(seeds, sizes_of_classes, st.integers(2, 5))
def test_folds_of_groups_are_disjoint_and_complete(seed: int, sizes: list[int], of: int) -> None:
    groups, count = labels(sizes), sum(sizes)
    classes = numpy.arange(count) % 2 if seed % 2 else None
    found: list[int] = []
    for number in range(of):
        rows = rows_of(cut_groups(Fold(number, of, True), seed, groups, classes), count)
        others = rows_of(cut_groups(Fold(number, of, False), seed, groups, classes), count)
        assert not set(groups[rows].tolist()) & set(groups[others].tolist())
        assert sorted(rows + others) == list(range(count))
        found += rows
    assert sorted(found) == list(range(count))


WINE = labels([10, 53, 681, 638, 199, 18])
"""The classes of the red wines of the UCI repository."""


@pytest.mark.parametrize("cut", [Share(Decimal("0.8"), Decimal(1)), Fold(2, 5, True)])
def test_class_counts_are_those_of_scikit_learn_within_one_row(cut: Cut) -> None:
    rows = rows_of(cut_strata(cut, Order(0, len(WINE)), WINE), len(WINE))
    if isinstance(cut, Fold):
        folds = StratifiedKFold(5, shuffle=True, random_state=0).split(WINE, WINE)
        theirs = [held_out for _, held_out in folds][cut.number]
    else:
        _, theirs = train_test_split(numpy.arange(len(WINE)), test_size=0.2, stratify=WINE, random_state=0)
        assert len(rows) == len(theirs)
    ours, scikit = Counter(WINE[rows].tolist()), Counter(WINE[theirs].tolist())
    assert all(abs(ours[number] - scikit[number]) <= 1 for number in range(6))


def test_folds_of_groups_are_about_as_even_as_those_of_scikit_learn() -> None:
    """GroupKFold balances the number of rows; ours are in a random order of groups, and at most one group further."""
    groups = numpy.random.default_rng(1).integers(0, 60, 1200)
    largest = int(numpy.bincount(groups).max())
    theirs = [len(held_out) for _, held_out in GroupKFold(5).split(groups, groups=groups)]
    for number in range(5):
        ours = len(rows_of(cut_groups(Fold(number, 5, True), 0, groups, None), len(groups)))
        assert abs(ours - sum(theirs) / 5) <= largest


@pytest.mark.parametrize("seed", range(4))
def test_strata_of_folds_of_groups_are_about_as_even_as_those_of_scikit_learn(seed: int) -> None:
    drawn = numpy.random.default_rng(seed)
    groups = drawn.integers(0, 60, 1200)
    mostly = drawn.integers(0, 4, 60)[groups]
    classes = numpy.where(drawn.random(1200) < 0.8, mostly, drawn.integers(0, 4, 1200))

    def unevenness(folds: list[list[int]]) -> float:
        parts = numpy.array([numpy.bincount(classes[rows], minlength=4) for rows in folds]) / numpy.bincount(classes)
        return float(abs(parts - 1 / 5).max())

    ours = [rows_of(cut_groups(Fold(number, 5, True), seed, groups, classes), 1200) for number in range(5)]
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    theirs = [held_out.tolist() for _, held_out in splitter.split(classes, classes, groups)]
    assert unevenness(ours) <= unevenness(theirs) + 0.03
    assert sorted(row for rows in ours for row in rows) == list(range(1200))


def test_strata_of_groups_follow_the_classes_of_the_groups() -> None:
    """One hundred patients of 1 to 8 rows, one in five of them ill."""
    drawn = numpy.random.default_rng(2)
    sizes = drawn.integers(1, 9, 100)
    groups = numpy.repeat(numpy.arange(100), sizes)
    ill = (groups % 5 == 0).astype(numpy.int64)
    share = Share(Decimal("0.7"), Decimal(1))
    worst = 0.0
    for seed in range(20):
        rows = rows_of(cut_groups(share, seed, groups, ill), len(groups))
        worst = max(worst, abs(ill[rows].mean() - ill.mean()))
    assert worst < 0.1
