"""The table tests report every row that fails, and only those."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tables import over


def test_every_row_runs_and_every_fault_is_reported_with_its_row() -> None:
    seen = []

    @over("number, half", [(1, 0), (2, 1), (3, 2), (5, 1)])
    def halves(number: int, half: int) -> None:
        seen.append(number)
        if number == 5:
            pytest.fail("five is too many")
        assert number // 2 == half

    with pytest.raises(ExceptionGroup, match="2 of 4 rows fail") as caught:
        halves()
    assert seen == [1, 2, 3, 5]
    assert str(caught.value).startswith("2 of 4 rows fail:\n  row 3: 3, 2\n  row 4: 5, 1 ")
    assert [error.__notes__ for error in caught.value.exceptions] == [["row 3: 3, 2"], ["row 4: 5, 1"]]


def test_a_row_that_skips_fails() -> None:
    @over("number", [1])
    def skips(number: int) -> None:
        pytest.skip("not today")

    with pytest.raises(ExceptionGroup, match="1 of 1 rows fail"):
        skips()


def test_a_table_without_rows_fails() -> None:
    @over("number", list)
    def empty(number: int) -> None:
        raise AssertionError(number)

    with pytest.raises(AssertionError, match="the table has no rows"):
        empty()


@over("name", ["a", "b"])
def test_each_row_gets_a_folder_of_its_own(name: str, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).touch()


@over("one", [1, 2])
@over("other", [pytest.param(3, id="three"), pytest.param(4)])
def test_tables_multiply(one: int, other: int) -> None:
    assert (one, other) in {(1, 3), (1, 4), (2, 3), (2, 4)}


@over("number", [1, 2, 3, 4], split=lambda number: "odd" if number % 2 else "even")
def test_a_table_may_be_one_test_for_each_group(number: int, request: pytest.FixtureRequest) -> None:
    assert request.node.callspec.id == ("odd" if number % 2 else "even")
    assert len(request.node.callspec.params["group"]) == 2
