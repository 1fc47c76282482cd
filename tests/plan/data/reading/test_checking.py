"""Values of files that a dtype does not represent are found while planning: in blocks, and by row groups."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import runner
from runner.plan.data.reading import checking
from tests.engine.running import compiled
from tests.tables import over

ROWS, WRONG = 40, 33


def fault_of(folder: Path, source: str) -> str:
    """The message of the only problem of a config with a data source; empty if it is valid."""
    text = f"parameters: {{w: 1.0}}\ndata: {{d: {{{source}, batch_size: 2}}}}\nexpression: w * v.to(float32).sum()\n"
    try:
        compiled(text, folder)
    except runner.ConfigError as error:
        (problem,) = error.problems
        return problem.message
    return ""


def write(folder: Path, kind: str, values: NDArray[numpy.generic]) -> str:
    """The values as an array or a column `v`; returns what a data source writes to name it."""
    if kind == "parquet":
        for part, some in enumerate(numpy.split(values, [10])):
            pyarrow.parquet.write_table(pyarrow.table({"v": some}), folder / f"p{part}.parquet", row_group_size=4)
        return "file: p*.parquet, columns: {v: v}"
    if kind == "fortran":
        numpy.save(folder / "v.npy", numpy.asfortranarray(numpy.stack([values, values[::-1]], 1)))
    elif kind == "npy":
        numpy.save(folder / "v.npy", values)
    elif kind == "safetensors":
        safetensors.numpy.save_file({"v": values}, folder / "v.safetensors")
    else:
        {"npz": numpy.savez, "compressed": numpy.savez_compressed}[kind](folder / "v.npz", v=values)
    file = {"npz": "v.npz#v", "compressed": "v.npz#v", "safetensors": "v.safetensors#v"}.get(kind, "v.npy")
    return f"columns: {{v: '{file}'}}"


HOLDS = {
    "npy": "v.npy holds {} in row 33",
    "npz": "v.npz#v holds {} in row 33",
    "compressed": "v.npz#v holds {} in row 33",
    "safetensors": "v.safetensors#v holds {} in row 33",
    "fortran": "v.npy holds {} in row 6, column 1",
    "parquet": "p1.parquet holds {} in row 23 of the column `v`",
}
CASTS = [
    ("int64", math.nan, "nan", "int64: it is not an integer"),
    ("int64", 1.7, "1.7", "int64: it is not an integer"),
    ("uint8", 300, "300", "uint8: it is not between 0 and 255"),
    ("float32", 2**53 + 1, "9007199254740993", "float32: it is an integer that float64 cannot represent exactly"),
    ("float32", 1e39, "1e+39", "float32: it is beyond 3.40282e+38, the largest float32"),
]


@over("kind", HOLDS)
@over(("dtype", "value", "shown", "reason"), CASTS)
def test_a_value_in_any_block_is_found_while_planning(
    tmp_path: Path, kind: str, dtype: str, value: float, shown: str, reason: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("runner.plan.data.row_files._BLOCK_BYTES", 7 * 8)
        values = numpy.arange(ROWS, dtype=numpy.int64 if isinstance(value, int) else numpy.float64)
        values[WRONG] = value
        source = write(tmp_path, kind, values)
        message = f"{HOLDS[kind].format(shown)}, which does not fit {reason}"
        source += f", dtype: {{v: {dtype}}}"
        assert fault_of(tmp_path, source) == message
        assert fault_of(tmp_path, source + ", select: {from: 0, to: 6}") == ""
        assert fault_of(tmp_path, source + ", select: {from: 6}") == message


def test_row_groups_whose_statistics_leave_no_doubt_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[range | None] = []
    parts = checking.parquet_parts

    def noted(paths: object, columns: object, reading: object, groups: range) -> object:
        read.append(groups)
        return parts(paths, columns, reading, groups)  # type: ignore[arg-type]

    monkeypatch.setattr(checking, "parquet_parts", noted)
    values = numpy.arange(ROWS)
    source = write(tmp_path, "parquet", values) + ", dtype: {v: uint8}"
    assert fault_of(tmp_path, source) == ""
    assert read == []
    values[[4, 21, 25, 38]] = 255, 256, -1, 300  # 3 groups of the first file, then 4 rows a group
    write(tmp_path, "parquet", values)
    assert "holds 256 in row 11 " in fault_of(tmp_path, source)
    assert read == [range(5, 7)]  # the runs of doubtful groups, up to the first fault


def test_a_null_is_found_where_a_file_has_no_statistics(tmp_path: Path) -> None:
    table = pyarrow.table({"v": pyarrow.array([1, 2, None, 4])})
    pyarrow.parquet.write_table(table, tmp_path / "v.parquet", write_statistics=False, row_group_size=1)
    assert fault_of(tmp_path, "file: v.parquet, columns: {v: v}") == "the column `v` of v.parquet has a null in row 2"


@over(
    "values, source, message",
    [
        ([1, 2**63 - 1], "columns: {v: v}", ""),
        ([1, 2**63], "columns: {v: v}", "v.parquet holds an unsigned integer beyond 2^63 in row 1 of the column `v`"),
        (
            [2**64 - 1],
            "columns: {v: v}, dtype: {v: float64}",
            "v.parquet holds an unsigned integer beyond 2^63 in row 0 of the column `v`",
        ),
        (
            [2**64 - 1],
            "columns: {v: [v, w]}",
            "v.parquet holds an unsigned integer beyond 2^63 in row 0 of the column `v`",
        ),
    ],
)
def test_an_unsigned_integer_that_int64_cannot_hold_is_found(
    tmp_path: Path, values: list[int], source: str, message: str
) -> None:
    table = {"v": pyarrow.array(values, pyarrow.uint64()), "w": [0.5] * len(values)}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "v.parquet")
    data = f"data: {{d: {{file: v.parquet, {source}}}}}\n"
    text = f"parameters: {{w: 1.0}}\n{data}expression: w * v.to(float32).sum()\n"
    if not message:
        assert compiled(text, tmp_path)
        return
    with pytest.raises(runner.ConfigError, match="unsigned") as caught:
        compiled(text, tmp_path)
    (problem,) = caught.value.problems
    assert (problem.message, problem.hint) == (message, "save it as float64")


def test_a_fill_that_does_not_fit_is_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"v": [1.0, None, 300.0]}), tmp_path / "v.parquet")
    source = "file: v.parquet, columns: {v: v}, dtype: {v: uint8}, fill: {v: %s}, select: {to: 2}"
    assert fault_of(tmp_path, source % "7") == ""
    assert fault_of(tmp_path, source % "2.5") == (
        "v.parquet holds 2.5 in row 1 of the column `v`, from `fill`, which does not fit uint8: it is not an integer"
    )


@over("kind", ["npy", "npz", "parquet"])
def test_what_planning_does_not_read_is_found_by_the_run(tmp_path: Path, kind: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("runner.plan.data.row_files._BLOCK_BYTES", 8)
        patched.setattr(checking, "SCAN_BYTES", 8 * WRONG)
        values = numpy.arange(ROWS, dtype=numpy.float64)
        values[WRONG] = 0.5
        source = write(tmp_path, kind, values)
        text = f"parameters: {{w: 1.0}}\ndata: {{d: {{{source}, dtype: {{v: int64}}}}}}\nexpression: w * v.sum()\n"
        plan = compiled(text, tmp_path)
        message = rf"{HOLDS[kind].format('0.5')}, which does not fit int64: it is not an integer\n"
        with pytest.raises(runner.RunError, match=message):
            list(runner.execute(plan))
