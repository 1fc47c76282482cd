from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import runner
from runner.errors import UsageError
from runner.record import manifest as manifest_module
from runner.record.manifest import Manifest, RunDescription, fingerprint, read_manifest
from tests.manifests import manifest_fields
from tests.record.building import LINEAR


def description() -> RunDescription:
    return RunDescription(["steprun", "linear.yaml"], "linear", 3, "cpu", "float64", "eager", more={"resumed": None})


@pytest.fixture(autouse=True)
def _no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begun(folder: Path) -> None:
    Manifest(folder, description(), LINEAR)


def test_it_says_what_ran_and_on_what(tmp_path: Path) -> None:
    begun(tmp_path)
    content = manifest_fields(tmp_path / "run.json")
    assert content["command"] == ["steprun", "linear.yaml"]
    assert (content["name"], content["seed"], content["engine"]) == ("linear", 3, "eager")
    assert content["versions"] == {
        "steprun": runner.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    assert content["environment"] == fingerprint("cpu", "float64")
    assert content["environment"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert content["environment"]["threads"] == torch.get_num_threads()
    assert content["columns"][2] == {"name": "x.grad", "role": "gradient", "dtype": "float32", "shape": [1]}
    assert "resumed" in content


def change(folder: Path, **values: object) -> None:
    path = folder / "run.json"
    content = manifest_fields(path)
    for key, value in values.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


def finished_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    begun(tmp_path)
    assert read_manifest(tmp_path)["status"] == "running"
    change(tmp_path, process={"pid": finished_process()})
    assert read_manifest(tmp_path)["status"] == "killed"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the start of a process is known on Linux only")
def test_a_later_process_of_the_same_number_is_not_taken_for_the_run(tmp_path: Path) -> None:
    begun(tmp_path)
    change(tmp_path, process={"pid": os.getpid(), "started": "another-boot 1"})
    assert read_manifest(tmp_path)["status"] == "killed"


def test_a_process_on_another_host_cannot_be_looked_at(tmp_path: Path) -> None:
    begun(tmp_path)
    change(tmp_path, process={"host": "elsewhere", "pid": finished_process()})
    assert read_manifest(tmp_path)["status"] == "running"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run directory: cannot read run.json: No such file or directory"),
        ("{", "run.json is not valid JSON"),
        ("[]", "run.json is not the manifest of a run: it has no known status"),
        ('{"status": "dancing"}', "run.json is not the manifest of a run: it has no known status"),
    ],
)
def test_what_is_no_manifest_is_a_usage_error(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path)


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    Manifest(tmp_path, description(), LINEAR).finish(0)
    assert read_manifest(tmp_path)["git"] is None


def test_in_a_repository_the_commit_and_whether_files_were_changed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "GIT_PATIENCE", 60)
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs" / "heads" / "main").write_text("5" * 40 + "\n")
    manifest = Manifest(tmp_path, description(), LINEAR)
    assert read_manifest(tmp_path)["git"] == {"commit": "5" * 40, "dirty": None}
    manifest.finish(0)
    assert read_manifest(tmp_path)["git"] == {"commit": "5" * 40, "dirty": None}  # there is no such commit to ask about
