"""Casts that keep every value: against numpy's own conversions and against Python's exact numbers."""

from __future__ import annotations

import decimal
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import runner
from runner.plan import PlanLimits
from runner.plan.data.casting import first_misfit
from tests.engine.running import compiled, rows_of
from tests.tables import over

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([torch.bool, *INTEGERS]))
def test_a_float_fits_an_integer_dtype_exactly_where_python_says_so(value: float, dtype: torch.dtype) -> None:
    info = None if dtype == torch.bool else torch.iinfo(dtype)
    least, most = (0, 1) if info is None else (info.min, info.max)
    fits = math.isfinite(value) and value == int(value) and least <= int(value) <= most
    assert (first_misfit(torch.tensor([value], dtype=torch.float64), dtype) is None) == fits


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([torch.bool, *INTEGERS, *FLOATS]))
def test_an_integer_fits_where_its_value_stays_or_is_rounded_once(value: int, dtype: torch.dtype) -> None:
    if dtype.is_floating_point:
        fits = int(float(value)) == value and bool(torch.tensor(float(value), dtype=torch.float64).to(dtype).isfinite())
    elif dtype == torch.bool:
        fits = value in (0, 1)
    else:
        fits = torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max
    assert (first_misfit(torch.tensor([value]), dtype) is None) == fits


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(FLOATS))
def test_a_float_fits_a_floating_dtype_unless_it_becomes_infinite(value: float, dtype: torch.dtype) -> None:
    source = torch.tensor([value], dtype=torch.float64)
    became = bool(source.to(dtype).isinf()) and not math.isinf(value)
    assert (first_misfit(source, dtype) is not None) == became


def test_the_first_element_that_does_not_fit_is_found() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.5], [math.nan, 5.0]])
    assert first_misfit(values, torch.int64) == ((1, 1), 4.5, "is not an integer")
    assert first_misfit(values.to(torch.complex128) * 1e300, torch.complex64) is not None
    assert first_misfit(torch.tensor(1000.0), torch.float8_e4m3fn) == (
        (),
        1000.0,
        "is beyond 448, the largest float8_e4m3fn",
    )


def write(folder: Path, kind: str, values: list[float | int]) -> str:
    """One array or column `v` in a file of some kind; gives what a data source writes to name it."""
    if kind == "csv":
        (folder / "d.csv").write_text("v,other\n" + "".join(f"{value},0\n" for value in values))
        return "file: d.csv, columns: {v: v}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"v": values}), folder / "d.parquet")
        return "file: d.parquet, columns: {v: v}"
    if kind == "npz":
        numpy.savez(folder / "d.npz", v=numpy.array(values))
        return "file: d.npz, columns: {v: v}"
    numpy.save(folder / "d.npy", numpy.array(values))
    return "columns: {v: d.npy}"


WHERE = {
    "csv": "d.csv:4 holds {} in the column `v`",
    "parquet": "d.parquet holds {} in row 2 of the column `v`",
    "npz": "d.npz#v holds {} in row 2",
    "npy": "d.npy holds {} in row 2",
}
CASTS = [
    ("int64", [1.0, 2.0, math.nan], "nan", "int64: it is not an integer"),
    ("int64", [1.0, 2.0, 1.7], "1.7", "int64: it is not an integer"),
    ("uint8", [1, 255, 300], "300", "uint8: it is not between 0 and 255"),
    ("uint8", [1, 255, -1], "-1", "uint8: it is not between 0 and 255"),
    ("int8", [1, 127, 128], "128", "int8: it is not between -128 and 127"),
    ("bool", [0, 1, 2], "2", "bool: it is not a boolean"),
    (
        "float64",
        [0, 2**53, 2**53 + 1],
        "9007199254740993",
        "float64: it is an integer that float64 cannot represent exactly",
    ),
    (
        "float32",
        [0, 2**53, 2**53 + 1],
        "9007199254740993",
        "float32: it is an integer that float64 cannot represent exactly",
    ),
    ("float32", [0.5, 1e38, 1e39], "1e+39", "float32: it is beyond 3.40282e+38, the largest float32"),
    ("float16", [0.5, 65504.0, -1e5], "-100000.0", "float16: it is beyond 65504, the largest float16"),
    ("int64", [0.5e1, 1.0, 1e30], "1e+30", "int64: it is not between -9223372036854775808 and 9223372036854775807"),
]


@over("kind", WHERE)
@over(("dtype", "values", "shown", "reason"), CASTS)
def test_a_cast_that_changes_a_value_of_a_source_is_an_error(
    tmp_path: Path, kind: str, dtype: str, values: list[float | int], shown: str, reason: str
) -> None:
    text = (
        f"parameters: {{w: 1.0}}\ndata: {{train: {{{write(tmp_path, kind, values)}, dtype: {{v: {dtype}}}}}}}\n"
        "expression: f = w * v.to(float32).sum()\n"
    )
    with pytest.raises(runner.SteprunError, match=r".") as caught:
        rows_of(text, tmp_path)
    problem = caught.value.problems[0]
    assert problem.message == f"{WHERE[kind].format(shown)}, which does not fit {reason}"
    assert problem.path == "data.train.dtype.v"
    assert isinstance(caught.value, runner.ConfigError)  # planning reads files up to `SCAN_BYTES`


@pytest.mark.parametrize("rows", [20, 5000])
def test_the_first_cell_by_row_that_does_not_fit_is_named(tmp_path: Path, rows: int) -> None:
    cells = [("300" if row == 15 else "1", "-1" if row == 9 else "2") for row in range(rows)]
    (tmp_path / "d.csv").write_text("u,v\n" + "".join(f"{first},{second}\n" for first, second in cells))
    text = (
        "parameters: {w: 1.0}\ndata: {train: {file: d.csv, columns: {x: [u, v]}, dtype: {x: uint8}, batch_size: 4}}\n"
        "expression: f = w * x.to(float32).sum()\n"
    )
    expected = r"d\.csv:11 holds -1 in the column `v`, which does not fit uint8: it is not between 0 and 255"
    with pytest.raises(runner.ConfigError, match=expected):
        rows_of(text, tmp_path)


@over("dtype", [*INTEGERS, torch.bool, *FLOATS])
def test_ends_of_a_range_show_only_what_a_mask_shows(dtype: torch.dtype) -> None:
    whole = [-(2**63), -(2**53) - 1, -(2**53), -70000, -129, -1, 0, 1, 2, 255, 256, 65504, 65520, 2**31, 2**53 + 1]
    for values in itertools.combinations(whole, 2):
        alone = [first_misfit(torch.tensor([value]), dtype) for value in values]
        found = first_misfit(torch.tensor(values), dtype)
        assert (found is None) == (alone == [None, None]), (values, dtype)
    for values in itertools.product([math.nan, math.inf, -math.inf, 3.5e38, -7e4, 0.5, 1.0, 3.0], repeat=2):
        alone = [first_misfit(torch.tensor([value], dtype=torch.float64), dtype) for value in values]
        found = first_misfit(torch.tensor(values, dtype=torch.float64), dtype)
        assert (found is None) == (alone == [None, None]), (values, dtype)
    assert first_misfit(torch.empty(0, dtype=torch.int64), dtype) is None


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_a_cast_that_changes_a_value_of_a_constant_is_an_error(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind, [1.0, 2.0, 1.7])
    columns = ", columns: v" if kind == "csv" else ""
    constant = f"{{file: d.{kind}{columns}, dtype: int64}}"
    text = f"parameters: {{w: 1.0}}\nconstants: {{k: {constant}}}\nexpression: f = w * k.sum()\n"
    with pytest.raises(runner.ConfigError, match=r"which does not fit int64: it is not an integer") as caught:
        compiled(text, tmp_path)
    assert WHERE[kind].format("1.7") in caught.value.problems[0].message
    assert caught.value.problems[0].path == "constants.k.dtype"


def test_the_default_dtype_is_a_cast_too(tmp_path: Path) -> None:
    numpy.save(tmp_path / "d.npy", numpy.array([[0.0, 1.0], [1e300, 0.0]]))
    text = "parameters: {w: 1.0}\ndata: {train: {columns: {v: d.npy}}}\nexpression: f = w * v.sum()\n"
    with pytest.raises(runner.ConfigError, match=r"d.npy holds 1e\+300 in row 1, column 0, which does not fit float32"):
        compiled(text, tmp_path)


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_streamed_source_is_cast_as_strictly(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0.0)
    monkeypatch.setattr("runner.plan.data.reading.checking.SCAN_BYTES", 0)
    written = write(tmp_path, kind, [*map(float, range(9)), 0.5])
    text = (
        f"parameters: {{w: 1.0}}\ndata: {{train: {{{written}, dtype: {{v: int32}}, batch_size: 2, shuffle: true}}}}\n"
        "expression: f = w * v.sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: {epochs: 1}\n"
    )
    with pytest.raises(runner.RunError, match=r"holds 0.5 in row 9.*, which does not fit int32") as caught:
        rows_of(text, tmp_path)
    assert caught.value.problems[0].source is not None


@pytest.mark.parametrize("init", ["9007199254740993", "[0.5, 9007199254740993]", "[[1], [9007199254740993]]"])
def test_an_inline_integer_past_2_to_the_53_becomes_no_float(init: str) -> None:
    with pytest.raises(
        runner.ConfigError, match=r"9007199254740993 is an integer that float64 cannot represent exactly"
    ):
        compiled(f"parameters: {{w: {{init: {init}}}}}\nexpression: f = w.sum()\n")


def test_an_initial_expression_is_cast_as_strictly() -> None:
    head = "parameters: {w: 1.0}\nexpression: f = w * k.sum()\nconstants: "
    with pytest.raises(
        runner.ConfigError, match=r"the expression gives 0.5 at \[1\], which does not fit int64: it is not"
    ):
        compiled(head + "{k: {init: {expression: arange(3) / 2}, dtype: int64}}\n")
    row = rows_of(head + "{k: {init: {expression: arange(3) * 2.0}, dtype: int64}}\n")[1]
    assert row["f"] == 6.0


SEEN = "expression: |\n  seen = x\n  f = w * x.sum()\n"


def test_an_unsigned_and_another_integer_column_are_stacked(tmp_path: Path) -> None:
    columns = {"i": pyarrow.array([-1, 2], pyarrow.int8()), "u": pyarrow.array([60000, 3], pyarrow.uint16())}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "d.parquet")
    text = "parameters: {w: 1.0}\ndata: {train: {file: d.parquet, columns: {x: [i, u]}}}\n" + SEEN
    assert torch.equal(rows_of(text, tmp_path)[1]["seen"], torch.tensor([[-1, 60000], [2, 3]]))


def test_integers_beside_floats_of_a_parquet_file_stay_exact_or_are_refused(tmp_path: Path) -> None:
    text = "parameters: {w: 1.0}\ndata: {train: {file: d.parquet, columns: {x: [i, f]}, dtype: {x: float64}}}\n" + SEEN
    table = {"i": pyarrow.array([2**24 + 1]), "f": pyarrow.array([0.5], pyarrow.float32())}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "d.parquet")
    assert rows_of(text, tmp_path)[1]["seen"].tolist() == [[2**24 + 1, 0.5]]
    table["i"] = pyarrow.array([2**53 + 1])
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "d.parquet")
    with pytest.raises(
        runner.ConfigError, match=r"d.parquet holds 9007199254740993 in row 0 of the column `i`, which is an"
    ):
        compiled(text, tmp_path)


@pytest.mark.parametrize("kind", [pyarrow.decimal128(10, 2), pyarrow.list_(pyarrow.decimal128(10, 2), 1)])
def test_decimals_are_read_as_float64(tmp_path: Path, kind: pyarrow.DataType) -> None:
    value = decimal.Decimal("1.10")
    array = pyarrow.array([value if kind == pyarrow.decimal128(10, 2) else [value]] * 2, kind)
    pyarrow.parquet.write_table(pyarrow.table({"d": array}), tmp_path / "d.parquet")
    text = "parameters: {w: 1.0}\ndata: {train: {file: d.parquet, columns: {x: d}, dtype: {x: float64}}}\n" + SEEN
    assert rows_of(text, tmp_path)[1]["seen"].reshape(-1).tolist() == [1.1, 1.1]


def test_a_long_cell_of_a_column_that_is_not_read_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("x,note\n1," + "a" * 200_000 + "\n2,b\n")
    text = "parameters: {w: 1.0}\ndata: {train: {file: d.csv, columns: {x: x}}}\nexpression: f = w * x.sum()\n"
    assert rows_of(text, tmp_path)[1]["f"] == 3.0


def test_a_table_is_read_once_by_a_plan_and_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.plan.data.tables import text_cache

    (tmp_path / "d.csv").write_text("x,y,text\n1,2.5,a\n3,4.5,b\n")
    read, calls = text_cache.read_columns, []

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(text_cache, "read_columns", counted)
    text = (
        "parameters: {w: {file: d.csv, columns: [x, y]}}\nconstants: {k: {file: d.csv, columns: y}}\n"
        "data:\n  train: {file: d.csv, columns: {x: x, y: [y, x]}}\n  test: {file: d.csv, columns: {x: x, y: [y, x]}}\n"
        "expression: f = (w * x.sum() + y.sum() + k.sum()).sum()\nsteps: [backward, {evaluate: test}]\n"
    )
    plan = compiled(text, tmp_path)
    assert len(calls) == 1
    list(runner.execute(plan))
    assert len(calls) == 1
    assert plan.read.bytes == 0  # the run has its own copy
    list(runner.execute(plan))
    assert len(calls) == 2


WIDE = """
import re, sys, pathlib, pyarrow, pyarrow.csv, pyarrow.compute
from runner.plan.data.files import open_array, read
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
(pathlib.Path(sys.argv[1]) / "small.csv").write_text("x\\n1\\n")
read(open_array("small.csv", pathlib.Path(sys.argv[1])))
before = peak()
read(open_array("d.csv", pathlib.Path(sys.argv[1])))
print((peak() - before) * 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory in Linux's units")
@pytest.mark.slow
def test_many_columns_take_no_more_than_their_numbers_twice_and_some_cells(tmp_path: Path) -> None:
    columns, rows = 1000, 10_000
    line = ",".join(["1"] * columns) + "\n"
    (tmp_path / "d.csv").write_text(",".join(f"c{number}" for number in range(columns)) + "\n" + line * rows)
    done = subprocess.run([sys.executable, "-c", WIDE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 8 * columns * rows + (96 << 20)


def test_a_table_whose_numbers_do_not_fit_is_refused_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b\n" + "1,2\n" * 200_000)
    text = "parameters: {w: 1.0}\ndata: {train: {file: d.csv, columns: {x: [a, b]}}}\nexpression: f = w * x.sum()\n"
    with pytest.raises(runner.ConfigError, match=r"reading d.csv needs more than the 4 MiB available"):
        runner.compile(runner.loads(text, base=str(tmp_path)), limits=PlanLimits(memory=4 << 20))


PARQUET = """
import re, sys, pathlib
from runner.plan.data.files import open_array, read
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
folder = pathlib.Path(sys.argv[1])
read(open_array("small.parquet", folder))
before = peak()
values = read(open_array("d.parquet", folder))
print((peak() - before) * 1024 - values.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory in Linux's units")
@pytest.mark.slow
def test_parquet_is_read_into_its_place_with_no_copy_of_all(tmp_path: Path) -> None:
    rows = 4_000_000
    columns = {name: numpy.arange(rows) % 7 for name in ("a", "b")}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "d.parquet", row_group_size=500_000)
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "small.parquet")
    done = subprocess.run([sys.executable, "-c", PARQUET, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 << 20  # beside 61 MiB of numbers
