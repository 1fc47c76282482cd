"""Writes snapshots: text for people and for `git diff`, and a file with the large tensors next to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from runner.compare.environment import Environment
from runner.compare.numbers import bounds, digested, numerals
from runner.compare.numbers.bounds import Uncertainty, rounded_up
from runner.compare.numbers.digested import LARGEST_WHOLE, Condensed, condense
from runner.compare.snapshots.comments import annotated
from runner.compare.snapshots.model import (
    FORMAT,
    SIDECAR_SUFFIX,
    Snapshot,
    StoredTensor,
    first_sidecar_path,
    folder_of,
    sidecar_path,
    state_path,
)
from runner.config.text.scalars import LARGEST_INTEGER
from runner.errors import RunError
from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import Column
from runner.record.rows.digest import bits, digest_of

ABSENT = StoredTensor("null", None)
END = "..."
"""YAML's end-of-document mark: a file without it is cut off."""

LARGEST_FILE = 256 << 20
PATIENCE = 60.0
"""Seconds that a write waits for another process that writes snapshots in the same folder."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.]*(?:\[\d+\][\w.]*)*")

UNSTORED = (torch.complex32, torch.complex128, torch.float8_e8m0fnu)
"""Dtypes that safetensors does not support; their bits are stored as integers."""


def store_tensor(
    value: Tensor | None, column: Column, large: str, uncertainty: Uncertainty | None = None
) -> StoredTensor:
    """A tensor as a snapshot stores it.

    Args:
        large: how tensors of more than `LARGEST_WHOLE` elements are stored: full, stats or digest.
        uncertainty: as measured; None if it was not measured.
    """
    if value is None:
        return ABSENT
    value = value.detach().cpu()
    if uncertainty is not None:
        uncertainty = _if_stored(rounded_up(uncertainty), value)
    mark = "" if uncertainty is None else f" ~{bounds.to_text(uncertainty)}"
    if value.numel() <= LARGEST_WHOLE:
        return StoredTensor(_shaped(numerals.to_text(value), value, column) + mark, value, uncertainty)
    stored = condense(value, statistics=large != "digest")
    if large == "full":
        return StoredTensor(_shaped(digested.to_text(stored), value, column) + mark, value, uncertainty)
    if large == "digest":
        return StoredTensor(_shaped(digested.to_text(stored), value, column), stored)
    return StoredTensor(_shaped(digested.to_text(stored, uncertainty), value, column), stored, uncertainty)


def _if_stored(uncertainty: Uncertainty, value: Tensor) -> Uncertainty | None:
    """None if there are no elements, or for integers and booleans that no perturbed run changed: these are exact."""
    rounds = value.is_floating_point() or value.is_complex()
    return uncertainty if value.numel() and (rounds or uncertainty.largest) else None


def _shaped(text: str, value: Tensor, column: Column) -> str:
    """The text of a value, preceded by its shape if that varies from row to row."""
    if column.shape is None:
        return f"({', '.join(map(str, value.shape))}) {text}"
    beyond = value.dtype == torch.uint64 and value.numel() == 1 and value.item() > LARGEST_INTEGER
    return f"'{text}'" if beyond else text  # larger than the largest integer of a config


def render(snapshot: Snapshot, of: str, sidecar: str | None = None, states: Sequence[str] = ()) -> str:
    """The text of a snapshot file.

    Args:
        of: the name of the config's file, in the parent folder.
        sidecar: the name of the file next to it with its large tensors.
        states: the names of the files next to it with the states of its restarts.
    """
    parts = (_head(snapshot, of, sidecar), _rows(snapshot), _restarts(snapshot, states), _overlays(snapshot), [END])
    return "\n".join(line for part in parts for line in part) + "\n"


def write(snapshot: Snapshot, path: Path, of: str) -> None:
    """Write a snapshot and its large tensors in one change.

    First, the large tensors are written to a file named by its content. Then the new text replaces the old text, and
    the old text's tensor file is removed. If the process is killed in between, a whole snapshot remains, the old or
    the new one. If two processes write to one folder, one waits for the other. Comments in an existing snapshot stay
    at their lines.

    Raises:
        RunError: the files cannot be written, or the snapshot is a link.
        SnapshotError: the folder is a link.
    """
    tensors = _large_tensors(snapshot)
    content = save({digest: _storable(tensor) for digest, tensor in sorted(tensors.items())}) if tensors else b""
    sidecar = sidecar_path(path, hashlib.sha256(content).hexdigest()[:16]).name if content else None
    states = {state_path(path, restart.state).name: restart.state for restart in snapshot.restarts}
    names = [state_path(path, restart.state).name for restart in snapshot.restarts]
    contents = {**states, **({} if sidecar is None else {sidecar: content})}
    try:
        with folder_of(path, create=True) as folder, folder.locked(PATIENCE):
            folder.remove_leftovers()
            text = render(snapshot, of, sidecar, names)
            if folder.holds(path.name):
                text = annotated(text, folder.read(path.name, LARGEST_FILE).decode())
            for name, content in contents.items():
                if not folder.holds(name):
                    folder.write(name, content)
            folder.write(path.name, text.encode())
            for name in folder.names(SIDECAR_SUFFIX):
                if name not in contents and _is_sidecar_of(name, path):
                    with suppress(OSError):  # the next write removes it
                        folder.remove(name)
    except OSError as error:
        raise RunError(f"cannot write the snapshot {path}: {error.strerror or error}") from error


def _is_sidecar_of(name: str, path: Path) -> bool:
    pattern = rf"{re.escape(path.stem)}\.[0-9a-f]{{16}}{re.escape(SIDECAR_SUFFIX)}"
    return name == first_sidecar_path(path).name or re.fullmatch(pattern, name) is not None


def _head(snapshot: Snapshot, of: str, sidecar: str | None) -> Iterator[str]:
    yield f"# the numbers of {of}, as `steprun check` expects them; `steprun check --update` writes what differs"
    yield f"format: {FORMAT}"
    yield f"of: {json.dumps(of, ensure_ascii=False)}"
    yield "config:"
    yield from (f"  {_key(key)}: {json.dumps(digest)}" for key, digest in snapshot.config.items())
    if snapshot.files:
        yield "files:"
        names = {name: json.dumps(name, ensure_ascii=False) for name in snapshot.files}
        yield from (f"  {names[name]}: {json.dumps(digest)}" for name, digest in snapshot.files.items())
    yield from _environment(snapshot.environment, "")
    if snapshot.measured is not None:
        measured = snapshot.measured
        asked = f", asked: {measured.asked}" if measured.asked != measured.runs else ""
        yield f"uncertainty: {{rules: {measured.rules}, runs: {measured.runs}{asked}}}"
    yield f"large: {snapshot.large}"
    if sidecar is not None:
        yield f"elements: {json.dumps(sidecar, ensure_ascii=False)}"
    yield "tensors:" if snapshot.columns else "tensors: {}"
    for column in snapshot.columns:
        shape = "varying" if column.shape is None else f"[{', '.join(map(str, column.shape))}]"
        yield f"  {column.name}: {column.role} {dtype_name(column.dtype)} {shape}"


def _key(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _environment(environment: Environment, indent: str) -> Iterator[str]:
    yield f"{indent}environment:"
    for key, value in environment.items():
        yield f"{indent}  {key}: {json.dumps(value, ensure_ascii=False)}"


def _rows(snapshot: Snapshot) -> Iterator[str]:
    yield "rows:" if snapshot.rows else "rows: {}"
    for row in snapshot.rows:
        yield from _row(f"{row.number} {row.path}", row.values, snapshot.columns, "  ")


def _restarts(snapshot: Snapshot, states: Sequence[str]) -> Iterator[str]:
    if snapshot.restarts:
        yield "restarts:"
    for restart, state in zip(snapshot.restarts, states, strict=True):
        yield f"  - after: {restart.after}"
        yield f"    state: {json.dumps(state, ensure_ascii=False)}"
        yield "    rows:"
        for row in restart.rows:
            yield from _row(f"{row.number} {row.path}", row.values, snapshot.columns, "      ")


def _row(head: str, values: Mapping[str, StoredTensor], columns: Iterable[Column], indent: str) -> Iterator[str]:
    lines = [f"{indent}  {column.name}: {values[column.name].text}" for column in columns if column.name in values]
    yield f"{indent}{head}:" if lines else f"{indent}{head}: {{}}"
    yield from lines


def _overlays(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.overlays:
        yield "overlays:"
    paths = {row.number: row.path for row in snapshot.rows}
    for overlay in snapshot.overlays:
        first, *rest = _environment(overlay.environment, "    ")
        yield f"  - {first.strip()}"
        yield from rest
        yield "    rows:" if overlay.rows else "    rows: {}"
        for number, values in overlay.rows.items():
            yield from _row(f"{number} {paths[number]}", values, snapshot.columns, "      ")


def _large_tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    """Every large tensor whose elements are stored, by its digest; equal tensors appear once."""
    rows = [row.values for row in snapshot.rows]
    rows += [row.values for restart in snapshot.restarts for row in restart.rows]
    rows += [values for overlay in snapshot.overlays for values in overlay.rows.values()]
    values = (stored.value for row in rows for stored in row.values())
    large = (value for value in values if value is not None and not isinstance(value, Condensed))
    return {digest_of(value): value for value in large if value.numel() > LARGEST_WHOLE}


def _storable(tensor: Tensor) -> Tensor:
    if tensor.dtype in UNSTORED:
        return bits(tensor).clone()
    return tensor.resolve_conj().resolve_neg().contiguous().clone()
