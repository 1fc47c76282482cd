"""Reads data sources: columns are names or lists of names, and dtypes are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.config.data_models import DataDeclaration, Dialect
from runner.config.fields import FieldError, check_class_list, check_columns, check_date, check_dtype, check_fill
from runner.config.sections.faults import Faults
from runner.config.sections.select import read_select
from runner.config.text.nodes import Path, describe

_EXAMPLE = "write `{file: data.npz, columns: {x: images, y: labels}, batch_size: 64}`"


def read_sources(written: Any, faults: Faults) -> dict[str, DataDeclaration]:
    """Returns the valid declarations of `data:`; problems of the others are added to `faults`."""
    if written is None:
        return {}
    if not isinstance(written, dict):
        hint = "write `train: {file: …, columns: …}` below it"
        faults.add(("data",), f"expected a mapping of names to data sources, found {describe(written)}", hint)
        return {}
    found = {name: _source(declared, ("data", name), faults) for name, declared in written.items()}
    return {name: source for name, source in found.items() if source is not None}


def _source(written: Any, path: Path, faults: Faults) -> DataDeclaration | None:
    if not isinstance(written, dict):
        faults.add(path, f"expected a data source, found {describe(written)}", _EXAMPLE, key=written is None)
        return None
    before = faults.count
    data = dict(written)
    for key in ("file", "batch_size"):
        if data.get(key, "") is None:
            del data[key]
    if "columns" in data:
        data["columns"] = _columns(data["columns"], (*path, "columns"), faults)
    if "dtype" in data:
        data["dtype"] = _dtypes(data["dtype"], (*path, "dtype"), faults)
    for key, check in _BY_COLUMN.items():
        if key in data:
            data[key] = _by_column(data[key], check, (*path, key), faults)
    if data.get("select") is not None:
        data["select"] = read_select(data["select"], (*path, "select"), faults)
    source = faults.build(DataDeclaration, data, path)
    if source is not None:
        check_dialect(source, path, faults)
    return source if faults.count == before else None


def check_dialect(declared: Dialect, path: Path, faults: Faults) -> None:
    """Reports characters of a text table that have two meanings."""
    file = getattr(declared, "file", None)
    if file is not None and not file.lower().endswith((".csv", ".tsv")):
        return  # planning says which keys do not go with the format
    usual = "\t" if file is not None and file.lower().endswith(".tsv") else ","
    roles = {"delimiter": declared.delimiter or usual, "decimal": declared.decimal, "quote": declared.quote}
    for key, other in (("decimal", "delimiter"), ("quote", "delimiter"), ("quote", "decimal")):
        if roles[key] is not None and roles[key] == roles[other]:
            message = f"`{other}` and `{key}` are both `{roles[key]}`"
            written = next((each for each in (key, other) if each in declared.model_fields_set), key)
            faults.add((*path, written), message, "give them different characters")
            return


def _columns(written: Any, path: Path, faults: Faults) -> dict[str, Any]:
    if not isinstance(written, dict) or not written:
        found = describe(written) if written != {} else "an empty mapping"
        hint = "write `columns: {x: images, y: labels}`"
        faults.add(path, f"expected a mapping of names to columns, found {found}", hint, key=written is None)
        return {}
    found_columns: dict[str, Any] = {}
    for name, spec in written.items():
        try:
            columns = check_columns(spec)
        except FieldError as error:
            faults.add((*path, name), error.message, error.hint)
            continue
        if columns is None:
            hint = f"write `{name}: {name}`, after the name in the file"
            faults.add((*path, name), f"the batch column `{name}` names no column", hint, key=True)
        else:
            found_columns[name] = columns
    return found_columns


_BY_COLUMN: Mapping[str, tuple[Callable[[object], object], str]] = {
    "classes": (check_class_list, "write `classes: {y: sorted}`"),
    "one_hot": (check_class_list, "write `one_hot: {color: sorted}`"),
    "fill": (check_fill, "write `fill: {mass: mean}`"),
    "dates": (check_date, "write `dates: {day: days}`"),
}
"""Keys of a source that say something of some columns: the check of each value, and an example."""


def _by_column(written: Any, check: tuple[Callable[[object], object], str], path: Path, faults: Faults) -> Any:
    checked, example = check
    if not isinstance(written, dict):
        faults.add(path, f"expected a mapping of columns, found {describe(written)}", example, key=written is None)
        return {}
    if not faults.check_each(written.items(), checked, path):
        return {}
    return {name: checked(value) for name, value in written.items()}


def _dtypes(written: Any, path: Path, faults: Faults) -> dict[str, str]:
    if not isinstance(written, dict):
        hint = "write `dtype: {x: float32}`"
        faults.add(path, f"expected a mapping of batch columns to dtypes, found {describe(written)}", hint)
        return {}
    if not faults.check_each(written.items(), check_dtype, path):
        return {}
    return {name: check_dtype(dtype) for name, dtype in written.items()}
