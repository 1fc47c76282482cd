"""The way of tensors through a Parquet file and back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.rows.arrow import columns_of, schema_of, table_of
from runner.record.rows.batch import Batch, LoopLabels, blank_of, merge, pack
from runner.record.rows.parquet import encode
from runner.record.rows.storage import stored_column
from runner.record.rows.tensors import present_of, stacked_of, tensors_of
from tests.effort import tried
from tests.record.building import bits, rows_of
from tests.tables import over

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

DTYPES = [
    torch.bool,
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.complex32, torch.complex64, torch.complex128),
]
SHAPES = [(), (1,), (3,), (2, 3), (1, 1, 1), (0,), (2, 0, 3), (4096,), (4097,), (65, 64)]


def random_bits(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Any bits a tensor may hold: NaNs of every payload, infinities, denormals, -0.0."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8).bool()
    raw = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def packed(columns: list[Column], values: list[list[Tensor | None]]) -> Batch:
    stored = [stored_column(column) for column in columns]
    return pack(rows_of(columns, values), stored, [blank_of(column) for column in stored])


def through_parquet(columns: list[Column], batches: list[Batch]) -> pyarrow.Table:
    stored = [stored_column(column) for column in columns]
    schema = schema_of(stored)
    content = encode([table_of(batch, stored, schema) for batch in batches], stored)
    return pyarrow.parquet.ParquetFile(content).read()


def round_trip(column: Column, values: list[Tensor | None]) -> list[Tensor | None]:
    return tensors_of(through_parquet([column], [packed([column], [[value] for value in values])]), column)


def same(left: list[Tensor | None], right: list[Tensor | None]) -> bool:
    return [value if value is None else bits(value) for value in left] == [
        value if value is None else bits(value) for value in right
    ]


@settings(max_examples=tried(300), deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from(SHAPES),
    present=st.lists(st.booleans(), min_size=1, max_size=12),
    varies=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_dtype_and_shape_comes_back_bit_for_bit(
    dtype: torch.dtype, shape: tuple[int, ...], present: list[bool], varies: bool, seed: int
) -> None:
    column = Column("w", "weight", dtype, None if varies else shape)
    values = [random_bits(shape, dtype, seed + index) if there else None for index, there in enumerate(present)]
    assert same(round_trip(column, values), values)


@settings(max_examples=50, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shapes=st.lists(st.none() | st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=8),
)
def test_a_shape_that_varies_is_kept(dtype: torch.dtype, shapes: list[tuple[int, ...] | None]) -> None:
    column = Column("v", "value", dtype, None)
    values = [None if shape is None else random_bits(shape, dtype, 0) for shape in shapes]
    assert same(round_trip(column, values), values)


@over("dtype", DTYPES)
def test_batches_merge_into_the_same_rows(dtype: torch.dtype) -> None:
    columns = [Column("a", "value", dtype, ()), Column("b", "value", dtype, (3,)), Column("c", "value", dtype, None)]
    columns.append(Column("d", "value", dtype, (4097,)))
    shapes = [column.shape if column.shape is not None else (2,) for column in columns]
    values = [
        [random_bits(shape, dtype, row) if (row + place) % 3 else None for place, shape in enumerate(shapes)]
        for row in range(7)
    ]
    separate = [packed(columns, values[:3]), packed(columns, values[3:4]), packed(columns, values[4:])]
    for table in (through_parquet(columns, [merge(separate)]), through_parquet(columns, separate)):
        for place, column in enumerate(columns):
            assert same(tensors_of(table, column), [row[place] for row in values])


@over(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(12.0).reshape(3, 4)[:, ::2],
        torch.tensor([5.0]).expand(3, 2),
        torch.ones(3, 2, requires_grad=True) * 2,
        torch.nn.Parameter(torch.ones(3, 2)),
    ],
)
@over("varies", [False, True])
def test_what_lies_scattered_in_memory_is_stored_in_order(tensor: Tensor, varies: bool) -> None:
    column = Column("w", "weight", torch.float32, None if varies else tuple(tensor.shape))
    (back,) = round_trip(column, [tensor])
    assert back is not None
    assert back.tolist() == tensor.tolist()


def test_a_large_transposed_tensor_is_stored_in_order() -> None:
    tensor = torch.arange(100.0 * 50).reshape(100, 50).T
    (back,) = round_trip(Column("w", "weight", torch.float32, (50, 100)), [tensor])
    assert back is not None
    assert torch.equal(back, tensor)


@over("shape", [(), (3,), (4097,)])
@over("value", [torch.zeros(5), torch.zeros(4098), torch.zeros((), dtype=torch.int64)])
def test_a_value_that_is_not_of_its_column_is_a_fault_of_ours(shape: tuple[int, ...], value: Tensor) -> None:
    with pytest.raises(AssertionError, match="w is "):
        packed([Column("w", "weight", torch.float32, shape)], [[value]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("shape", [(), (3,), (4097,), None])
def test_tensors_on_a_device_come_back_on_the_cpu(shape: tuple[int, ...] | None) -> None:
    value = torch.randn((5,) if shape is None else shape)
    back = round_trip(Column("w", "weight", torch.float32, shape), [None, value.cuda(), value.cuda()])
    assert same(back, [None, value, value])


@over(
    ("column", "kind"),
    [
        (Column("x", "value", torch.float64, ()), pyarrow.float64()),
        (Column("x", "value", torch.bfloat16, ()), pyarrow.float32()),
        (Column("x", "value", torch.float16, ()), pyarrow.float32()),
        (Column("x", "value", torch.bool, ()), pyarrow.bool_()),
        (Column("x", "value", torch.int8, ()), pyarrow.int8()),
        (Column("x", "value", torch.float32, (2, 3)), pyarrow.fixed_shape_tensor(pyarrow.float32(), [2, 3])),
        (Column("x", "value", torch.complex64, (3,)), pyarrow.fixed_shape_tensor(pyarrow.float32(), [3, 2])),
        (Column("x", "value", torch.float32, (4097,)), pyarrow.binary(4 * 4097)),
        (Column("x", "value", torch.bfloat16, (4097,)), pyarrow.binary(4 * 4097)),
        (Column("x", "value", torch.float32, (0, 3)), pyarrow.list_(pyarrow.float32())),
        (Column("x", "value", torch.float32, None), pyarrow.list_(pyarrow.float32())),
    ],
)
def test_the_schema_is_the_documented_one(column: Column, kind: pyarrow.DataType) -> None:
    field = schema_of([stored_column(column)]).field("x")
    assert field.type == kind
    assert field.metadata[b"steprun.dtype"].decode() == str(column.dtype).removeprefix("torch.")
    shape = json.loads(field.metadata[b"steprun.shape"])
    assert shape == (None if column.shape is None else list(column.shape))
    assert columns_of(schema_of([stored_column(column)])) == (column,)


def test_a_large_tensor_is_its_little_endian_bytes() -> None:
    column = Column("w", "weight", torch.float32, (4097,))
    value = torch.arange(4097, dtype=torch.float32)
    table = through_parquet([column], [packed([column], [[value]])])
    assert table.column("w")[0].as_py() == value.numpy().astype("<f4").tobytes()


def test_every_row_has_its_number_step_path_and_iteration() -> None:
    column = Column("x", "value", torch.float32, ())
    table = through_parquet([column], [packed([column], [[torch.tensor(1.0)]] * 2)])
    assert table.select(["row", "step", "path", "iteration"]).to_pylist() == [
        {"row": 0, "step": "train", "path": "1.repeat[0].train", "iteration": 1},
        {"row": 1, "step": "train", "path": "1.repeat[1].train", "iteration": 1},
    ]
    assert [table.schema.field(name).type for name in ("row", "step", "path", "iteration")] == [
        pyarrow.int64(),
        pyarrow.string(),
        pyarrow.string(),
        pyarrow.int64(),
    ]


@pytest.mark.parametrize("first", [1, 9, 990, 9_995, 99_999_998, 10**12 - 3, 2**53])
@pytest.mark.parametrize("places", [range(12), range(0, 24, 2), [0, 3, 9_999, 1 << 40]])
def test_rows_of_a_loop_have_their_iteration_in_the_path(first: int, places: Sequence[int]) -> None:
    rows = len(places)
    labels = LoopLabels(7, "train", ("epoch 2, train[", "]"), first, places)
    table = table_of(Batch(rows, labels, [], 0), [], schema_of([]))
    iterations = [first + place for place in places]
    assert table.column("row").to_pylist() == list(range(7, 7 + rows))
    assert table.column("step").to_pylist() == ["train"] * rows
    assert table.column("path").to_pylist() == [f"epoch 2, train[{iteration}]" for iteration in iterations]
    assert table.column("iteration").to_pylist() == iterations


def test_a_name_with_a_dot_is_one_column() -> None:
    columns = [Column("x", "weight", torch.float32, (2,)), Column("x.grad", "gradient", torch.float32, (2,))]
    table = through_parquet(columns, [packed(columns, [[torch.ones(2), None]])])
    assert table.column_names == ["row", "step", "path", "iteration", "x", "x.grad"]
    assert table.column("x.grad").to_pylist() == [None]


def test_a_column_is_stacked_with_a_mask_of_what_is_there() -> None:
    column = Column("w", "weight", torch.float32, (2,))
    table = through_parquet([column], [packed([column], [[None], [torch.tensor([1.0, 2.0])]])])
    values, present = stacked_of(table, column)
    assert values.shape == (2, 2)
    assert values[1].tolist() == [1.0, 2.0]
    assert present.tolist() == present_of(table, "w").tolist() == [False, True]


@pytest.mark.parametrize("encoding_of", ["f", "w.list.element"])
def test_numbers_are_split_by_byte_and_compressed_with_zstd(tmp_path: Path, encoding_of: str) -> None:
    columns = [Column("f", "value", torch.float32, ()), Column("w", "weight", torch.float64, (2,))]
    stored = [stored_column(column) for column in columns]
    batch = packed(columns, [[torch.tensor(1.0), torch.ones(2, dtype=torch.float64)]])
    content = encode([table_of(batch, stored, schema_of(stored))], stored)
    group = pyarrow.parquet.ParquetFile(content).metadata.row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == encoding_of)
    assert "BYTE_STREAM_SPLIT" in chunk.encodings
    assert chunk.compression == "ZSTD"
