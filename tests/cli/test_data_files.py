"""`steprun data`: what it says of a file, against pandas, and a block that a config can paste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy
from typer.testing import CliRunner

import runner
from runner.cli.app import application
from tests.tables import over

WINE = pandas.DataFrame(
    {
        "alcohol": [9.4, 9.8, 10.1, 11.0],
        "mass": [1.0, None, 3.0, 2.5],
        "count": [3, 1, 2, 2],
        "fixed acidity": [1.5, 2.5, 0.0, -1.0],
        "color": ["red", "white", "red", "rosé"],
        "day": ["2024-01-31", "1969-12-31", "1970-01-02", "2024-02-29"],
        "quality": ["good", "bad", "good", "fair"],
    }
)


def called(*arguments: str) -> str:
    result = CliRunner().invoke(application, ["data", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def written(folder: Path, kind: str) -> Path:
    path = folder / f"wine.{'tsv' if kind == 'tabs' else 'parquet' if kind == 'parquet' else 'csv'}"
    match kind:
        case "parquet":
            WINE.to_parquet(path)
        case "tabs":
            WINE.to_csv(path, index=False, sep="\t")
        case "semicolons":
            WINE.to_csv(path, index=False, sep=";", decimal=",", na_rep="NA")
        case "latin-1":
            WINE.to_csv(path, index=False, encoding="latin-1")
        case "utf-16":
            WINE.to_csv(path, index=False, encoding="utf-16")
        case "comments":
            path.write_text("# a table\n" + WINE.to_csv(index=False), "utf-8")
        case _:
            WINE.to_csv(path, index=False)
    return path


KINDS = ["commas", "tabs", "semicolons", "latin-1", "utf-16", "comments", "parquet"]


@over("kind", KINDS)
def test_the_columns_are_described_as_pandas_does(tmp_path: Path, kind: str) -> None:
    found = json.loads(called(str(written(tmp_path, kind)), "--json"))
    assert found["rows"] == len(WINE)
    columns: dict[str, Any] = {column["name"]: column for column in found["columns"]}
    assert list(columns) == list(WINE.columns)
    kinds = {"alcohol": "numbers", "mass": "numbers", "count": "integers", "fixed acidity": "numbers"}
    assert {name: column["kind"] for name, column in columns.items()} == {
        **kinds,
        "color": "text",
        "day": "dates",
        "quality": "text",
    }
    for name in WINE.columns:
        assert columns[name]["missing"] == WINE[name].isna().sum()
        assert (columns[name]["least"], columns[name]["largest"]) == (WINE[name].min(), WINE[name].max())
    assert columns["color"]["distinct"] == WINE["color"].nunique()


LARGE = [2**53 + 1, None, 2**53 + 3, -(2**62) - 1]


@over("kind", ["blank", "text", "parquet"])
def test_large_integers_beside_missing_cells_are_shown_as_they_are(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "d.csv"
    if "parquet" in kind:
        path = tmp_path / "d.parquet"
        pandas.DataFrame({"a": pandas.array(LARGE, dtype="Int64")}).to_parquet(path, row_group_size=2)
    else:
        missing = "" if kind == "blank" else "NA"
        path.write_text("a,b\n" + "".join(f"{missing if cell is None else cell},0\n" for cell in LARGE))
    column = json.loads(called(str(path), "--json"))["columns"][0]
    numbers = [cell for cell in LARGE if cell is not None]
    assert (column["kind"], column["missing"]) == ("integers", 1)
    assert (column["least"], column["largest"]) == (min(numbers), max(numbers))
    assert str(max(numbers)) in called(str(path))


@over("kind", KINDS)
def test_the_block_can_be_pasted(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    block = called(str(path)).partition("\n\n")[2]
    text = f"parameters: {{w: 1.0}}\n{block}\nexpression: f = w * (x.sum() + y.sum())\n"
    plan = runner.compile(runner.loads(text, base=str(tmp_path)))
    assert plan.sources["train"]["x"].shape == (3 + 1 + 3 + 1,)
    assert plan.sources["train"].samples == len(WINE)


@over("suffix", ["npy", "npz", "safetensors"])
def test_a_block_of_arrays_can_be_pasted(tmp_path: Path, suffix: str) -> None:
    arrays = {"x": numpy.zeros((4, 2), dtype=numpy.float32), "y": numpy.zeros(4, dtype=numpy.float32)}
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        numpy.save(path, arrays["x"])
    elif suffix == "npz":
        numpy.savez(path, **arrays)
    else:
        safetensors.numpy.save_file(arrays, path)
    block = called(str(path)).partition("\n\n")[2]
    text = f"parameters: {{w: 1.0}}\n{block}\nexpression: f = w * x.sum()\n"
    assert runner.compile(runner.loads(text, base=str(tmp_path))).sources["train"].samples == 4


def test_the_row_numbers_of_pandas_are_in_no_block(tmp_path: Path) -> None:
    WINE[["alcohol", "count"]].to_csv(tmp_path / "rows.csv")
    output = called(str(tmp_path / "rows.csv"))
    assert "4 rows of 3 columns" in output
    assert "columns: {x: [alcohol], y: count}" in output


def test_a_table_without_names_gets_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2,0.5\n3,4,1.5\n")
    assert "header: false" in called(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv is empty"),
        (b"x,y\n1\n", "a.csv:2 has 1 cell, and its header names 2 columns"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    result = CliRunner().invoke(application, ["data", str(tmp_path / "a.csv")])
    assert result.exit_code == 2
    assert message in result.output


def test_a_column_that_changes_its_kind_in_a_later_part_is_described_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.plan.data.tables.text_table.CELLS_AT_ONCE", 12)  # two rows at a time
    table = pandas.DataFrame(
        {
            "late_float": ["1", "2", "3", "4.5"],
            "late_text": ["1", "2", "3", "x"],
            "late_missing": ["1", "2", "", "4"],
            "booleans": ["true", "false", "true", ""],
            "mixed": ["true", "true", "1", "2"],
            "large": ["9007199254740993", "1", "2", "0.5"],
        }
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    found = json.loads(called(str(tmp_path / "a.csv"), "--json"))
    described = {
        each["name"]: (each["kind"], each["missing"], each["least"], each["largest"]) for each in found["columns"]
    }
    assert described == {
        "late_float": ("numbers", 0, 1.0, 4.5),
        "late_text": ("text", 0, 1, 3),
        "late_missing": ("integers", 1, 1, 4),
        "booleans": ("numbers", 1, 0.0, 1.0),
        "mixed": ("text", 0, 1, 2),
        "large": ("numbers", 0, 0.5, 9007199254740993),
    }
    assert found["rows"] == 4


@over(("content", "encoding"), [(b"\x93a\x94", "cp1252"), (b"\x81a", "latin-1"), ("ü".encode(), None)])
def test_an_encoding_is_one_that_decodes_every_byte(tmp_path: Path, content: bytes, encoding: str | None) -> None:
    (tmp_path / "a.csv").write_bytes(b"name,n\n" + content + b",1\n")
    found = json.loads(called(str(tmp_path / "a.csv"), "--json"))
    assert found["dialect"].get("encoding") == encoding
    assert found["columns"][0]["least"] == content.decode(encoding or "utf-8")


@over(("most", "distinct"), [(2, None), (3, 3)])
def test_texts_are_counted_up_to_a_limit(
    tmp_path: Path, most: int, distinct: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.plan.data.reading.columns.MOST_DISTINCT", most)
    pandas.DataFrame({"color": ["red", "white", "red", "rosé"], "n": range(4)}).to_csv(tmp_path / "a.csv", index=False)
    color, _ = json.loads(called(str(tmp_path / "a.csv"), "--json"))["columns"]
    assert (color["distinct"], color["least"], color["largest"]) == (distinct, "red", "white")


@over("columns", [40, 400])
def test_a_file_is_passed_over_as_often_with_many_columns_as_with_few(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    from runner.plan.data.tables import byte_blocks

    ordinary = byte_blocks.open_ordinary
    monkeypatch.setattr(byte_blocks, "open_ordinary", lambda path: opened.append(path) or ordinary(path))
    names = [f"c{number}" for number in range(columns)]
    lines = [",".join(names), ",".join("1" for _ in names), ",".join("x" for _ in names)]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    called(str(tmp_path / "a.csv"))
    assert 0 < len(opened) < 10


def test_a_block_leaves_out_row_numbers_and_names_many_columns_by_a_glob(tmp_path: Path) -> None:
    values = numpy.arange(8.0)
    few = pandas.DataFrame({"id": range(1, 9), "count": range(8), "mass": values, "kind": list("abababab")})
    few.to_csv(tmp_path / "few.csv", index=False)
    assert "    columns: {x: [count, mass], y: kind}\n" in called(str(tmp_path / "few.csv"))
    few.drop(columns="id").assign(count=[0, 2, 4, 6, 1, 3, 5, 9]).to_csv(tmp_path / "other.csv", index=False)
    assert "    columns: {x: [count, mass], y: kind}\n" in called(str(tmp_path / "other.csv"))
    many = pandas.DataFrame({**{f"px_{number}": values for number in range(21)}, "kind": list("abababab")})
    many.to_parquet(tmp_path / "many.parquet")
    block = called(str(tmp_path / "many.parquet")).partition("data:\n")[2]
    assert block.startswith(
        "  train:\n    file: " + str(tmp_path / "many.parquet") + '\n    columns: {x: ["*"], y: kind}\n'
    )
    config = (
        f"data:\n{block}parameters: {{w: {{shape: [21, 2], init: zeros}}}}\n"
        "expression: cross_entropy(x @ w, y)\nsteps: [train]\noptimizer: {sgd: {}}\n"
    )
    assert runner.compile(runner.loads(config, base=str(tmp_path))).sources["train"].samples == 8


def test_columns_that_are_no_numbers_and_no_text_are_shown_and_left_out(tmp_path: Path) -> None:
    columns = {
        "n": [1, 2, 3],
        "v": [[1.0], [2.0, 3.0], None],
        "b": [b"x", b"y", b"z"],
        "s": [{"k": 1}] * 3,
        "o": pyarrow.nulls(3),
        "y": [0, 1, 0],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    found = json.loads(called(str(tmp_path / "a.parquet"), "--json"))
    assert [(each["name"], each["kind"], each["missing"]) for each in found["columns"]] == [
        ("n", "integers", 0),
        ("v", "list<element: double>", 1),
        ("b", "binary", 0),
        ("s", "struct<k: int64>", 0),
        ("o", "nothing", 3),
        ("y", "integers", 0),
    ]
    assert "columns: {x: [n], y: y}" in found["block"]
    assert "list<element: double>" in called(str(tmp_path / "a.parquet"))


def test_an_array_of_objects_is_shown_and_left_out(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "a.npz", x=numpy.zeros((3, 2)), o=numpy.array([1, None, 2], dtype=object))
    output = called(str(tmp_path / "a.npz"))
    assert "Python objects, which are not read" in output
    assert "columns: {x: x}" in output


def test_a_table_without_rows_and_an_array_of_a_file_are_refused(tmp_path: Path) -> None:
    pandas.DataFrame({"x": numpy.zeros(0)}).to_parquet(tmp_path / "a.parquet")
    numpy.savez(tmp_path / "a.npz", k=numpy.zeros(2))
    for name, message in (
        ("a.parquet", "a.parquet has no rows\n      = add rows"),
        ("a.npz#k", f"a.npz#k names one array, and all of a file are shown\n      = write {tmp_path / 'a.npz'}"),
    ):
        result = CliRunner().invoke(application, ["data", str(tmp_path / name)])
        assert result.exit_code == 2
        assert message in result.output
