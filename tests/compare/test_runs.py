"""Two recorded runs: configs first, environments next, rows last."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.compare.numbers.tolerances import BITWISE, Tolerance, Tolerances
from runner.compare.rows.report import report, to_json
from runner.compare.runs.difference import ABSENT, compare_runs, config_differences, environment_differences
from runner.compare.runs.report import runs_page
from runner.errors import UsageError
from runner.record import Run
from tests.manifests import manifest_fields

CONFIG = """\
parameters: {x: [4.0, 0.5]}
constants: {rate: 0.25}
expression: |
  h = x ** 2
  loss = h.sum()
optimizer: {sgd: {lr: rate}}
steps: 4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def recorded(folder: Path, *overrides: str, **manifest: Any) -> Run:
    """A run, with some of its manifest written otherwise."""
    run = runner.run(folder / "c.yaml", overrides, runs_dir=folder / "runs")
    if manifest:
        path = run.path / "run.json"
        path.write_text(json.dumps({**manifest_fields(path), **manifest}))
    return runner.open_run(run.path)


def keys(*runs: Run) -> dict[str, tuple[Any, Any, tuple[int | None, int | None]]]:
    return {
        each.key: (
            each.expected.value,
            each.found.value,
            (each.expected.mark and each.expected.mark.line, each.found.mark and each.found.mark.line),
        )
        for each in config_differences(*runs)
    }


def test_equal_runs_hold_bit_for_bit(folder: Path) -> None:
    difference = compare_runs(recorded(folder), recorded(folder))
    assert (difference.config, difference.environment, difference.tolerance, difference.cut) == (
        (),
        (),
        "bitwise",
        None,
    )
    assert difference.verdict.holds
    assert difference.verdict.compared == 5


def test_configs_differ_by_key_each_with_its_line(folder: Path) -> None:
    expected = recorded(folder)
    found = recorded(folder, "rate=0.125", "seed=3", "steps=[train, {train: {clip_grad_norm: 1}}]", "~optimizer.sgd.lr")
    lines = {
        name: {line.split(":")[0].strip(): number for number, line in enumerate(text.splitlines(), 1)}
        for name, text in ((run.path.name, (run.path / "config.yaml").read_text()) for run in (expected, found))
    }
    one, other = lines[expected.path.name], lines[found.path.name]
    assert keys(found, expected) == {
        "constants.rate": (0.25, 0.125, (one["constants"], other["constants"])),
        "optimizer.sgd.lr": ("rate", ABSENT, (one["optimizer"], None)),
        "steps": (4, ["train", {"train": {"clip_grad_norm": 1}}], (one["steps"], other["steps"])),
        "seed": (ABSENT, 3, (None, other["seed"])),
    }


VALUES = {
    "rate=1 / 8": "0.25 → 1 / 8",
    "~optimizer.sgd.lr": "rate → nothing",
    r'expression="h = x ** 2\nloss = h.mean()"': "loss = h.sum() → loss = h.mean()",
    r'expression="h = x ** 2\nloss = h.sum()\n2 * loss"': " → 2 * loss",
}


@pytest.mark.slow
def test_the_page_shows_both_values_and_of_long_texts_the_first_line_that_differs(folder: Path) -> None:
    expected = recorded(folder)
    for override, shown in VALUES.items():
        found = recorded(folder, override)
        page = runs_page(compare_runs(found, expected), found, expected, width=200)
        line = page[page.index("config") + 1]
        assert re.sub(r"^  [a-z.]+  |  \(.*\)$", "", line) == shown


def test_steps_are_told_apart_one_by_one_and_a_list_of_numbers_is_one_value(folder: Path) -> None:
    expected = recorded(folder, "steps=[train, {train: {clip_grad_norm: 1}}]")
    found = recorded(folder, "steps=[train, {train: {clip_grad_norm: 2}}, train]", "parameters.x=[4.0, 0.25]")
    assert {key: value[:2] for key, value in keys(found, expected).items()} == {
        "parameters.x": ([4.0, 0.5], [4.0, 0.25]),
        "steps.1.train.clip_grad_norm": (1, 2),
        "steps.2": (ABSENT, "train"),
    }


def test_a_value_written_otherwise_is_the_same(folder: Path) -> None:
    expected = recorded(folder, "rate=0.25")
    assert keys(recorded(folder, "rate=2.5e-1"), expected) == {}
    assert set(keys(recorded(folder, "parameters.x={init: [4.0, 0.5]}"), expected)) == {"parameters.x"}


def test_environments_differ_by_what_bits_depend_on(folder: Path) -> None:
    expected = recorded(folder)
    environment = {**expected.manifest["environment"], "threads": 64, "cpu_capability": "ANOTHER"}
    versions = {**expected.manifest["versions"], "torch": "9.9"}
    found = recorded(folder, environment=environment, versions=versions, git={"commit": "f00", "dirty": True})
    differences = {each.key: each.found.value for each in environment_differences(found, expected)}
    assert {"torch": "9.9", "threads": 64, "cpu capability": "ANOTHER", "git commit": "f00"}.items() <= (
        differences.items()
    )


def test_another_fingerprint_is_compared_by_dtype(folder: Path) -> None:
    expected = recorded(folder)
    found = recorded(folder, environment={**expected.manifest["environment"], "threads": 64})
    assert compare_runs(found, expected).tolerance == "dtype"
    assert compare_runs(recorded(folder, engine="other"), expected).tolerance == "dtype"
    asked = compare_runs(found, expected, Tolerances(BITWISE), "bitwise")
    assert (asked.tolerance, asked.verdict.holds) == ("bitwise", True)


def test_another_jax_is_another_fingerprint(folder: Path) -> None:
    """The manifests are those of runs with `engine: xla`; no other run has these fields."""
    known = runner.run(folder / "c.yaml", runs_dir=folder / "runs").manifest

    def under(**versions: str) -> Run:
        fields = {field: {**known[field], **versions} for field in ("versions", "environment")}
        return recorded(folder, engine="xla", **fields)

    expected, earlier = under(jax="0.10.2", jaxlib="0.10.2"), under()
    assert compare_runs(under(jax="0.10.2", jaxlib="0.10.2"), expected).tolerance == "bitwise"
    found = compare_runs(under(jax="0.10.2", jaxlib="0.10.1"), expected)
    assert found.tolerance == "dtype"
    changed = {each.key: (each.expected.value, each.found.value) for each in found.environment}
    assert changed["jaxlib"] == ("0.10.2", "0.10.1")
    assert "jax" not in changed
    assert compare_runs(expected, earlier).tolerance == "dtype"  # the earlier version recorded neither
    assert compare_runs(under(), earlier).tolerance == "bitwise"


def test_the_first_row_that_differs_is_found(folder: Path) -> None:
    verdict = compare_runs(recorded(folder, "rate=0.125"), recorded(folder)).verdict
    assert verdict.first_difference is not None
    assert (verdict.first_difference.place.number, verdict.first_difference.place.path) == (1, "repeat[1].train")
    assert [each.column.name for each in verdict.first_difference.divergences] == ["x"]
    wide = Tolerances(Tolerance("explicit", rtol=30, atol=1e9))
    assert compare_runs(recorded(folder, "rate=0.125"), recorded(folder), wide, "wide").verdict.holds


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_of_a_run_that_is_not_finished_the_rows_there_are_are_compared(folder: Path, status: str) -> None:
    whole = recorded(folder)
    part = recorded(folder, "steps=2", status=status)
    assert part.status == ("running" if status == "running" else status)
    for found, expected in ((part, whole), (whole, part)):
        difference = compare_runs(found, expected)
        assert (difference.cut, difference.verdict.compared, difference.verdict.holds) == (3, 3, True)


def test_a_finished_run_with_fewer_rows_differs(folder: Path) -> None:
    difference = compare_runs(recorded(folder, "steps=2"), recorded(folder))
    assert (difference.cut, difference.verdict.holds) == (None, False)
    assert difference.verdict.missing_rows.count == 2


def test_runs_of_other_columns_are_compared_where_they_line_up(folder: Path) -> None:
    expected = recorded(folder)
    verdict = compare_runs(
        recorded(folder, "parameters.y=1", "expression=loss = (x ** 2).sum() + y - y.detach()"), expected
    ).verdict
    assert [column.name for column in verdict.missing_columns] == ["h"]
    assert [column.name for column in verdict.new_columns] == ["y", "y.grad"]
    assert (verdict.first_difference, verdict.holds) == (None, False)


def test_a_run_without_rows_is_told(folder: Path) -> None:
    whole, empty = recorded(folder), recorded(folder, status="failed")
    for part in (empty.path / "rows").iterdir():
        part.unlink()
    (empty.path / "rows.json").unlink()
    with pytest.raises(UsageError, match="is failed and has no rows") as raised:
        compare_runs(runner.open_run(empty.path), whole)
    assert raised.value.problems[0].message == f"{empty.path} is failed and has no rows"
    assert raised.value.problems[0].hint == "take another run"


def test_logs_of_digests_are_the_same_or_not(folder: Path) -> None:
    runs = [recorded(folder, "log.tensors=digest", f"rate={rate}") for rate in (0.25, 0.25, 0.125)]
    assert compare_runs(runs[1], runs[0]).verdict.holds
    verdict = compare_runs(runs[2], runs[0], Tolerances(Tolerance("explicit", rtol=1e9, atol=1e9))).verdict
    assert verdict.first_difference is not None
    assert [(each.column.name, each.difference.kind) for each in verdict.first_difference.divergences] == [
        ("x.digest", "digest")
    ]
    assert verdict.first_difference.place.number == 1
    assert verdict.growth is None
    assert math.isnan(verdict.tallies[0].largest)
    told = report(compare_runs(runs[2], runs[0]).verdict)
    assert told[:2] == [
        "row 1, repeat[1].train: `x.digest` differs in its digest",
        "  apart     unknown:  only digests were stored",
    ]
    assert [line.split() for line in told[-4:-2]] == [
        ["x.digest", "4", "of", "5", "rows", "1", "unknown"],
        ["h.digest", "3", "of", "4", "rows", "2", "unknown"],
    ]
    tensors = to_json(verdict)["tensors"]
    assert (tensors[0]["name"], tensors[0]["largest_error"]) == ("x.digest", None)


def test_logs_of_statistics_are_as_near_as_their_tensors_are(folder: Path) -> None:
    expected = recorded(folder, "log.tensors=stats", "steps=1")
    near = recorded(folder, "log.tensors=stats", "steps=1", "parameters.x=[4.0, 0.500001]")
    far = recorded(folder, "log.tensors=stats", "steps=1", "parameters.x=[4.0, 0.6]")
    assert compare_runs(near, expected, Tolerances(Tolerance("dtype"))).verdict.holds  # within 5 x 1.3e-6 of float32
    assert not compare_runs(near, expected, Tolerances(BITWISE)).verdict.holds
    first_difference = compare_runs(far, expected, Tolerances(Tolerance("dtype"))).verdict.first_difference
    assert first_difference is not None
    assert "x.min" in [each.column.name for each in first_difference.divergences]
