"""Choosing, sorting and removing recorded runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.config.files.safe_files import Folder
from runner.errors import UsageError
from runner.plan.rows.columns import Column
from runner.record import create_run_directory, list_runs
from runner.record.listing.choosing import older_than, sorted_by, that_meet, with_status
from runner.record.listing.facts import Facts
from runner.record.listing.removing import remove_run
from runner.record.listing.runs import Recorded, RunSummary, recorded_runs
from runner.record.manifest import RunDescription
from runner.record.recorder import recording
from runner.record.rows import parts
from tests.manifests import manifest_fields
from tests.record.building import rows_of
from tests.tables import over

START = datetime(2026, 11, 23, 6, 30, 12)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
COLUMNS = (
    Column("loss", "value", torch.float32, ()),
    Column("correct", "value", torch.bool, (1,)),
    Column("w", "weight", torch.float32, (2,)),
)


def record(runs_dir: Path, name: str, number: int, losses: list[float | None], rate: str, seed: int = 0) -> Path:
    directory = create_run_directory(runs_dir, name, START + timedelta(minutes=number))
    keys = {"optimizer.sgd.lr": rate, "constants.rate": rate, "steps.0.sgd.momentum": "0.5", "expression": "f = w"}
    description = RunDescription(["steprun"], name, seed, "cpu", "float32", "eager", more={"config_fields": keys})
    values = [
        [None if loss is None else torch.tensor(loss), torch.tensor([loss is not None]), torch.ones(2)]
        for loss in losses
    ]
    with recording(directory, COLUMNS, description, "") as run:
        for row in rows_of(COLUMNS, values):
            run.write(row)
    return directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    record(tmp_path, "a", 1, [None, 3.0, 0.5], "0.1", seed=1)
    record(tmp_path, "a", 2, [None, 0.25, None], "0.01")
    record(tmp_path, "b", 3, [None, math.nan], "schedule")
    return tmp_path


def chosen(runs: list[Recorded]) -> list[str]:
    """The minutes in the names of the directories."""
    return [run.summary.path.name[11:13] for run in runs]


def change_manifest(directory: Path, **changes: Any) -> None:
    path = directory / "run.json"
    path.write_text(json.dumps(manifest_fields(path) | changes))


@over(
    ("condition", "expected"),
    [
        ("loss < 1", ["32", "31"]),  # the last value, although the last row of one has none
        ("loss < 0.3", ["32"]),
        ("loss is missing", ["33"]),  # nan
        ("correct", ["33", "31"]),
        ("seed == 1 or name == 'b'", ["33", "31"]),
        ("rate == '0.1'", ["31"]),  # one of the rates is text, so all are
        ("optimizer.sgd.lr == '0.1'", ["31"]),
        ("momentum == 0.5 and not loss >= 0.5", ["33", "32"]),
        ("status in ['failed', 'finished']", ["33", "32", "31"]),
        ("rows > 2**1", ["32", "31"]),
        ('column("loss") == 0.25', ["32"]),
        ("failure is missing", ["33", "32", "31"]),
    ],
)
def test_a_condition_chooses_runs(folder: Path, condition: str, expected: list[str]) -> None:
    assert chosen(that_meet(recorded_runs(folder), condition)) == expected


def test_large_seeds_are_compared_as_the_integers_that_they_are(tmp_path: Path) -> None:
    record(tmp_path, "a", 1, [1.0], "0.1", seed=2**53)
    record(tmp_path, "a", 2, [1.0], "0.1", seed=2**53 + 1)  # as a float64 it is the other one
    assert chosen(that_meet(recorded_runs(tmp_path), f"seed == {2**53 + 1}")) == ["32"]
    assert chosen(that_meet(recorded_runs(tmp_path), f"seed <= {2**53}")) == ["31"]


def test_the_last_value_is_that_of_the_last_part_that_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 1)
    path = record(tmp_path, "a", 1, [], "0.1")
    values = [[torch.tensor(loss), torch.tensor([True]), torch.ones(2)] for loss in (3.0, 2.0, 1.0, 0.25)]
    values.append([None, torch.tensor([False]), torch.ones(2)])
    with recording(path, COLUMNS, RunDescription(["steprun"], "a", 0, "cpu", "float32", "eager"), "") as run:
        for row in rows_of(COLUMNS, values):
            run.write(row)
            run.flush()
    assert len(list((path / "rows").glob("*.parquet"))) > 1
    facts = Facts(recorded_runs(tmp_path))
    assert (facts.values("loss"), facts.values("correct")) == ([0.25], [False])


@over(
    ("condition", "message"),
    [
        ("los < 1", r"--filter:1:1\n.*los < 1\n.*\^\^\^ the list of runs has no column `los`\n.*did you mean `loss`"),
        ("loss <", "--filter:1"),
        ("", "the expression is empty"),
        ("loss", "`loss` is a number, not a condition"),
        ("name < 3", "`<` compares numbers, and `name` is text"),
        ("loss.w < 1", r"no column `loss\.w`"),
        ("__import__('os').system('true')", "`__import__` is not available"),
        ("(" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_condition(folder: Path, condition: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        that_meet(recorded_runs(folder), condition)


@over(
    ("key", "expected"),
    [
        ("loss", ["32", "31", "33"]),
        ("-loss", ["31", "32", "33"]),  # nan stays last
        ("name", ["32", "31", "33"]),
        ("-seed", ["31", "33", "32"]),
        ("started", ["31", "32", "33"]),
        ("lr", ["32", "31", "33"]),
        ("failure", ["33", "32", "31"]),  # no run has one: newest first
    ],
)
def test_runs_are_sorted_by_any_value(folder: Path, key: str, expected: list[str]) -> None:
    for number, (path, name) in enumerate(sorted((path.name, path.parent.name) for path in folder.glob("*/*"))):
        change_manifest(folder / name / path, started=(NOW - timedelta(days=3 - number)).isoformat())
    assert chosen(sorted_by(recorded_runs(folder), key)) == expected


@over(
    ("age", "expected"),
    [
        ("2d", ["32", "31"]),
        ("49h", ["32", "31"]),
        ("47.5h", ["33", "32", "31"]),
        ("1w", []),
        (f"{10**300}w", []),
    ],
)
def test_the_age_of_a_run_counts_from_its_start(folder: Path, age: str, expected: list[str]) -> None:
    for days, path in enumerate(sorted(folder.glob("*/*"), key=lambda path: path.name, reverse=True), 2):
        change_manifest(path, started=(NOW - timedelta(days=days, seconds=-1 if days > 2 else 0)).isoformat())
    assert chosen(older_than(recorded_runs(folder), age, NOW)) == expected


@over("started", ["yesterday", "", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_run_without_a_start_has_no_age(folder: Path, started: str) -> None:
    for path in folder.glob("*/*"):
        change_manifest(path, started=started)
    assert older_than(recorded_runs(folder), "1s", NOW) == []


@over("age", ["nonsense", "30", "0d", "-1d", "d", "1.d", "nand", "infd", f"{10**400}d", "", "3 d", "30D"])
def test_what_is_no_age(folder: Path, age: str) -> None:
    with pytest.raises(UsageError, match=r"--older-than is `.*`\n.*write a time such as 30d"):
        older_than([], age, NOW)


def test_what_is_no_status() -> None:
    with pytest.raises(UsageError, match=r"there is no status `faild`\n.*did you mean `failed`\?"):
        with_status([], ["finished", "faild"])


def test_names_and_globs_of_values(folder: Path) -> None:
    facts = Facts(recorded_runs(folder))
    assert facts.expanded(["*oss", "lr", "seed"]) == ["loss", "lr", "seed"]
    assert facts.values("sgd.lr") == ["schedule", 0.01, 0.1]
    assert facts.values("correct") == [True, False, True]
    assert "w" not in facts.names  # not one number
    with pytest.raises(UsageError, match=r"no run has a value `sead`\n.*did you mean `seed`\?"):
        facts.expanded(["sead"])


def test_an_end_of_several_keys_is_refused() -> None:
    summary = RunSummary(Path("r"), "r", "finished", None, None, None, None)
    keys: Mapping[str, str] = {"optimizers.a.lr": "1", "optimizers.b.lr": "2"}
    with pytest.raises(UsageError, match=r"`lr` is the end of several keys\n.*write `optimizers.a.lr`"):
        Facts([Recorded(summary, {"config_fields": keys})]).values("lr")


def test_damaged_rows_are_missing_values(folder: Path) -> None:
    next(folder.glob("b/*/rows/*.parquet")).write_bytes(b"PAR1")
    assert Facts(recorded_runs(folder)).values("loss") == [None, 0.25, 0.5]


# --- removing


def test_a_removed_run_is_gone_and_the_others_are_not(folder: Path) -> None:
    outside = folder / "kept.txt"
    outside.write_text("kept")
    newest, *others = list_runs(folder)
    (newest.path / "link").symlink_to(outside)
    (newest.path / "away").symlink_to(others[0].path)
    remove_run(newest)
    assert not newest.path.parent.exists()  # it was the only run of its name
    assert list_runs(folder) == others
    assert outside.read_text() == "kept"
    remove_run(others[0])
    assert others[1].path.is_dir()


def test_a_run_that_is_locked_is_not_removed(folder: Path) -> None:
    run = list_runs(folder)[0]
    with Folder(run.path) as held, held.locked(), pytest.raises(UsageError, match=r"cannot delete .*: it is running"):
        remove_run(run)
    assert (run.path / "run.json").exists()


def test_a_run_that_is_running_is_not_removed(folder: Path) -> None:
    run = list_runs(folder)[0]
    change_manifest(run.path, status="running", process={"host": "another machine", "pid": 1})
    with pytest.raises(UsageError, match=r"cannot delete .*: it is running\n.*wait for it"):
        remove_run(run)
    assert (run.path / "rows").exists()


def test_a_link_is_not_removed_nor_what_it_leads_to(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = list_runs(folder)[0]
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    os.rename(run.path, elsewhere)
    run.path.symlink_to(elsewhere)
    with pytest.raises(UsageError, match=r"cannot delete .*: it is a link"):
        remove_run(run)
    os.unlink(run.path)
    os.rename(run.path.parent, elsewhere.parent / "name")
    os.rename(elsewhere, elsewhere.parent / "name" / run.path.name)
    run.path.parent.symlink_to(elsewhere.parent / "name")
    with pytest.raises(UsageError, match=r"cannot delete .*: it is a link"):
        remove_run(run)
    assert (elsewhere.parent / "name" / run.path.name / "run.json").exists()


@over(
    ("name", "has_rows", "goes"),
    [("20261123-063312-abcd", True, True), ("20261123-063312-abcd", False, False), ("thesis", True, False)],
)
def test_what_has_no_manifest_of_a_run_goes_only_if_all_else_is_a_run(
    tmp_path: Path, name: str, has_rows: bool, goes: bool
) -> None:
    directory = tmp_path / "a" / name
    directory.mkdir(parents=True)
    (directory / "run.json").write_text("{}")
    (directory / "rows").mkdir() if has_rows else None
    (run,) = list_runs(tmp_path)
    if goes:
        remove_run(run)
    else:
        with pytest.raises(UsageError, match=r"cannot delete .*: it may be something else than a run"):
            remove_run(run)
    assert directory.exists() is not goes


def test_a_manifest_that_is_a_link_protects_a_folder(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "20261123-063312-abcd"
    (directory / "rows").mkdir(parents=True)
    (directory / "run.json").symlink_to(tmp_path / "other.json")
    (run,) = list_runs(tmp_path)
    with pytest.raises(UsageError, match=r"its run\.json is not an ordinary file"):
        remove_run(run)
    assert directory.exists()


def test_folders_that_nest_without_end_are_refused(folder: Path) -> None:
    run = list_runs(folder)[0]
    (run.path / "/".join("d" * 40)).mkdir(parents=True)
    with pytest.raises(UsageError, match="its folders nest too deeply"):
        remove_run(run)
    assert (run.path / "run.json").exists()  # so that it is listed still
