"""Updates a snapshot to the numbers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from runner.compare.snapshots.capture import is_same, overlay_of
from runner.compare.snapshots.model import Snapshot, StoredRow, StoredTensor
from runner.compare.snapshots.restarts import merged

Update = Literal["new", "differing", "all"]
UPDATES: tuple[Update, ...] = ("new", "differing", "all")


def updated(old: Snapshot, taken: Snapshot, update: Update) -> Snapshot:
    """The snapshot to write after a run.

    `new` adds new rows and tensors and changes nothing else. `differing` writes the tensors whose bits differ, and
    drops those that are gone. In another environment it replaces that environment's overlay, if there is one with the
    same rows, and else the whole snapshot: a mixture of two environments would match bit for bit in neither. `all`
    replaces everything. If only one of the snapshots has uncertainties, `new` does nothing, and `differing` acts as
    `all`.

    Args:
        taken: the snapshot of the run.
    """
    if update == "all":
        return taken
    if (old.measured is None) != (taken.measured is None):
        return old if update == "new" else taken
    if update == "new":
        return _with_new(old, taken)
    if old.environment == taken.environment:
        rows = _merged(old.rows, taken.rows)
        overlays = old.overlays if has_same_rows(old, taken) else ()
        return replace(taken, rows=rows, overlays=overlays)
    overlaid = any(each.environment == taken.environment for each in old.overlays)
    return with_overlay(old, taken) if overlaid and has_same_rows(old, taken) else taken


def with_overlay(old: Snapshot, taken: Snapshot) -> Snapshot:
    """The snapshot with the differences in the environment of `taken`, which has the same rows, as an overlay."""
    stored = tuple(each for each in old.overlays if each.environment != taken.environment)
    return replace(old, overlays=(*stored, overlay_of(taken, old)))


def changes(old: Snapshot, new: Snapshot) -> int:
    """The number of tensors, counted in each row, whose text changed, plus the number of overlays that changed."""
    before, after = (_values_of(each) for each in (old, new))
    count = 0
    for place in {**before, **after}:
        left, right = before.get(place, {}), after.get(place, {})
        count += sum(_text(left, name) != _text(right, name) for name in {**left, **right})
    return count + sum(a != b for a, b in zip(old.overlays, new.overlays, strict=False))


def _values_of(snapshot: Snapshot) -> dict[tuple[int, int], Mapping[str, StoredTensor]]:
    """The values of each row. The keys are (number of the row that a restart follows, or -1; number of this row)."""
    found = {(-1, row.number): row.values for row in snapshot.rows}
    return found | {(each.after, row.number): row.values for each in snapshot.restarts for row in each.rows}


def _text(values: Mapping[str, StoredTensor], name: str) -> str | None:
    stored = values.get(name)
    return None if stored is None else stored.text


def _merged(old: tuple[StoredRow, ...], new: tuple[StoredRow, ...]) -> tuple[StoredRow, ...]:
    """The new rows, with the old text of each tensor that is unchanged."""
    before = {(row.number, row.path): row for row in old}
    rows = []
    for row in new:
        known = before.get((row.number, row.path))
        values = dict(row.values)
        for name, stored in row.values.items():
            previous = None if known is None else known.values.get(name)
            if previous is not None and is_same(previous, stored):
                values[name] = previous
        rows.append(StoredRow(row.number, row.path, values))
    return tuple(rows)


def _with_new(old: Snapshot, taken: Snapshot) -> Snapshot:
    known = {column.name for column in old.columns}
    columns = tuple(
        next((each for each in old.columns if each.name == column.name), column) for column in taken.columns
    )
    columns += tuple(column for column in old.columns if column.name not in {each.name for each in columns})
    before = {(row.number, row.path): row for row in old.rows}
    rows = list(old.rows)
    for row in taken.rows:
        same = before.get((row.number, row.path))
        if same is not None:
            added = {name: stored for name, stored in row.values.items() if name not in known}
            rows[rows.index(same)] = StoredRow(same.number, same.path, {**same.values, **added})
        elif all(row.number != each.number for each in old.rows):
            rows.append(row)
    restarts = merged(old.restarts, taken.restarts)
    return replace(old, columns=columns, rows=tuple(sorted(rows, key=lambda row: row.number)), restarts=restarts)


def has_same_rows(old: Snapshot, taken: Snapshot) -> bool:
    return [(row.number, row.path) for row in old.rows] == [(row.number, row.path) for row in taken.rows]
