"""Checks of many configs: paths, folders, processes."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from runner.compare.snapshots.checking import Outcome, Request, Target
from runner.compare.snapshots.many import check_all
from runner.compare.snapshots.results import exit_code_of
from runner.compare.snapshots.targets import collect
from runner.errors import UsageError
from tests.compare.snapshotting import LINEAR, edit, taken, target

# --- many


def folder_of_three(folder: Path) -> list[Target]:
    for name in ("a", "b", "c"):
        taken(folder, LINEAR, name)
    edit(folder / "snapshots" / "b.yaml", "    x2: 199.7\n", "    x2: 199.8\n")
    return collect([str(folder)])


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(Path(outcome.name).stem, outcome.status) for outcome in outcomes]


def test_fail_fast_stops_at_the_first_that_does_not_hold(tmp_path: Path) -> None:
    targets = folder_of_three(tmp_path)
    every = list(check_all(targets, Request()))
    assert statuses(every) == [("a", "holds"), ("b", "differs"), ("c", "holds")]
    assert exit_code_of(every) == 3
    assert statuses(list(check_all(targets, Request(), fail_fast=True))) == [("a", "holds"), ("b", "differs")]


@pytest.mark.parametrize("frozen", [False, True])
def test_garbage_collection_that_is_off_or_frozen_is_so_again_after(frozen: bool, tmp_path: Path) -> None:
    targets = folder_of_three(tmp_path)
    gc.unfreeze()
    if frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    gc.disable()
    try:
        outcomes = iter(check_all(targets, Request()))
        next(outcomes)
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert len(list(outcomes)) == 2
        assert not gc.isenabled()
        assert before / 2 <= gc.get_freeze_count() <= before
    finally:
        gc.enable()
        gc.freeze()  # as the process of the tests was


@pytest.mark.slow
def test_several_processes_come_to_the_same(tmp_path: Path) -> None:
    targets = folder_of_three(tmp_path)
    alone, together = (list(check_all(targets, Request(), jobs=jobs)) for jobs in (1, 2))
    assert [replace(outcome, seconds=0.0) for outcome in together] == [replace(each, seconds=0.0) for each in alone]


def test_paths_are_configs_snapshots_or_folders_and_each_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(tmp_path, LINEAR, "a")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yaml").write_text("name: other\n" + LINEAR)
    (tmp_path / "snapshots" / "notes.txt").write_text("")
    (tmp_path / ".hidden").mkdir()
    taken(tmp_path / ".hidden", LINEAR, "x")
    monkeypatch.chdir(tmp_path)
    assert collect(["."]) == [Target(None, "snapshots/a.yaml")]
    assert collect(["a.yaml", ".", "snapshots/a.yaml"]) == [Target("a.yaml", "snapshots/a.yaml")]
    assert collect(["deep/b.yaml"]) == [Target("deep/b.yaml", "deep/snapshots/other.yaml")]
    with pytest.raises(UsageError, match=r"there is no snapshot below deep[\s\S]*`steprun snapshot CONFIG` takes one"):
        collect(["deep"])
    with pytest.raises(UsageError, match=r"there is no file or folder nowhere"):
        collect(["nowhere"])


def test_two_configs_of_one_snapshot_are_not_checked_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(tmp_path, LINEAR, "a")
    (tmp_path / "b.yaml").write_text("name: a\n" + LINEAR)
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    assert collect(["a.yaml", "link/a.yaml", "."]) == [Target("a.yaml", "snapshots/a.yaml")]
    for one, another in (("a", "b"), ("b", "a")):
        message = (
            rf"{one}\.yaml and {another}\.yaml have one snapshot, snapshots/a\.yaml\n.*give one of the two configs"
        )
        with pytest.raises(UsageError, match=message):
            collect([f"{one}.yaml", f"{another}.yaml"])


def test_the_target_of_a_config_is_named_by_its_name(tmp_path: Path) -> None:
    assert target(tmp_path).snapshot == str(tmp_path / "snapshots" / "model.yaml")
