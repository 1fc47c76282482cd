"""The numbers and pictures that the page of a difference shows of each row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
import torch

from runner.compare.runs.difference import compare_runs
from runner.record import open_run
from runner.report.difference.recorder import MOST_ROWS, Recorder, _pair
from tests.report.differences import NETWORK, network, report_of_runs, section, two_changes
from tests.report.runs import record

__all__ = ["network", "two_changes"]


def test_the_errors_and_the_ulps_are_those_of_numpy(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.1000001"), tmp_path)
    report = report_of_runs(other, network)
    before, after = open_run(network), open_run(other)
    errors = {each["name"]: each for each in section(report, "errors").data["curves"]}
    ulps = {each["name"]: each for each in section(report, "ulps").data["curves"]}
    for name in ("w", "b", "loss", "w.grad"):
        expected, found = {}, {}
        for one, other_row in zip(before, after, strict=True):
            if one[name] is None:
                continue
            a, b = (each[name].numpy().astype(numpy.float64) for each in (one, other_row))  # type: ignore[union-attr]
            if not numpy.array_equal(a, b):
                expected[one.number] = float(numpy.linalg.norm(b - a) / numpy.linalg.norm(a))
                integers = [
                    numpy.abs(each[name].numpy()).view(numpy.int32).astype(numpy.int64)  # type: ignore[union-attr]
                    * numpy.where(numpy.signbit(each[name].numpy()), -1, 1)  # type: ignore[union-attr]
                    for each in (one, other_row)
                ]
                found[one.number] = float(numpy.abs(integers[1] - integers[0]).max())
        assert errors[name]["rows"].tolist() == list(expected)
        numpy.testing.assert_allclose(errors[name]["values"], list(expected.values()), rtol=1e-9)
        assert ulps[name]["values"].tolist() == list(found.values())


def test_each_side_has_its_own_range_and_the_element_that_is_farthest_apart(two_changes: tuple[Path, Path]) -> None:
    before, after = two_changes
    data = section(report_of_runs(after, before), "first").data
    shown = next(each for each in data["tensors"] if each["name"] == "w")["shown"][-1]
    row = data["rows"][-1]["row"]
    sides = [open_run(path).tensor("w")[row].double().numpy() for path in (before, after)]
    for side, (low, high) in zip(sides, shown["own"], strict=True):
        assert (float(low), float(high)) == pytest.approx((side.min(), side.max()), rel=1e-5)
    place = numpy.unravel_index(numpy.abs(sides[1] - sides[0]).argmax(), sides[0].shape)
    value, _, index = shown["expected"].partition(" at ")
    assert index == str([int(each) for each in place])
    assert (float(value), float(shown["found"])) == pytest.approx((sides[0][place], sides[1][place]), rel=1e-6)


def test_pictures_of_both_sides_have_one_scale_and_the_difference_its_own(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("lr: 0.1", "lr: 0.2"), tmp_path)
    data = section(report_of_runs(other, network), "first").data
    shown = next(each for each in data["tensors"] if each["name"] == "w")["shown"]
    row = data["rows"][data["at"]]["row"]
    a, b = (open_run(path).tensor("w")[row].double().numpy() for path in (network, other))
    cells, (both, apart) = shown[data["at"]]["cells"], shown[data["at"]]["ranges"]
    for side, value, (low, high) in (
        (cells[0], a, (min(a.min(), b.min()), max(a.max(), b.max()))),
        (cells[1], b, (min(a.min(), b.min()), max(a.max(), b.max()))),
        (cells[2], b - a, ((b - a).min(), (b - a).max())),
    ):
        assert (side["height"], side["width"]) == (4, 6)
        expected = numpy.rint((value - low) / (high - low) * 254).reshape(-1)
        assert numpy.abs(side["cells"].astype(int) - expected).max() <= 1  # pictures are float32
    assert (float(both[0]), float(apart[1])) == pytest.approx((min(a.min(), b.min()), (b - a).max()), rel=1e-5)


def test_one_ulp_is_told_from_none(network: Path, tmp_path: Path) -> None:
    one = numpy.float32(1.0)
    config = "parameters: {w: VALUE}\nexpression: loss = w * w\nsteps: [forward]\n"
    runs = [
        record(config.replace("VALUE", repr(float(value))), tmp_path / str(place))
        for place, value in enumerate((one, numpy.nextafter(one, numpy.float32(2)), one))
    ]
    report = report_of_runs(runs[1], runs[0])
    assert "1 ULP" in report.head
    shown = section(report, "first").data["tensors"][0]["shown"][0]
    assert (shown["expected"], shown["found"], shown["ulps"]) == ("1.0", "1.0000001", "1")
    same = report_of_runs(runs[2], runs[0])
    assert "no number differs" in same.head
    assert same.opens_at is None
    assert section(same, "first") is section(same, "errors") is None


def test_other_shapes_and_lengths_are_said(network: Path, tmp_path: Path) -> None:
    other = record(NETWORK.replace("6]", "7]").replace("times: 40", "times: 30"), tmp_path)
    report = report_of_runs(other, network)
    text = section(report, "structure").text
    assert "is float32 [4, 7], expected float32 [4, 6]" in text
    assert "10 rows on the expected side only" in text
    assert "(shape [4, 6] → [4, 7])" in report.head
    assert "growth" not in report.head
    assert "shape [4, 6] → [4, 7]" in section(report, "tensors").text
    assert "no number" not in section(report, "tensors").text
    shown = next(each for each in section(report, "first").data["tensors"] if each["name"] == "w")["shown"]
    at = next(place for place, each in enumerate(shown) if each is not None)
    assert shown[at]["error"] == "shape [4, 6] → [4, 7]"
    cells, both, own = (shown[at][key] for key in ("cells", "ranges", "own"))
    assert [None if each is None else each["width"] for each in cells] == [6, 7, None]
    row = section(report, "first").data["rows"][at]["row"]
    values = [open_run(path).tensor("w")[row].numpy() for path in (network, other)]
    low, high = (least(map(least, map(numpy.ravel, values))) for least in (min, max))
    assert [float(each) for each in both[0]] == pytest.approx([low, high], rel=1e-5)
    for side, value, ends in zip(cells[:2], values, own, strict=True):
        assert [float(each) for each in ends] == pytest.approx([value.min(), value.max()], rel=1e-5)
        expected = numpy.rint((value.astype(float) - low) / (high - low) * 254).reshape(-1)
        assert numpy.abs(side["cells"].astype(int) - expected).max() <= 1  # pictures are float32


def test_sides_without_elements_or_with_one_are_shown_with_the_range_of_the_other() -> None:
    three = torch.tensor([1.0, 2.0, 4.0])
    pair = _pair(torch.ones(0), three, math.inf, math.nan)
    assert (pair.ranges, pair.own) == ((("1", "4"), ("", "")), (("", ""), ("1", "4")))
    assert pair.cells[0] is pair.cells[2] is None
    assert pair.cells[1] is not None
    assert pair.cells[1].tolist() == [[0, 85, 254]]
    one = _pair(torch.tensor([7.0]), three, math.inf, math.nan)
    assert (one.ranges[0], one.own) == (("1", "7"), (("7", "7"), ("1", "4")))


def test_values_that_are_not_numbers_have_no_error(tmp_path: Path) -> None:
    config = (
        "parameters: {w: 1.0}\nconstants: {c: VALUE}\nexpression: loss = (w * c).sum()\nsteps: [forward]\n"
        "on_nonfinite: ignore\n"
    )
    runs = [
        record(config.replace("VALUE", text), tmp_path / str(place))
        for place, text in enumerate(("1.0", ".nan", ".inf"))
    ]
    for other in runs[1:]:
        report = report_of_runs(other, runs[0])
        assert section(report, "errors") is None
        data = section(report, "first").data
        assert [each["shown"][0]["error"] for each in data["tensors"]] == ["no number"]


@pytest.mark.slow
def test_many_rows_are_kept_in_bounded_memory(tmp_path: Path) -> None:
    config = NETWORK.replace("times: 40", "times: 300").replace("[5, 4]", "[1, 4]")
    runs = [record(config.replace("lr: 0.1", f"lr: {rate}"), tmp_path / str(rate)) for rate in (0.1, 0.1001)]
    report = report_of_runs(runs[1], runs[0])
    data = section(report, "first").data
    numbers = [row["row"] for row in data["rows"]]
    assert len(numbers) <= MOST_ROWS
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert numbers[-1] >= 290
    assert f"rows that differ, {len(numbers)} are shown one by one: " in report.head
    curve = section(report, "errors").data["curves"][0]
    worst = max(curve["values"])
    shown = next(each for each in data["tensors"] if each["name"] == curve["name"])["shown"]
    assert f"{worst:.3g}" in {each["error"] for each in shown if each is not None}


@pytest.mark.parametrize(("count", "said"), [(64, []), (65, ["of 65 tensors that differ, the first 64 are shown"])])
def test_the_page_says_how_many_tensors_it_leaves_out(count: int, said: list[str], tmp_path: Path) -> None:
    names = [f"c{place}" for place in range(count)]
    config = f"parameters: {{{', '.join(f'{name}: 1.0' for name in names)}}}\nexpression: y = {' + '.join(names)}\n"
    config += 'steps: [forward]\nlog: {include: ["c*"]}\n'
    after, before = (
        open_run(record(text, tmp_path / side))
        for side, text in (("after", config.replace("1.0", "1.5")), ("before", config))
    )
    recorder = Recorder(after.columns, before.columns)
    compare_runs(after, before, observe=recorder)
    assert [each for each in recorder.result().left_out if "tensors" in each] == said
