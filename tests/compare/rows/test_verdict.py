"""The verdict over rows: where they part, in which order that is told, and how it goes on."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from runner.compare.numbers.growth import Growth
from runner.compare.numbers.tolerances import BY_DTYPE, Tolerance, Tolerances
from runner.compare.rows.report import TALLEST, WIDEST, report, shown, to_json
from runner.compare.rows.verdict import WINDOW, align, compare, in_causal_order
from runner.engine.rows import Row
from runner.plan.rows.columns import Column, Role
from tests.compare.rows import COLUMNS, row, rows, verdict_of
from tests.tables import over


def values_of(one: Row) -> dict[str, Tensor | None]:
    return {column.name: one[column.name] for column in one.columns}


def moved(one: Row, *names: str, by: float = 1.0) -> Row:
    """The row with `by` added to some of its columns."""
    values = values_of(one)
    for name in names:
        value = values[name]
        assert value is not None
        values[name] = value + by
    return row(one.number, values, one.path)


def test_equal_rows_hold() -> None:
    verdict = verdict_of(rows(5), rows(5))
    assert verdict.holds
    assert (verdict.compared, verdict.first_difference, verdict.tallies) == (5, None, ())
    assert report(verdict) == []


def test_the_first_row_and_within_it_the_causally_first_tensor_is_told() -> None:
    found = rows(6)
    found[3] = moved(found[3], "v", "w.exp_avg", "v.grad", "loss")
    found[4] = moved(found[4], "h")
    verdict = verdict_of(found, rows(6))
    assert verdict.first_difference is not None
    assert verdict.first_difference.place.number == 3
    assert [each.column.name for each in verdict.first_difference.divergences] == ["loss", "v.grad", "v", "w.exp_avg"]
    assert [column.name for column in verdict.first_difference.equal] == ["h", "w.grad", "w"]
    assert [tally.column.name for tally in verdict.tallies] == ["loss", "v.grad", "v", "w.exp_avg", "h"]


def test_causal_order_keeps_the_order_of_the_text_within_a_role() -> None:
    names = [column.name for column in in_causal_order(COLUMNS)]
    assert names == ["h", "loss", "w.grad", "v.grad", "w", "v", "w.exp_avg"]


def program(*steps: str) -> list[Row]:
    """The rows of two iterations of these steps."""
    paths = [f"repeat[{iteration}].{place}.{step}" for iteration in (1, 2) for place, step in enumerate(steps, 1)]
    return [row(number, {}, path) for number, path in enumerate(["start", *paths])]


def test_a_step_that_was_removed_is_missing_and_the_others_keep_their_partners() -> None:
    found, expected = program("backward", "step"), program("zero_grad", "backward", "step")
    verdict = verdict_of(found, expected)
    assert (verdict.compared, verdict.missing_rows.count, verdict.new_rows.count) == (5, 2, 0)
    assert report(verdict) == ["2 rows are missing: the first is row 1, repeat[1].1.zero_grad"]
    other_way = verdict_of(expected, found)
    assert report(other_way) == ["2 rows are new: the first is row 1, repeat[1].1.zero_grad"]


@over("seed", range(20))
def test_every_row_is_in_one_pair_and_pairs_are_the_same_step(seed: int) -> None:
    chance = random.Random(seed)
    steps = [f"repeat[{n}].{step}" for n in range(30) for step in ("backward", "step", "zero_grad")]
    sides = [
        [row(number, {}, path) for number, path in enumerate(path for path in steps if chance.random() > 0.2)]
        for _ in range(2)
    ]
    found, expected = sides
    pairs = list(align(iter(found), iter(expected)))
    assert [left for left, _ in pairs if left is not None] == found
    assert [right for _, right in pairs if right is not None] == expected
    assert all(left.path == right.path for left, right in pairs if left is not None and right is not None)
    both = {one.path for one in found} & {one.path for one in expected}
    paired = {left.path for left, right in pairs if left is not None and right is not None}
    assert paired == both


def test_rows_that_never_meet_again_are_told_one_by_one() -> None:
    found = [row(n, {}, f"repeat[{n}].train") for n in range(1, 2 * WINDOW)]
    expected = [row(n, {}, f"repeat[{n}].backward") for n in range(1, 2 * WINDOW)]
    verdict = verdict_of(found, expected)
    assert (verdict.compared, verdict.missing_rows.count, verdict.new_rows.count) == (0, 127, 127)


def test_columns_of_one_side_and_other_declarations_come_first() -> None:
    old = [*COLUMNS, Column("u", "weight", torch.float32, (2,)), Column("k", "weight", torch.float32, (3,))]
    new = [*COLUMNS, Column("k", "weight", torch.float64, (3,)), Column("z", "value", torch.float32, None)]
    found = [row(0, {"w": torch.zeros(2)}, columns=new)]
    expected = [row(0, {"w": torch.ones(2)}, columns=old)]
    verdict = compare(align(found, expected), new, old, Tolerances())
    assert not verdict.holds
    assert report(verdict)[:4] == [
        "1 tensor is missing: `u`",
        "1 tensor is new: `z`",
        "`k` is float64 [3], expected float32 [3]",
        "row 0, start: `w` differs",
    ]


def test_a_shape_that_changes_is_told_before_values() -> None:
    found = rows(3, r2={"w": torch.zeros(3)})
    verdict = verdict_of(found, rows(3))
    assert report(verdict)[0] == "row 2, repeat[2].1.train: `w` is float32 [3], expected float32 [2]"
    assert verdict.growth is None


def test_a_tensor_of_another_shape_has_the_shapes_and_no_error_that_grows() -> None:
    sides = [
        [Column("w", "weight", torch.float32, (size,)), Column("b", "weight", torch.float32, ())] for size in (3, 4)
    ]
    found, expected = (
        [row(number, {"w": torch.ones(size), "b": torch.tensor(rate)}, columns=columns) for number in range(4)]
        for columns, size, rate in ((sides[1], 4, 1.5), (sides[0], 3, 1.0))
    )
    verdict = compare(align(found, expected), sides[1], sides[0], Tolerances())
    assert verdict.growth is None
    assert to_json(verdict)["growth"] is None
    lines = report(verdict)
    assert lines[:2] == [
        "`w` is float32 [4], expected float32 [3]",
        "row 0, start: `w` is float32 [4], expected float32 [3]; `b` differs too",
    ]
    assert not any("growth" in line or "no number" in line for line in lines)
    assert lines[-3:] == [
        "  tensor  differs in   from row  largest error",
        "  w       4 of 4 rows  0         shape [3] → [4]",
        "  b       4 of 4 rows  0         0.5",
    ]
    assert str(verdict).splitlines()[-2:] == [
        "w       4 of 4            0      shape [3] → [4]",
        "b       4 of 4            0      0.5",
    ]


@over(
    ("gone", "by", "expected"),
    [
        (["w.grad"], None, "`w.grad` is missing, expected float32 [2]"),
        (["w.grad", "v.grad"], None, "`w.grad` is missing, expected float32 [2]; so is `v.grad`"),
        (["w.grad"], "w", "`w.grad` is missing, expected float32 [2]; `w` differs too"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_missing_is_told_before_others(gone: list[str], by: str | None, expected: str) -> None:
    found = rows(3, r2=dict.fromkeys(gone))
    found[2] = found[2] if by is None else moved(found[2], by)
    verdict = verdict_of(found, rows(3))
    assert report(verdict)[0] == f"row 2, repeat[2].1.train: {expected}"
    assert verdict.growth is None


def test_error_that_begins_as_rounding_and_grows_is_a_drift() -> None:
    found = rows(8)
    for number in range(2, 8):
        found[number] = moved(found[number], "w", by=1e-7 * 10**number)
    verdict = verdict_of(found, rows(8), Tolerances(BY_DTYPE))
    assert verdict.growth is not None
    assert verdict.growth.kind == "drift"
    assert verdict.first_difference is not None
    assert verdict.first_difference.place.number == 3
    assert verdict.unequal_since is not None
    assert (verdict.unequal_since[0].number, verdict.unequal_since[1].name) == (2, "w")
    assert verdict.growth.before == pytest.approx(1e-5 * math.sqrt(2) / math.hypot(5, 8), rel=0.1)
    assert verdict.growth.last == verdict.growth.largest > 0.05


def test_error_that_is_there_at_once_is_a_jump() -> None:
    found = rows(8)
    for number in range(4, 8):
        found[number] = moved(found[number], "loss", by=0.5)
    growth = verdict_of(found, rows(8)).growth
    assert growth is not None
    assert (growth.kind, growth.before, growth.largest_number) == ("jump", 0.0, 4)


def test_one_unit_in_the_last_place_that_stays_is_rounding() -> None:
    found = rows(8)
    for number in range(4, 8):
        found[number] = moved(found[number], "loss", by=5e-7)
    growth = verdict_of(found, rows(8)).growth
    assert growth is not None
    assert growth.kind == "rounding"


def growth_of(errors: list[float], tolerances: Tolerances | None = None) -> Growth:
    """The growth of a tensor of ones whose error is given row by row."""
    column = Column("w", "weight", torch.float64, (1,))
    one = torch.ones(1, dtype=torch.float64)
    expected = [row(number, {"w": one}, columns=[column]) for number in range(len(errors))]
    found = [row(number, {"w": one + error}, columns=[column]) for number, error in enumerate(errors)]
    growth = compare(align(found, expected), [column], [column], tolerances or Tolerances()).growth
    assert growth is not None
    return growth


ROUNDING = [0.0, 3e-15, 1e-15, 2e-15, 0.0, 4e-15, 2e-15, 3e-15]


@over(
    ("errors", "kind", "leap"),
    [
        (ROUNDING * 4, "rounding", None),
        ([*ROUNDING, 1e-3, *ROUNDING], "rounding", None),  # a loss that passes through zero
        ([*ROUNDING, 1e-3, *[2e-3] * 20], "jump", 8),
        ([*ROUNDING, 1e-3, *ROUNDING, 1e-2, 1e-2], "jump", 17),
        ([*ROUNDING, *[1e-3] * 3, *[1.0] * 3], "jump", 8),
        ([*ROUNDING, math.nan, math.nan], "jump", 8),
        ([*ROUNDING, 1e-3], "jump", 8),
        ([0.0, *[1e-3 * number for number in range(1, 30)]], "jump", None),
        ([1e-15 * 1.5**number for number in range(60)], "drift", None),
        ([1e-15 * number for number in range(60)], "drift", None),
        ([*(1e-15 * 2.0**number for number in range(30)), *(1e-6 / 2**number for number in range(30))], "drift", None),
    ],
)
def test_a_jump_a_drift_and_rounding_are_told_apart(errors: list[float], kind: str, leap: int | None) -> None:
    growth = growth_of(errors)
    assert (growth.kind, growth.leap and growth.leap.number) == (kind, leap)


def test_a_jump_among_rounding_is_told_with_its_row() -> None:
    found, jumped = rows(12), 9
    for number in range(3, 12):
        found[number] = moved(found[number], "w", by=1e-6 if number < jumped else 1.0)
    assert report(verdict_of(found, rows(12)), width=80)[-2:] == [
        "  growth    a jump in row 9: error 1.2e-07 in row 3, at most 1.2e-07 until then,",
        "            0.074 in row 9, 0.064 in row 11",
    ]


def test_the_whole_text_of_one_difference() -> None:
    found = rows(20)
    value = found[17]["w"]
    assert value is not None
    found[17] = row(17, {**values_of(found[17]), "w": torch.nextafter(value, torch.tensor([math.inf, -math.inf]))})
    assert report(verdict_of(found, rows(20))) == [
        "row 17, repeat[17].1.train: `w` differs",
        "  expected  20.0 at [0]",
        "  found     20.000002",
        "  apart     abs 1.91e-06, rel 9.54e-08, 1 ULP of float32",
        "  elements  2 of 2 differ (100%)",
        "  passes at rtol 9.54e-08, or atol 1.91e-06 alone, or ulp 1",
        "  cause     gradients bit-equal, update of `w` differs: look at the optimizer",
        "  growth    rounding, no growth: error 8.8e-08 in row 17, 0 in row 19",
    ]


def test_no_difference_is_too_large_for_one_screen() -> None:
    names = [f"{'a_long_name_of_a_tensor_' * 6}{number}" for number in range(300)]
    columns = [Column(name, "weight", torch.float32, (3,)) for name in names]
    more = [*columns, *(Column(f"new{n}", "value", torch.float32, ()) for n in range(300))]
    found, expected = (
        [row(n, {name: torch.full((3,), shift + 0.1234567) for name in names}, columns=given) for n in range(count)]
        for shift, count, given in ((math.nan, 4, more), (0.0, 5, columns))
    )
    verdict = compare(align(found, expected), more, columns, Tolerances())
    lines = report(verdict)
    assert len(lines) <= TALLEST
    assert max(map(len, lines)) <= WIDEST
    assert lines[-1].startswith("  and 29")
    assert len(report(verdict, height=10, width=60)) <= 10
    assert max(map(len, report(verdict, height=10, width=60))) <= 60


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        (1.0, math.nan, "undefined: not both are finite"),
        (-math.inf, math.inf, "undefined: not both are finite"),
        (math.inf, 1.0, "undefined: not both are finite"),
        (0.0, 0.5, "abs 0.5, rel inf, 1,056,964,608 ULP of float32"),
    ],
)
def test_how_far_apart_is_a_number_only_between_numbers(expected: float, found: float, apart: str) -> None:
    verdict = verdict_of(
        rows(4, r2={"w": torch.tensor([found, 2.0])}), rows(4, r2={"w": torch.tensor([expected, 2.0])})
    )
    assert [line.split(None, 1)[1] for line in report(verdict) if line.split()[0] == "apart"] == [apart]


def test_json_says_the_same_and_is_json() -> None:
    found = rows(4, r2={"w": torch.tensor([math.nan, 2.0])})
    told = json.loads(json.dumps(to_json(verdict_of(found, rows(4))), allow_nan=False))
    assert told["holds"] is False
    assert {key: told["first"][key] for key in ("row", "step", "path")} == {
        "row": 2,
        "step": "train",
        "path": "repeat[2].1.train",
    }
    tensor = told["first"]["tensors"][0]
    assert (tensor["name"], tensor["kind"], tensor["differing"]) == ("w", "value", 2)
    assert tensor["worst"]["found"] == "nan"
    assert tensor["passes_at"]["atol"] is None
    assert told["causes"][0] == "gradients bit-equal, update of `w` differs: look at the optimizer"


@over(
    ("number", "dtype", "text"),
    [
        (0.10000000149011612, torch.float32, "0.1"),
        (0.1, torch.float64, "0.1"),
        (1 / 3, torch.float64, "0.3333333333333333"),
        (torch.tensor(1 / 3).item(), torch.float32, "0.33333334"),
        (torch.tensor(1 / 3, dtype=torch.bfloat16).item(), torch.bfloat16, "0.334"),
        (math.nan, torch.float32, "nan"),
        (-math.inf, torch.float32, "-inf"),
        (-0.0, torch.float32, "-0.0"),
        (2**62 + 1, torch.int64, "4611686018427387905"),
        (True, torch.bool, "true"),
        (complex(0.10000000149011612, -2), torch.complex64, "0.1-2.0j"),
        (complex(0, 0.1), torch.complex128, "0.0+0.1j"),
    ],
)
def test_numbers_are_shown_with_the_digits_of_their_dtype(number: float, dtype: torch.dtype, text: str) -> None:
    assert shown(number, dtype) == text


def test_tolerances_of_the_columns_are_used() -> None:
    found = rows(4)
    found[2] = moved(found[2], "w", "loss", by=0.1)
    tolerances = Tolerances(by_name=[("w", Tolerance("explicit", atol=0.2))])
    verdict = verdict_of(found, rows(4), tolerances)
    assert verdict.first_difference is not None
    assert [each.column.name for each in verdict.first_difference.divergences] == ["loss"]
    assert [column.name for column in verdict.first_difference.within] == ["w"]


def test_on_a_narrow_terminal_no_number_is_cut() -> None:
    found = rows(20)
    found[17] = moved(found[17], "w", "loss")
    narrow = report(verdict_of(found, rows(20)), width=50)
    assert max(map(len, narrow)) <= 50
    wide = report(verdict_of(found, rows(20)))
    assert " ".join(" ".join(narrow[1:]).split()) == " ".join(" ".join(wide[1:]).split())


NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 1e160, math.nan, math.inf]))
PAIRS = st.lists(st.tuples(*[st.lists(NUMBERS, min_size=2, max_size=2)] * 2), min_size=1, max_size=4)


@given(PAIRS, st.sampled_from(["value", "gradient", "weight"]), st.sampled_from([BY_DTYPE, Tolerance("bitwise")]))
@example([([1e308, 1e308], [-1e308, 1e308])], "gradient", BY_DTYPE)
def test_whatever_numbers_differ_there_is_a_screen_and_json(
    pairs: list[tuple[list[float], list[float]]], role: Role, tolerance: Tolerance
) -> None:
    column = Column("w", role, torch.float64, (2,))
    found, expected = (
        [
            row(number, {"w": torch.tensor(pair[side], dtype=torch.float64)}, columns=[column])
            for number, pair in enumerate(pairs)
        ]
        for side in range(2)
    )
    verdict = compare(align(found, expected), [column], [column], Tolerances(tolerance))
    assert len(report(verdict, width=60)) <= TALLEST
    assert json.dumps(to_json(verdict), allow_nan=False)
