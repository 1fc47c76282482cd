from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.record import create_run_directory, list_runs
from runner.record.manifest import RunDescription
from runner.record.recorder import recording
from tests.manifests import manifest_fields
from tests.record.building import LINEAR, linear_rows

START = datetime(2026, 11, 23, 6, 30, 12)


def record(runs_dir: Path, name: str, minutes: int, rows: int = 3, error: Exception | None = None) -> Path:
    directory = create_run_directory(runs_dir, name, START + timedelta(minutes=minutes))
    description = RunDescription(["steprun"], name, 0, "cpu", "float32", "eager")
    try:
        with recording(directory, LINEAR, description, "") as run:
            for row in linear_rows(rows):
                run.write(row)
            if error is not None:
                raise error
    except ValueError:
        pass
    return directory


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    first = record(tmp_path, "linear", 0)
    third = record(tmp_path, "linear", 2, rows=5, error=ValueError("a step failed"))
    second = record(tmp_path, "mlp", 1)
    runs = list_runs(tmp_path)
    assert [run.path for run in runs] == [third, second, first]
    assert [(run.name, run.status, run.rows, run.failure) for run in runs] == [
        ("linear", "failed", 5, "a step failed"),
        ("mlp", "finished", 3, None),
        ("linear", "finished", 3, None),
    ]
    assert [run.path for run in list_runs(tmp_path, name="mlp")] == [second]
    assert json.loads(json.dumps(runs[0].to_json()))["path"] == str(third)


def test_the_rows_of_a_run_that_was_killed_are_counted(tmp_path: Path) -> None:
    directory = record(tmp_path, "linear", 0, rows=4)
    manifest = manifest_fields(directory / "run.json")
    manifest |= {"status": "running", "rows": None, "process": {"host": manifest["process"]["host"], "pid": 2**22 + 1}}
    (directory / "run.json").write_text(json.dumps(manifest))
    (run,) = list_runs(tmp_path)
    assert (run.status, run.rows) == ("killed", 4)


def test_a_manifest_that_cannot_be_read_is_listed_too(tmp_path: Path) -> None:
    directory = record(tmp_path, "linear", 0)
    (directory / "run.json").write_text("{")
    (run,) = list_runs(tmp_path)
    assert (run.status, run.rows) == ("unreadable", None)
    assert run.failure is not None
    assert "is not valid JSON" in run.failure


def test_a_folder_without_runs_lists_none(tmp_path: Path) -> None:
    assert list_runs(tmp_path) == []
    with pytest.raises(UsageError, match="there is no folder"):
        list_runs(tmp_path / "runs")


def test_listing_imports_neither_torch_nor_pyarrow(tmp_path: Path) -> None:
    record(tmp_path, "linear", 0)
    code = (
        "import sys; from runner.record import list_runs; "
        f"assert len(list_runs({str(tmp_path)!r})) == 1; "
        "assert not {'torch', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
