from __future__ import annotations

import io
import re
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from runner.engine.rows import Row
from runner.plan.rows.columns import Column
from runner.record.display.styles import wants_color
from runner.record.display.whole_rows import RowPrinter
from tests.effort import tried
from tests.record.building import LINEAR, linear_rows, rows_of


def printed(rows: Sequence[Row], width: int = 80, color: bool = False, **options: int | None) -> str:
    stream = io.StringIO()
    with RowPrinter(rows[0].columns, stream, width=width, color=color, **options) as printer:  # type: ignore[arg-type]
        for row in rows:
            printer(row)
    return stream.getvalue()


NOTEBOOK = (
    Column("f", "value", torch.float32, (1,)),
    Column("x1", "weight", torch.float32, (1,)),
    Column("x1.grad", "gradient", torch.float32, (1,)),
    Column("x2", "weight", torch.float32, (1,)),
    Column("x2.grad", "gradient", torch.float32, (1,)),
)


def test_rows_print_as_the_notebook_prints_its_tensors() -> None:
    x1, x2 = torch.tensor([100.0]), torch.tensor([200.0])
    rows = rows_of(
        NOTEBOOK,
        [
            [None, x1, None, x2, None],
            [torch.tensor([12000.0]), x1, torch.tensor([10.0]), torch.tensor([199.8]), torch.tensor([20.0])],
        ],
    )
    assert printed(rows).splitlines() == [
        "row 0  1.repeat[0].train",
        "  x1     tensor([100.])     .grad  None",
        "  x2     tensor([200.])     .grad  None",
        "row 1  1.repeat[1].train",
        "* f      tensor([12000.])",
        "  x1     tensor([100.])             * .grad  tensor([10.])",
        "* x2     tensor([199.8000])  -0.2   * .grad  tensor([20.])",
    ]


PARAMETER = (
    Column("weights", "weight", torch.float32, (512, 512)),
    Column("weights.grad", "gradient", torch.float32, (512, 512)),
)


def parameter_row() -> list[Row]:
    return rows_of(PARAMETER, [[torch.ones(512, 512), torch.full((512, 512), 666.0)]])


def test_a_large_tensor_prints_as_shape_and_statistics() -> None:
    assert printed(parameter_row(), width=160) == (
        "row 0  1.repeat[0].train\n"
        "  weights  (512, 512) float32  mean 1  std 0  min 1  max 1  norm 512     "
        ".grad  (512, 512) float32  mean 666  std 0  min 666  max 666  norm 3.4099e+05\n"
    )


STACKED = (
    Column("w", "weight", torch.float32, (3, 40), leading=(3,)),
    Column("w.grad", "gradient", torch.float32, (3, 40), leading=(3,)),
)


def test_the_slices_of_a_large_stacked_tensor_stand_below_it() -> None:
    weight = torch.arange(3.0)[:, None].expand(3, 40)
    rows = rows_of(STACKED, [[weight, None], [weight, weight * 2]])
    assert printed(rows, width=120).splitlines() == [
        "row 0  1.repeat[0].train",
        "  w      (3, 40) float32  mean 1  std 0.8165  min 0  max 2  norm 14.142  zeros 40     .grad  None",
        "  w[0]   mean 0  std 0  min 0  max 0  norm 0  zeros 40",
        "  w[1]   mean 1  std 0  min 1  max 1  norm 6.3246",
        "  w[2]   mean 2  std 0  min 2  max 2  norm 12.649",
        "row 1  1.repeat[1].train",
        "  w      (3, 40) float32  mean 1  std 0.8165  min 0  max 2  norm 14.142  zeros 40",
        "* .grad  (3, 40) float32  mean 2  std 1.633  min 0  max 4  norm 28.284  zeros 40",
        "  w[0]   mean 0  std 0  min 0  max 0  norm 0  zeros 40",
        "  .grad  mean 0  std 0  min 0  max 0  norm 0  zeros 40",
        "  w[1]   mean 1  std 0  min 1  max 1  norm 6.3246",
        "  .grad  mean 2  std 0  min 2  max 2  norm 12.649",
        "  w[2]   mean 2  std 0  min 2  max 2  norm 12.649",
        "  .grad  mean 4  std 0  min 4  max 4  norm 25.298",
    ]
    assert "  w[1]   mean 1  std 0  min 1  max 1  norm 6.3246" in printed(rows, width=300)
    assert "     .grad  mean 2  std 0  min 2  max 2  norm 12.649" in printed(rows, width=300)


def test_a_small_stacked_tensor_is_printed_whole() -> None:
    column = Column("w", "weight", torch.float32, (2, 2), leading=(2,))
    assert printed(rows_of([column], [[torch.ones(2, 2)]])).splitlines()[1:] == [
        "  w  tensor([[1., 1.],",
        "             [1., 1.]])",
    ]


def test_of_many_slices_the_first_and_the_last_are_printed() -> None:
    column = Column("w", "weight", torch.float32, (2, 20, 3), leading=(2, 20))
    lines = printed(rows_of([column], [[torch.ones(2, 20, 3)]])).splitlines()
    labels = [line.split()[0] for line in lines[2:]]
    first, last = [f"w[0,{number}]" for number in range(8)], [f"w[1,{number}]" for number in range(12, 20)]
    assert [label for label in labels if label.startswith("w[")] == [*first, *last]
    assert lines[2 + 8].strip() == "… 24 slices …"


def test_slices_that_the_log_leaves_out_are_not_printed() -> None:
    column = Column("w", "weight", torch.float32, (3, 40), "stats", leading=(3,), only=frozenset({"w[1]"}))
    assert printed(rows_of([column], [[torch.ones(3, 40)]])).splitlines()[-1].startswith("  w[1]  mean 1")


def test_on_a_narrow_terminal_the_gradient_stands_below() -> None:
    assert printed(parameter_row(), width=60) == (
        "row 0  1.repeat[0].train\n"
        "  weights  (512, 512) float32  mean 1  std 0  min 1  max 1\n"
        "           norm 512\n"
        "  .grad    (512, 512) float32  mean 666  std 0  min 666\n"
        "           max 666  norm 3.4099e+05\n"
    )


def test_on_a_narrow_terminal_one_number_stays_a_number() -> None:
    columns = [Column("test.regression_loss", "value", torch.float64, ()), Column("w", "weight", torch.float64, (1, 1))]
    row = rows_of(columns, [[torch.tensor(0.1875, dtype=torch.float64), torch.tensor([[-2.5]], dtype=torch.float64)]])
    assert printed(row, width=24) == (
        "row 0  1.repeat[0].train\n  test.regression_loss\n                0.1875\n  w             [[-2.5000]]\n"
    )


def test_on_a_narrow_terminal_labels_take_a_third() -> None:
    columns = [Column(name, "value", torch.float32, (100,)) for name in ("test.regression_loss", "w")]
    lines = printed(rows_of(columns, [[torch.ones(100)] * 2]), width=40).splitlines()
    assert lines[1:3] == ["  test.regression_loss", "                 (100,) float32  mean 1"]
    assert lines[5] == "  w              (100,) float32  mean 1"
    assert max(map(len, lines)) <= 40


def test_what_is_not_finite_is_counted() -> None:
    value = torch.ones(100)
    value[:3] = float("nan")
    value[3] = float("-inf")
    row = rows_of([Column("h", "value", torch.float32, (100,))], [[value]])
    assert printed(row).splitlines()[1].endswith("nan 3  inf 1")
    assert "\x1b[31mnan 3\x1b[0m" in printed(row, color=True)


def test_a_matrix_prints_whole_and_aligned() -> None:
    row = rows_of([Column("h", "value", torch.int64, (2, 3))], [[torch.arange(6).reshape(2, 3)]])
    assert printed(row).splitlines()[1:] == ["  h  tensor([[0, 1, 2],", "             [3, 4, 5]])"]


def test_a_small_tensor_that_is_tall_prints_as_statistics() -> None:
    row = rows_of([Column("h", "value", torch.int64, (9, 1))], [[torch.ones(9, 1).long()]])
    assert printed(row).splitlines()[1:] == ["  h  (9, 1) int64  mean 1  std 0  min 1  max 1  norm 3"]


def test_a_step_that_is_not_in_the_path_is_named() -> None:
    (row,) = rows_of([Column("h", "value", torch.int64, ())], [[torch.tensor(1)]])
    row.path, row.step = "3", "zero_grad"
    assert printed([row]).splitlines()[0] == "row 0  3  zero_grad"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_color_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_color_changes_no_character() -> None:
    rows = list(linear_rows(3))
    colored = printed(rows, color=True)
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == printed(rows)


def test_printing_leaves_torchs_print_options() -> None:
    before = repr(torch.arange(60))
    printed(list(linear_rows(2)), width=40)
    assert repr(torch.arange(60)) == before


@settings(max_examples=tried(100), deadline=None)
@given(
    shape=st.sampled_from([(), (1,), (7,), (64,), (3, 5), (65,), (2, 3, 4), (0,), (512, 2)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64]),
    scale=st.sampled_from([0.0, 1.0, 1e-8, 1e30]),
    name=st.sampled_from(["w", "encoder_block_attention_weight"]),
    width=st.integers(60, 200),
)
def test_no_line_is_wider_than_the_terminal(
    shape: tuple[int, ...], dtype: torch.dtype, scale: float, name: str, width: int
) -> None:
    columns = [Column(name, "weight", dtype, shape), Column(f"{name}.grad", "gradient", dtype, shape)]
    value = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)
    lines = printed(rows_of(columns, [[value, value * 2 if dtype != torch.bool else None]]), width=width).splitlines()
    assert max(map(len, lines)) <= width


def test_tensors_that_a_step_left_are_formatted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.Tensor.__repr__

    def counted(self: torch.Tensor, **options: object) -> str:
        calls.append(self)
        return original(self)

    monkeypatch.setattr(torch.Tensor, "__repr__", counted)
    weight = torch.tensor([1.0])
    rows = rows_of(LINEAR, [[None, weight, None]] * 4)
    printed(rows)
    assert len(calls) == 1
