"""Scalar constants: numbers, and expressions over other scalar constants."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Mapping

from runner.config import Config
from runner.config.text.scalars import LARGEST_INTEGER
from runner.errors import listing
from runner.faults import ConfigPath, Faults
from runner.language.text.arithmetic import Scalar
from runner.language.text.faults import LanguageError
from runner.language.text.scalars import attributes_in, evaluate, names_in

NOTHING: Mapping[str, Scalar] = {}

Sizes = Mapping[str, tuple[int, ...]]
"""The shape of each column of a data source: `train.x.shape`."""


def scalar_constants(
    config: Config, faults: Faults, counts: Mapping[str, Scalar] = NOTHING, sizes: Sizes | None = None
) -> dict[str, Scalar]:
    """The value of every scalar constant, in the order of the file, except those with a problem.

    Args:
        counts: calls such as `classes(train.y)`, whose value the data of the config gives. They are in the result too.
        sizes: the shapes of columns, which constants may read. Without them, these constants are left out, and so are
            those that depend on them.
    """
    declared = {name: value for name, value in config.constants.items() if isinstance(value, (bool, int, float, str))}
    values: dict[str, Scalar] = {**counts} | {
        name: value for name, value in declared.items() if not isinstance(value, str)
    }
    waiting: dict[str, set[str]] = {}
    for name, value in declared.items():
        if isinstance(value, str):
            try:
                if sizes is not None or not _reads_data(value, config):
                    waiting[name] = {read for read in names_in(value) if read in declared}
            except LanguageError as error:
                faults.language(("constants", name), error)
    broken = {name for name, value in declared.items() if isinstance(value, str) and name not in waiting}
    readers: dict[str, list[str]] = {}
    for name, needs in waiting.items():
        for need in needs:
            readers.setdefault(need, []).append(name)
    missing = {name: sum(need not in values for need in needs) for name, needs in waiting.items()}
    ready = deque(name for name, count in missing.items() if count == 0)
    doomed = list(broken)
    while ready:
        name = ready.popleft()
        del waiting[name]
        try:
            values[name] = evaluate(str(declared[name]), {**values, **(sizes or {})})
        except LanguageError as error:
            faults.language(("constants", name), error)
            broken.add(name)
            doomed.append(name)
            continue
        for reader in readers.get(name, ()):
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    while doomed:  # don't also report the readers of an invalid constant
        for reader in readers.get(doomed.pop(), ()):
            if waiting.pop(reader, None) is not None:
                doomed.append(reader)
    if waiting:
        _report_cycles(waiting, faults)
    return {name: values[name] for name in declared if name in values} | {**counts}


def _reads_data(text: str, config: Config) -> bool:
    """Whether an expression reads the size of a column of a data source: `train.x.shape`, `len(train.x)`."""
    columns = {
        ast.unparse(node)
        for node in attributes_in(text)
        if isinstance(node.value, ast.Name) and node.value.id in config.data
    }
    return any(f"{column}.shape" in text or f"len({column})" in text for column in columns)


def _report_cycles(waiting: Mapping[str, set[str]], faults: Faults) -> None:
    """Report each cycle once. Constants that only read a cycle are not part of it."""
    done: set[str] = set()
    for start in waiting:
        trail: dict[str, None] = {}
        name: str | None = start
        while name is not None and name not in trail and name not in done:
            trail[name] = None
            name = next((needed for needed in sorted(waiting[name]) if needed in waiting), None)
        done |= trail.keys()
        if name is None or name not in trail:
            continue
        path = list(trail)
        names = sorted(path[path.index(name) :])
        shown = listing((f"`{each}`" for each in names), 6)
        faults.add(
            ("constants", names[0]),
            f"these constants depend on each other: {shown}",
            "give one of them a number",
        )


def number(value: object, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults) -> float | int | None:
    """The value of a numeric field; None after reporting a problem."""
    if isinstance(value, str):
        try:
            return evaluate(value, scalars)
        except LanguageError as error:
            faults.language(path, error)
            return None
    assert isinstance(value, (int, float))
    return value


def integer(value: object, path: ConfigPath, scalars: Mapping[str, Scalar], faults: Faults, least: int) -> int | None:
    """The value of a numeric field as an integer from `least` to 2^63 - 1; None after reporting a problem."""
    found = number(value, path, scalars, faults)
    if found is None:
        return None
    if isinstance(found, bool) or found != found or found in (float("inf"), float("-inf")) or int(found) != found:
        faults.add(path, f"expected an integer, found {found!r}", "write an integer, or `int(…)` around the expression")
        return None
    if found < least:
        faults.add(path, f"expected at least {least}, found {int(found)}", "write a larger number")
        return None
    if found > LARGEST_INTEGER:
        faults.add(path, f"expected an integer below 2^63, found {found!r}", "write a smaller number")
        return None
    return int(found)
