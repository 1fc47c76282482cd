"""Samplers: the same points with any number of processes, and after a stop."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.config import load, loads
from runner.errors import ConfigError, UsageError
from runner.sweep.choosing.objective import Objective
from runner.sweep.choosing.sampling import sampler_of
from runner.sweep.planning import plan_sampled
from runner.sweep.points.outcome import Outcome
from runner.sweep.record.listing import list_sweeps
from runner.sweep.record.reading import open_sweep
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.sweep.configs import HEAD, written
from tests.sweep.inline import inline
from tests.sweep.test_running import Seen
from tests.tables import over

__all__ = ["inline"]

SWEEP = """\
sweep:
  random: {samples: 12, draw: {rate: {log_uniform: [1e-3, 1]}, seed: {randint: [0, 3]}, momentum: {choice: [0, 0.5]}}}
  objective: {minimize: loss}
"""
LOSS = Objective("loss", minimize=True)


def asked(
    name: str,
    batch: int,
    trials: int = 20,
    seed: int = 0,
    loss: Callable[[float], float | None] = lambda rate: (rate - 0.1) ** 2,
) -> list[dict[str, Any]]:
    """The points that a sampler chooses for a loss of the rate."""
    sweep = loads(HEAD + SWEEP).sweep
    assert sweep is not None
    sampler = sampler_of(name, sweep.model_copy(update={"seed": seed}), LOSS, {}, trials, batch)
    outcomes: dict[int, Outcome] = {}
    points: list[dict[str, Any]] = []
    while found := sampler.next(outcomes):
        assert len(found) <= batch
        for point in found:
            value = loss(point.values["rate"])
            scalars = {"loss": (value, value, value)}
            outcomes[point.index] = Outcome(point.index, "", (), "finished", 0.0, scalars=scalars)
            points.append(dict(point.values))
    return points


@pytest.mark.slow
@over("name", ["tpe", "random", "gp"])
def test_a_sampler_draws_from_the_distributions_and_repeats_itself(name: str) -> None:
    points = asked(name, 8)
    assert len(points) == 20
    assert all(1e-3 <= point["rate"] <= 1 and point["seed"] in (0, 1, 2) for point in points)
    assert {point["momentum"] for point in points} == {0, 0.5}
    assert asked(name, 8) == points != asked(name, 8, seed=1)


def loss_of(rate: float) -> float | None:
    """A loss that some points lack, and that is NaN for others."""
    return None if rate > 0.5 else math.nan if rate < 0.002 else (rate - 0.1) ** 2


def asked_by_hand(batch: int, trials: int) -> list[dict[str, Any]]:
    """The points of a loop over a study of Optuna, with the distributions of the sweep."""
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=0))
    distributions = {
        "rate": optuna.distributions.FloatDistribution(1e-3, 1, log=True),
        "seed": optuna.distributions.IntDistribution(0, 2),
        "momentum": optuna.distributions.CategoricalDistribution([0, 1]),
    }
    points: list[dict[str, Any]] = []
    while len(points) < trials:
        some = [study.ask(dict(distributions)) for _ in range(min(batch, trials - len(points)))]
        points += [{**trial.params, "momentum": [0, 0.5][trial.params["momentum"]]} for trial in some]
        for trial in some:
            loss = loss_of(trial.params["rate"])
            if loss is None or math.isnan(loss):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, loss)
    return points


def test_tpe_learns_what_a_study_by_hand_learns() -> None:
    found = asked("tpe", 4, trials=30, loss=loss_of)
    assert found == asked_by_hand(4, 30)
    assert {loss is None or math.isnan(loss) for loss in map(loss_of, (point["rate"] for point in found))} == {
        False,
        True,
    }


@over(
    ("name", "sweep", "objective", "message"),
    [
        ("tpee", SWEEP, LOSS, r"there is no sampler `tpee`"),
        ("tpe", "sweep: {grid: {rate: [1, 2]}}", LOSS, r"a sampler draws from `random`, without other axes"),
        ("tpe", "", LOSS, r"a sampler draws from `random`, without other axes"),
        ("tpe", SWEEP, None, r"a sampler needs an objective"),
        ("tpe", SWEEP.replace("log_uniform: [1e-3, 1]", "normal: [0, 1]"), LOSS, r"cannot draw `rate` from `normal`"),
        (
            "tpe",
            SWEEP.replace("choice: [0, 0.5]", "choice: [0, {uniform: [0, 1]}]"),
            LOSS,
            r"a sampler cannot draw inside the `choice` of `momentum`\n.*= write numbers, words or blocks of them",
        ),
        (
            "tpe",
            SWEEP.replace("log_uniform: [1e-3, 1]", "uniform: [-1e308, 1e308]"),
            LOSS,
            r"a sampler cannot draw `rate` from -1e\+308 to 1e\+308\n.*= write numbers that are closer",
        ),
    ],
)
def test_a_sweep_that_does_not_suit_a_sampler_is_refused(
    name: str, sweep: str, objective: Objective | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sampler_of(name, loads(HEAD + sweep).sweep, objective, {}, 4, 2)


DERIVED = """\
sweep:
  random:
    samples: half * 8
    draw: {rate: {uniform: [momentum / 10, half]}, seed: {randint: ["half * 4", 5.0]}, n: {choice: range(3)}}
  objective: {minimize: loss}
"""


def test_a_sampler_draws_between_derived_values_and_its_sweep_has_all_of_its_points(
    tmp_path: Path, inline: None
) -> None:
    config = load(written(tmp_path, DERIVED, HEAD.replace("rate: 0.1", "rate: 0.1, half: 0.5, n: 1")))
    plan = plan_sampled(config, "random", 2)
    directory = start_sweep(config, plan, {}, tmp_path, How())
    assert len(open_sweep(directory)) == 4
    assert [each.points for each in list_sweeps(tmp_path)] == [4]
    run_sweep(directory, plan, How(), Seen())
    assert len(open_sweep(directory)) == 4
    table = open_sweep(directory).to_pandas()
    assert len(table) == 4
    assert table.rate.between(0.05, 0.5).all()
    assert set(table.seed) <= {2, 3, 4}
    assert set(table.n) <= {0, 1, 2}
    plan, how = resume_sweep(directory, How())
    assert set(run_sweep(directory, plan, how, Seen())) == {0, 1, 2, 3}


@over(
    ("draw", "objective", "message"),
    [
        ("{rate: {uniform: [1, 0]}}", "{minimize: loss}", "`uniform` begins at 1 and ends at 0"),
        ("{rate: {uniform: [0]}}", "{minimize: loss}", "`uniform` needs a list of two numbers, and has a list"),
        ("{rate: {randint: [0, half]}}", "{minimize: loss}", "`randint` needs two integers"),
        (
            "{ratte: {uniform: [0, 1]}}",
            "{minimize: loss}",
            r"sweep.random.draw.ratte\n.*\n.*\^ there is no top-level key or scalar constant `ratte`",
        ),
        (
            "{rate: {uniform: [0, 1]}}",
            "{minimize: loss, mean_over: rate}",
            r"mean_over\n.*\n.*a sampler compares single points, not means\n.*= remove it, or leave --sampler out",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_at_its_place_with_a_sampler_too(
    draw: str, objective: str, message: str
) -> None:
    sweep = f"sweep: {{random: {{samples: 2, draw: {draw}}}, objective: {objective}}}\n"
    with pytest.raises(ConfigError, match=message):
        plan_sampled(loads(HEAD.replace("rate: 0.1", "rate: 0.1, half: 0.5") + sweep), "tpe", 2)


def test_without_optuna_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"--sampler needs Optuna") as caught:
        sampler_of("tpe", loads(HEAD + SWEEP).sweep, LOSS, {}, 4, 2)
    assert caught.value.problems[0].hint == "install it: `pip install 'steprun[optuna]'`"


@pytest.mark.slow
def test_a_sampled_sweep_is_the_same_with_two_processes_and_after_a_stop(tmp_path: Path) -> None:
    tables = []
    for name, jobs, stops in (("one", 1, False), ("two", 2, False), ("stopped", 1, True)):
        folder = tmp_path / name
        folder.mkdir()
        config = load(written(folder, SWEEP))
        plan = plan_sampled(config, "tpe", 4)
        directory = start_sweep(config, plan, {}, folder, How())

        class Stopping(Seen):
            def ended(self, outcomes: Any) -> None:
                super().ended(outcomes)
                if len(self.outcomes) > 5:
                    raise KeyboardInterrupt

        if stops:
            with pytest.raises(KeyboardInterrupt):
                run_sweep(directory, plan, How(jobs=jobs), Stopping())
            plan, _ = resume_sweep(directory, How())
        run_sweep(directory, plan, How(jobs=jobs), Seen())
        tables.append(open_sweep(directory).table().drop_columns("seconds").to_pylist())
    assert len(tables[0]) == 12
    assert tables[0] == tables[1] == tables[2]
