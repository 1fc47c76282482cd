"""The batch columns of a recorded run: the shape and dtype of one sample, as its manifest describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from runner.config import DataDeclaration
from runner.errors import RunError
from runner.language.dtypes import DTYPES
from runner.record.data_files import DATA_COLUMNS


@dataclass(frozen=True, slots=True)
class ColumnOfRun:
    """One batch column of a run."""

    name: str
    source: str  # the first data source that has it
    shape: tuple[int, ...]  # the shape of one sample
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class SourcesOfRun:
    """The data sources of a run when it was planned."""

    columns: Mapping[str, ColumnOfRun]  # by name; the first declared source that has a column describes it
    sizes: Mapping[str, tuple[int, ...]]  # the shape of each column by name: `train.x.shape`
    of_file: Mapping[tuple[str, str], str | tuple[str, ...]]  # (source, column) → columns of its table, without globs

    def redeclared(self, before: Mapping[str, DataDeclaration], now: Mapping[str, DataDeclaration]) -> SourcesOfRun:
        """The same run, whose sources take other columns of a file where the declaration of a batch column changed."""
        kept = {
            (source, name): columns
            for (source, name), columns in self.of_file.items()
            if source in now and before[source].columns.get(name) == now[source].columns.get(name)
        }
        return replace(self, of_file=kept)


def sources_of(manifest: Mapping[str, Any]) -> SourcesOfRun:
    """The data sources that a manifest describes.

    Raises:
        RunError: the manifest describes them wrongly.
    """
    columns: dict[str, ColumnOfRun] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    of_file: dict[tuple[str, str], str | tuple[str, ...]] = {}
    try:
        for source, described in (manifest.get(DATA_COLUMNS) or {}).items():
            samples = _length(described["samples"])
            for name, column in described["columns"].items():
                shape = tuple(_length(length) for length in column["shape"])
                found = ColumnOfRun(name, source, shape, DTYPES[column["dtype"]])
                columns.setdefault(name, found)
                sizes[f"{source}.{name}.shape"] = (samples, *shape)
                written = column.get("of_file")
                if written is not None:
                    of_file[source, name] = written if isinstance(written, str) else tuple(map(_text, written))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError("the manifest of this run does not describe its data columns as steprun does") from error
    return SourcesOfRun(columns, sizes, of_file)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _length(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value
