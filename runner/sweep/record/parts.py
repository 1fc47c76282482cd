"""Finds and reads the part files of a sweep, and what they say of its points."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from runner.config.files.safe_files import Folder, Refused
from runner.errors import Problem, UsageError
from runner.sweep.points.outcome import Outcome, from_json
from runner.sweep.record.part_files import OUTCOMES, ROWS_FOLDER, WEIGHTS_FOLDER
from runner.sweep.record.seals import Span, span_of
from runner.sweep.record.states import has_states
from runner.sweep.record.sweep_files import read_file, read_parquet
from runner.sweep.record.table import outcomes_without_rows, read_table

if TYPE_CHECKING:
    import pyarrow.parquet

T = TypeVar("T")

REMOVE = "remove it, then resume the sweep"

_MOST_TRIES = 100

_PART = re.compile(r"([0-9]{6,})-[0-9]+\.parquet")


class Vanished(UsageError):
    """A part is not there any more, because a process that runs the sweep has merged it into another one."""


def while_merging(read: Callable[[], T]) -> T:
    """What a function reads of the parts of a sweep; it reads them again if one of them has been merged meanwhile."""
    for _ in range(_MOST_TRIES):
        with suppress(Vanished):
            return read()
    return read()


def part_paths(directory: Path, folder: str = ROWS_FOLDER) -> Iterator[Path]:
    """The part files of a sweep, in the order of their names; links are left out.

    Raises:
        UsageError: `folder` is a link, or not a folder.
    """
    try:
        with Folder(directory) as sweep, sweep.folder(folder) as parts:
            schemas = sorted(path.name for path in parts.path.iterdir() if path.is_dir() and not path.is_symlink())
            for schema in schemas:
                with parts.folder(schema) as each:
                    for name in each.names(".parquet"):
                        yield each.path / name
    except FileNotFoundError:
        return
    except OSError as error:
        hint = REMOVE if isinstance(error, Refused) else "make it readable"
        raise UsageError(Problem(f"cannot read {directory / folder}: {error.strerror}", hint)) from error


def outcomes_on_disk(directory: Path) -> dict[str, list[Outcome]]:
    """The outcomes that are on disk: for each point, by identity, one for each rung, in order.

    Raises:
        UsageError: a part file or the table is damaged.
    """
    found = while_merging(lambda: _recorded(directory))
    return {identity: [rungs[rung][0] for rung in sorted(rungs)] for identity, rungs in found.items()}


def _recorded(directory: Path) -> dict[str, dict[int, list[Outcome]]]:
    """The outcomes of each point, by identity, and rung: the newest first, where several parts have one."""
    found: dict[str, dict[int, list[Outcome]]] = {}
    parts = (outcome for path in reversed(list(part_paths(directory))) for outcome in outcomes_in(path))
    for outcome in itertools.chain(parts, outcomes_without_rows(directory)):
        found.setdefault(outcome.identity, {}).setdefault(outcome.rung, []).append(outcome)
    return found


def resumable(directory: Path, retry: bool = False) -> dict[str, list[Outcome]]:
    """Those of `outcomes_on_disk` that need not run again: their weights are there, or the state from which they go on.

    Every part is compared with its digests.

    Args:
        retry: whether points that have failed run again.
    Raises:
        UsageError: a part file or the table is damaged.
        RunError: a state is damaged.
    """
    weighed = {key for path in part_paths(directory, WEIGHTS_FOLDER) for key in read_part(path, _keys_of)}
    for path in part_paths(directory):
        read_part(path, lambda file: None)
    there = functools.cache(functools.partial(has_states, directory))
    found: dict[str, list[Outcome]] = {}
    for identity, rungs in _recorded(directory).items():
        kept: list[Outcome] = []
        for rung in sorted(rungs):
            if rungs[rung][0].schema and (identity, rung) not in weighed:
                break
            kept.append(rungs[rung][0])
        if retry:
            kept = [outcome for outcome in kept if outcome.status != "failed"]
        while kept and kept[-1].state is not None:
            if there(kept[-1].state):
                break
            kept.pop()
        found[identity] = kept
    return found


def last_rungs(directory: Path) -> dict[str, int]:
    """The last rung of each point that a part has, by identity."""
    found: dict[str, int] = {}
    for folder in (ROWS_FOLDER, WEIGHTS_FOLDER):
        for path in part_paths(directory, folder):
            for identity, rung in read_part(path, _keys_of, rows=False):
                found[identity] = max(found.get(identity, 0), rung)
    return found


def _keys_of(file: pyarrow.parquet.ParquetFile) -> list[tuple[str, int]]:
    """The identity and the rung of each point of a part."""
    return [(str(each["identity"]), int(each["rung"])) for each in json.loads(written_in(file))]


def outcomes_in(path: Path) -> list[Outcome]:
    """The points that a part file has.

    Raises:
        UsageError: it is damaged.
    """
    return read_part(path, lambda file: from_json(written_in(file)), rows=False)


def written_in(file: pyarrow.parquet.ParquetFile) -> str:
    """What a part says of its points."""
    return str((file.metadata.metadata or {})[OUTCOMES].decode())


def read_part(path: Path, read: Callable[[pyarrow.parquet.ParquetFile], T], rows: bool = True) -> T:
    """Read something of a part file, `SWEEP/FOLDER/SCHEMA/NAME`.

    Args:
        rows: whether `read` reads rows; the digest of the footer is enough otherwise.

    Raises:
        UsageError: it is damaged.
    """
    try:
        return read_parquet(path, path.parents[2], read, REMOVE, rows)
    except FileNotFoundError as error:
        raise _vanished(path) from error


def span_in(path: Path) -> Span | None:
    """The smallest and the largest point that a part may have, by its seal; None if it has none.

    Raises:
        Vanished: it has been merged.
        UsageError: it is damaged.
    """
    try:
        return read_file(path, path.parents[2], span_of, REMOVE, None)
    except FileNotFoundError as error:
        raise _vanished(path) from error


def _vanished(path: Path) -> Vanished:
    message = f"{path} is not there any more: its points are in another part now"
    return Vanished(Problem(message, "read the sweep again"))


def known_points(directory: Path) -> dict[str, int]:
    """The index of each point that the table or a part has, by identity; an index never changes."""
    found = {identity: rungs[0].index for identity, rungs in outcomes_on_disk(directory).items()}
    table = read_table(directory)
    if table is not None:
        pairs = zip(table.column("identity").to_pylist(), table.column("point").to_pylist(), strict=True)
        found |= {identity: index for identity, index in pairs if identity not in found}
    return found


def next_chunk(directory: Path) -> int:
    """A number above those of all chunks that have written a part."""
    paths = [path for folder in (ROWS_FOLDER, WEIGHTS_FOLDER) for path in part_paths(directory, folder)]
    numbers = [int(found[1]) for path in paths if (found := _PART.fullmatch(path.name))]
    return max(numbers, default=0) + 1
