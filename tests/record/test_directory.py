from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

import pytest

from runner.errors import RunError
from runner.record.directory import create_run_directory, write_atomically

NOW = datetime(2026, 11, 23, 6, 30, 12)


def test_a_run_directory_says_what_ran_and_when(tmp_path: Path) -> None:
    directory = create_run_directory(tmp_path / "runs", "linear", NOW)
    assert directory.parent == tmp_path / "runs" / "linear"
    assert directory.name.startswith("20261123-063012-")
    assert (directory / "rows").is_dir()


def test_a_run_directory_is_never_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = iter(["7f3a", "7f3a", "7f3a", "01bc"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(suffixes))
    first = create_run_directory(tmp_path, "linear", NOW)
    (first / "rows" / "kept").touch()
    second = create_run_directory(tmp_path, "linear", NOW)
    assert (first.name, second.name) == ("20261123-063012-7f3a", "20261123-063012-01bc")
    assert (first / "rows" / "kept").exists()
    assert list((second / "rows").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(
        RunError, match=r"cannot make a run directory in .*runs/linear: Not a directory(.|\n)*--runs-dir"
    ):
        create_run_directory(tmp_path / "runs", "linear", NOW)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.parametrize("fault", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_replaced_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, b"old")

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, fails)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, b"new content")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_part_is_written_where_readers_do_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").mkdir()
    replace = os.replace
    seen = []

    def watched(source: str, target: str, **folders: int) -> None:
        seen.append(os.listdir(tmp_path / "rows"))
        replace(source, target, **folders)

    monkeypatch.setattr(os, "replace", watched)
    write_atomically(tmp_path / "rows" / "00000.parquet", b"part", through=tmp_path)
    assert seen == [[]]
    assert (tmp_path / "rows" / "00000.parquet").read_bytes() == b"part"
