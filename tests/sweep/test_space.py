"""The points of a sweep."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from runner.config import load, loads, overridden
from runner.errors import ConfigError, UsageError
from runner.sweep.planning import plan_sweep, renumbered
from runner.sweep.points.identity import Identities, unused_scalars
from runner.sweep.points.space import Point, space_of, without_sweep
from runner.sweep.running import How, resume_sweep, start_sweep
from tests.sweep.configs import HEAD, written
from tests.tables import over


def points(sweep: str, head: str = HEAD) -> list[Point]:
    return list(space_of(loads(head + sweep)).points())


def test_a_grid_multiplies_and_its_last_axis_varies_fastest() -> None:
    found = points("sweep: {grid: {rate: [0.1, 0.03], seed: range(3)}}")
    expected = [{"rate": rate, "seed": seed} for rate, seed in itertools.product([0.1, 0.03], range(3))]
    assert [point.values for point in found] == expected
    assert [point.index for point in found] == list(range(6))


def test_zip_pairs_values_and_multiplies_with_the_grid() -> None:
    found = points("sweep: {grid: {seed: [7, 8]}, zip: [{rate: [1, 2], momentum: [3, 4]}]}")
    assert [tuple(point.values.values()) for point in found] == [(7, 1, 3), (7, 2, 4), (8, 1, 3), (8, 2, 4)]


def test_points_are_listed_one_by_one() -> None:
    found = points("sweep: {points: [{rate: 1}, {rate: 2, seed: 3}]}")
    assert [dict(point.values) for point in found] == [{"rate": 1}, {"rate": 2, "seed": 3}]


def test_points_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("rate,seed\n0.1,1\n1e-3,\n")
    config = load(written(tmp_path, "sweep: {points: trials.csv}\n"))
    assert [dict(point.values) for point in space_of(config).points()] == [{"rate": 0.1, "seed": 1}, {"rate": 1e-3}]


@over(
    ("content", "message"),
    [
        ("rate\n", r"`trials.csv` has no points"),
        ("", r"the first line of `trials.csv` does not name its columns"),
        ("rate,rate\n1,2\n", r"the first line of `trials.csv` does not name its columns"),
        ("rate\n1,2\n", r"trials.csv:2 has 2 cells, and its header 1"),
        ("rate\n99999999999999999999\n", r"trials.csv:2 holds `99999999999999999999`, which is beyond 64 bits"),
        ('rate\n"1\n', r"`trials.csv` is not a table: unexpected end of data"),
    ],
)
def test_a_file_of_points_with_a_fault_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text(content)
    with pytest.raises(ConfigError, match=message):
        space_of(load(written(tmp_path, "sweep: {points: trials.csv}\n")))


def test_more_samples_keep_the_first_ones() -> None:
    sweep = "sweep: {{random: {{samples: {}, draw: {{rate: {{uniform: [0, 1]}}}}}}}}"
    few, many = points(sweep.format(4)), points(sweep.format(9))
    assert [point.values for point in many[:4]] == [point.values for point in few]


def test_draws_of_a_choice_do_not_list_its_values_again(monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(loads(f"{HEAD}sweep: {{random: {{samples: 40, draw: {{rate: {{choice: 'range(1000)'}}}}}}}}\n"))
    monkeypatch.setattr("runner.sweep.points.values.values_of", None)
    heads = [hashlib.sha256(f"0/rate/{number}".encode()).digest()[:8] for number in range(40)]
    expected = [int.from_bytes(head, "big") * 1000 // 2**64 for head in heads]
    assert [point.values["rate"] for point in space.points()] == expected


def test_a_draw_is_the_same_for_each_grid_point() -> None:
    found = points("sweep: {grid: {seed: [1, 2]}, random: {samples: 3, draw: {rate: {uniform: [0, 1]}}}}")
    assert [point.values["rate"] for point in found[:3]] == [point.values["rate"] for point in found[3:]]


def test_a_union_is_one_space_after_another() -> None:
    found = points("sweep: {union: [{grid: {rate: [1, 2]}}, {grid: {seed: [5]}}]}")
    assert [dict(point.values) for point in found] == [{"rate": 1}, {"rate": 2}, {"seed": 5}]


@over(
    ("sweep", "message"),
    [
        ("sweep: {zip: [{rate: [1, 2], seed: [1]}]}", r"`seed` has 1 values, and `rate` has 2"),
        ("sweep: {grid: {rate: range(0)}}", r"`range\(0\)` has no values"),
        ("sweep: {random: {samples: 0, draw: {rate: {uniform: [0, 1]}}}}", r"expected at least 1, found 0"),
        ("sweep: {points: missing.csv}", r"there is no file missing.csv"),
        ("sweep: {points: trials.txt}", r"`trials.txt` is not a .csv file"),
    ],
)
def test_axes_with_a_fault_are_refused_at_their_place(sweep: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        points(sweep)
    assert caught.value.problems[0].line == 6


# --- planning


def test_where_leaves_points_out() -> None:
    head = HEAD.replace("rate: 0.1", "rate: 0.1, d: 4, heads: 2").replace("(w ** 2)", "(w ** 2 / d / heads)")
    config = loads(head + "sweep: {grid: {d: [4, 6], heads: [2, 4, 6]}, where: d % heads == 0}")
    plan = plan_sweep(config, {})
    assert [(point.values["d"], point.values["heads"]) for point in plan.points] == [(4, 2), (4, 4), (6, 2), (6, 6)]
    assert (plan.excluded, [point.index for point in plan.points]) == (2, [0, 1, 2, 3])


def test_points_with_equal_numbers_are_one() -> None:
    sgd, adam = "{sgd: {lr: a}}", "{adam: {lr: b}}"
    head = HEAD.replace("rate: 0.1, momentum: 0.5", "a: 0.1, b: 0.2").replace(
        "{sgd: {lr: rate, momentum: momentum}}", sgd
    )
    config = loads(head + f"sweep: {{grid: {{optimizer: [{sgd}, {adam}], a: [0.1, 0.3], b: [0.2, 0.4]}}}}")
    plan = plan_sweep(config, {})
    assert (len(plan.points), plan.repeated) == (4, 4)  # `b` changes nothing of sgd, nor `a` of adam


def test_a_constant_that_only_unused_constants_read_is_unused() -> None:
    head = HEAD.replace("rate: 0.1", "rate: 0.1, a: 1, b: 2 * a, c: 1, d: 2 * c").replace("lr: rate", "lr: rate * d")
    assert unused_scalars(loads(head).document.root) == ["a", "b"]


def test_the_identity_is_that_of_the_numbers(tmp_path: Path) -> None:
    base = without_sweep(load(written(tmp_path)))
    identities = Identities()
    same = ["description=words", "name=other", "log.every=1", "snapshot.every=2", "health.unchanged=3"]
    first = identities.of(base)
    assert {identities.of(overridden(base, [override])) for override in same if "log" not in override} == {first}
    others = ["seed=1", "rate=0.2", "steps=6", "dtype=float64", "parameters.w.init=1"]
    found = {identities.of(overridden(base, [override])) for override in others}
    assert len(found | {first}) == len(others) + 1


def test_the_identity_changes_with_the_content_of_a_data_file(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("w\n1\n2\n3\n")
    head = HEAD.replace("{shape: [3], init: {normal: {std: 1}}}", "{file: w.csv, columns: w}")
    config = load(written(tmp_path, "", head))
    before = Identities().of(config)
    (tmp_path / "w.csv").write_text("w\n1\n2\n4\n")
    assert Identities().of(config) != before


@over(
    ("sweep", "axes", "message"),
    [
        ("sweep: {grid: {rat: [1, 2]}}", {}, r"there is no top-level key or scalar constant `rat`"),
        ("sweep: {grid: {rate: [1, [2]]}}", {}, r"`rate` is not a number, with rate=\[2\]"),
        ("sweep: {grid: {seed: [1, -1]}}", {}, r"a seed is 0 or more, and this is -1"),
        ("sweep: {grid: {optimizer.sgd.lrr: [1]}}", {}, r"sgd has no argument `lrr`"),
        ("sweep: {grid: {rate: [1]}, where: rate > 3}", {}, r"no point fulfils this condition"),
        ("sweep: {grid: {rate: [1]}, where: rat > 3}", {}, r"`rat` is not a scalar constant"),
        ("sweep: {grid: {rate: [1]}, objective: {minimize: los}}", {}, r"no row has a number `los`"),
        ("sweep: {grid: {rate: [1]}, objective: {minimize: loss, mean_over: k}}", {}, r"the sweep has no axis `k`"),
        ("", {"sed": [1, 2]}, r"there is no top-level key or scalar constant `sed`"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused_before_anything_runs(
    sweep: str, axes: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_sweep(loads(HEAD + sweep), axes)


def test_a_value_that_fails_is_told_with_its_point() -> None:
    head = HEAD.replace("steps: 5", "steps: n").replace("rate: 0.1", "rate: 0.1, n: 5")
    config = loads(head + "sweep: {zip: [{n: [1, 2], rate: [0.1, x]}]}")
    with pytest.raises(ConfigError, match=r":6:39  sweep.zip.0.rate.1\n.*\n.*`x` is not a scalar constant"):
        plan_sweep(config, {})


def test_a_huge_space_asks_first() -> None:
    config = loads(
        HEAD + "sweep: {grid: {seed: range(1000), rate: 'linspace(0, 1, 1000)', momentum: 'linspace(0, 0.9, 1000)'}}"
    )
    with pytest.raises(UsageError, match=r"the sweep has 1,000,000,000 points") as caught:
        plan_sweep(config, {})
    assert (
        caught.value.problems[0].hint
        == "run that many with --yes, or draw some with `random: {samples: 100, draw: {…}}`"
    )


def test_a_config_without_axes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the config has no sweep, and the command line no axis"):
        plan_sweep(loads(HEAD), {})


def test_an_axis_of_the_command_line_replaces_that_of_the_file() -> None:
    config = loads(HEAD + "sweep: {grid: {rate: [1, 2]}, zip: [{seed: [1, 2], momentum: [0.1, 0.2]}]}")
    plan = plan_sweep(config, {"seed": [9]})
    assert [point.values for point in plan.points] == [
        {"rate": rate, "momentum": momentum, "seed": 9} for rate in (1, 2) for momentum in (0.1, 0.2)
    ]


def test_a_wider_sweep_keeps_the_indices_of_its_points() -> None:
    narrow = plan_sweep(loads(HEAD), {"seed": [5, 6]})
    known = {task.identity: task.index for task in narrow.tasks}
    wide = renumbered(plan_sweep(loads(HEAD), {"seed": [4, 5, 6, 7]}), known)
    assert [(point.index, point.values["seed"]) for point in wide.points] == [(0, 5), (1, 6), (2, 4), (3, 7)]
    assert [task.index for task in wide.tasks] == [0, 1, 2, 3]


@over("lanes", ["exact", "close", "off"])
def test_a_resumed_sweep_runs_its_points_as_it_began(lanes: str, tmp_path: Path) -> None:
    config = load(written(tmp_path))
    how = How(lanes=lanes, threads=2)
    directory = start_sweep(config, plan_sweep(config, {}), {}, tmp_path / "sweeps", how)
    _, resumed = resume_sweep(directory, How())
    assert (resumed.lanes, resumed.threads) == (lanes, 2)
