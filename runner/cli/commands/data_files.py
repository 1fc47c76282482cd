"""`steprun data`: what a data file holds, and a `data:` block to paste."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.cli.input.declarations import argument
from runner.cli.input.options import Json, examples
from runner.cli.output.plan_text import table
from runner.cli.output.printing import say, say_json
from runner.errors import Problem, UsageError
from runner.text import counted, shortened

_BATCH = 32
_MOST_CLASSES = 100
_MOST_NAMES = 20
"""The most columns that a block names one by one, if it takes all of the file."""
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_]*(?:[./\-]+[A-Za-z0-9_]+)*")
_KINDS = ("integers", "numbers", "booleans", "dates")
_WORDS = ("true", "false", "null", "nan", "inf")

FilePath = Annotated[str, argument("FILE", help="A data file: .csv, .tsv, .parquet, .npy, .npz or .safetensors.")]


def register(application: typer.Typer) -> None:
    application.command(
        epilog=examples("steprun data configs/data/people.csv", "steprun data digits.npz --json"),
        short_help="Show what a data file holds.",
    )(data)


def data(file: FilePath, as_json: Json = False) -> None:
    """Show what a data file holds: columns, kinds, missing values and ranges. Prints a `data:` block to paste.

    The block is a proposal: its target is the last column, and it leaves out a first one that numbers the rows.
    """
    from runner.plan.data.reading.summary import summarise
    from runner.plan.data.sandbox import FileFault

    name, sign, _ = file.partition("#")
    if sign and Path(name).is_file() and not Path(file).exists():
        raise UsageError(Problem(f"{file} names one array, and all of a file are shown", f"write {name}"))
    path = Path(os.path.realpath(file))
    try:
        found = describe(summarise(path), file)
    except FileFault as fault:
        raise UsageError(Problem(fault.message, fault.hint)) from fault
    if as_json:
        say_json(found)
        return
    say("\n".join(_lines(found)))


def describe(summary: Any, file: str) -> dict[str, Any]:
    """A summary as strings, numbers, lists and mappings."""
    columns = [
        {
            "name": column.name,
            "kind": column.kind,
            "missing": column.missing,
            "least": column.least,
            "largest": column.largest,
            "distinct": None if column.distinct is None else len(column.distinct) or None,
        }
        for column in summary.columns
    ]
    arrays = [{"key": key, "shape": list(shape), "dtype": dtype} for key, shape, dtype in summary.arrays]
    found = {"file": file, "rows": summary.rows or None, "dialect": summary.dialect}
    return {**found, "columns": columns, "arrays": arrays, "block": _block(found, columns, arrays)}


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    if found["columns"]:
        yield f"{found['file']}: {counted(found['rows'], 'row')} of {counted(len(found['columns']), 'column')}"
        head = ("column", "kind", "missing", "least", "largest", "different texts")
        yield from table([head, *_rows(found["columns"])])
    else:
        yield f"{found['file']}"
        rows = [(each["key"] or "", each["shape"], each["dtype"]) for each in found["arrays"]]
        yield from table([("array", "shape", "dtype"), *rows])
    yield ""
    yield found["block"]


def _rows(columns: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for column in columns:
        of_text = column["kind"] in ("text", "dates")
        different = "" if not of_text else "more than 10,000" if column["distinct"] is None else column["distinct"]
        ends = map(_cell, (column["least"], column["largest"]))
        yield column["name"], shortened(column["kind"], 40), column["missing"], *ends, different


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)[:20]


def _block(found: Mapping[str, Any], columns: list[dict[str, Any]], arrays: list[dict[str, Any]]) -> str:
    """A `data:` block that reads the file."""
    file, rows = found["file"], found["rows"] or 1
    if not columns:
        return _array_block(file, arrays)
    keys: dict[str, Any] = {"file": file}
    usable = [column for column in columns if _usable(column)]
    usable = [column for column in usable if column["name"]]  # a column without a name is often a row number
    if len(usable) > 2 and usable[0] is columns[0] and _numbers_rows(columns[0], rows):
        del usable[0]
    target = usable[-1] if len(usable) > 1 and not usable[-1]["missing"] else None
    features = [column for column in usable if column is not target]
    if len({column["kind"] == "booleans" for column in features}) > 1:
        features = [column for column in features if column["kind"] != "booleans"]
    names = [column["name"] for column in features]
    whole = len(features) > _MOST_NAMES and len(features) == len(columns) - (target is not None)
    keys["columns"] = {"x": ["*"] if whole or not names else names}
    if target is not None:
        keys["columns"]["y"] = target["name"]
    keys |= found["dialect"]
    if target is not None and target["kind"] in ("text", "dates"):
        keys["classes"] = {"y": "sorted"}
    for key, kind, value in (("one_hot", "text", "sorted"), ("dates", "dates", "days")):
        named = {column["name"]: value for column in features if column["kind"] == kind}
        if named:
            keys[key] = named
    filled = [column for column in features if column["missing"] and column["kind"] in ("numbers", "integers")]
    fills = {column["name"]: "mean" for column in filled}
    if fills:
        keys["fill"] = fills
    keys["batch_size"] = min(_BATCH, rows)
    keys["shuffle"] = True
    return _source(keys)


def _source(keys: Mapping[str, Any]) -> str:
    return "data:\n  train:\n" + "\n".join(f"    {key}: {_flow(value)}" for key, value in keys.items())


def _numbers_rows(column: Mapping[str, Any], rows: int) -> bool:
    """Whether whole numbers from 0 or 1 span as many values as there are rows."""
    first, last = column["least"], column["largest"]
    return column["kind"] == "integers" and not column["missing"] and first in (0, 1) and last == first + rows - 1


def _usable(column: Mapping[str, Any]) -> bool:
    if column["kind"] == "text":
        return bool(column["distinct"] and column["distinct"] <= _MOST_CLASSES and not column["missing"])
    return bool(column["kind"] in _KINDS and not (column["kind"] == "booleans" and column["missing"]))


def _array_block(file: str, arrays: list[dict[str, Any]]) -> str:
    usable = [each for each in arrays if each["shape"]]
    rows = usable[0]["shape"][0] if usable else 0
    same = [each for each in usable if each["shape"][0] == rows]
    names = {re.sub(r"\W", "_", each["key"] or "x"): each["key"] for each in same}
    if not names or not rows:
        return "# no array of this file counts samples in its first dimension"
    keys: dict[str, Any] = {"file": file, "columns": names}
    if list(names.values()) == [None]:
        keys = {"columns": {"x": file}}
    texts = {each["key"] for each in same if each["dtype"] == "text" and len(each["shape"]) == 1}
    classes = {name: "sorted" for name, key in names.items() if key in texts}
    if classes:
        keys["classes"] = classes
    return _source({**keys, "batch_size": min(_BATCH, rows), "shuffle": True})


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
