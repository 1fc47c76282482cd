"""The page of a sweep: its points in order, their curves, rungs, lines of the config, and what is damaged or large."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pytest

from runner.cli.output.sweep_progress import SweepProgress
from runner.errors import UsageError
from runner.report.page import page
from runner.report.sweep import curves
from runner.report.sweep.points import MOST_POINTS, points_of
from runner.report.sweep.sections import report_of_sweep
from runner.report.sweep.subject import read_subject
from runner.sweep.choosing.objective import Objective
from runner.sweep.planning import plan_sweep
from runner.sweep.record.parts import part_paths
from runner.sweep.record.reading import open_sweep
from tests.cli.commands import steprun
from tests.manifests import manifest_fields
from tests.report.sweeps import EVIL, GRID, HALVED, HEAD, record_sweep, with_points, write_sweep_page
from tests.tables import over

SMALL = 1 << 20


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_sweep(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A sweep of which no point has run, to be spoilt."""
    return record_sweep(tmp_path, runs=False)


def section(directory: Path, name: str) -> Any:
    return next(each for each in report_of_sweep(directory).sections if each.name == name)


def losses(rate: float, power: float, steps: int = 20) -> list[float]:
    """The loss before each step, by hand: float32, w = 1 in three places."""
    w, found = numpy.float32(1), []
    for _ in range(steps):
        found.append(float(3 * abs(w) ** numpy.float32(power)))
        slope = numpy.float32(power) * abs(w) ** numpy.float32(power - 1) * numpy.sign(w)
        w = numpy.float32(w - numpy.float32(rate) * slope)
    return found


def test_the_best_point_comes_first_and_its_curve_is_that_of_its_run(grid: Path) -> None:
    points = read_subject(grid).points
    objectives = points.values("objective")
    known = [value for value in objectives if value is not None and not math.isnan(value)]
    assert objectives[: len(known)] == sorted(known)
    assert "no point has a number as its objective" not in report_of_sweep(grid).head
    data = section(grid, "curves").data["quantities"][0]
    assert data["name"] == "loss"
    rates, powers = points.values("rate"), points.values("power")
    for place in range(3):
        start, end = (int(data["ends"][place - 1]) if place else 0), int(data["ends"][place])
        run = open_sweep(grid).run(points.numbers[place])
        rows = [row for row in run if row["loss"] is not None]
        assert data["rows"][start:end].tolist() == [row.number for row in rows]
        assert data["values"][start:end].tolist() == [float(row["loss"]) for row in rows]  # type: ignore[arg-type]
        expected = losses(rates[place], powers[place])
        numpy.testing.assert_allclose(data["values"][start:end], expected, rtol=1e-4)


def test_without_scripts_the_points_are_a_table_with_a_row_for_each(grid: Path) -> None:
    points = read_subject(grid).points
    text = section(grid, "points").text
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text)
    assert heads[: 2 + len(points.axes)] == ["point", *points.axes, "status"]
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in text.split("<tr>")[2:]]
    assert [row[0] for row in rows] == [str(number) for number in points.numbers]
    assert [row[heads.index("status")] for row in rows] == points.values("status")
    assert {len(row) for row in rows} == {len(heads)}


FOLDS = """\
sweep:
  grid: {rate: [0.01, 0.1, 0.3, 1e20], power: [2.0, 3.0]}  # the last rate fails
  objective: {minimize: loss, mean_over: power}
"""


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_sweep(tmp_path_factory.mktemp("folds"), FOLDS)


def test_points_are_ranked_by_the_mean_over_the_axes_of_the_objective(folds: Path) -> None:
    frame = open_sweep(folds).to_pandas()
    means = frame.groupby("rate").objective.agg(["mean", "std"]).drop(1e20).sort_values("mean")
    points = read_subject(folds).points
    assert points.values("rate") == [*means.index.repeat(2), 1e20, 1e20]
    assert points.ranks == (1, 1, 2, 2, 3, 3, 4, 4)
    assert points.values("mean")[6:] == [None, None]
    numpy.testing.assert_allclose(points.values("mean")[:6], means["mean"].repeat(2))
    numpy.testing.assert_allclose(points.values("deviation")[:6], means["std"].repeat(2))
    head = report_of_sweep(folds).head
    best = means.iloc[0]
    assert f"{best['mean']:.6g} ± {best['std']:.6g} of 2 points, with rate {means.index[0]:g}" in head
    assert "minimize loss, last, mean over power" in head
    rows = section(folds, "means").text.split("<tr>")[2:]
    assert [float(row.split("</td><td>")[1]) for row in rows[:3]] == means.index.tolist()
    assert "</td><td></td><td></td><td>2, 2 without an objective</td>" in rows[3]


def test_results_and_the_summary_name_the_best_mean_too(folds: Path) -> None:
    done = steprun("results", folds, "--json")
    rows = json.loads(done.out)
    assert [row["point"] for row in rows] == read_subject(folds).points.numbers
    plan = plan_sweep(open_sweep(folds).config, {})
    progress = SweepProgress(len(plan.points), plan.objective, quiet=True, points=plan.points)
    outcomes = [open_sweep(folds).outcome(point.index) for point in plan.points]
    progress.ended(outcomes[:1])
    assert "best" not in progress.summary()
    progress.ended(outcomes[1:])
    assert f", best mean loss {rows[0]['mean']:.5g} (point {rows[0]['point']} and 1 more)" in progress.summary()


def test_an_axis_called_rank_or_rung_keeps_its_name(tmp_path: Path) -> None:
    head = HEAD.replace("rate: 0.1", "rank: 0.1, rung: 1").replace("lr: rate", "lr: rank * rung")
    sweep = HALVED.replace("rate: [0.001, 0.01, 0.1, 0.2]", "rank: [0.001, 0.01], rung: [1, 2]")
    directory = record_sweep(tmp_path, sweep, head)
    columns = report_of_sweep(directory).shared["points"]["columns"]
    places = {column["name"]: column["kind"] for column in columns if column["name"].startswith(("rank", "rung"))}
    assert places == {"rank of the point": "place", "rank": "axis", "rung": "axis", "rung of the point": "place"}


def test_failures_are_listed_with_their_points(grid: Path) -> None:
    subject = read_subject(grid)
    statuses = open_sweep(grid).table().column("status").to_pylist()
    failed = [number for number, status in enumerate(statuses) if status == "failed"]
    assert failed
    assert sorted(number for numbers in subject.failures.values() for number in numbers) == failed
    head = report_of_sweep(grid).head
    assert f"{len(failed)} points failed" in head
    assert EVIL not in head


def test_a_failed_point_has_no_objective_and_is_never_best(tmp_path: Path) -> None:
    directory = record_sweep(tmp_path, "sweep:\n  grid: {rate: [1e20, 1e25]}\n  objective: {minimize: loss}\n")
    table = open_sweep(directory).table()
    assert table.column("status").to_pylist() == ["failed", "failed"]
    assert table.column("objective").to_pylist() == [None, None]
    assert all(value is not None for value in table.column("loss.last").to_pylist())
    head = report_of_sweep(directory).head
    assert said_without_objective(directory) == "no point has a number as its objective the failures below say why"
    assert "<dt>best</dt>" not in head


def said_without_objective(directory: Path) -> str:
    (alert,) = re.findall(r'<p class="alert" role="alert">(.*?)</p>', str(report_of_sweep(directory).head))
    return re.sub(r"<.*?>", "", alert)


def test_points_without_an_objective_that_did_not_fail_are_sorted_by_another_column(
    begun: Path, tmp_path: Path
) -> None:
    no_number = "no point has a number as its objective "
    assert said_without_objective(begun) == f"{no_number}write the page again when points have ended"
    head = HEAD.replace("w.abs()", "(w - 2).log()") + "on_nonfinite: ignore\n"  # the logarithm is NaN
    ended = record_sweep(
        tmp_path / "ended", "sweep:\n  grid: {rate: [0.1, 0.2]}\n  objective: {minimize: loss}\n", head
    )
    assert open_sweep(ended).table().column("status").to_pylist() == ["finished", "finished"]
    assert said_without_objective(ended) == f"{no_number}sort the points below by another column"


def test_each_axis_leads_to_the_line_that_it_changes(grid: Path) -> None:
    subject = read_subject(grid)
    assert subject.text is not None
    lines = subject.text.splitlines()
    assert {axis: lines[line - 1] for axis, line in subject.lines.items()} == dict.fromkeys(
        ("rate", "power"), "constants: {rate: 0.1, power: 2.0}"
    )
    assert f'id="config-{subject.lines["rate"]}"' in section(grid, "config").text


@pytest.mark.slow
def test_the_rungs_of_halving_are_counted_and_rows_of_a_later_rung_replace_those_before(tmp_path: Path) -> None:
    directory = record_sweep(tmp_path, HALVED)
    cells = section(directory, "rungs").text.replace("</td>", "").replace("</tr>", "").split("<tr>")[2:]
    rows = [line.split("<td>")[1:4] for line in cells]
    assert [row[:3] for row in rows] == [
        ["until iteration 5", "4", "2"],
        ["until iteration 10", "2", "1"],
        ["until the end", "1", ""],
    ]
    points, data = read_subject(directory).points, section(directory, "curves").data["quantities"][0]
    best = data["rows"][: data["ends"][0]].tolist()
    alone = [row.number for row in open_sweep(directory).run(points.numbers[0]) if row["loss"] is not None]
    assert best == alone == list(range(1, 21))


def test_the_same_sweep_gives_the_same_bytes(grid: Path) -> None:
    assert page(report_of_sweep(grid)) == page(report_of_sweep(grid))


def test_a_sweep_and_a_point_of_it_have_pages_of_their_own(grid: Path, tmp_path: Path) -> None:
    done = steprun("report", grid, cwd=tmp_path)
    assert (done.code, done.err, done.out) == (0, "", f"{grid.parent.name}-{grid.name}.html\n")
    assert '"view":"coordinates"' in (tmp_path / done.out.strip()).read_text()
    done = steprun("report", f"{grid}#0", "-o", "point.html", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert '"view":"steps"' in (tmp_path / "point.html").read_text()
    latest = steprun("report", grid.parent / "latest", "-o", "latest.html", cwd=tmp_path)
    assert (latest.code, latest.err) == (0, "")


def test_what_a_report_of_a_sweep_refuses(grid: Path, tmp_path: Path) -> None:
    done = steprun("report", grid, "--follow", cwd=tmp_path)
    assert done.code == 2
    assert f"--follow is for a run, and {grid} is a sweep" in done.err
    assert "= leave --follow out" in done.err
    done = steprun("report", grid, "--allow", ".", cwd=tmp_path)
    assert f"--allow is for a run, and {grid} is a sweep" in done.err
    done = steprun("report", "a", "b", "c", cwd=tmp_path)
    assert "a report is of one or two runs, not of 3" in done.err
    done = steprun("report", grid, grid, cwd=tmp_path)
    assert done.code == 2
    assert f"{grid} is a sweep, not a run" in done.err
    done = steprun("report", f"{grid}#99", cwd=tmp_path)
    assert "has no point 99" in done.err


def spoil(name: str, act: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda directory: act(directory / name)


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (spoil("points.parquet", lambda path: path.write_bytes(b"PAR1")), "points.parquet is damaged"),
    (spoil("points.parquet", Path.unlink), "has no points.parquet"),
    (spoil("points.parquet", lambda path: (path.unlink(), os.mkfifo(path))), "it is a pipe, socket or device"),
    (spoil("sweep.json", lambda path: path.write_text("{")), "sweep.json is not valid JSON"),
    (spoil("sweep.json", lambda path: path.write_text("{}")), "sweep.json is not the manifest of a sweep"),
]


@over(("act", "said"), FAULTS)
def test_a_damaged_sweep_is_a_page_that_says_so_and_an_error(
    act: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    directory = record_sweep(tmp_path, runs=False)
    change_sweep(directory, status="finished")
    act(directory)
    done = steprun("report", directory, "-o", "page.html", cwd=tmp_path)
    assert (done.code, done.out) == (1, "page.html\n")
    assert said in done.err
    assert "\n      = " in done.err
    made = (tmp_path / "page.html").read_text()
    assert re.search(rf'<p class="alert" role="alert"><strong>{directory}[^<]*{said}[^<]*</strong><span> ', made)
    assert "optimizer: {sgd: {lr: rate}}" in made
    assert 'id="points"' not in made
    assert len(made) < SMALL


def change_sweep(directory: Path, **changes: object) -> None:
    manifest = manifest_fields(directory / "sweep.json")
    (directory / "sweep.json").write_text(json.dumps({**manifest, **changes}))


def test_a_sweep_that_has_just_begun_has_no_table_yet(begun: Path) -> None:
    (begun / "points.parquet").unlink()
    report = report_of_sweep(begun)
    assert not report.problems
    assert "The sweep was going on when this page was written" in report.head
    assert "No point is on this page." in report.head
    change_sweep(begun, versions={"steprun": "9.0"})
    assert "steprun 9.0 recorded it; this page is by steprun" in report_of_sweep(begun).head


def test_what_is_no_sweep_is_no_page(begun: Path) -> None:
    (begun / "sweep.json").unlink()
    done = steprun("report", begun, "-o", begun / "page.html")
    assert done.code == 2
    assert "is not a run directory: it has no run.json" in done.err
    assert not (begun / "page.html").exists()
    with pytest.raises(UsageError, match=r"is not a sweep directory: cannot read sweep\.json"):
        report_of_sweep(begun)


def test_a_damaged_part_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    directory = record_sweep(tmp_path, "sweep: {grid: {rate: [0.1, 0.2]}, objective: {minimize: loss}}\n")
    part = next(part_paths(directory))
    whole, drawn = part.read_bytes(), section(directory, "curves").data["quantities"]
    part.write_bytes(whole[:-40])
    report = report_of_sweep(directory)
    assert [each.message.partition(":")[0] for each in report.problems] == [f"{part} is damaged"]
    assert "remove it, then resume the sweep" in report.head
    assert report.shared["points"]["count"] == 2
    assert "curves" not in [each.name for each in report.sections]
    content = bytearray(whole)
    content[content.index(b"PAR1") + 4 : len(content) // 3] = bytes(len(content) // 3 - 4)  # pages; the footer is whole
    part.write_bytes(content)
    assert len(report_of_sweep(directory).problems) == 1
    part.with_name("000099-0.parquet").write_bytes(whole)  # as after a merge that was killed
    report = report_of_sweep(directory)
    assert len(report.problems) == 1
    read = next(each for each in report.sections if each.name == "curves").data["quantities"]
    for one, other in zip(read, drawn, strict=True):
        numpy.testing.assert_array_equal(one["values"], other["values"])
    for number in range(100, 130):
        part.with_name(f"000{number}-0.parquet").write_bytes(b"")
    problems = report_of_sweep(directory).problems
    assert len(problems) == 11
    assert problems[-1].message == "21 more part files cannot be read"


def test_a_part_that_is_merged_while_a_page_is_made_is_read_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = record_sweep(tmp_path, "sweep: {grid: {rate: [0.1, 0.2]}, objective: {minimize: loss}}\n")
    expected = section(directory, "curves").data["quantities"]
    listed = list(part_paths(directory))
    listings = iter([listed])
    monkeypatch.setattr(curves, "part_paths", lambda folder: next(listings, None) or part_paths(folder))
    for path in listed:
        path.rename(path.with_name(f"000100-{path.name[-9]}.parquet"))
    report = report_of_sweep(directory)
    assert not report.problems
    found = next(each for each in report.sections if each.name == "curves").data["quantities"]
    for one, other in zip(found, expected, strict=True):
        numpy.testing.assert_array_equal(one["values"], other["values"])


def test_equal_points_of_a_sampler_have_equal_curves(tmp_path: Path) -> None:
    directory = record_sweep(tmp_path, "sweep: {grid: {rate: [0.1, 0.2]}, objective: {minimize: loss}}\n")
    first, second = open_sweep(directory).table().column("identity").to_pylist()
    (loss,) = curves.read_curves(directory, [second, first, second], ["loss"]).quantities
    one, two, three = numpy.split(loss.values, loss.ends[:-1])
    numpy.testing.assert_array_equal(one, three)
    assert not numpy.array_equal(one, two)


def test_a_sweep_that_has_not_begun_or_has_no_config_says_so(begun: Path) -> None:
    made = page(report_of_sweep(begun)).decode()
    assert "no point has a number as its objective" in made
    assert "The sweep was going on when this page was written" in made
    assert '"view":"pointcurves"' not in made
    (begun / "sweep.yaml").write_text("parameters: [\n")
    made = page(report_of_sweep(begun)).decode()
    assert "The config cannot be read: " in made
    assert len(made) < SMALL


def test_objectives_that_are_not_numbers_come_last_and_are_shown(begun: Path) -> None:
    objectives = [math.nan, 3.0, None, math.inf, -math.inf, 1.0]
    values = [2**62, -1, 0, 1, 2, 3]
    with_points(begun, {"seed": values, "objective": objectives})
    report = report_of_sweep(begun)
    columns = {each["name"]: each for each in report.shared["points"]["columns"]}
    assert columns["point"]["numbers"].tolist() == [4, 5, 1, 3, 0, 2]
    assert columns["objective"]["known"].tolist() == [1, 1, 1, 1, 1, 0]
    assert [columns["seed"]["texts"][at] for at in columns["seed"]["at"]] == ["2", "3", "-1", "1", str(2**62), "0"]
    assert "best <" not in report.head
    assert len(page(report)) < SMALL


@pytest.mark.slow
def test_a_hundred_thousand_points_fit_a_page_that_says_which(begun: Path) -> None:
    count = 100_000
    generator = numpy.random.default_rng(0)
    objectives = generator.uniform(0, 1, count)
    status = ["failed" if number % 7 == 0 else "finished" for number in range(count)]
    failure = [f"{EVIL} {number}" * 20 if number % 7 == 0 else None for number in range(count)]
    rates = generator.uniform(0, 1, count)
    with_points(begun, {"rate": rates, "status": status, "objective": objectives, "failure": failure})
    report = report_of_sweep(begun)
    made = page(report)
    assert len(made) < 3 << 20
    assert EVIL.encode() not in made
    assert f"Of 100,000 points the page has {report.shared['points']['count']:,}" in report.head
    assert report.shared["points"]["count"] <= MOST_POINTS
    points = next(each for each in report.shared["points"]["columns"] if each["name"] == "point")["numbers"]
    assert points[:100].tolist() == numpy.argsort(objectives)[:100].tolist()
    assert "14,286 points failed, the 20 most frequent failures" in report.head


@pytest.mark.parametrize("minimize", [True, False])
def test_of_many_points_the_best_half_and_failures_without_objective_are_shown(minimize: bool) -> None:
    count = 3 * MOST_POINTS
    objectives = [float(number * 7 % count) for number in range(count)]  # each number once
    failed = [1, 5_000, count - 1]
    columns = {
        "point": list(range(count)),
        "status": ["failed" if number in failed else "finished" for number in range(count)],
        "objective": [None if number in failed else value for number, value in enumerate(objectives)],
    }
    points = points_of(pyarrow.table(columns), [], Objective("loss", minimize))
    finished = [number for number in range(count) if number not in failed]
    finished.sort(key=lambda number: objectives[number], reverse=not minimize)
    assert points.numbers[: MOST_POINTS // 2] == finished[: MOST_POINTS // 2]
    assert set(failed) <= set(points.numbers)
    assert len(points.numbers) <= MOST_POINTS
    assert points.best == 0
    alone = points_of(pyarrow.table({name: values[:1] for name, values in columns.items()}), [], None)
    assert alone.best == 0
    spoilt = pyarrow.table({"point": [0, 1], "status": ["failed"] * 2, "objective": [None, math.nan]})
    assert points_of(spoilt, [], Objective("loss", minimize)).best is None


def test_names_with_markup_dots_and_spaces_are_text(begun: Path) -> None:
    with_points(begun, {EVIL: [EVIL, "b"], "a b": [1.5, 2.5], "": [True, False], "objective": [1.0, 2.0]})
    made = page(report_of_sweep(begun)).decode()
    assert EVIL not in made
    assert "&lt;script&gt;alert(1)" in made


def test_a_thousand_points_are_small(tmp_path: Path) -> None:
    sweep = "sweep: {random: {samples: 1000, draw: {rate: {uniform: [0.001, 0.3]}}}, objective: {minimize: loss}}\n"
    directory = record_sweep(tmp_path, sweep, HEAD.replace("times: 20", "times: 3"))
    made = write_sweep_page(directory, tmp_path / "page.html")
    assert made.stat().st_size < SMALL
    assert len(section(directory, "curves").data["quantities"][0]["ends"]) == 1000


def test_a_long_curve_is_thinned_out_and_keeps_its_extremes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.report.sweep.curves.MOST_POINTS", 30 * 10)
    directory = record_sweep(tmp_path, GRID, HEAD.replace("times: 20", "times: 200"))
    data = section(directory, "curves")
    assert "Long curves are thinned out" in data.text
    quantity = data.data["quantities"][0]
    points = read_subject(directory).points
    run = open_sweep(directory).run(points.numbers[0])
    values = [float(row["loss"]) for row in run if row["loss"] is not None]  # type: ignore[arg-type]
    shown = quantity["values"][: quantity["ends"][0]].tolist()
    assert len(shown) <= 16 < len(values)
    assert {min(values), max(values), values[0], values[-1]} <= set(shown)
