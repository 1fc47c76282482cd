"""Lanes that are close only: their numbers are kept within what rounding explains, and a warning names any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest
import torch

from runner.cli.output.sweep_progress import SweepProgress
from runner.compare.numbers.bounds import UNKNOWN, Uncertainty
from runner.config import load, loads
from runner.engine.lanes.operations import together
from runner.engine.lanes.operations.tensor import LaneTensor
from runner.errors import Problem, RunError
from runner.record.rows.arrow import numbers_of
from runner.sweep.lanes import closeness
from runner.sweep.lanes.closeness import Judgement, judge
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import from_json, joined, to_json
from runner.sweep.points.task import Task
from runner.sweep.record.manifest import read_manifest
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.running import How, run_sweep, start_sweep
from runner.sweep.single import Work, run_point
from tests.sweep.configs import written
from tests.sweep.inline import inline

__all__ = ["inline"]

pytestmark = pytest.mark.usefixtures("inline")

MLP = """\
parameters: {w: {shape: [6, 5], init: {normal: {std: 0.5}}}, v: {shape: [5], init: {normal: {std: 0.5}}}}
constants: {x: {shape: [9, 6], init: normal}}
expression: |
  h = softplus(x @ w)
  loss = ((h @ v - 1) ** 2).mean()
optimizer: {adam: {lr: 0.02}}
steps: 25
"""
SEEDS = "sweep: {grid: {seed: range(8)}}\n"
HALVING = "sweep: {grid: {seed: range(10)}, objective: {minimize: loss}, halving: {at: [5], keep: 1/2}}\n"

PRODUCT = """\
parameters: {w: {shape: [2, 2], init: 0.5}}
constants: {x: [[1.0, 2.0], [3.0, 4.0]], rate: 0.25}
expression: loss = (x @ w).sum()
optimizer: {sgd: {lr: rate}}
steps: 2
"""
RATES = "sweep: {grid: {rate: [0.25, 0.5, 1, 2]}}\n"


def swept(folder: Path, sweep: str, head: str) -> tuple[Sweep, SweepProgress]:
    config = load(written(folder, sweep, head))
    plan, how = plan_sweep(config, {}), How(lanes="close")
    progress = SweepProgress(plan.total, None, quiet=False)
    directory = start_sweep(config, plan, {}, folder / "sweeps", how)
    run_sweep(directory, plan, how, progress)
    return open_sweep(directory), progress


@pytest.fixture
def wrong_product(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The product of two matrices is larger by a 64th in lanes."""
    sound = together.matrix_product

    def wrong(*given: Any) -> LaneTensor:
        return LaneTensor(sound(*given).lanes * (1 + 1 / 64))

    monkeypatch.setattr(together, "matrix_product", wrong)
    together.rule_for.cache_clear()
    yield
    together.rule_for.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_product")
def test_lanes_that_compute_something_else_are_replaced_by_runs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`x @ w` has rows of 1.5 and 3.5, so its sum is 10; with a 64th more it is 10.15625."""
    sweep, progress = swept(tmp_path, RATES, PRODUCT)
    warning = "point 3: `loss` at iteration 1 is 10.1562 as a lane and 10 alone: more than rounding explains"
    assert capsys.readouterr().err == f"warning: {warning}\n"
    assert progress.lanes() == (
        "0 of 4 points in lanes; 4 in processes: "
        "`loss` of a lane differs from the run alone by more than rounding explains"
    )
    assert read_manifest(sweep.path)["warnings"] == [warning]
    assert sweep.run(3).manifest["warnings"] == [warning]
    assert sweep.run(0).manifest["warnings"] == []
    for point, rate in enumerate((0.25, 0.5, 1.0, 2.0)):
        gradient = torch.tensor([[4.0, 4.0], [6.0, 6.0]])  # the sums of the columns of x
        assert sweep.rows(point).column("loss").drop_null().to_pylist() == [10.0, 10.0 - rate * 104]
        assert torch.equal(sweep.weights(point)["w"], 0.5 - 2 * rate * gradient)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "sweep"),
    [
        (MLP, SEEDS),
        (MLP + "log: {tensors: stats}\n", SEEDS),
        (MLP + "log: {every: 5, include: [loss]}\n", SEEDS),
        (MLP, HALVING),
    ],
    ids=["full", "stats", "loss alone", "halving"],
)
def test_an_ordinary_network_is_within_what_rounding_explains(
    head: str, sweep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, progress = swept(tmp_path, sweep, head)
    line = progress.lanes()
    assert line is not None
    assert line.split(";")[0] in ("8 of 8 points in lanes", "10 of 10 points in lanes")
    assert (capsys.readouterr().err, read_manifest(found.path)["warnings"]) == ("", [])


# --- judging


Change = Callable[[numpy.ndarray], object]


def judged(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Change],
    uncertainty: Uncertainty | None = None,
    head: str = PRODUCT,
) -> Judgement:
    """A lane whose numbers were changed by hand; every number is as uncertain as `uncertainty`, if it is given."""
    work, task = Work(loads(head), folder, exact=False), Task(7, ("seed=1",), "id")
    alone = run_point(work, task)
    assert alone.table is not None
    assert alone.weights is not None
    tables = alone.table, alone.weights[1]

    def measured(*_: Any) -> Any:
        if uncertainty is None:
            raise RunError(Problem("no"))
        return {row: dict.fromkeys(("loss", "w"), uncertainty) for row in range(3)}

    monkeypatch.setattr(closeness, "_measured", measured)
    lane = tuple(_changed(table, changes, at_end=place == 1) for place, table in enumerate(tables))
    return judge(work, task, (lane[0], lane[1]), tables, lambda: None)


def _changed(table: pyarrow.Table, changes: dict[str, Change], at_end: bool) -> pyarrow.Table:
    for key, change in changes.items():
        name, _, end = key.partition(" ")
        if bool(end) != at_end or name not in table.column_names:
            continue
        array = table.column(name).combine_chunks()
        array = array.chunk(0) if isinstance(array, pyarrow.ChunkedArray) else array
        storage = array.storage if isinstance(array, pyarrow.ExtensionArray) else array
        flat = storage.flatten() if hasattr(storage, "flatten") else storage
        numbers = numbers_of(flat.fill_null(0.0)).copy()
        change(numbers)
        values = pyarrow.array(numbers, flat.type, mask=~numpy.asarray(flat.is_valid()))
        if isinstance(array, pyarrow.ExtensionArray):
            values = array.type.wrap_array(pyarrow.FixedSizeListArray.from_arrays(values, 4))
        table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
    return table


def put(place: int, value: float) -> Change:
    return lambda numbers: numbers.__setitem__(place, value)


def test_what_a_judgement_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eps = torch.finfo(torch.float32).eps
    exact, some = Uncertainty(0.0, 0.0), Uncertainty(0.5, 0.5)
    as_much = ": rounding alone changes this training as much"
    beyond = ": more than rounding explains"
    table: list[tuple[dict[str, Change], Uncertainty | None, str | None, str | None]] = [
        ({}, None, None, None),
        ({"loss": put(1, 10 + 4 * 10 * eps)}, None, None, None),  # a few units of rounding: nothing is measured
        (
            {"loss": put(1, 10.001)},
            None,
            "`loss` at iteration 1 is 10.001 as a lane and 10 alone, and what rounding explains cannot be measured",
            "loss",
        ),
        ({"loss": put(1, 10.001)}, exact, f"`loss` at iteration 1 is 10.001 as a lane and 10 alone{beyond}", "loss"),
        ({"loss": put(2, 10.0)}, exact, f"`loss` at iteration 2 is 10 as a lane and -16 alone{beyond}", "loss"),
        ({"loss": put(1, 10.05)}, some, None, None),
        ({"loss": put(1, 12.0)}, some, f"`loss` at iteration 1 is 12 as a lane and 10 alone{as_much}", None),
        ({"loss": put(1, 13.0)}, some, f"`loss` at iteration 1 is 13 as a lane and 10 alone{beyond}", "loss"),
        ({"loss": put(2, 99.0)}, UNKNOWN, f"`loss` at iteration 2 is 99 as a lane and -16 alone{as_much}", None),
        (
            {"w": put(7, 8.0), "loss": put(2, 99.0)},
            exact,
            f"`w[1, 1]` at iteration 1 is 8 as a lane and -1 alone{beyond}",
            "w",
        ),
        ({"w end": put(2, 9.0)}, exact, f"`w[1, 0]` at the end is 9 as a lane and -2.5 alone{beyond}", "w"),
    ]
    found = [judged(tmp_path, monkeypatch, changes, uncertainty) for changes, uncertainty, _, _ in table]
    expected = [Judgement(None if text is None else f"point 7: {text}", column) for _, _, text, column in table]
    assert found == expected


class Listed(dict[int, Any]):
    """Counts how often all rows are listed."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return super().__iter__()


def test_the_rows_of_a_measurement_are_listed_once_for_all_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, task = Work(loads(PRODUCT), tmp_path, exact=False), Task(7, ("seed=1",), "id")
    alone = run_point(work, task)
    assert alone.table is not None
    assert alone.weights is not None
    found = Listed({row: dict.fromkeys(("loss", "w"), Uncertainty(0.5, 0.5)) for row in range(3)})
    monkeypatch.setattr(closeness, "_measured", lambda *_: found)
    lane = _changed(alone.table, {"loss": put(1, 10.05), "w": put(7, -0.999)}, at_end=False)
    weights = alone.weights[1]
    assert judge(work, task, (lane, weights), (alone.table, weights), lambda: None) == Judgement()
    assert found.times == 1


def test_a_warning_stays_with_its_point(tmp_path: Path) -> None:
    work, task = Work(loads(PRODUCT), tmp_path), Task(0, (), "id")
    first = replace(run_point(work, task).outcome, warning="point 0: as written")
    later = replace(first, rung=1, warning=None)
    assert joined([first, later]).warning == "point 0: as written"
    assert [each.warning for each in from_json(to_json([first, later]))] == ["point 0: as written", None]


def test_a_number_that_only_one_has_is_beyond_what_rounding_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, task = Work(loads(PRODUCT), tmp_path, exact=False), Task(7, (), "id")
    alone = run_point(work, task)
    assert alone.table is not None
    assert alone.weights is not None
    place = alone.table.column_names.index("loss")
    nulls = pyarrow.nulls(len(alone.table), alone.table.schema.field("loss").type)
    without = alone.table.set_column(place, alone.table.schema.field("loss"), nulls)
    monkeypatch.setattr(closeness, "_measured", lambda *_: {row: {} for row in range(3)})
    weights = alone.weights[1]
    for lane, other, where in ((without, alone.table, "alone"), (alone.table, without, "as a lane")):
        text = f"point 7: `loss` at iteration 1 exists only {where}: more than rounding explains"
        assert judge(work, task, (lane, weights), (other, weights), lambda: None) == Judgement(text, "loss")
