from __future__ import annotations

import io
import math
from collections.abc import Sequence

import pytest
import torch

import runner
from runner.engine.rows import Row
from runner.errors import UsageError
from runner.plan.rows.columns import Column
from runner.record.display.console import plan_printing, printer_of
from runner.record.display.lines import LinePrinter
from runner.record.display.measures import Measure, fitting, measure_of, measures_of, norm, number_text
from runner.record.display.places import place_of
from runner.record.display.spread import Spread
from tests.record.building import rows_of
from tests.tables import over

COLUMNS = (
    Column("loss", "value", torch.float32, ()),
    Column("w", "weight", torch.float32, (2,)),
    Column("w.grad", "gradient", torch.float32, (2,)),
    Column("b", "weight", torch.float32, (1,)),
    Column("b.grad", "gradient", torch.float32, (1,)),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(rows: Sequence[Row], measures: Sequence[Measure] | None = None, width: int = 80) -> list[str]:
    columns = rows[0].columns
    stream = io.StringIO()
    measures = measures_of(columns, ["loss"]) if measures is None else measures
    spread: Spread[Row] = Spread(len(rows), False)
    path = max((row.path for row in rows), key=len)
    with LinePrinter(columns, measures, spread, stream, rows=len(rows), path=path, width=width, color=False) as printer:
        for row in rows:
            printer(row)
    return stream.getvalue().splitlines()


def trained(count: int) -> list[Row]:
    values = [
        [torch.tensor(1.0 / number), torch.zeros(2), torch.tensor([3.0, 0.0]), torch.zeros(1), torch.tensor([4.0])]
        for number in range(1, count + 1)
    ]
    return rows_of(COLUMNS, values)


def test_a_line_has_row_path_objective_and_the_norm_of_all_gradients() -> None:
    assert printed(trained(3)) == [
        "row  path                    loss     |grad|          b",
        "  0  1.repeat[0].train          1          5          0",
        "  1  1.repeat[1].train        0.5          5          0",
        "  2  1.repeat[2].train    0.33333          5          0",
        "row 2  1.repeat[2].train",
        "  loss   tensor(0.3333)",
        "  w      tensor([0., 0.])     .grad  tensor([3., 0.])",
        "  b      tensor([0.])         .grad  tensor([4.])",
    ]


def test_rows_without_any_of_the_numbers_have_no_line() -> None:
    first, second = trained(2)
    first = rows_of(COLUMNS[:1], [[None]])[0]
    lines = printed([first, rows_of(COLUMNS[:1], [[torch.tensor(2.0)]])[0]])
    assert [line.split()[0] for line in lines] == ["row", "0", "row", "loss"]
    assert second.has(0)


def test_rows_with_weights_and_gradients_alone_have_no_line() -> None:
    values = [
        [None if number % 2 else torch.tensor(2.0), torch.zeros(2), torch.ones(2), torch.zeros(1), torch.ones(1)]
        for number in range(4)
    ]
    table = printed(rows_of(COLUMNS, values))[:4]
    assert [line.split()[:2] for line in table] == [
        ["row", "path"],
        ["0", "1.repeat[0].train"],
        ["2", "1.repeat[2].train"],
        ["row", "3"],
    ]


def test_the_last_row_of_many_weights_is_cut() -> None:
    columns = [Column(f"w{number}", "weight", torch.float32, (100,)) for number in range(1000)]
    lines = printed(rows_of(columns, [[torch.ones(100)] * 1000]), [measure_of(0, columns[0])], width=120)
    assert lines[-1] == "  … 976 more …"
    assert len(lines) == 2 + 1 + 24 + 1


def test_a_narrow_table_says_what_it_leaves_out() -> None:
    columns = [Column(f"number{number}", "value", torch.float32, ()) for number in range(9)]
    lines = printed(rows_of(columns, [[torch.tensor(1.0)] * 9]), width=40)
    assert lines[0] == "7 more columns; choose with --columns"
    assert lines[1] == "row  path         number0    number1"
    assert all(len(line) <= 40 for line in lines)


def test_the_norm_of_the_gradients_keeps_its_place() -> None:
    shown = fitting(measures_of(COLUMNS, ["loss"]), 23)
    assert [measure.heading for measure in shown] == ["loss", "|grad|"]


def test_on_a_narrow_terminal_the_objective_comes_before_the_norm_of_the_gradients() -> None:
    shown = fitting(measures_of(COLUMNS, ["loss"]), 16)
    assert [measure.heading for measure in shown] == ["loss"]


@over(
    ("value", "text"),
    [(0.5, "0.5"), (1 / 3, "0.33333"), (-1.23456e-300, "-1.2346e-300"), (math.nan, "nan"), (-math.inf, "-inf")],
)
def test_numbers_have_five_digits(value: float, text: str) -> None:
    assert number_text(value) == text


def test_integers_and_booleans_are_whole() -> None:
    assert [number_text(2**62), number_text(True), number_text(1.5 - 2j)] == [str(2**62), "True", "1.5-2j"]


@over(
    ("tensors", "expected"),
    [
        ([torch.tensor([3.0, 4.0])], 5.0),
        ([torch.tensor([3.0]), torch.tensor([[4.0]], dtype=torch.float64)], 5.0),
        ([torch.full((4,), 60000.0, dtype=torch.float16)], 120000.0),  # beyond the largest float16
        ([torch.tensor([3, 4])], 5.0),
        ([torch.tensor([3 + 4j])], 5.0),
        ([torch.tensor([True, True, True, True])], 2.0),
        ([torch.zeros(0)], 0.0),
        ([torch.tensor([math.inf, 1.0])], math.inf),
        ([torch.full((64,), 2**62)], 2.0**65),  # the squares overflow in float32
    ],
)
def test_norms_of_any_dtype(tensors: list[torch.Tensor], expected: float) -> None:
    assert norm(tensors) == pytest.approx(expected, rel=1e-3)


@over(
    ("width", "text"),
    [
        (40, "3.repeat[10].1.for_each[4].train"),
        (30, "repeat[10].for_each[4].train"),
        (20, "[10][4].train"),
        (1, "[10][4].train"),
    ],
)
def test_long_paths_are_shortened_and_keep_their_iterations(width: int, text: str) -> None:
    path = "3.repeat[10].1.for_each[4].train"
    place = place_of(path, width)
    assert place(path) == text
    assert place("2.forward") == "2.forward"


CONFIG = """\
parameters: {w: {shape: [2], init: 1}}
expression: loss = (w ** 2).sum()
optimizer: {sgd: {lr: 0.1}}
metrics: {size: linalg.norm(w)}
steps: STEPS
"""


def plan_of(steps: str) -> runner.Plan:
    return runner.compile(runner.loads(CONFIG.replace("STEPS", steps)))


@over(("steps", "rows"), [("[backward, step]", "full"), ("10", "full"), ("100", "lines"), ("1000000", "lines")])
def test_a_screen_of_rows_is_printed_whole_and_more_as_lines(steps: str, rows: str) -> None:
    assert plan_printing(plan_of(steps)).rows == rows


@over(("width", "steps", "rows"), [(4, "7", "full"), (4, "8", "lines"), (8, "3", "full"), (8, "7", "lines")])
def test_a_few_rows_of_a_small_network_are_printed_whole(width: int, steps: str, rows: str) -> None:
    text = f"""
parameters: {{w: {{shape: [{width}, 1], init: ones}}, v: {{shape: [8, 1], init: ones}}}}
expression: loss = (w ** 2).sum() + (v ** 2).sum()
optimizer: {{sgd: {{lr: 0.1}}}}
steps: {steps}
"""
    assert plan_printing(runner.compile(runner.loads(text))).rows == rows


def test_named_columns_are_shown_in_the_order_of_their_names() -> None:
    plan = plan_of("3")
    printing = plan_printing(plan, "lines", ["*.grad", "loss"])
    stream = io.StringIO()
    with printer_of(plan, printing, stream) as printer:
        for row in runner.execute(plan):
            printer(row)
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == ["row", "path", "|w.grad|", "loss"]
    assert lines[1].split() == ["1", "repeat[1].train", "2.8284", "2"]  # the gradient is 2 w, with w = (1, 1)
    assert [line.split()[0] for line in lines[4:]] == ["row", "loss", "w.grad"]


def test_a_name_that_is_no_column_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"`los` matches no column\n.*did you mean `loss`"):
        plan_printing(plan_of("3"), None, ["loss", "los"])
    with pytest.raises(UsageError, match="`x\\.\\*` matches no column"):
        plan_printing(plan_of("3"), None, ["x.*"])


def test_only_named_columns_of_a_whole_row_are_printed() -> None:
    plan = plan_of("[backward]")
    stream = io.StringIO()
    with printer_of(plan, plan_printing(plan, "full", ["w.grad"]), stream) as printer:
        for row in runner.execute(plan):
            printer(row)
    assert stream.getvalue().splitlines() == [
        "row 0  start",
        "  w.grad  None",
        "row 1  backward",
        "* w.grad  tensor([2., 2.])",
    ]
