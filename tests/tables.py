"""One test for a whole table of cases, which goes through all rows and reports every row that fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

Rows = Iterable[Any] | Callable[[], Iterable[Any]]


def over(names: str | tuple[str, ...], rows: Rows) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make one test of a function and a table, where `pytest.mark.parametrize` makes one test a row.

    It is for rows that are cheap and independent: one item starts and ends once, and not a thousand times.
    Every row runs, and the test fails after the last one with the errors of all rows that failed, each with its row.
    A `tmp_path` is a new folder for each row; every other fixture is shared by the rows.

    Args:
        names: the arguments that a row gives, as for `pytest.mark.parametrize`.
        rows: the rows, or a function that makes them when the test runs.
    """
    given = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names
    single = isinstance(names, str) and len(given) == 1

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(test).parameters

        @functools.wraps(test)
        def table(**fixtures: Any) -> None:
            faults, count = [], 0
            for label, values in _labelled(rows() if callable(rows) else rows, single):
                count += 1
                if "tmp_path" in fixtures:
                    folder = fixtures["tmp_path"] / f"row-{count}"
                    folder.mkdir()
                    own = {**fixtures, "tmp_path": folder}
                else:
                    own = fixtures
                try:
                    test(**own, **dict(zip(given, values, strict=True)))
                except (pytest.fail.Exception, pytest.skip.Exception) as outcome:  # neither is an `Exception`
                    faults.append(_noted(AssertionError(str(outcome)).with_traceback(outcome.__traceback__), label))
                except Exception as error:  # raised again below, with those of the other rows
                    faults.append(_noted(error, label))
            assert count > 0, "the table has no rows"
            if faults:
                raise ExceptionGroup(f"{len(faults)} of {count} rows fail", faults)

        table.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter for name, parameter in parameters.items() if name not in given]
        )
        return table

    return decorate


def _labelled(rows: Iterable[Any], single: bool) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for row in rows:
        if isinstance(row, type(pytest.param())):
            yield str(row.id or row.values), row.values
        else:
            values = (row,) if single else tuple(row)
            yield ", ".join(map(repr, values)), values


def _noted(error: Exception, label: str) -> Exception:
    error.add_note(f"in the row {label}")
    return error
