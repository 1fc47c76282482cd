"""Selections of columns of a table: names, lists of names, and globs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from runner.errors import did_you_mean, listing
from runner.plan.data.sandbox import FileFault

Columns = str | tuple[str, ...] | None
"""A selection of columns: one, several to stack along a new last dimension, or None for all."""

MOST_COLUMNS = 200_000
"""Maximum columns of a table."""

_WILDCARDS = frozenset("*?[")


def names_in(columns: Columns) -> tuple[str, ...]:
    """The names and globs of a selection."""
    return () if columns is None else (columns,) if isinstance(columns, str) else columns


def is_glob(name: str) -> bool:
    """Whether a name in a list of columns may be a pattern."""
    return not _WILDCARDS.isdisjoint(name)


def expanded(columns: Columns, names: Sequence[str], excluded: Collection[str], file: str) -> Columns:
    """A selection with each glob replaced by the columns that it takes, in the order of the file.

    A column whose name is written as the glob is taken by that name. A column that the list names, or that an earlier
    glob took, is not taken again.

    Args:
        names: the columns of the file.
        excluded: columns that no glob takes.
    Raises:
        FileFault: a glob takes no column.
    """
    if columns is None or not any(map(is_glob, names_in(columns))):
        return columns
    known = set(names)
    listed = names_in(columns)
    if all(name in known or not is_glob(name) for name in listed):
        return columns
    taken = {name for name in listed if name in known}
    found: list[str] = []
    for name in listed:
        if name in known or not is_glob(name):
            found.append(name)
            continue
        matching = [each for each in dict.fromkeys(names) if fnmatchcase(each, name)]
        chosen = [each for each in matching if each not in taken and each not in excluded]
        if not chosen:
            raise _takes_nothing(name, matching, names, file)
        taken.update(chosen)
        found += chosen
    return tuple(found)


def matching(pattern: str, names: Sequence[str], known: Collection[str]) -> list[str]:
    """The columns that a name or a glob stands for."""
    if pattern in known or not is_glob(pattern):
        return [pattern] if pattern in known else []
    return [name for name in names if name in known and fnmatchcase(name, pattern)]


def _takes_nothing(glob: str, matching: Sequence[str], names: Sequence[str], file: str) -> FileFault:
    if matching:
        message = f"the glob `{glob}` takes no column of {file}: {listing(matching, 4)} are bound elsewhere"
        return FileFault(message, "remove the glob, or the other binding", about_columns=True)
    message = f"the glob `{glob}` matches no column of {file}"
    return FileFault(message, f"it has {listing(names)}", about_columns=True)


def chosen_of(columns: Columns, names: Sequence[str], file: str) -> tuple[str, ...]:
    """The names of the selected columns.

    Raises:
        FileFault: a column is missing, or several have its name.
    """
    chosen = (columns,) if isinstance(columns, str) else tuple(names) if columns is None else columns
    if not chosen:
        raise FileFault(f"{file} has no columns", "write the file again")
    counts = Counter(names)
    for column in chosen:
        if column not in counts:
            hint = did_you_mean(column, names, f"it has {listing(names)}")
            raise FileFault(f"{file} has no column `{column}`", hint, about_columns=True)
        if counts[column] > 1:
            raise FileFault(f"{file} has several columns `{column}`", "rename one of them", about_columns=True)
    return chosen


def check_alike(booleans: Sequence[bool], names: Sequence[str], file: str) -> None:
    """Check that all or none of the columns that are read together are boolean.

    Raises:
        FileFault: only some are boolean.
    """
    if any(booleans) and not all(booleans):
        shown = listing([f"`{name}`" for name, boolean in zip(names, booleans, strict=True) if boolean], 4)
        hint = "write 0 and 1 in the file, or read the booleans as a batch column of their own"
        raise FileFault(f"{shown} of {file} holds booleans and other columns numbers", hint, about_columns=True)
