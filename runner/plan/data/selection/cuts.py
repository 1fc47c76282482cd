"""Cuts an order of rows into shares and folds: plain, by classes, or by groups that stay whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

import numpy

from runner.plan.data.selection.order import AT_ONCE, Integers, Order
from runner.plan.data.selection.selection import Mask
from runner.plan.data.selection.strata import prefix_counts

_EXACT = Context(prec=1100, rounding=ROUND_HALF_UP)  # any float64 times any number of rows

CANDIDATES = 8
"""How many groups compete for a place in a stratified order of groups."""

MOST_COUNTS = 1 << 21
"""Maximum class counts of groups, groups times classes, for which the groups compete."""

MOST_MARKED = 1 << 26
"""The most rows for which a plain cut takes a byte each; of more, the position of each row is computed."""

MARKED_AT_ONCE = 1 << 18
"""Positions to turn into rows at a time."""

LABEL_BYTES = 40
"""Bytes for each row while rows are cut by classes or groups."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the rows from one fraction to another, each from 0 to 1."""

    start: Decimal
    end: Decimal

    def bounds(self, count: int) -> tuple[int, int]:
        return _rounded(self.start, count), _rounded(self.end, count)


@dataclass(frozen=True, slots=True)
class Fold:
    """One of `of` equal parts of the rows, or the rows outside it."""

    number: int  # from 0
    of: int
    held_out: bool

    def bounds(self, count: int) -> tuple[int, int]:
        """The bounds of the part itself."""
        first, last = (2 * count * number + self.of for number in (self.number, self.number + 1))
        return first // (2 * self.of), last // (2 * self.of)


Cut = Share | Fold
Part = Callable[[int, int], Mask]
"""Which of the rows `start` to `end - 1` belong to a part: bool."""


def _rounded(fraction: Decimal, count: int) -> int:
    return int(_EXACT.to_integral_value(_EXACT.multiply(fraction, Decimal(count))))


def cut_rows(cut: Cut, order: Order) -> Part:
    """The part of the rows whose positions in the order are within the bounds."""
    first, last = cut.bounds(order.count)
    inverted = isinstance(cut, Fold) and not cut.held_out
    if order.count <= MOST_MARKED:
        inside = _marked(first, last, order)
        return _part(~inside if inverted else inside)

    def belong(start: int, end: int) -> Mask:
        positions = order.positions(numpy.arange(start, end))
        inside: Mask = (positions >= first) & (positions < last)
        return ~inside if inverted else inside

    return belong


def _marked(first: int, last: int, order: Order) -> Mask:
    """Which rows have positions within the bounds: computes the positions within or outside, whichever are fewer."""
    few = 2 * (last - first) <= order.count
    inside = numpy.full(order.count, not few)
    for start, end in [(first, last)] if few else [(0, first), (last, order.count)]:
        for begin in range(start, end, MARKED_AT_ONCE):
            inside[order.rows(numpy.arange(begin, min(begin + MARKED_AT_ONCE, end)))] = few
    return inside


def cut_strata(cut: Cut, order: Order, classes: Integers) -> Part:
    """The same with equal proportions of the classes.

    The rows are sorted by class and order. Folds deal them in turn, so a fold has of each class its part, rounded up
    or down. A share that begins at 0 or ends at 1 has the same; a share in the middle is at most one row further off.

    Args:
        classes: the class of each row, from 0: int64 `(rows,)`.
    """
    positions = order.positions(numpy.arange(order.count))
    ranked = numpy.lexsort((positions, classes))
    del positions
    sizes = numpy.bincount(classes)
    inside = numpy.zeros(order.count, dtype=bool)
    if isinstance(cut, Fold):
        inside[ranked[cut.number :: cut.of]] = True
        return _part(inside if cut.held_out else ~inside)
    starts = numpy.cumsum(sizes) - sizes
    first, last = (prefix_counts(sizes.tolist(), bound) for bound in cut.bounds(order.count))
    for start, low, high in zip(starts.tolist(), first, last, strict=True):
        inside[ranked[start + low : start + high]] = True
    return _part(inside)


def cut_groups(cut: Cut, seed: int, groups: Integers, classes: Integers | None) -> Part:
    """The same with whole groups. A group belongs to the part that the middle of its rows is in.

    The order is one of the groups. With classes, the groups of each class are spread evenly over the order, where a
    group counts as its most frequent class. Then each turn takes the group that balances the classes best.

    Args:
        groups: the group of each row, from 0: int64 `(rows,)`.
        classes: the class of each row, from 0: int64 `(rows,)`.
    """
    sizes = numpy.bincount(groups)
    placed = Order(seed, len(sizes)).positions(numpy.arange(len(sizes)))
    if classes is None:
        ranked = numpy.argsort(placed)
    else:
        counts = _class_counts(groups, classes)
        if counts is not None and isinstance(cut, Fold):
            inside = (dealt_to_folds(counts, placed, cut.of) == cut.number)[groups]
            return _part(inside if cut.held_out else ~inside)
        ranked = _spread_over_classes(sizes, placed, _most_frequent(groups, classes))
        ranked = ranked if counts is None else balanced(ranked, counts)
    ends = numpy.cumsum(sizes[ranked])
    twice_middle = 2 * ends - sizes[ranked]
    first, last = cut.bounds(len(groups))
    within = numpy.zeros(len(sizes), dtype=bool)
    within[ranked] = (twice_middle > 2 * first) & (twice_middle <= 2 * last)
    return _part(within[groups] if isinstance(cut, Share) or cut.held_out else ~within[groups])


def _class_counts(groups: Integers, classes: Integers) -> Integers | None:
    """The rows of each class in each group: `(groups, classes)`; None if that is too many numbers."""
    count, several = int(groups.max()) + 1, int(classes.max()) + 1
    if several == 1 or count * several > MOST_COUNTS:
        return None
    return numpy.bincount(groups * several + classes, minlength=count * several).reshape(count, several)


def balanced(ranked: Integers, counts: Integers) -> Integers:
    """The groups in an order whose every prefix has nearly equal proportions of the classes.

    Each turn takes, of the next `CANDIDATES` groups, the one after which the class counts are nearest to their
    proportions, by the chi-squared statistic. A group that is passed over for long is taken then.
    """
    count, totals = len(ranked), counts.sum(axis=0)
    shares = totals / totals.sum()
    taken, order = numpy.zeros(len(totals)), numpy.empty_like(ranked)
    window, waited, following = ranked[:CANDIDATES].tolist(), [0] * min(CANDIDATES, count), CANDIDATES
    for place in range(count):
        after = counts[window] + taken
        off = ((after - after.sum(axis=1, keepdims=True) * shares) ** 2 / totals).sum(axis=1)
        chosen = 0 if place - waited[0] >= 2 * CANDIDATES else int((off <= _nearly(off.min())).argmax())
        order[place] = window.pop(chosen)
        waited.pop(chosen)
        taken += counts[order[place]]
        if following < count:
            window.append(int(ranked[following]))
            waited.append(place + 1)
            following += 1
    return order


def _nearly(least: float) -> float:
    """The bound of values that count as equal to the least one, so that rounding decides nothing."""
    return least * (1 + 1e-9) + 1e-12


def dealt_to_folds(counts: Integers, placed: Integers, of: int) -> Integers:
    """The fold of each group, from 0.

    Groups of the most uneven classes come first. Each goes to the fold after which the folds differ least in their
    parts of the classes, and of several such to the one with the fewest rows.

    Source: StratifiedGroupKFold of scikit-learn.

    Args:
        counts: the rows of each class in each group: int64 `(groups, classes)`.
        placed: the place of each group in a random order, which decides between equally uneven ones.
    """
    folds, totals = numpy.empty(len(counts), dtype=numpy.int64), counts.sum(axis=0)
    held, rows, each = numpy.zeros((of, len(totals))), numpy.zeros(of), numpy.identity(of)[:, :, None]
    for group in numpy.lexsort((placed, -counts.std(axis=1).round(9))).tolist():
        trials = (held + each * counts[group]) / totals  # by the fold that takes it, the fold and the class
        uneven = trials.std(axis=1).mean(axis=1)
        best = numpy.flatnonzero(uneven <= _nearly(uneven.min()))
        fold = int(best[rows[best].argmin()])
        folds[group] = fold
        held[fold] += counts[group]
        rows[fold] += counts[group].sum()
    return folds


def _most_frequent(groups: Integers, classes: Integers) -> Integers:
    """The most frequent class of each group; the first of several."""
    several = int(classes.max()) + 1
    pairs, counts = numpy.unique(groups * several + classes, return_counts=True)
    ranked = numpy.lexsort((pairs, -counts, pairs // several))
    owners = pairs[ranked] // several
    first = numpy.flatnonzero(numpy.diff(owners, prepend=-1))
    result: Integers = pairs[ranked][first] % several
    return result


def _spread_over_classes(sizes: Integers, placed: Integers, classes: Integers) -> Integers:
    """The groups in an order in which the rows of each class advance evenly."""
    ranked = numpy.lexsort((placed, classes))
    within, count = classes[ranked], sizes[ranked]
    ends = numpy.cumsum(count)
    rows_of = numpy.bincount(within, weights=count)[within]
    before = (numpy.cumsum(numpy.bincount(within, weights=count)) - numpy.bincount(within, weights=count))[within]
    offset = (placed[ranked] + 0.5) / len(sizes)
    keys = (ends - count - before + count * offset) / rows_of
    result: Integers = ranked[numpy.lexsort((placed[ranked], keys))]
    return result


def _part(inside: Mask) -> Part:
    return lambda start, end: inside[start:end]


def blocks_of(count: int) -> Iterator[tuple[int, int]]:
    """The bounds of consecutive blocks of rows."""
    for start in range(0, count, AT_ONCE):
        yield start, min(start + AT_ONCE, count)
