"""The axes of a sweep on the command line, and what `steprun sweep` refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import Outcome, steprun
from tests.sweep.configs import HEAD, written
from tests.tables import over


def points(folder: Path, *arguments: str) -> Outcome:
    return steprun("sweep", written(folder, ""), *arguments, "--dry-run", "--json", cwd=folder)


@over(
    ("argument", "path", "values"),
    [
        ("rate=0.1,0.01", "rate", [0.1, 0.01]),
        ("seed=0..2", "seed", [0, 1, 2]),
        ("seed=2..0", "seed", [2, 1, 0]),
        ("seed=range(1, 7, 3)", "seed", [1, 4]),
        ("dtype=float32,float64", "dtype", ["float32", "float64"]),
        ("optimizer={sgd: {lr: 1}},{adam: {lr: 2}}", "optimizer", [{"sgd": {"lr": 1}}, {"adam": {"lr": 2}}]),
    ],
)  # fmt: skip
def test_an_argument_is_an_axis_of_these_values(argument: str, path: str, values: list[object], tmp_path: Path) -> None:
    shown = points(tmp_path, argument)
    assert (shown.code, shown.err) == (0, "")
    assert [point[path] for point in json.loads(shown.out)] == values


@pytest.mark.slow
def test_a_sweep_without_objective_averages_a_column_that_is_named(tmp_path: Path) -> None:
    config = written(tmp_path, "", "parameters: {w: 1.0}\nconstants: {a: 1, b: 1}\nexpression: loss = a * b * w\n")
    done = steprun("sweep", config, "a=1,-2", "b=1,3", "--quiet", cwd=tmp_path)
    results = ("results", done.out.strip(), "--group-by", "a")
    means = {"1": "2", "-2": "-4"}  # of a * b, for b = 1 and 3
    for by, order in (("loss", ["-2", "1"]), ("-loss", ["1", "-2"]), ("loss.max", ["-2", "1"])):
        shown = steprun(*results, "--by", by, cwd=tmp_path)
        assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [[a, means[a]] for a in order], by
    without = steprun(*results, cwd=tmp_path)
    assert (without.code, without.out) == (2, "")
    assert without.err == (
        "steprun\n      the sweep has no objective to average\n"
        "      = name a column to average with --by, such as `--by loss`\n"
    )


def test_one_value_is_an_override_of_all_points(tmp_path: Path) -> None:
    assert json.loads(points(tmp_path, "rate=0.5", "seed=1,2").out) == [{"seed": 1}, {"seed": 2}]


@over(
    ("arguments", "message", "hint"),
    [
        (["rate=[0.1, 0.01]"], "`rate` takes one value, and `rate=[0.1, 0.01]` is a list", "write `rate=0.1,0.01`"),
        (["seed=[1,2]"], "`seed` takes one value, and `seed=[1,2]` is a list", "write `seed=1,2`"),
        (
            ["optimizer.sgd.lr=[1,2]"],
            "`optimizer.sgd.lr` takes one value, and `optimizer.sgd.lr=[1,2]` is a list",
            "write `optimizer.sgd.lr=1,2`",
        ),
        (["rate=1,2", "rate=3,4"], "two arguments set the axis `rate`", "write its values in one argument"),
        (["rate=1,,2"], "`rate=1,,2` has an empty value", "remove a comma, or write `null`"),
        (["seed=range(0)"], "in `seed=range(0)`: `range(0)` has no values", "write at least one value"),
        (
            ["rate=0.5"],
            "`rate=0.5` is one value, and the config has no sweep",
            "write values with commas, `learning_rate=0.1,0.01`, or a span, `seed=0..4`",
        ),
        (["seed=0...4"], "`seed=0...4` is not a span of whole numbers", "write `seed=0..4`"),
        (
            ["rate=0.1..1"],
            "`rate=0.1..1` is not a span of whole numbers",
            "write `'rate=linspace(0.1, 1, 5)'`",
        ),
        (["seed=0..1000000000"], "`seed=0..1000000000` has more than 1,000,000 values", "write fewer"),
        (["rate=1,", "2"], "`rate=1, 2` has spaces", "write `rate=1,2`"),
        (["rate", "=", "1,2"], "`rate = 1,2` has spaces", "write `rate=1,2`"),
        (
            [],
            "the config has no sweep, and the command line no axis",
            "write `sweep: {grid: {learning_rate: [0.1, 0.01]}}`, or `learning_rate=0.1,0.01` on the command line",
        ),
    ],
)
def test_axes_that_cannot_be_are_refused(arguments: list[str], message: str, hint: str, tmp_path: Path) -> None:
    assert points(tmp_path, *arguments) == Outcome(2, "", f"steprun\n      {message}\n      = {hint}\n")


def test_a_list_stays_a_list_where_the_config_has_one(tmp_path: Path) -> None:
    head = HEAD.replace("rate: 0.1", "rate: 0.1, table: [1, 2]").replace("(w ** 2)", "(w ** 2 * table[0])")
    config = written(tmp_path, "", head)
    shown = steprun("sweep", config, "constants.table=[3, 4]", "seed=1,2", "--dry-run", "--json", cwd=tmp_path)
    assert (shown.code, json.loads(shown.out)) == (0, [{"seed": 1}, {"seed": 2}])


@over(
    ("arguments", "message"),
    [
        *(
            (["--time-limit", text], f"--time-limit is `{text}`: it takes a time such as 30s, 10m or 2h")
            for text in ("-1s", "0", "ten", "1e3s", "10 m", "")
        ),
        (["--on", "cloud"], "--on is `cloud`: it takes `processes` or `ray`"),
        (["--address", "auto"], "--address goes with --on ray"),
        (["--lanes", "loose"], "--lanes is `loose`: it takes `exact`, `close` or `off`"),
    ],
)
def test_options_that_cannot_be_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert points(tmp_path, "seed=1,2", *arguments) == Outcome(2, "", f"steprun\n      {message}\n")


@over("text", ["30", "30s", "1.5m", "2h", "1d"])
def test_a_time_limit_has_a_unit_or_is_in_seconds(text: str, tmp_path: Path) -> None:
    assert points(tmp_path, "seed=1,2", "--time-limit", text).code == 0


def test_threads_are_bounded(tmp_path: Path) -> None:
    refused = points(tmp_path, "seed=1,2", "--threads", "2147483648")
    assert (refused.code, refused.out) == (2, "")
    assert "'--threads': Input should be less than or equal to 1024" in refused.err


@over("key", ["where: rate > 0", "halving: {at: [2], keep: 1/2}"])
def test_a_sampler_refuses_what_it_would_ignore(key: str, tmp_path: Path) -> None:
    sweep = (
        f"sweep: {{random: {{samples: 3, draw: {{rate: {{uniform: [0, 1]}}}}}}, objective: {{minimize: loss}}, {key}}}"
    )
    shown = steprun("sweep", written(tmp_path, sweep), "--sampler", "tpe", cwd=tmp_path)
    name = key.partition(":")[0]
    assert shown.code == 2
    assert f"--sampler cannot be used with `{name}`\n      = remove it, or leave --sampler out" in shown.err
    assert not (tmp_path / "sweeps").exists()


def test_a_sampler_with_values_on_the_command_line_says_where_it_draws_from(tmp_path: Path) -> None:
    shown = steprun("sweep", written(tmp_path, ""), "rate=0.1,0.2", "--sampler", "tpe", cwd=tmp_path)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "steprun\n      `rate` has several values, and a sampler chooses the values of `random` alone\n"
        "      = write `sweep: {random: {samples: 8, draw: {rate: {uniform: [0, 1]}}}}` in the config\n"
    )
