"""Text tables: both readers give what Python's `csv` and `float` give, in any dialect and in blocks of any size."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import Dialect
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables import arrow_cells, byte_blocks, text_table
from runner.plan.data.tables.cells import Numbers, Words
from runner.plan.data.tables.text_table import read_columns
from tests.tables import over

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["python", "arrow", "arrow in small blocks"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(text_table, "ARROW_FROM", 1 << 60 if request.param == "python" else 0)
    if "small" in request.param:
        monkeypatch.setattr(byte_blocks.byte_blocks, "__defaults__", (16,))
    return str(request.param)


def numbers(path: Path, name: str = "x", **dialect: Any) -> Numbers:
    found = read_columns([path], Dialect(**dialect), [(name, False)])[name, False]
    if isinstance(found, FileFault):
        raise found
    assert isinstance(found, Numbers)
    return found


def words(path: Path, name: str = "x", **dialect: Any) -> list[str]:
    found = read_columns([path], Dialect(**dialect), [(name, True)])[name, True]
    assert isinstance(found, Words)
    return [found.words[code] for code in found.codes]


FLOATS = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e-320, 5e-324, 1.7976931348623157e308, 2.0**53 - 1, 0.1])


@QUIET
@given(values=st.lists(FLOATS, min_size=1), comma=st.booleans(), delimiter=st.sampled_from([";", "\t", "|"]))
def test_floats_have_the_bits_that_python_reads(
    tmp_path: Path, reader: str, values: list[float], comma: bool, delimiter: str
) -> None:
    texts = [repr(value) for value in values]
    shown = [text.replace(".", ",") for text in texts] if comma else texts
    (tmp_path / "a.csv").write_text("".join(f"{cell}{delimiter}k\n" for cell in ["x", *shown]))
    found = numbers(tmp_path / "a.csv", delimiter=delimiter, decimal="," if comma else ".")
    expected = numpy.array(list(map(float, texts)))
    assert found.values.astype(float).view(numpy.int64).tolist() == expected.view(numpy.int64).tolist()


@QUIET
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_stay_exact(tmp_path: Path, reader: str, values: list[int]) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{cell}\n" for cell in ["x", *values]))
    found = numbers(tmp_path / "a.csv")
    assert found.values.dtype == numpy.int64
    assert found.values.tolist() == values


CELLS = st.text(st.sampled_from('01.,"\n+-exX_aé '), max_size=6) | st.sampled_from(
    ["0x10", "+5", "1_000", "1_0", "nan", "inf", "-inf", "true", "False", "9007199254740993", "1e400", "2024-01-31", ""]
)


@QUIET
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), quoting=st.sampled_from([0, 1]))
def test_arrow_and_python_agree_on_any_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, str]], quoting: Any
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows([("x", "y"), *rows])
    (tmp_path / "a.csv").write_text(text.getvalue(), "utf-8")
    found = []
    for threshold in (1 << 60, 0):
        monkeypatch.setattr(text_table, "ARROW_FROM", threshold)
        for name in ("x", "y"):
            assert words(tmp_path / "a.csv", name) == [row["xy".index(name)].strip() for row in rows]
            try:
                cells = numbers(tmp_path / "a.csv", name)
                missing = None if cells.missing is None or not cells.missing.any() else cells.missing.tolist()
                found.append((cells.values.dtype, cells.values.tobytes(), missing, cells.blank))
            except FileFault as fault:
                found.append((fault.message, fault.hint))
    assert found[:2] == found[2:]


TYPED = st.sampled_from(
    ["0.5", "-1.25e-3", "2", "1e5", "0x1p3", "nan", "inf", "-0.0", "9007199254740993", "9007199254740993.0", "a", ""]
)


@pytest.mark.slow
@settings(QUIET, max_examples=150)
@given(rows=st.lists(st.tuples(TYPED, TYPED), min_size=1, max_size=6), missing=st.sampled_from([(), ("",), ("a",)]))
def test_a_wide_table_whose_types_are_known_early_is_read_as_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, str]], missing: tuple[str, ...]
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{first},{second}\n" for first, second in rows))
    found: list[Any] = []
    for threshold, wide in ((1 << 60, 1000), (0, 1)):
        monkeypatch.setattr(text_table, "ARROW_FROM", threshold)
        monkeypatch.setattr(arrow_cells, "WIDE", wide)
        for name in ("x", "y"):
            try:
                cells = numbers(tmp_path / "a.csv", name, **({"missing": missing} if missing else {}))
                gone = None if cells.missing is None or not cells.missing.any() else cells.missing.tolist()
                found.append((cells.values.dtype, cells.values.tobytes(), gone, cells.blank))
            except FileFault as fault:
                found.append((fault.message, fault.hint))
    assert found[:2] == found[2:]


@pytest.mark.parametrize("first", ["0.5", "1", "a"])
def test_a_table_of_over_a_thousand_columns_has_its_numbers(tmp_path: Path, reader: str, first: str) -> None:
    names = [f"c{number}" for number in range(1_001)]
    table = [[first, *map(str, range(1, 1_001))], ["2", *(f"{number}.25" for number in range(1, 1_001))]]
    (tmp_path / "a.csv").write_text("".join(",".join(row) + "\n" for row in [names, *table]))
    wanted = [(name, False) for name in names]
    found = read_columns([tmp_path / "a.csv"], Dialect(), wanted)
    for number, name in enumerate(names[1:], 1):
        cells = found[name, False]
        assert isinstance(cells, Numbers)
        assert cells.values.tolist() == [number, number + 0.25]
    if first == "a":
        with pytest.raises(FileFault, match=r"a\.csv:2 holds `a`, which is not a number in the column `c0`"):
            raise found["c0", False]  # type: ignore[misc]


def test_booleans_and_integers_of_a_long_table_are_those_of_the_text(tmp_path: Path, reader: str) -> None:
    rows = [(number % 3 == 0, number - 50, "" if number % 7 == 0 else number / 8) for number in range(100)]
    (tmp_path / "a.csv").write_text("x,y,z\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    assert numbers(tmp_path / "a.csv").values.tolist() == [row[0] for row in rows]
    assert numbers(tmp_path / "a.csv", "y").values.tolist() == [row[1] for row in rows]
    found = numbers(tmp_path / "a.csv", "z", missing=("",))
    assert found.missing is not None
    assert found.missing.tolist() == [row[2] == "" for row in rows]
    assert found.values[~found.missing].tolist() == [row[2] for row in rows if row[2] != ""]


def test_a_number_that_means_missing_is_missing_as_in_pandas(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,-999\n-999,0.5\n3,-999\n")
    expected = pandas.read_csv(tmp_path / "a.csv", na_values=["-999"], keep_default_na=False)
    for name in ("x", "y"):
        found = numbers(tmp_path / "a.csv", name, missing=("-999",))
        assert found.missing is not None
        assert found.missing.tolist() == expected[name].isna().tolist()
        assert found.values[~found.missing].tolist() == expected[name].dropna().tolist()


@settings(QUIET, max_examples=150)
@given(content=st.text(st.sampled_from('01.,"\n\r+e x#é')), missing=st.sampled_from([(), ("1",), ("", "1")]))
def test_arrow_and_python_agree_on_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, missing: tuple[str, ...]
) -> None:
    (tmp_path / "a.csv").write_bytes(("x,y\n" + content).encode())
    found: list[Any] = []
    for threshold in (1 << 60, 0):
        monkeypatch.setattr(text_table, "ARROW_FROM", threshold)
        try:
            cells = numbers(tmp_path / "a.csv", **({"missing": missing} if missing else {}))
            gone = None if cells.missing is None else cells.missing.tolist()
            found.append((cells.values.dtype, cells.values.tobytes(), gone))
        except FileFault as fault:
            found.append(fault.message)
    assert found[0] == found[1]


def test_thousands_are_grouped_by_underscores(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1_000,1_000.5\n-12_345_678,2\n")
    assert numbers(tmp_path / "a.csv").values.tolist() == [1000, -12345678]
    assert numbers(tmp_path / "a.csv", "y").values.tolist() == [1000.5, 2.0]


def test_comment_lines_are_left_out_but_count_as_lines(tmp_path: Path, reader: str) -> None:
    text = '# one\nx,y\n# two\n1,"a\n# inside\nb"\n#\n2,c\nno,d\n'
    (tmp_path / "a.csv").write_text(text)
    assert words(tmp_path / "a.csv", "y", comment="#") == ["a\n# inside\nb", "c", "d"]
    with pytest.raises(FileFault, match=r"^a.csv:9 holds `no`, which is not a number in the column `x`$"):
        numbers(tmp_path / "a.csv", comment="#")


@over("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "shift_jis"])
def test_a_table_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    text = "naïve,x\né,1\nü,2\n" if encoding != "shift_jis" else "日,x\n本,1\n語,2\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    expected = pandas.read_csv(tmp_path / "a.csv", encoding=encoding)
    assert numbers(tmp_path / "a.csv", encoding=encoding).values.tolist() == expected["x"].tolist()
    assert words(tmp_path / "a.csv", expected.columns[0], encoding=encoding) == expected.iloc[:, 0].tolist()


@over("reading", ["utf-8", "ascii", "utf-16", "cp1252"])
def test_an_undecodable_byte_is_found_at_its_offset(tmp_path: Path, reader: str, reading: str) -> None:
    before = ("x\n" + "1\n" * 3000).encode("utf-16" if reading == "utf-16" else "ascii")
    bad = {"utf-8": b"\xff", "ascii": "é".encode(), "utf-16": b"\x00\xdc", "cp1252": b"\x81"}[reading]
    after = "\n2\n".encode("utf-16-le" if reading == "utf-16" else "ascii")
    (tmp_path / "a.csv").write_bytes(before + bad + after)
    with pytest.raises(FileFault, match=rf" at byte {len(before)}$"):
        numbers(tmp_path / "a.csv", encoding=reading)


def test_missing_texts_and_blanks_are_masked_and_only_those(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text("x,n\n1.5,1\nNA,2\n,3\nnan, NA \n")
    found = numbers(tmp_path / "a.csv", missing=("NA", ""))
    assert found.missing is not None
    assert found.missing.tolist() == [False, True, True, False]
    assert [math.isnan(value) for value in found.values.tolist()] == [False, True, True, True]
    whole = numbers(tmp_path / "a.csv", "n", missing=("NA",))
    assert (whole.values.dtype, whole.missing is not None and whole.missing.tolist()) == (
        numpy.int64,
        [False, False, False, True],
    )


def test_a_header_may_be_absent_or_given(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text("1,2\n3,4\n")
    assert numbers(tmp_path / "a.csv", "1", header=False).values.tolist() == [2, 4]
    assert numbers(tmp_path / "a.csv", "b", header=["a", "b"]).values.tolist() == [2, 4]


def test_quotes_may_mean_nothing(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text('x,y\n5",1\n6",2\n7",3\n')
    assert words(tmp_path / "a.csv", quote=None) == ['5"', '6"', '7"']
    assert words(tmp_path / "a.csv") == ['5"', '6"', '7"']  # a quote inside a cell is text
    (tmp_path / "b.csv").write_text("x,y\n'a,b',1\n")
    assert words(tmp_path / "b.csv", quote="'") == ["a,b"]


@over("start", ['1,"a', "1"])
def test_a_row_without_end_is_refused(tmp_path: Path, start: str) -> None:
    (tmp_path / "a.csv").write_text(f"x,y\n{start}{'1' * (19 << 20)},2\n")
    with pytest.raises(FileFault, match=r"^a row of a.csv has more than 16 MiB: it begins in line 2$"):
        numbers(tmp_path / "a.csv")


def test_a_table_of_too_many_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(f"c{number}" for number in range(200_001)) + "\n")
    with pytest.raises(FileFault, match=r"^a.csv has 200,001 columns, and at most 200,000 are read$"):
        numbers(tmp_path / "a.csv")


def test_a_table_of_a_hundred_thousand_columns_is_read(tmp_path: Path) -> None:
    count = 100_000
    lines = [",".join(f"c{number}" for number in range(count)), ",".join(map(str, range(count)))]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert numbers(tmp_path / "a.csv", "c99999").values.tolist() == [99_999]


@over(
    ("text", "expected", "dialect"),
    [
        ("-999\n2\n -999\n", [math.nan, 2, math.nan], {"missing": ("-999",)}),
        ("1.5\n-999\n-999.0\n-9.99e2\n", [1.5, math.nan, math.nan, math.nan], {"missing": ("-999",)}),
        ("inf\n1.5\n", [math.nan, 1.5], {"missing": ("inf",)}),
        ("1\n2.5\n1.0\n01\n", [math.nan, 2.5, math.nan, math.nan], {"missing": ("1",)}),
        ("-999\nNA\n1.5\n", [math.nan, math.nan, 1.5], {"missing": ("NA", "-999")}),
    ],
)
def test_a_number_can_be_the_text_of_a_missing_number(
    text: str, expected: list[float], dialect: dict[str, Any], tmp_path: Path, reader: str
) -> None:
    (tmp_path / "a.csv").write_text("x\n" + text)
    found = numbers(tmp_path / "a.csv", **dialect)
    values = numpy.where(False if found.missing is None else found.missing, math.nan, found.values)
    numpy.testing.assert_array_equal(values, expected)


def test_arrow_gets_text_in_memory_of_its_own() -> None:
    """Its threads may free it last, and would need Python for memory of Python: at the end of a process that aborts."""
    content = b"1,2\n" * 1000
    buffer = arrow_cells._outside_python(content)
    assert buffer.to_pybytes() == content
    assert buffer.address != pyarrow.py_buffer(content).address


def test_a_missing_integer_that_float64_does_not_reach_is_in_no_column(tmp_path: Path, reader: str) -> None:
    (tmp_path / "a.csv").write_text("x,n\n1.5,1000\n2.5,2\n")
    absent = ("9" * 400, "1_000")
    found = numbers(tmp_path / "a.csv", missing=absent), numbers(tmp_path / "a.csv", "n", missing=absent)
    assert found[0].values.tolist() == [1.5, 2.5]
    assert found[1].missing is not None
    assert found[1].missing.tolist() == [True, False]
