"""The data sources of `steprun show`: samples, order, values and classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from tests.cli.commands import steprun

CONFIG = """\
parameters: {w: 1.0}
data:
  train: {file: d.csv, columns: {x: x, y: y}, select: {share: [0, 0.75], stratify: label}, batch_size: 3, shuffle: true}
  rest: {file: d.csv, columns: {x: x, y: y}, select: {share: [0.75, 1], stratify: label}}
  all: {file: d.parquet, columns: {x: x}, shuffle: true, batch_size: 3}
expression: loss = (w * x).nansum()
optimizer: {sgd: {lr: 0.1}}
steps:
  - {for_each: {data: train, epochs: 1, steps: [train]}}
  - {evaluate: rest}
  - {evaluate: all}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rows = [f"{row / 4 if row != 2 else 'nan'},{row},{'ab'[row % 2]}" for row in range(8)]
    (tmp_path / "d.csv").write_text("\n".join(["x,y,label", *rows]) + "\n", encoding="utf-8")
    table = pyarrow.table({"x": numpy.arange(7.0)})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet", row_group_size=4)
    path = tmp_path / "data.yaml"
    path.write_text(CONFIG)
    return path


def test_show_lists_the_sources(config: Path) -> None:
    lines = steprun("show", config).out.split("\n")
    start = lines.index("data", 1)
    blocks = "\n".join(lines[start : lines.index("", start)])
    assert blocks == (
        "data\n"
        "  train: 6 samples of 8 rows, 2 batches of 3, shuffled\n"
        "    x  d.csv  []  float32  from 0 to 1.5  1 missing\n"
        "    y  d.csv  []  int64    from 0 to 6\n"
        "    classes a: 3 of 4, b: 3 of 4\n"
        "  rest: 2 samples of 8 rows, 1 batch of 2, in file order\n"
        "    x  d.csv  []  float32  from 1 to 1.75\n"
        "    y  d.csv  []  int64    from 4 to 7\n"
        "    classes a: 1 of 4, b: 1 of 4\n"
        "  all: 7 samples, 3 batches of 3, shuffled by row groups, and within each\n"
        "    x  d.parquet  []  float32  from 0 to 6"
    )


def test_show_lists_classes_and_what_replaces_missing_numbers(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text('m,n,kind,y\n1,,"b\nc",2\n2,4,a,10\n,5,a,2\n', encoding="utf-8")
    path = tmp_path / "kinds.yaml"
    path.write_text(
        "parameters: {w: 1.0}\n"
        "data: {d: {file: d.csv, columns: {x: ['*'], y: y}, classes: {y: sorted}, one_hot: {kind: sorted},"
        " fill: {m: mean, n: 0}}}\n"
        "expression: loss = (w * x).sum() * y.sum()\n"
    )
    out = steprun("show", path).out
    block = out[out.index("data\n") : out.index("scalar constants")]
    assert block == (
        "data\n"
        "  d: 3 samples, 1 batch of 3, in file order\n"
        "    x  d.csv  [4]  float32  from 0 to 5\n"
        "    y  d.csv  []   int64    from 0 to 1\n"
        "    x takes m, n, kind\n"
        "    kind has the classes a, b\N{REPLACEMENT CHARACTER}c\n"
        "    missing numbers of m become 1.5\n"
        "    missing numbers of n become 0\n"
        "    y has the classes 2, 10\n\n"
    )
    x, y = json.loads(steprun("show", path, "--json").out)["data"][0]["columns"]
    assert (x["classes"], x["fill"]) == ({"kind": ["a", "b\nc"]}, {"m": 1.5, "n": 0})
    assert (y["classes"], y["fill"]) == ({"y": [2, 10]}, {})


def test_show_counts_missing_values_and_ranges_of_the_selected_rows(config: Path) -> None:
    shown = json.loads(steprun("show", config, "--json").out)
    train, rest, whole = shown["data"]
    assert (train["samples"], train["rows"], train["order"]) == (6, 8, "shuffled")
    assert (rest["order"], whole["order"], whole["rows"]) == ("file", "shuffled row groups", 7)
    assert train["classes"] == [{"class": "a", "selected": 3, "rows": 4}, {"class": "b", "selected": 3, "rows": 4}]
    assert train["columns"][0]["missing"] + rest["columns"][0]["missing"] == 1
    assert min(train["columns"][1]["min"], rest["columns"][1]["min"]) == 0
    assert max(train["columns"][1]["max"], rest["columns"][1]["max"]) == 7


def test_show_does_not_read_the_values_of_a_large_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.cli.output.source_summary.SCANNED_BYTES", 10)
    shown = json.loads(steprun("show", config, "--json").out)
    assert "missing" not in shown["data"][0]["columns"][0]
