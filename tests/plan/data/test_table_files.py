"""Tables of text and Parquet: what a config gets of their columns, and how their faults are reported."""

import subprocess
import sys

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch

from runner.plan.data.files import FileFault, open_array, read
from runner.plan.data.tables import header as table_headers
from tests.plan.data.loading import fault, load, write_parquet
from tests.tables import over


def test_csv_columns_are_numbers_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffx, y ,ok,n\n1,2.5,true,1\n2,-1e3,False,2.5\n\n3,nan,TRUE,-inf\n", "utf-8")
    assert torch.equal(load(tmp_path, "a.csv", "x"), torch.tensor([1, 2, 3]))
    assert torch.equal(load(tmp_path, "a.csv", "ok"), torch.tensor([True, False, True]))
    y = torch.tensor([2.5, -1000, torch.nan], dtype=torch.float64)
    torch.testing.assert_close(load(tmp_path, "a.csv", "y"), y, rtol=0, atol=0, equal_nan=True)
    both = torch.tensor([[1, 1], [2, 2.5], [3, -torch.inf]], dtype=torch.float64)
    assert torch.equal(load(tmp_path, "a.csv", ("x", "n")), both)
    assert load(tmp_path, "a.csv", ("x",)).shape == (3, 1)


def test_every_column_of_a_table_is_read_where_none_is_named(tmp_path):
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n3\t4\n")
    assert torch.equal(load(tmp_path, "a.tsv"), torch.tensor([[1, 2], [3, 4]]))


def test_a_column_that_is_integer_at_first_and_floating_later_is_floating(tmp_path):
    (tmp_path / "a.csv").write_text("x\n" + "1\n" * 9000 + "0.5\n")
    found = load(tmp_path, "a.csv", "x")
    assert found.dtype == torch.float64
    assert found.sum() == 9000.5


def test_quoted_cells_and_windows_line_ends_are_read(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'"x, m","y"\r\n"1","2"\r\n')
    assert torch.equal(load(tmp_path, "a.csv", "x, m"), torch.tensor([1]))


def test_the_columns_of_a_wide_table_are_found_in_linear_time(tmp_path, monkeypatch):
    class Counted(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

        def strip(self):
            return self

    class Reader:
        def __init__(self, *arguments, **options):
            self.rows = make_reader(*arguments, **options)

        def __iter__(self):
            return self

        def __next__(self):
            row = next(self.rows)
            return [Counted(cell) for cell in row] if self.line_num == 1 else row

        @property
        def line_num(self):
            return self.rows.line_num

    def comparisons(width):
        names = ",".join(f"c{n}" for n in range(width))
        (tmp_path / "a.csv").write_text(f"{names}\n" + ",".join(map(str, range(width))) + "\n")
        before = Counted.compared
        assert torch.equal(load(tmp_path, "a.csv"), torch.arange(width)[None])
        assert torch.equal(load(tmp_path, "a.csv", tuple(f"c{n}" for n in range(width))), torch.arange(width)[None])
        return Counted.compared - before

    make_reader = table_headers.csv.reader
    monkeypatch.setattr(table_headers.csv, "reader", Reader)
    assert comparisons(2000) < 5 * comparisons(500) + 5000


TEXT_FAULTS = [
    ("", None, "a.csv is empty"),
    ("\nx,y\n1,2\n", "x", "a.csv:1 is blank"),
    ("x,y\n", "x", "a.csv has a header and no rows"),
    ("1,2\n3,4\n", "x", "a.csv names no columns: its first line is 1, 2"),
    ("x,y\n1,2\n3\n", "x", "a.csv:3 has 1 cell, and its header names 2 columns"),
    ("x,y\n1,2\n3,abc\n", "y", "a.csv:3 holds `abc`, which is not a number in the column `y`"),
    ("x,y\n1,2\n3,\n", "y", "a.csv:3 holds nothing in the column `y`"),
    ("x\n2024_01\n", "x", "a.csv:2 holds `2024_01`, which is not a number in the column `x`"),
    ("x\ntrue\n1\n", "x", "a.csv:2 holds `true`, which is not a number in the column `x`"),
    ("x\n" + "1\n" * 65536 + "true\n", "x", "the column `x` of a.csv mixes booleans and numbers"),
    ("x,y\n1,true\n", None, "`y` of a.csv holds booleans and other columns numbers"),
    ("x,y\n1,2\n", "z", "a.csv has no column `z`"),
    ("x,x\n1,2\n", "x", "a.csv has several columns `x`"),
    ('x\n2\n"1\n', "x", "a.csv:3 opens a quote that is not closed"),
    ('x\n"1"2\n', "x", "a.csv:2 is malformed: ',' expected after '\"'"),
    ("x\n1e400\n", "x", "a.csv:2 holds `1e400`, which is beyond 1.79769e+308, the largest float64, in the column `x`"),
    (
        "x\n9007199254740993\n0.5\n",
        "x",
        "a.csv:2 holds `9007199254740993`, which float64 cannot represent exactly, in the column `x`",
    ),
    (
        "x,y\n\n9007199254740993,0.5\n",
        None,
        "a.csv:3 holds `9007199254740993`, which float64 cannot represent exactly, in the column `x`",
    ),
    (
        "x\n" + "1\n" * 70000 + "-9007199254740993\n" + "1\n" * 70000 + "0.5\n",
        "x",
        "a.csv:70002 holds `-9007199254740993`, which float64 cannot represent exactly, in the column `x`",
    ),
    ("x\n1\n\n2\n", "x", "a.csv:3 holds nothing in the column `x`"),
    ("x\n1\n2\n\n", None, "a.csv:4 holds nothing in the column `x`"),
    ('x\n1\n""\n2\n', "x", "a.csv:3 holds nothing in the column `x`"),
]


@over(("text", "columns", "message"), TEXT_FAULTS)
def test_a_malformed_table_is_refused_with_its_line(tmp_path, text, columns, message):
    (tmp_path / "a.csv").write_text(text)
    assert fault(tmp_path, "a.csv", columns).message == message


def test_a_table_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x\n\xff\xfe\n")
    assert fault(tmp_path, "a.csv", "x").message == "a.csv is not UTF-8: invalid start byte at byte 2"


def test_a_misspelt_column_gets_the_nearest_name(tmp_path):
    (tmp_path / "a.csv").write_text("height,weight\n1,2\n")
    assert fault(tmp_path, "a.csv", "hieght").hint == "did you mean `height`?"


def test_parquet_columns_keep_their_dtypes(tmp_path):
    columns = {
        "i": pyarrow.array([1, -2], pyarrow.int32()),
        "u": pyarrow.array([1, 2], pyarrow.uint32()),
        "h": pyarrow.array(numpy.array([1, 2], numpy.float16)),
        "f": pyarrow.array([0.1, 0.2], pyarrow.float32()),
        "d": pyarrow.array([0.1, numpy.nan]),
        "b": pyarrow.array([True, False]),
        "w.grad": pyarrow.array([1.0, 2.0]),
    }
    write_parquet(tmp_path / "a.parquet", **columns)
    assert torch.equal(load(tmp_path, "a.parquet", "i"), torch.tensor([1, -2], dtype=torch.int32))
    assert torch.equal(load(tmp_path, "a.parquet", "u"), torch.tensor([1, 2]))
    assert torch.equal(load(tmp_path, "a.parquet", "h"), torch.tensor([1, 2], dtype=torch.float16))
    assert torch.equal(load(tmp_path, "a.parquet", "f"), torch.tensor([0.1, 0.2]))
    assert load(tmp_path, "a.parquet", "d").isnan().tolist() == [False, True]
    assert torch.equal(load(tmp_path, "a.parquet", "b"), torch.tensor([True, False]))
    assert torch.equal(load(tmp_path, "a.parquet", "w.grad"), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert load(tmp_path, "a.parquet", ("i", "f")).dtype == torch.float64


def test_parquet_columns_of_tensors_keep_their_shape(tmp_path):
    values = numpy.arange(12.0).reshape(2, 2, 3)
    kind = pyarrow.fixed_shape_tensor(pyarrow.float64(), (2, 3))
    tensor = pyarrow.ExtensionArray.from_storage(
        kind, pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), 6)
    )
    fixed = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array([1, 2, 3, 4]), 2)
    write_parquet(tmp_path / "a.parquet", t=tensor, l=fixed)
    assert torch.equal(load(tmp_path, "a.parquet", "t"), torch.from_numpy(values))
    assert torch.equal(load(tmp_path, "a.parquet", "l"), torch.tensor([[1, 2], [3, 4]]))


def test_parquet_faults_name_the_column(tmp_path):
    write_parquet(tmp_path / "a.parquet", s=["a"], n=pyarrow.array([None], pyarrow.int64()), x=[1], v=[[1, 2]])
    assert "the column `s` of a.parquet holds string, not numbers" in fault(tmp_path, "a.parquet", "s").message
    assert "the column `v` of a.parquet holds list" in fault(tmp_path, "a.parquet", "v").message
    array = open_array("a.parquet", tmp_path, (), "n")
    with pytest.raises(FileFault, match=r"the column `n` of a.parquet has a null in row 0"):
        read(array)
    assert "a.parquet has no column `y`" in fault(tmp_path, "a.parquet", "y").message


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_parquet_page_that_is_not_what_its_checksum_says_is_refused(tmp_path, compression):
    path = tmp_path / "f.parquet"
    table = pyarrow.table({"v": numpy.random.default_rng(0).standard_normal(1000)})
    pyarrow.parquet.write_table(
        table, path, compression=compression, use_dictionary=False, write_page_checksum=True, write_statistics=False
    )
    content = bytearray(path.read_bytes())
    content[4000] ^= 16  # of its 8,000 bytes of values
    path.write_bytes(content)
    assert fault(tmp_path, "f.parquet", "v").message.startswith("f.parquet is not a valid Parquet file: ")


def test_parquet_larger_than_the_limit_is_refused_before_it_is_unpacked(tmp_path):
    write_parquet(tmp_path / "a.parquet", x=pyarrow.array(numpy.zeros(1_000_000)))
    assert (tmp_path / "a.parquet").stat().st_size < 50_000
    assert "needs 7.6 MiB, and the limit is 1.0 MiB" in fault(tmp_path, "a.parquet", "x", limit=2**20).message


@pytest.mark.slow
def test_reading_a_small_table_imports_no_arrow(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    script = (
        "import sys, pathlib\n"
        "from runner.plan.data.files import open_array, read\n"
        f"read(open_array('a.csv', pathlib.Path({str(tmp_path)!r})))\n"
        "assert 'pyarrow' not in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
