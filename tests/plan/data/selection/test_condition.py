"""Conditions against Python's own evaluation of the same text, row by row."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.language.text.faults import LanguageError
from runner.plan.data.selection.cells import Cells, Kind, cells_of_numbers
from runner.plan.data.selection.condition import Names, compile_condition, names_in_condition
from tests.tables import over

ROWS: list[dict[str, Any]] = [
    {"year": 1999, "mass": 1.5, "split": "train", "old": True, "fixed acidity": 7.0},
    {"year": 2020, "mass": -2.0, "split": "test", "old": False, "fixed acidity": 7.5},
    {"year": 2021, "mass": 0.0, "split": "train", "old": False, "fixed acidity": 6.5},
    {"year": -5, "mass": 1e300, "split": "größe", "old": True, "fixed acidity": 0.0},
    {"year": 2**53 + 1, "mass": math.inf, "split": "x y", "old": True, "fixed acidity": -1.0},
]
KINDS: Mapping[str, Kind] = {
    "year": "number", "mass": "number", "split": "text", "old": "boolean", "fixed acidity": "number",
}  # fmt: skip


def block(rows: list[dict[str, Any]]) -> dict[str, Cells]:
    columns = {name: [row[name] for row in rows] for name in KINDS}
    return {
        name: Cells(numpy.array(values, dtype=object), numpy.array([not value for value in values]))
        if KINDS[name] == "text"
        else cells_of_numbers(numpy.array(values))
        for name, values in columns.items()
    }


NAMES = Names(
    "t.csv", tuple(KINDS), lambda name: (name, KINDS[name]) if name in KINDS else None, {"limit": 2000, "year": 0}
)


def held(text: str, rows: list[dict[str, Any]] | None = None) -> list[bool]:
    found: list[bool] = compile_condition(text, NAMES).holds(block(ROWS if rows is None else rows)).tolist()
    return found


def by_python(text: str) -> list[bool]:
    return [bool(eval(text, {"column": row.__getitem__, "limit": 2000, **row})) for row in ROWS]


TEXTS = (
    "split == 'train' and year < 2020",
    "split != 'train' or not old",
    "split in ['train', 'größe']",
    "split not in ('train', 'x y')",
    "column('fixed acidity') >= 7",
    "1999 <= year <= 2020",
    "year in [1999, 2021]",
    "mass * 2 + 1 > mass",
    "-mass < 1.5",
    "mass / 2 == 0.75",
    "old",
    "not old and mass > 0",
    "old == (mass > 0)",
    "year == 9007199254740993",
    "year != 9007199254740992",
    "mass > column('fixed acidity')",
    "year > limit",
    "(split == 'train') == old",
    "mass * 2 < 5 and mass // 1 == 1 and mass % 2 == 1.5",
    "year < 3000 and (split == 'train' or split == 'test') and not (mass < 0)",
    "year > 1 and\n  split == 'train'",
)


@over("text", TEXTS)
def test_a_condition_holds_where_python_says_so(text: str) -> None:
    assert held(text) == by_python(text if "\n" not in text else f"({text})")


conditions = st.recursive(
    st.sampled_from(
        ["split == 'train'", "split != 'x y'", "year < 2020", "mass >= 0", "old", "year in [1999, -5]", "mass < year"]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: "(" + " ".join(parts) + ")"),
        inner.map(lambda text: f"(not {text})"),
    ),
    max_leaves=8,
)


@given(conditions)
def test_any_combination_holds_where_python_says_so(text: str) -> None:
    assert held(text) == by_python(text)


def test_missing_cells_compare_as_in_pandas() -> None:
    rows = [{**ROWS[0], "mass": math.nan, "split": ""}, ROWS[1]]
    assert held("mass > -10", rows) == [False, True]
    assert held("mass != 5", rows) == [True, True]
    assert held("not mass > -10", rows) == [True, False]
    assert held("mass + 1 == mass + 1", rows) == [False, True]
    assert held("mass is missing", rows) == [True, False]
    assert held("split is not missing", rows) == [False, True]
    assert held("split == ''", rows) == [False, False]
    assert held("split not in ['test']", rows) == [True, False]
    assert held("mass / 0 is missing", [{**ROWS[0], "mass": 0.0}]) == [True]


def test_arithmetic_refuses_integers_that_it_would_round() -> None:
    condition = compile_condition("year + 1 > 3", NAMES)
    with pytest.raises(LanguageError, match=r"^`year` holds integers beyond 2\^53, which arithmetic would round$"):
        condition.holds(block(ROWS))


def test_a_column_comes_before_a_constant_of_its_name() -> None:
    assert held("year == 1999") == [True, False, False, False, False]


def test_only_the_columns_that_a_condition_names_are_read() -> None:
    text = "split == 'train' and column('fixed acidity') > mass"
    assert compile_condition(text, NAMES).columns == ("split", "fixed acidity", "mass")
    assert names_in_condition(text) >= {"split", "fixed acidity", "mass"}
    assert names_in_condition("split ==") == frozenset()


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_an_error_of_the_language(text: str) -> None:
    with contextlib.suppress(LanguageError):
        compile_condition(text, NAMES).holds(block(ROWS))
