"""Sources of tables: classes, fills, dates, globs and several files, against pandas and scikit-learn."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import LabelEncoder, OneHotEncoder

import runner
from runner.plan.compiler import PlanLimits
from runner.plan.data.reading.fits import sorted_classes
from runner.plan.data.sandbox import FileFault, locate_all
from tests.engine.running import compiled, rows_of
from tests.tables import over

SEEN = "parameters: {w: 1.0}\nexpression: |\n  seen = x\n  f = w * x.sum()\n"
WINE = pandas.DataFrame(
    {
        "alcohol": [9.4, 9.8, 10.1, 11.0, 12.5],
        "mass": [1.0, None, 3.0, 2.5, None],
        "count": [3, 1, 2, 2, 9],
        "color": ["red", "white", "red", "rosé", "white"],
        "day": ["2024-01-31", "1969-12-31", "1970-01-02", "2024-02-29", "2000-01-01"],
        "split": ["train", "train", "valid", "train", "valid"],
    }
)


def write(folder: Path, kind: str, table: pandas.DataFrame = WINE, name: str = "wine") -> str:
    """The table as a file of some kind; returns its name."""
    if kind == "csv":
        table.to_csv(folder / f"{name}.csv", index=False)
        return f"{name}.csv"
    if kind == "dictionary":
        table = table.assign(color=table["color"].astype("category"), day=pandas.to_datetime(table["day"]).dt.date)
    table.to_parquet(folder / f"{name}.parquet", row_group_size=2)
    return f"{name}.parquet"


KINDS = ["csv", "parquet", "dictionary"]


def seen(folder: Path, source: str) -> numpy.ndarray[Any, Any]:
    return rows_of(f"{SEEN}data: {{train: {{{source}}}}}\n", folder)[1]["seen"].numpy()


@over("kind", KINDS)
def test_sorted_classes_are_those_of_scikit_learn(tmp_path: Path, kind: str) -> None:
    expected = LabelEncoder().fit_transform(WINE["color"])
    found = seen(tmp_path, f"file: {write(tmp_path, kind)}, columns: {{x: color}}, classes: {{x: sorted}}")
    assert found.dtype == numpy.int64
    assert found.tolist() == expected.tolist()
    listed = seen(tmp_path, f"file: {write(tmp_path, kind)}, columns: {{x: color}}, classes: {{x: [white, rosé, red]}}")
    assert listed.tolist() == (2 - expected).tolist()


@over("kind", KINDS)
def test_integer_classes_are_in_the_order_of_numbers(tmp_path: Path, kind: str) -> None:
    expected = LabelEncoder().fit_transform([30, 1, 200, 200, 9])
    table = WINE.assign(count=[30, 1, 200, 200, 9])
    file = write(tmp_path, kind, table)
    found = seen(tmp_path, f"file: {file}, columns: {{x: count}}, classes: {{x: sorted}}")
    assert found.tolist() == expected.tolist()


@over("kind", KINDS)
def test_one_hot_columns_are_those_of_scikit_learn(tmp_path: Path, kind: str) -> None:
    source = f"file: {write(tmp_path, kind)}, columns: {{x: [alcohol, color, count]}}, one_hot: {{color: sorted}}"
    hot = OneHotEncoder(sparse_output=False).fit_transform(WINE[["color"]])
    expected = numpy.column_stack([WINE["alcohol"], hot, WINE["count"]]).astype(numpy.float32)
    assert seen(tmp_path, source).tolist() == expected.tolist()
    alone = seen(tmp_path, f"file: {write(tmp_path, kind)}, columns: {{x: color}}, one_hot: {{x: sorted}}")
    assert (alone.dtype, alone.tolist()) == (numpy.float32, hot.tolist())


@over("kind", KINDS)
@over("strategy", ["mean", "median"])
def test_fills_are_those_of_scikit_learn(tmp_path: Path, kind: str, strategy: str) -> None:
    expected = SimpleImputer(strategy=strategy).fit_transform(WINE[["mass", "count"]]).astype(numpy.float32)
    source = f"file: {write(tmp_path, kind)}, columns: {{x: [mass, count]}}, fill: {{x: {strategy}}}"
    assert seen(tmp_path, source).tolist() == expected.tolist()


@over("kind", KINDS)
def test_a_fill_takes_the_rows_that_the_first_source_selects(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    text = f"""{SEEN}data:
  train: {{file: {file}, columns: {{x: mass}}, fill: {{x: mean}}, select: "split == 'train'"}}
  valid: {{file: {file}, columns: {{x: mass}}, fill: {{x: mean}}, select: "split == 'valid'"}}
steps: [backward, {{forward: {{data: valid}}}}]
"""
    mean = WINE["mass"][WINE["split"] == "train"].mean()
    rows = rows_of(text, tmp_path)
    assert rows[1]["seen"].tolist() == pytest.approx([1.0, mean, 2.5])
    assert rows[2]["seen"].tolist() == pytest.approx([3.0, mean])


@over("kind", KINDS)
def test_a_fill_takes_the_selected_rows_of_each_of_several_files(tmp_path: Path, kind: str) -> None:
    for number, suffix in enumerate(("a", "b", "c")):
        part = WINE.assign(mass=[10.0**number, None, *[number + 0.5] * 3], split=["valid", "train"] * 2 + ["valid"])
        write(tmp_path, kind, part[number:], f"part-{suffix}")
    whole = pandas.concat(
        [pandas.read_csv(path) if kind == "csv" else pandas.read_parquet(path) for path in sorted(tmp_path.iterdir())]
    )
    chosen = whole["mass"][whole["split"] == "valid"]
    file = f"part-*.{'csv' if kind == 'csv' else 'parquet'}"
    for strategy, expected in (("mean", chosen.mean()), ("median", chosen.median())):
        text = f"""{SEEN}data:
  train: {{file: {file}, columns: {{x: mass}}, fill: {{x: {strategy}}}, select: "split == 'valid'"}}
"""
        (declared,) = compiled(text, tmp_path).config.data.values()
        assert list(declared.fill.values()) == [pytest.approx(expected)]


def test_classes_of_rows_that_are_not_selected_are_no_fault(tmp_path: Path) -> None:
    file = write(tmp_path, "csv")
    source = f"file: {file}, columns: {{x: color}}, classes: {{x: sorted}}, select: \"color in ('red', 'rosé')\""
    assert seen(tmp_path, source).tolist() == [0, 0, 1]
    with pytest.raises(runner.ConfigError, match=r"wine.csv:3 holds `white`, which is no class of `color`"):
        seen(tmp_path, f"file: {file}, columns: {{x: color}}, classes: {{x: [red, rosé]}}, select: {{from: 0, to: 3}}")


@over("kind", KINDS)
@over(("unit", "of"), [("days", 86400.0), ("seconds", 1.0)])
def test_dates_count_from_1970(tmp_path: Path, kind: str, unit: str, of: float) -> None:
    moments = pandas.to_datetime(WINE["day"]) - pandas.Timestamp("1970-01-01")
    source = f"file: {write(tmp_path, kind)}, columns: {{x: day}}, dates: {{x: {unit}}}, dtype: {{x: float64}}"
    assert seen(tmp_path, source).tolist() == (moments.dt.total_seconds() / of).tolist()


@over("kind", ["csv", "parquet"])
def test_a_glob_takes_the_columns_that_are_not_bound(tmp_path: Path, kind: str) -> None:
    table = pandas.DataFrame({f"{prefix}_{number}": [float(number)] * 3 for prefix in "pq" for number in range(3)})
    table = table.assign(quality=[0, 1, 2], fold=[0, 1, 1])
    file = write(tmp_path, kind, table)
    whole = f"file: {file}, columns: {{x: ['*'], y: quality}}, select: {{share: [0, 1], stratify: fold}}"
    assert seen(tmp_path, whole).tolist() == table.drop(columns=["quality", "fold"]).to_numpy().tolist()
    assert (
        seen(tmp_path, f"file: {file}, columns: {{x: 'p_*'}}").tolist() == table.filter(like="p_").to_numpy().tolist()
    )
    mixed = seen(tmp_path, f"file: {file}, columns: {{x: [q_1, 'q_*', p_0]}}")
    assert mixed.tolist() == table[["q_1", "q_0", "q_2", "p_0"]].to_numpy().tolist()


def test_a_column_whose_name_is_a_glob_is_taken_by_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x[1],x1,x*\n1,2,3\n")
    assert seen(tmp_path, "file: a.csv, columns: {x: ['x[1]', 'x*']}").tolist() == [[1, 3]]


@over("kind", ["csv", "parquet"])
def test_several_files_are_one_table_in_the_order_of_their_names(tmp_path: Path, kind: str) -> None:
    parts = [WINE.iloc[:2], WINE.iloc[2:4], WINE.iloc[4:]]
    for number, part in zip((10, 2, 3), parts, strict=True):
        write(tmp_path, kind, part, f"part-{number}")
    whole = pandas.concat([parts[0], parts[1], parts[2]])
    columns = "{x: [alcohol, mass, color]}, fill: {mass: mean}, one_hot: {color: sorted}"
    filled = whole["mass"].fillna(whole["mass"].mean())
    hot = OneHotEncoder(sparse_output=False).fit_transform(whole[["color"]])
    expected = numpy.column_stack([whole["alcohol"], filled, hot]).astype(numpy.float32)
    assert seen(tmp_path, f"file: part-*.{kind}, columns: {columns}").tolist() == expected.tolist()


def test_a_streamed_source_has_the_values_of_one_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "parquet", WINE.iloc[:3], "part-1")
    write(tmp_path, "dictionary", WINE.iloc[3:], "part-2")
    for name in ("part-1", "part-2"):
        table = pandas.read_parquet(tmp_path / f"{name}.parquet").assign(day="2024-01-31")
        table.to_parquet(tmp_path / f"{name}.parquet", row_group_size=2)
    source = (
        "file: part-*.parquet, columns: {x: ['*'], y: count}, fill: {mass: mean}, dates: {day: days}, batch_size: 2, "
        "one_hot: {color: sorted, split: [train, valid]}, shuffle: true"
    )
    text = f"{SEEN}data: {{train: {{{source}}}}}\noptimizer: {{sgd: {{lr: 0.1}}}}\nsteps: {{epochs: 2}}\n"
    # row groups are shuffled one by one in both
    whole = [row["seen"] for row in rows_of(text, tmp_path)[1:]]
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0.0)
    assert compiled(text, tmp_path).sources["train"].streams
    streamed = [row["seen"] for row in rows_of(text, tmp_path)[1:]]
    assert all(map(torch.equal, whole, streamed))
    assert len(whole) == 6


def test_the_number_of_classes_is_a_scalar(tmp_path: Path) -> None:
    file = write(tmp_path, "csv")
    text = f"""constants: {{k: classes(train.y), twice: 2 * k}}
parameters: {{w: {{shape: [1, classes(train.y)], init: zeros}}, v: {{shape: [twice], init: ones}}}}
data: {{train: {{file: {file}, columns: {{x: [alcohol], y: color}}, classes: {{y: sorted}}}}}}
expression: loss = cross_entropy(x @ w, y) + v.sum()
"""
    plan = compiled(text, tmp_path)
    assert (plan.tensors["w"].shape, plan.tensors["v"].shape) == ((1, 3), (6,))


def test_what_was_fitted_is_in_the_resolved_config_and_is_not_fitted_again(tmp_path: Path) -> None:
    file = write(tmp_path, "csv")
    text = f"""{SEEN}data:
  train: {{file: {file}, columns: {{x: [mass, count, color]}}, fill: {{x: mean}}, one_hot: {{color: sorted}}}}
""".replace("fill: {x: mean}", "fill: {mass: mean, count: median}")
    plan = compiled(text, tmp_path)
    resolved = plan.config.document.to_yaml()
    mean = float(WINE["mass"].mean())
    assert f"fill: {{mass: {mean!r}, count: 2.0}}, one_hot: {{color: [red, rosé, white]}}" in resolved
    again = compiled(resolved, tmp_path)
    assert again.config == plan.config
    WINE.iloc[:1].to_csv(tmp_path / file, index=False)
    assert compiled(resolved, tmp_path).sources["train"]["x"].shape == (5,)


def test_a_fill_of_a_stacked_batch_column_is_resolved_column_by_column(tmp_path: Path) -> None:
    text = (
        f"{SEEN}data: {{train: {{file: {write(tmp_path, 'csv')}, columns: {{x: [mass, count]}}, fill: {{x: mean}}}}}}\n"
    )
    resolved = compiled(text, tmp_path).config.document.to_yaml()
    mass, count = (float(WINE[name].mean()) for name in ("mass", "count"))
    assert f"fill: {{mass: {mass!r}, count: {count!r}}}" in resolved


def test_a_dialect_of_a_tensor_is_that_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# log\nx;y\n1,5;2\nNA;3\n")
    text = (
        "parameters: {w: 1.0}\nconstants: {k: {file: a.csv, columns: ['*'], delimiter: ';', decimal: ',', "
        "comment: '#', missing: [NA]}}\nexpression: f = w * k.nansum()\n"
    )
    assert rows_of(text, tmp_path)[1]["f"] == 6.5


def test_a_glob_of_files_follows_no_link_out(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "part-2.csv").write_text("x\n1\n")
    (inside / "part-1.csv").write_text("x\n1\n")
    (inside / "part-2.csv").symlink_to(outside / "part-2.csv")
    with pytest.raises(FileFault, match=r"`part-2.csv` is outside the folders that this config may read"):
        locate_all("part-*.csv", inside)
    (inside / "folder").symlink_to(outside)
    with pytest.raises(FileFault, match=r"`folder/part-\*.csv` is outside the folders that this config may read"):
        locate_all("folder/part-*.csv", inside)
    assert [path.name for path in locate_all("part-1.*", inside)] == ["part-1.csv"]
    os.mkfifo(inside / "part-3.csv")
    with pytest.raises(FileFault, match=r"part-3.csv is a pipe, socket or device, not an ordinary file"):
        locate_all("part-[13].csv", inside)


def test_a_glob_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.plan.data.sandbox.MOST_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.csv").touch()
    with pytest.raises(FileFault, match=r"the glob `\*.csv` matches more than 3 files"):
        locate_all("*.csv", tmp_path)


@over("kind", ["csv", "parquet"])
def test_missing_dates_are_filled_with_the_mean_date(tmp_path: Path, kind: str) -> None:
    table = WINE.assign(day=[*WINE["day"][:3], None, WINE["day"][4]])
    days = (pandas.to_datetime(table["day"]) - pandas.Timestamp("1970-01-01")).dt.days
    source = f"file: {write(tmp_path, kind, table)}, columns: {{x: day}}, dates: {{x: days}}, dtype: {{x: float64}}"
    assert seen(tmp_path, f"{source}, fill: {{x: mean}}").tolist() == days.fillna(days.mean()).tolist()


def test_a_missing_number_is_missing_however_it_is_written(tmp_path: Path) -> None:
    texts = ["-999", "-999.0", " -9.99e2", "1.5", "-99"]
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{text},1\n" for text in texts), encoding="utf-8")
    found = seen(tmp_path, "file: a.csv, columns: {x: x}, missing: [-999], fill: {x: 0.5}")
    assert found.tolist() == pandas.to_numeric(pandas.Series(texts)).replace(-999.0, 0.5).tolist()
    integers = "file: b.csv, columns: {x: x}, missing: [-999.0], fill: {x: 7}"
    (tmp_path / "b.csv").write_text("x,y\n" + "-999,1\n4,1\n", encoding="utf-8")
    assert seen(tmp_path, integers).tolist() == [7, 4]


def test_a_run_gives_its_classes_under_the_name_of_the_column_and_of_the_batch(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    steps = "optimizer: {sgd: {lr: 0}}\nsteps: {epochs: 1}\n"
    text = SEEN + steps + "data: {train: {file: wine.csv, columns: {x: color}, classes: CLASSES}}\n"
    first = text.replace("CLASSES", "{color: [white, rosé, red]}")
    (tmp_path / "first.yaml").write_text(first, encoding="utf-8")
    run = runner.run(tmp_path / "first.yaml", runs_dir=tmp_path / "runs")
    for classes in ("{x: sorted}", "{color: sorted}"):
        again = f"from_run: {run.path}\n" + text.replace("CLASSES", classes)
        (tmp_path / "again.yaml").write_text(again, encoding="utf-8")
        (declared,) = runner.compile(runner.load(tmp_path / "again.yaml")).config.data.values()
        assert list(declared.classes.values()) == [("white", "rosé", "red")], classes


RARE = [
    (["red"], "`x` has one class, `red`: nothing can be learnt of it"),
    (["red", "white"] * 99 + ["rde"], "the class `rde` of `x` has one row"),
    (["red", "white"] * 2 + ["rde"], None),
]


@over(("texts", "message"), RARE)
def test_a_class_alone_and_a_class_of_one_row_warn(tmp_path: Path, texts: list[str], message: str | None) -> None:
    pandas.DataFrame({"color": texts}).to_csv(tmp_path / "a.csv", index=False)
    text = f"{SEEN}data: {{train: {{file: a.csv, columns: {{x: color}}, classes: {{x: sorted}}}}}}\n"
    found = [each.message for each in compiled(text, tmp_path).warnings if "class" in each.message]
    assert found == ([] if message is None else [message])


def test_a_column_of_more_than_ten_thousand_texts_has_no_classes() -> None:
    words = [f"w{number}" for number in range(10_001)]
    assert len(sorted_classes(words[:10_000], "color", "a.csv")) == 10_000
    with pytest.raises(FileFault, match=r"^the column `color` of a.csv holds more than 10,000 different texts"):
        sorted_classes(words, "color", "a.csv")


def test_a_median_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    table = pandas.DataFrame({"mass": [1.0, None] * 60_000})
    table.to_parquet(tmp_path / "a.parquet", row_group_size=20_000)
    text = f"{SEEN}data: {{train: {{file: a.parquet, columns: {{x: mass}}, fill: {{x: HOW}}, batch_size: 2}}}}\n"
    limits = PlanLimits(memory=60_000 * 24 - 1, runs=False)
    with pytest.raises(
        runner.ConfigError, match=r"the median of `mass` needs more memory than there is\n.*write `mean`"
    ):
        runner.compile(runner.loads(text.replace("HOW", "median"), base=str(tmp_path)), limits=limits)
    runner.compile(runner.loads(text.replace("HOW", "mean"), base=str(tmp_path)), limits=limits)


GAPS = "t,n,day\nx,1,2024-01-31\nNA,2,NA\ny,3,1970-01-02\nx,4,1970-01-03\n"


@over(
    "source, expected",
    [
        ("columns: {x: n}, missing: [NA], select: t is missing", [2]),
        ("columns: {x: n}, missing: [NA], select: t is not missing", [1, 3, 4]),
        ("columns: {x: n}, missing: [NA], select: \"t == 'NA' or n == 4\"", [2, 4]),
        ("columns: {x: n}, missing: [NA], select: \"t != 'NA'\"", [1, 3, 4]),
        ("columns: {x: n}, missing: [NA, null], select: \"t in ['NA', 'y']\"", [2, 3]),
        ("columns: {x: n}, missing: [NA], select: day is not missing", [1, 3, 4]),
        ("columns: {x: n}, select: t is missing or n == 1", [1]),
        ("columns: {x: t}, missing: [NA], classes: {x: sorted}, select: t is not missing", [0, 1, 0]),
        ("columns: {x: t}, missing: [NA], classes: {x: [y, NA, x]}", [2, 1, 0, 2]),
        ("columns: {x: t}, classes: {x: sorted}", [1, 0, 2, 1]),
    ],
)
def test_a_text_that_missing_lists_is_missing_in_columns_of_text(
    tmp_path: Path, source: str, expected: list[int]
) -> None:
    (tmp_path / "gaps.csv").write_text(GAPS, encoding="utf-8")
    assert seen(tmp_path, f"file: gaps.csv, {source}").tolist() == expected


@over(
    "source, expected",
    [
        ("columns: {x: a}, fill: {x: 2.5}", [2.5, 2.5, 2.5]),
        ("columns: {x: [n, a]}, fill: {a: 7}", [[1, 7], [2, 7], [3, 7]]),
        ("columns: {x: n}, select: a is missing", [1, 2, 3]),
    ],
)
def test_a_parquet_column_of_nulls_alone_is_a_column_of_missing_numbers(
    tmp_path: Path, source: str, expected: list[Any]
) -> None:
    pandas.DataFrame({"n": [1, 2, 3], "a": [None] * 3}).to_parquet(tmp_path / "nulls.parquet")
    assert seen(tmp_path, f"file: nulls.parquet, {source}").tolist() == expected


@over(
    "select",
    ["t == 1", "\"t == 'a'\"", "t is missing", "{share: [0, 0.5], stratify: t}", "{share: [0, 0.5], group: t}"],
)
def test_files_that_hold_a_column_in_two_kinds_are_refused(tmp_path: Path, select: str) -> None:
    pandas.DataFrame({"t": [1, 2], "n": [1, 2]}).to_parquet(tmp_path / "a-1.parquet")
    pandas.DataFrame({"t": ["a", "1"], "n": [3, 4]}).to_parquet(tmp_path / "a-2.parquet")
    with pytest.raises(runner.ConfigError, match="the column `t`") as caught:
        seen(tmp_path, f"file: 'a-*.parquet', columns: {{x: n}}, select: {select}")
    (problem,) = caught.value.problems
    assert re.fullmatch(
        r"the column `t` of a-2.parquet holds (large_)?string, and that of a-1.parquet int64", problem.message
    )
    assert problem.hint == "give the files of a source the same dtypes"


@over(
    "column, source, message, hint",
    [
        (["a", "", "b"], "classes: {x: sorted}", "holds nothing in row 1", "write a class, or leave the row out"),
        (["a", None], "classes: {x: sorted}", "holds a null in row 1", "write a class, or leave the row out"),
        ([1, 2, 10], "classes: {x: [1, 2]}", "holds `10` in row 2", "the classes are 1, 2"),
        (["cat", "dag"], "classes: {x: [cat, dog]}", "holds `dag` in row 1", "did you mean `dog`?"),
    ],
)
def test_a_cell_that_is_no_class_is_shown(
    tmp_path: Path, column: list[Any], source: str, message: str, hint: str
) -> None:
    pandas.DataFrame({"t": column}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(runner.ConfigError, match=r"a\.parquet holds") as caught:
        seen(tmp_path, f"file: a.parquet, columns: {{x: t}}, {source}")
    (problem,) = caught.value.problems
    no_class = ", which is no class of `t`" if "`" in message else ""
    assert problem.message == f"a.parquet {message} of the column `t`{no_class}"
    assert problem.hint == hint


@over(
    "first, second, select, expected",
    [
        ([None, None], ["a", "b"], "\"t == 'a'\"", [3]),
        ([None, None], ["a", "b"], "\"t != 'a'\"", [1, 2, 4]),
        (["a", "b"], [None, None], "t is missing", [3, 4]),
        ([None, None], [1, 2], "t > 1", [4]),
        ([1, 2], [None, None], "t is not missing", [1, 2]),
        ([None, None], [True, False], "t", [3]),
    ],
)
def test_a_file_with_nulls_alone_has_the_kind_of_the_others(
    tmp_path: Path, first: list[Any], second: list[Any], select: str, expected: list[int]
) -> None:
    pandas.DataFrame({"t": first, "n": [1, 2]}).to_parquet(tmp_path / "a-1.parquet")
    pandas.DataFrame({"t": second, "n": [3, 4]}).to_parquet(tmp_path / "a-2.parquet")
    assert seen(tmp_path, f"file: 'a-*.parquet', columns: {{x: n}}, select: {select}").tolist() == expected
