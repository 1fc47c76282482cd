"""One test for a whole table of cases, which goes through all rows and reports every row that fails."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import pytest

Row = tuple[str, tuple[Any, ...]]
"""What a row is called, and its values."""

Rows = Iterable[Any] | Callable[[], Iterable[Any]]


def over(
    names: str | tuple[str, ...], rows: Rows, *, split: Callable[..., str] | None = None, slow: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make one test of a function and a table, where `pytest.mark.parametrize` makes one test a row.

    It is for rows that are cheap and independent: one item starts and ends once, and not a thousand times.
    Every row runs, and the test fails after the last one with the errors of all rows that failed, each with its row.
    A `tmp_path` is a new folder for each row; every other fixture is shared by the rows.

    Args:
        names: the arguments that a row gives, as for `pytest.mark.parametrize`.
        rows: the rows, or a function that makes them when the test runs.
        split: the name of a row's group, from its values: one test for each group, for tables that take long.
        slow: the groups that are marked so.
    """
    given = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names
    single = isinstance(names, str) and len(given) == 1

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        made = rows if callable(rows) else list(rows)
        parameters = [each for name, each in inspect.signature(test).parameters.items() if name not in given]

        @functools.wraps(test)
        def whole(**fixtures: Any) -> None:
            _run(test, given, _labelled(made() if callable(made) else made, single), fixtures)

        @functools.wraps(test)
        def part(group: list[Row], **fixtures: Any) -> None:
            _run(test, given, group, fixtures)

        if split is None:
            whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            return whole
        groups: dict[str, list[Row]] = {}
        for row in _labelled(made() if callable(made) else made, single):
            groups.setdefault(split(*row[1]), []).append(row)
        own = inspect.Parameter("group", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        part.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
        marks = {name: [pytest.mark.slow] for name in slow}
        tests = [pytest.param(group, id=name, marks=marks.get(name, ())) for name, group in groups.items()]
        return pytest.mark.parametrize("group", tests)(part)

    return decorate


def _run(test: Callable[..., None], names: tuple[str, ...], rows: Iterable[Row], fixtures: dict[str, Any]) -> None:
    faults: dict[str, Exception] = {}
    count = 0
    for label, values in rows:
        count += 1
        own = dict(fixtures)
        if "tmp_path" in own:
            own["tmp_path"] = own["tmp_path"] / f"row-{count}"
            own["tmp_path"].mkdir()
        try:
            test(**own, **dict(zip(names, values, strict=True)))
        except (pytest.fail.Exception, pytest.skip.Exception) as outcome:  # neither is an `Exception`
            faults[f"row {count}: {label}"] = AssertionError(str(outcome)).with_traceback(outcome.__traceback__)
        except Exception as error:  # raised again below, with those of the other rows
            faults[f"row {count}: {label}"] = error
    assert count > 0, "the table has no rows"
    for label, error in faults.items():
        error.add_note(label)
    if faults:
        failed = "".join(f"\n  {textwrap.shorten(label, 100)}" for label in faults)  # a traceback shows some of them
        raise ExceptionGroup(f"{len(faults)} of {count} rows fail:{failed}", list(faults.values()))


def _labelled(rows: Iterable[Any], single: bool) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, type(pytest.param())):
            assert not row.marks, "a row of a table has no marks of its own"
            yield str(row.id or row.values), row.values
        else:
            values = (row,) if single else tuple(row)
            yield ", ".join(map(repr, values)), values
