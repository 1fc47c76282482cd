"""Halving: the worse points stop, and the others have the bits of the run alone."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy
import pytest

from runner.cli.output.sweep_progress import SweepProgress
from runner.config import load, loads
from runner.errors import ConfigError
from runner.sweep.choosing.best import Best
from runner.sweep.choosing.objective import Objective
from runner.sweep.executors import work
from runner.sweep.executors.executor import lost
from runner.sweep.planning import SweepPlan, plan_sweep
from runner.sweep.points.outcome import Outcome, from_json, joined, to_json
from runner.sweep.points.space import Point
from runner.sweep.points.task import Task
from runner.sweep.record.part_files import Ended
from runner.sweep.record.parts import outcomes_on_disk, part_paths
from runner.sweep.record.reading import open_sweep
from runner.sweep.rounds import survivors
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from runner.sweep.single import Work
from tests.sweep.configs import written
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen, assert_is_the_run_alone, swept
from tests.tables import over

__all__ = ["inline"]

HEAD = """\
parameters: {w: {shape: [4], init: {normal: {std: 1}}}}
constants: {rate: 0.1}
expression: |
  noise = 0.01 * rand(1).sum()
  loss = (w ** 2).sum() + noise
optimizer: {adam: {lr: rate}}
steps:
  - repeat: {times: 25, steps: [train, {assign: {w: 0.99 * w}, every: 7}]}
  - forward
log: {every: EVERY}
"""
SWEEP = """\
sweep:
  grid: {rate: [1e-3, 1e-2, 0.1, 0.3, 0.5, 1e-4], seed: [0, 1]}
  objective: {minimize: loss, mean_over: seed}
  halving: {at: [5, 12], keep: 1/2}
"""


def outcome(index: int, loss: float | None, status: str = "paused", rung: int = 0) -> Outcome:
    scalars = {} if loss is None else {"loss": (loss, loss, loss)}
    return Outcome(index, str(index), (), status, 1.0, scalars=scalars, rung=rung)


@over(
    ("losses", "keep", "expected"),
    [
        ([3.0, 1.0, 2.0], Fraction(1, 3), {1}),
        ([3.0, 1.0, 2.0], Fraction(1, 2), {1, 2}),  # ceil(1.5)
        ([1.0, 1.0, 1.0, 1.0], Fraction(1, 2), {0, 1}),  # the lower indices
        ([math.nan, 2.0, None, 3.0], Fraction(1, 2), {1, 3}),
        ([math.nan, None, None], Fraction(2, 3), {0, 1}),
        ([math.inf, 5.0, -math.inf], Fraction(1, 3), {2}),
    ],
)
def test_the_best_points_survive(losses: list[float | None], keep: Fraction, expected: set[int]) -> None:
    points = [Point(index, {"rate": index}) for index in range(len(losses))]
    outcomes = {index: outcome(index, loss) for index, loss in enumerate(losses)}
    assert survivors(Objective("loss", True), points, outcomes, 0, keep) == expected


def test_a_failed_point_comes_last_and_never_survives() -> None:
    points = [Point(index, {"rate": index}) for index in range(3)]
    outcomes = {0: outcome(0, 0.0, "failed"), 1: outcome(1, 2.0), 2: outcome(2, 1.0)}
    found = [survivors(Objective("loss", True), points, outcomes, 0, Fraction(share, 3)) for share in (1, 2, 3)]
    assert found == [{2}, {1, 2}, {1, 2}]


def test_points_that_are_averaged_stop_together() -> None:
    points = [Point(index, {"rate": index // 2, "seed": index % 2}) for index in range(6)]
    outcomes = {index: outcome(index, loss) for index, loss in enumerate([0.0, 9.0, 4.0, 4.0, 1.0, 2.0])}
    assert survivors(Objective("loss", True, mean_over=("seed",)), points, outcomes, 0, Fraction(2, 3)) == {2, 3, 4, 5}


def test_outcomes_of_rungs_join() -> None:
    part = Outcome(0, "a", (), "paused", 1.0, 4, scalars={"loss": (3.0, 3.0, 9.0)}, recent=(3.0,))
    first = replace(part, rows=5, scalars={"loss": (2.0, 1.0, 9.0)}, recent=(3.0, 2.0), kept=part)
    later = Outcome(0, "a", (), "finished", 2.0, 6, scalars={"loss": (1.5, 0.5, 4.0)}, recent=(1.5,), rung=1, first=4)
    whole = joined([first, later])
    assert (whole.rows, whole.seconds, whole.status, whole.first) == (10, 3.0, "finished", 0)
    assert (whole.scalars["loss"], whole.recent) == ((1.5, 0.5, 9.0), (3.0, 1.5))
    assert from_json(to_json([first, later])) == [first, later]


def test_the_extremes_of_rungs_are_those_of_all_rows_together() -> None:
    values = [math.nan, math.inf, -math.inf, 0.5, 0.2]
    for first, second in itertools.product(itertools.product(values, repeat=2), repeat=2):
        rungs = [
            Outcome(0, "a", (), "paused", 1.0, scalars={"loss": (part[-1], numpy.fmin(*part), numpy.fmax(*part))})
            for part in (first, second)
        ]
        rows = numpy.array([*first, *second])
        expected = (rows[-1], numpy.fmin.reduce(rows), numpy.fmax.reduce(rows))
        numpy.testing.assert_equal(joined(rungs).scalars["loss"], expected)


@over(
    ("halving", "message"),
    [
        ("{at: [25], keep: 1/2}", r"no point is compared after iteration 25: its last loop has 25"),
        ("{at: [12, 5], keep: 1/2}", r"5 does not come after 12"),
        ("{at: [0], keep: 1/2}", r"expected at least 1, found 0"),
        ("{at: [5], keep: 1}", r"a fraction of the points lies between 0 and 1, and this is 1"),
        ("{at: [5], keep: 0}", r"a fraction of the points lies between 0 and 1, and this is 0"),
        ("{at: [5], keep: x}", r"`x` is not a scalar constant"),
        ("{at: [5], keep: .nan}", r"a fraction of the points lies between 0 and 1, and this is nan"),
    ],
)
def test_halving_that_cannot_be_is_refused(halving: str, message: str) -> None:
    text = HEAD.replace("EVERY", "1") + SWEEP.replace("{at: [5, 12], keep: 1/2}", halving)
    with pytest.raises(ConfigError, match=message):
        plan_sweep(loads(text), {})


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 4])
def test_survivors_have_the_bits_of_the_run_alone(every: int, tmp_path: Path) -> None:
    sweep, plan, seen = swept(tmp_path, SWEEP, HEAD.replace("EVERY", str(every)), jobs=2)
    table = sweep.table().to_pylist()
    statuses = [row["status"] for row in table]
    assert (statuses.count("finished"), statuses.count("stopped")) == (4, 8)  # of 6 rates 3 go on, and then 2
    assert len(seen.started) == 12 + 6 + 4
    for index, status in enumerate(statuses):
        if status == "finished":
            assert_is_the_run_alone(sweep, plan, index)
            assert table[index]["rows"] == len(sweep.run(index))
            losses = [float(loss) for loss in sweep.run(index).values("loss") if loss is not None]
            assert table[index]["loss.min"] == min(losses)
        else:
            assert float(sweep.run(index).tensor("loss")[-1]) == table[index]["objective"]


@pytest.mark.slow
def test_halving_goes_on_after_a_stop_with_the_same_survivors(tmp_path: Path) -> None:
    whole, _, _ = swept(tmp_path, SWEEP, HEAD.replace("EVERY", "4"), jobs=1)
    other = tmp_path / "other"
    other.mkdir()

    class Stopping(Seen):
        def ended(self, outcomes: object) -> None:
            super().ended(outcomes)
            if any(outcome.rung == 1 for outcome in self.outcomes):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(other, Stopping())
    (directory,) = (other / "sweeps" / "swept").iterdir()
    done = {(outcome.identity, outcome.rung) for rungs in outcomes_on_disk(directory).values() for outcome in rungs}
    plan, how = resume_sweep(directory, How(jobs=2))
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    assert len(seen.started) == 12 + 6 + 4 - len(done)
    left = [each.drop_columns("seconds").to_pylist() for each in (whole.table(), open_sweep(directory).table())]
    assert left[0] == left[1]
    assert list(part_paths(directory))


def _run(folder: Path, watch: Seen) -> None:
    config = load(written(folder, SWEEP, HEAD.replace("EVERY", "4")))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder / "sweeps", How())
    run_sweep(directory, plan, How(jobs=1), watch)


RISING = """\
parameters: {w: {shape: [1], init: 0.1}}
constants: {rate: 0.1}
expression: loss = sum(w * w)
optimizer: {sgd: {lr: rate, maximize: true}}
steps: 20
sweep:
  grid: {rate: [0.1, 0.2, 0.15, 0.12]}
  objective: {minimize: loss}
  halving: {at: [10], keep: 1/2}
"""


def _recorded(folder: Path, text: str) -> tuple[Path, SweepPlan]:
    config = load(written(folder, "", text))
    plan = plan_sweep(config, {})
    return start_sweep(config, plan, {}, folder / "sweeps", How()), plan


def test_the_best_point_is_that_of_the_table(tmp_path: Path, inline: None) -> None:
    directory, plan = _recorded(tmp_path, RISING)
    progress = SweepProgress(plan.total, plan.objective, quiet=True)
    run_sweep(directory, plan, How(), progress)
    # w grows by 1 + 2 rate in each step; the last row has the loss before the last step
    losses = [
        0.01 * (1 + 2 * rate) ** (2 * (last - 1)) for rate, last in ((0.1, 20), (0.2, 10), (0.15, 10), (0.12, 20))
    ]
    best = min(range(4), key=losses.__getitem__)
    table = open_sweep(directory).table().to_pylist()
    assert [row["objective"] for row in table] == pytest.approx(losses, rel=1e-5)
    assert progress.summary() == f"4 of 4 points done, best loss {table[best]['objective']:.5g} (point {best})"


SELDOM = """\
parameters: {w: 1.0}
constants: {rate: 0.1}
data: {train: {file: x.csv, columns: {x: x}}, valid: {file: x.csv, columns: {x: x}}}
expression: loss = (w * x).square().mean()
optimizer: {sgd: {lr: rate}}
steps: [{repeat: {times: 12, steps: [{train: {data: train}}, {evaluate: valid, every: 8}]}}]
sweep:
  grid: {rate: [0.01, 0.1, 0.03]}
  objective: {minimize: valid.loss}
  halving: {at: [10], keep: 1/3}
"""


def test_a_point_whose_last_rung_measures_nothing_keeps_the_number_that_it_had(tmp_path: Path, inline: None) -> None:
    (tmp_path / "x.csv").write_text("x\n1\n2\n")
    directory, plan = _recorded(tmp_path, SELDOM)
    progress = SweepProgress(plan.total, plan.objective, quiet=True)
    run_sweep(directory, plan, How(), progress)
    table = open_sweep(directory).table().to_pylist()
    assert [row["objective"] for row in table] == pytest.approx([2.5 * (1 - 5 * r) ** 16 for r in (0.01, 0.1, 0.03)])
    assert progress.summary() == f"3 of 3 points done, best valid.loss {table[1]['objective']:.5g} (point 1)"


def test_a_point_that_fails_in_a_later_rung_keeps_its_rows(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, plan = _recorded(tmp_path, RISING + "log: {every: 4}\n")
    ran = work.run_point

    def failing(given: Work, task: Task) -> Ended:
        return Ended(lost(task, "its process died")) if (task.index, task.rung) == (3, 1) else ran(given, task)

    with monkeypatch.context() as patch:
        patch.setattr(work, "run_point", failing)
        run_sweep(directory, plan, How(lanes="off"), Seen())
        first = open_sweep(directory).table().to_pylist()
        assert [row["status"] for row in first] == ["finished", "stopped", "stopped", "failed"]
        assert (first[3]["rows"], first[3]["failure"]) == (4, "its process died")  # iterations 4, 8, 10, the end
        assert open_sweep(directory).rows(3).num_rows == 4
        assert first[3]["loss.last"] == pytest.approx(0.01 * 1.24**18, rel=1e-5)
        for _ in range(2):  # it does not run again, and its rows are not counted again
            plan, how = resume_sweep(directory, How(lanes="off"))
            seen = Seen()
            run_sweep(directory, plan, how, seen)
            assert (seen.started, open_sweep(directory).table().to_pylist()) == ([], first)
    plan, how = resume_sweep(directory, How(lanes="off"))
    run_sweep(directory, plan, how, Seen(), retry=True)
    again = open_sweep(directory).table().to_pylist()
    assert (again[3]["status"], again[3]["rows"]) == ("finished", 6)
    assert again[3]["loss.last"] == pytest.approx(0.01 * 1.24**38, rel=1e-5)


def test_a_point_that_failed_and_whose_state_is_gone_begins_again(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, plan = _recorded(tmp_path, RISING)
    ran = work.run_point

    def failing(given: Work, task: Task) -> Ended:
        return Ended(lost(task, "its state is damaged")) if (task.index, task.rung) == (3, 1) else ran(given, task)

    with monkeypatch.context() as patch:
        patch.setattr(work, "run_point", failing)
        run_sweep(directory, plan, How(lanes="off"), Seen())
    before = open_sweep(directory).table().to_pylist()
    for path in (directory / "states").iterdir():
        path.unlink()
    plan, how = resume_sweep(directory, How(lanes="off"))
    run_sweep(directory, plan, how, Seen(), retry=True)
    table = open_sweep(directory).table().to_pylist()
    assert [row["status"] for row in table] == ["finished", "stopped", "stopped", "finished"]
    assert table[3]["loss.last"] == pytest.approx(0.01 * 1.24**38, rel=1e-5)
    assert table[0]["loss.last"] == before[0]["loss.last"]


def test_progress_says_each_warning_and_failure_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SweepProgress(2, None, quiet=False)
    failed = replace(outcome(0, None, "failed", 1), failure="no memory", warning="close only")
    progress.known([failed])
    assert capsys.readouterr().err == ""
    progress.ended([replace(outcome(1, 1.0), warning="close only")])
    progress.ended([replace(failed, index=1)])
    assert capsys.readouterr().err == "warning: close only\npoint 1 failed: no memory\n"
    assert progress.summary() == "2 of 2 points done, 2 failed"


def test_the_best_is_that_of_the_newest_numbers() -> None:
    random = numpy.random.default_rng(0)
    for minimize in (True, False):
        best, newest = Best(Objective("loss", minimize)), dict[int, float | None]()
        for _ in range(400):
            index, value = int(random.integers(6)), random.choice([0.0, 1.0, 2.0, 3.0, math.inf, math.nan, None])
            best.add(index, value)
            newest[index] = value
            numbers = [(each, place) for place, each in newest.items() if each is not None and each == each]
            assert best.found == min(
                numbers, key=lambda each: (each[0] if minimize else -each[0], each[1]), default=None
            )


def test_a_process_that_dies_fails_the_rung_of_its_point() -> None:
    task = Task(5, ("rate=0.1",), "a", rung=2, alone="autocast", warning="close")
    expected = Outcome(5, "a", ("rate=0.1",), "failed", 0.0, failure="why", warning="close", alone="autocast", rung=2)
    assert lost(task, "why") == expected
