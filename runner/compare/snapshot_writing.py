"""Snapshots to files: text for people and for `git diff`, and beside it the large tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from runner.compare import condensed, numerals
from runner.compare.annotations import annotated
from runner.compare.condensed import LARGEST_WHOLE, Condensed, condense
from runner.compare.snapshots import FORMAT, Environment, Kept, Snapshot, sidecar_path
from runner.config.scalars import LARGEST_INTEGER
from runner.errors import RunError
from runner.plan.columns import Column
from runner.plan.dtypes import dtype_name
from runner.record.digest import bits, digest_of
from runner.record.directory import write_atomically

ABSENT = Kept("null", None)
END = "..."
"""YAML's own mark that a document ends: a file without it is cut off."""

UNSTORED = (torch.complex32, torch.complex128, torch.float8_e8m0fnu)
"""Dtypes that safetensors has no name for; their bits are stored as integers."""


def keep(value: Tensor | None, column: Column, large: str) -> Kept:
    """A tensor as a snapshot keeps it."""
    if value is None:
        return ABSENT
    value = value.detach().cpu()
    if value.numel() <= LARGEST_WHOLE:
        text = numerals.to_text(value)
    else:
        kept = condense(value, statistics=large != "digest")
        text = condensed.to_text(kept)
        if large != "full":
            return Kept(_shaped(text, value, column), kept)
    return Kept(_shaped(text, value, column), value)


def _shaped(text: str, value: Tensor, column: Column) -> str:
    """The text of a value, after its shape where that varies from row to row."""
    if column.shape is None:
        return f"({', '.join(map(str, value.shape))}) {text}"
    beyond = value.dtype == torch.uint64 and value.numel() == 1 and value.item() > LARGEST_INTEGER
    return f"'{text}'" if beyond else text  # the integers of a config end before


def render(snapshot: Snapshot, of: str) -> str:
    """The text of a snapshot file.

    Args:
        of: the name of the config's file, in the folder above.
    """
    return "\n".join([*_head(snapshot, of), *_rows(snapshot), *_overlays(snapshot), END]) + "\n"


def write(snapshot: Snapshot, path: Path, of: str) -> None:
    """Write a snapshot and its large tensors, each file whole or not at all; the one that names the other comes last.

    Comments of a snapshot that is there stay at their lines.

    Raises:
        RunError: the files cannot be written.
    """
    tensors = _large_tensors(snapshot)
    sidecar = sidecar_path(path)
    try:
        path.parent.mkdir(exist_ok=True)
        text = render(snapshot, of)
        if path.is_file():
            text = annotated(text, path.read_text(encoding="utf-8"))
        if tensors:
            write_atomically(sidecar, save({digest: _storable(tensor) for digest, tensor in sorted(tensors.items())}))
        write_atomically(path, text.encode())
        if not tensors:
            sidecar.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write the snapshot {path}: {error.strerror or error}") from error


def _head(snapshot: Snapshot, of: str) -> Iterator[str]:
    yield f"# the numbers of {of}, as `steprun check` expects them; `steprun check --update` writes what differs"
    yield f"format: {FORMAT}"
    yield f"of: {json.dumps(of, ensure_ascii=False)}"
    yield "config:"
    yield from (f"  {key}: {json.dumps(digest)}" for key, digest in snapshot.config.items())
    if snapshot.files:
        yield "files:"
        names = {name: json.dumps(name, ensure_ascii=False) for name in snapshot.files}
        yield from (f"  {names[name]}: {json.dumps(digest)}" for name, digest in snapshot.files.items())
    yield from _environment(snapshot.environment, "")
    calibration = snapshot.calibration
    if calibration is not None:
        yield "calibration:"
        yield f"  runs: {calibration.runs}"
        yield f"  over: {json.dumps(calibration.over)}"
        yield f"  torch: {json.dumps(calibration.torch)}"
        yield "  spread:" if calibration.spread else "  spread: {}"
        for column in snapshot.columns:
            if column.name in calibration.spread:
                yield f"    {column.name}: {calibration.spread[column.name]!r}"
    yield f"large: {snapshot.large}"
    yield "tensors:" if snapshot.columns else "tensors: {}"
    for column in snapshot.columns:
        shape = "varying" if column.shape is None else f"[{', '.join(map(str, column.shape))}]"
        yield f"  {column.name}: {column.role} {dtype_name(column.dtype)} {shape}"


def _environment(environment: Environment, indent: str) -> Iterator[str]:
    yield f"{indent}environment:"
    for key, value in environment.items():
        yield f"{indent}  {key}: {json.dumps(value, ensure_ascii=False)}"


def _rows(snapshot: Snapshot) -> Iterator[str]:
    yield "rows:" if snapshot.rows else "rows: {}"
    for row in snapshot.rows:
        yield from _row(f"{row.number} {row.path}", row.values, snapshot.columns, "  ")


def _row(head: str, values: Mapping[str, Kept], columns: Iterable[Column], indent: str) -> Iterator[str]:
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
    """Every large tensor whose elements are kept, by its digest: one that no step changed is there once."""
    rows = [row.values for row in snapshot.rows]
    rows += [values for overlay in snapshot.overlays for values in overlay.rows.values()]
    values = (kept.value for row in rows for kept in row.values())
    large = (value for value in values if value is not None and not isinstance(value, Condensed))
    return {digest_of(value): value for value in large if value.numel() > LARGEST_WHOLE}


def _storable(tensor: Tensor) -> Tensor:
    if tensor.dtype in UNSTORED:
        return bits(tensor).clone()
    return tensor.resolve_conj().resolve_neg().contiguous().clone()
