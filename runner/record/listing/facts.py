"""What is known of recorded runs by name: fields of the manifest, the last scalars of the log, keys of the config."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner.config.files.safe_files import Folder
from runner.errors import Problem, UsageError, did_you_mean
from runner.record.directory import ROWS_FOLDER
from runner.record.listing.runs import Recorded

Fact = str | int | float | bool | None

_COMPLEX = "complex"


def _of_environment(key: str) -> Callable[[Recorded], Any]:
    return lambda run: run.manifest.get("environment", {}).get(key)


FIELDS: Mapping[str, Callable[[Recorded], Any]] = {
    "started": lambda run: run.summary.started,
    "status": lambda run: run.summary.status,
    "rows": lambda run: run.summary.rows,
    "seconds": lambda run: run.summary.seconds,
    "run": lambda run: str(run.summary.path),
    "name": lambda run: run.summary.name,
    "failure": lambda run: run.summary.failure,
    "seed": lambda run: run.manifest.get("seed"),
    "engine": lambda run: run.manifest.get("engine"),
    "device": _of_environment("device"),
    "dtype": _of_environment("dtype"),
    "threads": _of_environment("threads"),
    "torch": lambda run: run.manifest.get("versions", {}).get("torch"),
}
"""The fields that every run has."""


class Facts:
    """The values of some runs by name; each is read on demand.

    A name is a field, a scalar of the log, which has its last value, or a key of the config: `learning_rate`,
    `optimizer.sgd.lr` and, if it means one key, `sgd.lr` or `lr`.
    """

    def __init__(self, runs: Sequence[Recorded]) -> None:
        self.runs = runs
        self._scalars = [_scalar_names(run) for run in runs]
        self._keys: list[Mapping[str, str]] = [run.manifest.get("config_fields", {}) for run in runs]
        self._last: dict[str, list[Fact]] = {}

    @property
    def names(self) -> list[str]:
        """All names: fields, scalars, keys."""
        found = dict.fromkeys(FIELDS)
        for group in (self._scalars, self._keys):
            for names in group:
                found |= dict.fromkeys(names)
        return list(found)

    def expanded(self, patterns: Sequence[str]) -> list[str]:
        """Names and globs as names; a glob matches fields, scalars and whole keys.

        Raises:
            UsageError: one matches nothing.
        """
        found: dict[str, None] = {}
        names = self.names
        for pattern in patterns:
            matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            found |= dict.fromkeys([pattern] if self.has(pattern) else matching)
            if not matching and not self.has(pattern):
                raise UsageError(self.unknown(pattern))
        return list(found)

    def has(self, name: str) -> bool:
        """Whether some run has this name."""
        return (
            name in FIELDS
            or any(name in names for names in self._scalars)
            or any(_keys_named(name, keys) for keys in self._keys)
        )

    def unknown(self, name: str) -> Problem:
        """The problem of a name that no run has."""
        names = self.names
        short = [each.rpartition(".")[2] for each in names]
        hint = did_you_mean(name, [*names, *short], f"fields are {', '.join(FIELDS)}; a scalar of the log, or a key")
        return Problem(f"no run has a value `{name}`", hint)

    def values(self, name: str) -> list[Fact]:
        """The value of a name in each run; None where a run lacks it.

        Raises:
            UsageError: no run has it, or it means several keys of a config.
        """
        if name in FIELDS:
            return [FIELDS[name](run) for run in self.runs]
        if any(name in names for names in self._scalars):
            return self._last_values(name)
        if not self.has(name):
            raise UsageError(self.unknown(name))
        return [_key(name, keys) for keys in self._keys]

    def read_last(self, names: Sequence[str]) -> None:
        """Read the last values of several scalars at once, instead of one by one."""
        wanted = [name for name in names if name not in FIELDS and name not in self._last]
        wanted = [name for name in wanted if any(name in scalars for scalars in self._scalars)]
        if wanted:
            rows = [
                _last_values(run, [name for name in wanted if name in scalars])
                for run, scalars in zip(self.runs, self._scalars, strict=True)
            ]
            self._last |= {name: [row.get(name) for row in rows] for name in wanted}

    def _last_values(self, name: str) -> list[Fact]:
        self.read_last([name])
        return self._last[name]


def _scalar_names(run: Recorded) -> frozenset[str]:
    """The columns of the log with one real number."""
    columns = run.manifest.get("columns", ())
    return frozenset(name for column in columns if _is_scalar(column) and isinstance(name := column.get("name"), str))


def _is_scalar(column: Mapping[str, Any]) -> bool:
    shape, dtype = column.get("shape"), column.get("dtype")
    is_single = isinstance(shape, list) and all(length == 1 for length in shape)
    return is_single and isinstance(dtype, str) and not dtype.startswith(_COMPLEX)


def _keys_named(name: str, keys: Mapping[str, str]) -> list[str]:
    """The keys of a config that a name means: itself, or those that end with it."""
    return [name] if name in keys else [key for key in keys if key.endswith("." + name)]


def _key(name: str, keys: Mapping[str, str]) -> Fact:
    found = _keys_named(name, keys)
    if len(found) > 1:
        hint = f"write {', '.join(f'`{key}`' for key in found[:3])}{', …' if len(found) > 3 else ''}"
        raise UsageError(Problem(f"`{name}` is the end of several keys", hint))
    return _plain(keys[found[0]]) if found else None


def _plain(text: str) -> Fact:
    """A stored value of a config: a number or a boolean, or its text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _last_values(run: Recorded, names: Sequence[str]) -> dict[str, Fact]:
    """The last value of some scalars of a run, without those that it never has; empty if its rows are damaged."""
    import pyarrow
    import pyarrow.parquet

    found: dict[str, Fact] = {}
    try:
        with Folder(run.summary.path) as directory, directory.folder(ROWS_FOLDER) as folder:
            for part in reversed(folder.names(".parquet")):
                with folder.open(part) as file:
                    parquet = pyarrow.parquet.ParquetFile(file)
                    for group in reversed(range(parquet.num_row_groups)):
                        left = [name for name in names if name not in found]
                        if not left:
                            return found
                        found |= _last_of(parquet.read_row_group(group, columns=left))
    except (OSError, ValueError, MemoryError, pyarrow.ArrowException):
        return {}
    return found


def _last_of(table: Any) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for name in table.column_names:
        values = table.column(name).drop_null()
        value = values[-1].as_py() if len(values) else None
        if isinstance(value, list) and len(value) == 1:  # a tensor of one element
            value = value[0]
        if isinstance(value, bool | int | float):
            found[name] = value
    return found
