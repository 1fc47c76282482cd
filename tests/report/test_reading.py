"""What a report reads of a run: curves with every extreme, chosen rows, and measures of tensors."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import runner
from runner.plan.rows.columns import Column
from runner.record.rows import parts
from runner.report.page import page
from runner.report.reading import budget
from runner.report.reading.budget import is_large, plan_reading
from runner.report.reading.columns import MOST_CURVES, MOST_TENSORS, Tensors, shown_columns
from runner.report.reading.curves import MOST_POINTS, Recorded, decimated, points_of_each
from runner.report.reading.rows import MOST_CHOSEN, Rows, chosen_positions, heads, read_rows, steps_at
from runner.report.reading.tensors import Measured, measure, picture
from runner.report.run.sections import report_of_run
from tests.record.test_reading import recorded
from tests.report.runs import record, rewrite

NETWORK = """\
parameters: {w: {shape: [6, 5], init: normal}, b: {shape: [5], init: zeros}, s: {shape: [], init: 2}}
constants: {x: {shape: [7, 6], init: normal}}
expression: |
  h = tanh(x @ w + b)
  loss = (h * s).square().mean()
optimizer: {adam: {lr: 0.05}}
steps: [{repeat: {times: 30, steps: [zero_grad, backward, step]}}]
"""

SPECIAL = st.sampled_from([numpy.nan, numpy.inf, -numpy.inf, 0.0, -1.0, 2.0**62, 5.0, 5.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runner.Run:
    return runner.open_run(record(NETWORK, tmp_path_factory.mktemp("network")))


@given(st.lists(st.one_of(st.floats(), SPECIAL), max_size=300), st.integers(8, 60))
def test_what_is_left_out_of_a_curve_has_no_extreme(listed: list[float], points: int) -> None:
    values = numpy.asarray(listed, dtype=numpy.float64)
    kept = decimated(values, points)
    assert len(kept) <= max(points + len(values) // 3, points)
    assert (numpy.diff(kept) > 0).all()
    if len(values) <= points:
        assert len(kept) == len(values)
        return
    assert {0, len(values) - 1} <= set(kept.tolist())
    finite = values[numpy.isfinite(values)]
    left = values[kept][numpy.isfinite(values[kept])]
    if len(finite):
        assert (left.min(), left.max()) == (finite.min(), finite.max())
    if not numpy.isfinite(values).all():
        assert numpy.argmin(numpy.isfinite(values)) in kept


def test_each_stretch_of_a_curve_keeps_its_spike() -> None:
    values = numpy.zeros(100_000)
    spikes = numpy.arange(17, 100_000, 997)
    values[spikes] = numpy.where(numpy.arange(len(spikes)) % 2, 9.0, -9.0)
    kept = decimated(values, 2_000)
    assert len(kept) <= 2_000
    assert set(spikes.tolist()) <= set(kept.tolist())


def test_a_stretch_keeps_its_largest_value_and_a_gap_before_it() -> None:
    values = numpy.zeros(10_000)
    values[[4_000, 4_001, 4_002]] = -5.0, numpy.nan, 5.0
    assert {4_000, 4_001, 4_002} <= set(decimated(values, 100).tolist())


def test_a_curve_knows_its_extremes_its_gaps_and_the_value_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    written = [None, 5.0, numpy.nan, -2.0, 7.0, numpy.inf, None, 3.0]
    values = [[None if each is None else torch.tensor(each)] for each in written]
    found = Recorded(read_rows(recorded(tmp_path, [column("v")], values)), [column("v")])
    (curve,) = found.curves()
    assert curve.rows.tolist() == [1, 2, 3, 4, 5, 7]
    numpy.testing.assert_array_equal(curve.values, [each for each in written if each is not None])
    assert (curve.count, curve.nonfinite) == (6, 2)
    assert (curve.least, curve.most, curve.broken) == (3, 4, 2)
    chosen = numpy.array([0, 1, 2, 4, 7])
    assert repr(found.before(chosen)) == repr({"v": {1: None, 2: 5.0, 4: -2.0, 7: numpy.inf}})
    assert repr(found.at(chosen)) == repr({"v": {1: 5.0, 2: numpy.nan, 4: 7.0, 7: 3.0}})


def test_all_curves_together_have_a_bounded_number_of_points() -> None:
    assert all(points_of_each(count) * count <= MOST_POINTS for count in range(1, MOST_CURVES + 1))


class Part:
    def __init__(self, rows: int) -> None:
        self.rows = rows


def rows_of(lengths: list[int]) -> Rows:
    starts = numpy.cumsum([0, *lengths])[:-1].tolist()
    parts: Any = tuple(map(Part, lengths))
    return Rows(numpy.arange(sum(lengths), dtype=numpy.int64), tuple(starts), parts)


@given(st.lists(st.integers(0, 400), max_size=90), st.lists(st.integers(-2, 9_000), max_size=80), st.booleans())
def test_few_rows_are_chosen_and_the_first_and_the_last_among_them(
    lengths: list[int], special: list[int], by_part: bool
) -> None:
    rows = rows_of(lengths)
    chosen = chosen_positions(rows, special, by_part=by_part)
    assert len(chosen) <= MOST_CHOSEN
    assert (numpy.diff(chosen) > 0).all()
    if len(rows) <= MOST_CHOSEN:
        assert chosen.tolist() == list(range(len(rows)))
    else:
        inside = [place for place in dict.fromkeys(special) if 0 < place < len(rows) - 1]
        assert {0, len(rows) - 1, *inside[: MOST_CHOSEN // 2 - 2]} <= set(chosen.tolist())
    found = heads(rows, 160)
    assert len(found) <= 160
    assert set(found.tolist()) <= set(range(len(rows)))


def test_rows_and_their_steps_are_those_of_the_run(run: runner.Run) -> None:
    rows = read_rows(run)
    written = list(run)
    assert rows.numbers.tolist() == [row.number for row in written]
    wanted = [0, 3, 4, 41, len(written) - 1]
    assert [(step.row, step.step, step.path, step.iteration) for step in steps_at(rows, wanted)] == [
        (written[place].number, written[place].step, written[place].path, written[place].iteration) for place in wanted
    ]


def measured(run: runner.Run, *, whole: bool) -> tuple[dict[str, Measured], list[int]]:
    rows = read_rows(run)
    shown = shown_columns(run.columns)
    chosen = chosen_positions(rows, [5], by_part=not whole)
    reading = plan_reading(shown.tensors, rows, chosen)
    assert any(found is not None for found in reading.positions.values()) is not whole
    return {each.of.name: each for each in measure(rows, shown.tensors, reading, chosen)}, chosen.tolist()


@pytest.mark.parametrize("whole", [True, False], ids=["every row", "some rows"])
def test_tensors_are_measured_as_torch_and_numpy_measure_them(
    run: runner.Run, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        monkeypatch.setattr(budget, "WHOLE_BYTES", 0)
    tensors, chosen = measured(run, whole=whole)
    assert set(tensors) == {"w", "w.grad", "b", "b.grad", "s", "s.grad", "h"}
    for name, found in tensors.items():
        values = run.values(name)
        assert found.positions
        if whole:
            assert found.positions == [place for place, value in enumerate(values) if value is not None]
        for at, position in enumerate(found.positions):
            value = values[position]
            assert value is not None
            assert found.norms[at] == pytest.approx(float(value.double().norm()), rel=1e-12)
            assert found.nonfinite[at] == 0
            before = values[position - 1] if position else None
            if found.of.role == "weight" and not numpy.isnan(found.ratios[at]):
                assert before is not None
                expected = float((value - before).double().norm() / before.double().norm())
                assert found.ratios[at] == pytest.approx(expected, rel=1e-5, abs=1e-12)
        for position, bands in zip(found.band_positions, found.bands, strict=True):
            value = values[position]
            assert value is not None
            quantiles = numpy.quantile(value.double().numpy(), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), method="nearest")
            assert bands == quantiles.tolist()
        for position in chosen:
            value = values[position]
            if value is not None and position in found.positions:
                assert torch.equal(found.values[position], value)
                assert torch.equal(found.pictures[position].reshape(-1), value.reshape(-1))
        if found.of.role == "weight" and whole:
            known = [at for at, ratio in enumerate(found.ratios) if not numpy.isnan(ratio)]
            assert known == [at for at in range(1, len(values)) if values[at - 1].any()]


@pytest.mark.parametrize("kept", ["full", "stats"])
def test_bands_are_of_at_most_so_many_rows_at_equal_distances(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.open_run(record(f"{NETWORK}log: {{tensors: {kept}}}\n", tmp_path))
    assert len(run) == 91
    for most, count in ((91, 91), (90, 46), (46, 46), (45, 31)):
        monkeypatch.setattr("runner.report.reading.tensors.MOST_BANDS", most)
        tensors, _ = measured(run, whole=True)
        assert tensors["w"].band_positions == list(range(0, 91, -(-91 // count)))
        assert len(tensors["w"].bands) == count


TURNING = """\
parameters: {w: {init: [1, 2], dtype: complex64}}
expression: |
  turned = w * 1j
  loss = turned.abs().square().sum()
optimizer: {sgd: {lr: 0.25}}
steps: [{repeat: {times: 3, steps: [zero_grad, backward, {assign: {w: turned}}, step]}}]
"""


def test_the_update_of_a_complex_weight_is_that_of_its_numbers_not_of_their_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.open_run(record(TURNING, tmp_path))
    tensors, _ = measured(run, whole=True)
    values = run.values("w")
    found = tensors["w"]
    expected = [
        float(torch.linalg.vector_norm(now - before) / torch.linalg.vector_norm(before))
        for before, now in itertools.pairwise(values)
    ]
    assert max(expected) == pytest.approx(math.sqrt(2))  # |i - 1|
    assert found.ratios[1:] == pytest.approx(expected)
    monkeypatch.setattr(budget, "WHOLE_BYTES", 0)
    monkeypatch.setattr("runner.report.reading.tensors.LEAST_AT_A_TIME", 1)
    monkeypatch.setattr("runner.report.reading.tensors.PIECE_BYTES", 1)  # each row comes alone
    assert measured(run, whole=False)[0]["w"].ratios[1:] == pytest.approx(expected)


def test_a_gradient_that_comes_or_goes_is_a_change(run: runner.Run) -> None:
    rows = read_rows(run)
    every = numpy.arange(len(rows), dtype=numpy.int64)
    shown = shown_columns(run.columns).tensors
    tensors = {each.of.name: each for each in measure(rows, shown, plan_reading(shown, rows, every), every)}
    gradient = tensors["b.grad"]
    assert [gradient.changes.get(place, "unknown") for place in range(3)] == ["unknown", "unknown", "new"]
    assert gradient.changes[3] is None  # `step` leaves it
    assert gradient.changes[4] == "gone"
    weight = tensors["s"]
    assert [weight.changes[place] is None for place in (1, 2, 3)] == [True, True, False]
    assert isinstance(weight.changes[3], torch.Tensor)
    assert float(weight.changes[3]) == pytest.approx(-0.05, abs=1e-3)


def test_a_picture_has_the_means_of_blocks() -> None:
    value = torch.arange(128 * 256, dtype=torch.float32).reshape(128, 256)
    expected = value.reshape(64, 2, 64, 4).mean((1, 3))
    assert torch.equal(picture(value), expected)
    assert picture(torch.ones(3, 4, 5, 6)).shape == (3, 64)
    assert picture(torch.tensor(2.0)).tolist() == [[2.0]]
    assert bool(picture(torch.tensor([float("nan"), 1.0])).isnan()[0, 0])


def column(name: str, role: Any = "value", shape: tuple[int, ...] | None = (), **more: Any) -> Column:
    return Column(name, role, torch.float32, shape, **more)


def test_columns_past_the_limits_are_counted() -> None:
    numbers = [column(f"v{place}") for place in range(MOST_CURVES + 2)]
    weights = [column(f"w{place}", "weight", (2,)) for place in range(MOST_TENSORS + 1)]
    others = [
        column("d.digest", "weight", (8,), of=column("d", "weight", (9,), kept="digest")),
        column("any", shape=None),
        column("none", "weight", (0, 3)),
        column("huge", "weight", (1 << 25,)),
    ]
    shown = shown_columns([*numbers, *weights, *others])
    assert (len(shown.curves), len(shown.tensors)) == (MOST_CURVES, MOST_TENSORS)
    assert shown.left_out == (
        "42 columns are numbers; the first 40 are shown",
        "65 columns are tensors; the first 64 are shown",
        "without curve, picture and distribution, because the log kept a digest only: d.digest",
        "without curve, picture and distribution, because the shape varies from row to row: any",
        "without curve, picture and distribution, because they have no elements: none",
        "without curve, picture and distribution, because they have more than 16,777,216 elements: huge",
    )


def test_tensors_of_a_large_log_are_read_in_some_rows() -> None:
    def tensor(name: str, elements: int) -> Tensors:
        return Tensors(name, "weight", torch.float32, (elements,), column(name, "weight", (elements,)))

    rows = rows_of([1000] * 10)
    tensors = [tensor("small", 10), tensor("large", 1 << 14), tensor("vast", 1 << 24), tensor("whole", 100)]
    assert is_large(tensors, rows)
    chosen = chosen_positions(rows, [], by_part=True)
    reading = plan_reading(tensors, rows, chosen)
    assert reading.positions["small"] is reading.positions["whole"] is None
    large = reading.positions["large"]
    assert large is not None
    assert set(chosen.tolist()) <= set(large.tolist())
    assert len(large) <= 160 + 2 * MOST_CHOSEN
    assert reading.positions["vast"] is not None
    assert len(reading.positions["vast"]) == 0
    assert reading.left_out[0] == "too large to show: vast"
    assert reading.left_out[1].startswith("the log is large: of large the page has")


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_three_mebibytes_and_keep_every_extreme(tmp_path: Path) -> None:
    rows, count = 100_000, 40
    drawn = numpy.random.default_rng(0)
    numbers = drawn.standard_normal((count, rows), dtype=numpy.float32)
    spikes = drawn.integers(0, rows, count)
    numbers[numpy.arange(count), spikes] = 1e6
    columns = [column(f"v{place}") for place in range(count)]
    values = iter(numbers)
    run = record(NETWORK, tmp_path)
    rewrite(run, columns, lambda each, rows: next(values), rows)
    report = report_of_run(run)
    assert len(page(report)) <= 3 << 20
    found = next(section for section in report.sections if section.name == "curves").data["curves"]
    assert [each["name"] for each in found] == [each.name for each in columns]
    for each, whole, spike in zip(found, numbers, spikes, strict=True):
        assert len(each["rows"]) < 2_600
        assert each["values"].tolist() == whole[each["rows"]].tolist()
        assert (each["values"].min(), each["values"].max()) == (whole.min(), whole.max())
        assert spike in each["rows"]
    assert len(report.shared["rows"]) == 64
