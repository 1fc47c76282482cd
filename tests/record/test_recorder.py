from __future__ import annotations

import errno
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ExpectationError, Mark, Problem, RunError
from runner.record import manifest as manifest_module
from runner.record import open_run
from runner.record import recorder as recorder_module
from runner.record.manifest import RunDescription
from runner.record.recorder import Recorded, recording
from runner.record.rows import parts as parts_module
from tests.manifests import manifest_fields
from tests.record.building import LINEAR, linear_rows, run_directory

DESCRIPTION = RunDescription(["steprun", "linear.yaml"], "linear", 7, "cpu", "float32", "eager", ["nothing steps"])


def record(directory: Path, error: BaseException | None = None, rows: int = 10) -> None:
    with recording(directory, LINEAR, DESCRIPTION, "name: linear\n") as run:
        for row in linear_rows(rows):
            run.write(row)
        if error is not None:
            raise error


def manifest(directory: Path) -> dict[str, Any]:
    content = manifest_fields(directory / "run.json")
    assert isinstance(content, dict)
    return content


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    record(directory)
    content = manifest(directory)
    assert content["status"] == "finished"
    assert content["rows"] == 10
    assert content["failure"] is None
    assert content["seconds"] >= 0
    assert content["started"] <= content["ended"]
    assert sorted(os.listdir(directory)) == ["config.yaml", "rows", "rows.json", "run.json"]
    assert (directory / "config.yaml").read_text() == "name: linear\n"


def test_a_run_says_that_it_is_running_before_its_first_row(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    with recording(directory, LINEAR, DESCRIPTION, ""):
        assert manifest(directory)["status"] == "running"
        assert open_run(directory).status == "running"
        assert len(open_run(directory)) == 0


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (BrokenPipeError(32, "Broken pipe"), "interrupted", "interrupted when its output was closed"),
        (ValueError("a bug"), "failed", "a bug"),
        (RunError("a step failed"), "failed", "a step failed"),
        (ExpectationError("it does not hold"), "failed", "it does not hold"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_a_run_that_ends_early_keeps_its_rows_and_says_why(
    tmp_path: Path, error: BaseException, status: str, message: str
) -> None:
    directory = run_directory(tmp_path / "run")
    with pytest.raises(type(error)) as caught:
        record(directory, error)
    assert caught.value is error
    run = open_run(directory)
    assert run.status == status
    assert len(run) == run.manifest["rows"] == 10
    assert run.manifest["failure"]["error"] == type(error).__name__
    assert [problem["message"] for problem in run.manifest["failure"]["problems"]] == [message]


def test_what_failed_is_told_with_its_place(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    problem = Problem("it is not a number", "lower lr", Mark("linear.yaml", 3, 5), "expression", "f = log(x)")
    with pytest.raises(RunError, match="it is not a number"):
        record(directory, RunError(problem))
    assert manifest(directory)["failure"]["problems"] == [
        {
            "source": "linear.yaml",
            "line": 3,
            "column": 5,
            "path": "expression",
            "message": "it is not a number",
            "hint": "lower lr",
        }
    ]


def test_warnings_of_before_and_during_the_run_are_kept(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    with recording(directory, LINEAR, DESCRIPTION, "") as run:
        run.warn("`x` is not finite")
    assert manifest(directory)["warnings"] == ["nothing steps", "`x` is not finite"]


def test_a_full_disk_leaves_a_run_that_failed_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts_module, "write_atomically", fails)
    directory = run_directory(tmp_path / "run")
    with pytest.raises(RunError, match=r"cannot write rows to .*rows: No space left on device"):
        record(directory)
    run = open_run(directory)
    assert run.status == "failed"
    assert run.manifest["failure"]["problems"][0]["message"].endswith("No space left on device")
    assert len(run) == 0
    assert list(run.rows()) == []


def test_a_manifest_that_cannot_be_written_is_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_directory(tmp_path / "run")

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finish_on_a_full_disk(error: BaseException | None) -> None:
        with recording(directory, LINEAR, DESCRIPTION, "") as run:
            run.write(next(linear_rows(1)))
            monkeypatch.setattr(manifest_module, "write_atomically", fails)
            if error:
                raise error

    with pytest.raises(RunError, match=r"cannot write to .*run: No space left on device"):
        finish_on_a_full_disk(None)
    with pytest.raises(RunError, match=r"cannot write to .*run: No space left on device"):
        finish_on_a_full_disk(None)  # neither can it begin
    monkeypatch.undo()
    with pytest.raises(ValueError, match="a bug") as caught:
        finish_on_a_full_disk(ValueError("a bug"))
    assert "No space left on device" in caught.value.__notes__[0]


def test_no_step_waits_for_the_disk_and_no_row_is_there_before_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run_directory(tmp_path / "runs" / "linear" / "run")
    events: list[tuple[str, str]] = []  # thread and path, relative, of each fsync
    threads = {"MainThread": "main", "steprun-rows": "writer", "steprun-sync": "sync"}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        thread = threads.get(threading.current_thread().name, "another")
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path).as_posix()
        events.append((thread, re.sub(r"steprun-[0-9a-f]{16}", "steprun-0123456789abcdef", path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with recording(directory, LINEAR, DESCRIPTION, "name: linear\n") as run:
        assert events == []
        for row in linear_rows(3):
            run.write(row)
    run_folder = "runs/linear/run"
    assert sorted(events[:5]) == [  # at the same time
        ("sync", "runs"),
        ("sync", "runs/linear"),
        ("sync", run_folder),
        ("sync", f"{run_folder}/config.yaml"),
        ("sync", f"{run_folder}/run.json"),
    ]
    assert events[5:] == [
        ("writer", f"{run_folder}/.steprun-0123456789abcdef.writing"),
        ("writer", f"{run_folder}/rows"),
        ("main", f"{run_folder}/.steprun-0123456789abcdef.writing"),
        ("main", run_folder),
    ]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_run_directory_that_cannot_be_synced_is_a_run_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    def fails(directory: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(recorder_module, "sync_opening", fails)
    directory = run_directory(tmp_path / "run")
    with pytest.raises(RunError, match=r"cannot write rows to .*rows: Input/output error"):
        record(directory, rows=rows)
    assert manifest(directory)["status"] == "failed"


def test_a_run_that_goes_on_was_made_durable_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = run_directory(tmp_path / "run")
    record(directory)
    (directory / "config.yaml").chmod(0o444)
    monkeypatch.setattr(recorder_module, "sync_opening", None)  # would fail if it were called
    with recording(directory, LINEAR, DESCRIPTION, "", Recorded(10, 1)):
        pass
    assert manifest(directory)["rows"] == 10


def test_what_a_run_took_is_known_though_one_of_its_parts_was_killed(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    record(directory)
    (directory / "run.json").write_text(json.dumps(manifest(directory) | {"seconds": 100.0, "compile_seconds": 7.0}))
    with recording(directory, LINEAR, DESCRIPTION, "", Recorded(10, 1)) as run:
        assert (manifest(directory)["status"], manifest(directory)["seconds"]) == ("running", 100.0)  # if killed here
        run.compiled(2.0)
    assert 100.0 < manifest(directory)["seconds"] < 200.0
    assert manifest(directory)["compile_seconds"] == 9.0


def test_the_last_rows_are_written_while_the_caller_does_something_else(tmp_path: Path) -> None:
    directory = run_directory(tmp_path / "run")
    with recording(directory, LINEAR, DESCRIPTION, "") as run:
        for row in linear_rows(300):
            run.write(row)
        run.end()
        for thread in threading.enumerate():
            if thread.name == "steprun-rows":
                thread.join()
        assert len(open_run(directory)) == 300  # before the block ends
    assert manifest(directory)["rows"] == 300


def test_a_fault_of_the_last_rows_is_raised_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts_module, "write_atomically", fails)
    directory = run_directory(tmp_path / "run")
    ended: list[bool] = []

    def work() -> None:
        with recording(directory, LINEAR, DESCRIPTION, "") as run:
            for row in linear_rows(3):
                run.write(row)
            run.end()
            ended.append(True)

    with pytest.raises(RunError, match=r"cannot write rows to .*rows: No space left on device"):
        work()
    assert ended
    assert manifest(directory)["status"] == "failed"
