"""Nothing outside a folder is read, written or removed, whatever lies in it."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.config.files.safe_files import Busy, Folder, Refused

GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    (tmp_path / "folder").mkdir()
    with Folder(tmp_path / "folder") as opened:
        yield opened


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A folder outside, which has to be as it was in the end."""
    outside = tmp_path / "victim"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    yield outside
    assert os.listdir(outside) == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def make_link(path: Path) -> None:
    path.symlink_to("../victim/precious")


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(before)


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * GIB)


HOSTILE = {
    "link": (make_link, "it is a link"),
    "device": (make_link_to_a_device, "it is a link"),
    "pipe": (os.mkfifo, "it is a pipe, socket or device"),
    "socket": (make_socket, "it is a pipe, socket or device"),
    "folder": (os.mkdir, "it is a folder"),
    "sparse": (make_sparse, "it has 3,221,225,472 bytes, and at most 1,024 are read"),
}


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_only_ordinary_files_within_the_limit_are_read(
    folder: Folder, victim: Path, make: Callable[[Path], None], message: str
) -> None:
    make(folder.path / "run.json")
    with pytest.raises(Refused, match=re.escape(message)):
        folder.read("run.json", 1024)
    assert folder.holds("run.json") is (make is make_sparse)
    assert folder.names() == (["run.json"] if make is make_sparse else [])


@pytest.mark.parametrize("name", ["", ".", "..", "../victim/precious", "/etc/passwd", "rows/0.parquet", "a\0b"])
def test_a_name_is_one_component(folder: Folder, victim: Path, name: str) -> None:
    for act in (folder.remove, folder.make_folder, folder.folder, folder.open, folder.status):
        with pytest.raises(Refused, match="is not the name of a file"):
            act(name)
    with pytest.raises(Refused, match="is not the name of a file"):
        folder.write(name, b"")


def test_a_link_is_replaced_and_what_it_points_to_stays(folder: Folder, victim: Path) -> None:
    make_link(folder.path / "run.json")
    folder.write("run.json", b"new")
    assert stat.S_ISREG(folder.status("run.json").st_mode)
    assert folder.read("run.json", 3) == b"new"


def test_a_link_is_removed_and_what_it_points_to_stays(folder: Folder, victim: Path) -> None:
    make_link(folder.path / "old.json")
    folder.remove("old.json")
    folder.remove("old.json")
    assert os.listdir(folder.path) == []


def test_a_folder_that_is_a_link_is_not_entered(folder: Folder, victim: Path) -> None:
    (folder.path / "rows").symlink_to("../victim")
    for create in (False, True):
        with pytest.raises(Refused, match="it is a link"):
            folder.folder("rows", create=create)
    with pytest.raises(FileExistsError, match="File exists"):
        folder.make_folder("rows")
    folder.write("rows.json", b"{}")
    with pytest.raises(Refused, match="it is not a folder"):
        folder.folder("rows.json")


def test_a_folder_moved_away_is_still_the_one_that_was_opened(folder: Folder, victim: Path, tmp_path: Path) -> None:
    folder.path.rename(tmp_path / "moved")
    folder.path.symlink_to("victim")
    folder.write("run.json", b"{}")
    assert (tmp_path / "moved" / "run.json").read_bytes() == b"{}"


def test_a_temporary_name_is_not_to_be_foreseen(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace
    seen: list[list[str]] = []

    def watched(source: str, target: str, **more: int) -> None:
        seen.append(os.listdir(folder.path))
        replace(source, target, **more)

    monkeypatch.setattr(os, "replace", watched)
    folder.write("run.json", b"{}")
    folder.write("run.json", b"{}")
    (first,), (second, _) = seen[0], sorted(seen[1])
    assert re.fullmatch(r"\.steprun-[0-9a-f]{16}\.writing", first)
    assert first != second
    assert os.listdir(folder.path) == ["run.json"]


@pytest.mark.parametrize("fault", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_written_keeps_its_content(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    folder.write("run.json", b"old")

    def fails(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, fails)
    with pytest.raises(OSError, match="No space left on device"):
        folder.write("run.json", b"new content")
    monkeypatch.undo()
    assert folder.read("run.json", 10) == b"old"
    assert os.listdir(folder.path) == ["run.json"]


def test_a_file_may_be_written_through_another_folder(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.make_folder("rows")
    replace = os.replace
    seen: list[list[str]] = []

    def watched(source: str, target: str, **more: int) -> None:
        seen.append(os.listdir(folder.path / "rows"))
        replace(source, target, **more)

    monkeypatch.setattr(os, "replace", watched)
    with folder.folder("rows") as rows:
        rows.write("00000.parquet", b"part", through=folder)
    assert seen == [[]]
    assert (folder.path / "rows" / "00000.parquet").read_bytes() == b"part"
    assert os.listdir(folder.path) == ["rows"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may open every folder")
def test_a_folder_that_may_only_be_written_is_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o311)
    with Folder(tmp_path) as folder:
        folder.write("run.json", b"content")
    tmp_path.chmod(0o700)
    assert (tmp_path / "run.json").read_bytes() == b"content"


def test_a_folder_that_may_only_be_written_is_opened_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuses(path: str, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if flags & os.O_DIRECTORY and not flags & os.O_PATH:
            raise PermissionError(13, "Permission denied")
        return really(path, flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuses)
    with Folder(tmp_path) as folder, folder.locked():
        folder.write("run.json", b"content")
    assert (tmp_path / "run.json").read_bytes() == b"content"


# --- leftovers and locks

WRITES = """
import os, sys
from runner.config.files.safe_files import Folder
folder = Folder(sys.argv[1])
os.fsync = lambda descriptor: (print("writing", flush=True), sys.stdin.read())
folder.write("run.json", b"{}")
"""
LOCKS = """
import sys
from runner.config.files.safe_files import Folder
with Folder(sys.argv[1]) as folder, folder.locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def started(code: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_process_was_writing_is_removed_and_what_is_being_written_is_not(folder: Folder) -> None:
    with started(WRITES, folder.path) as process:
        (temporary,) = folder.names()
        assert folder.remove_leftovers() == []
        killed(process)
    assert folder.remove_leftovers() == [temporary]
    assert os.listdir(folder.path) == []


def test_only_what_steprun_leaves_behind_is_removed(folder: Folder, victim: Path) -> None:
    leftover = ".steprun-0123456789abcdef.writing"
    kept = [".run.json.writing", ".steprun-.writing", "run.json", leftover + ".txt"]
    for name in kept:
        (folder.path / name).touch()
    make_link(folder.path / leftover)
    (folder.path / ".steprun-0123456789abcde0.writing").mkdir()
    assert folder.remove_leftovers() == []
    folder.remove(leftover)
    (folder.path / leftover).touch()
    assert folder.remove_leftovers() == [leftover]
    assert sorted(folder.names()) == sorted(kept)


def test_a_folder_is_locked_by_one_at_a_time_and_a_kill_gives_it_back(folder: Folder) -> None:
    with started(LOCKS, folder.path) as process:
        with pytest.raises(Busy, match="another process is writing to it"), folder.locked():
            pass
        killed(process)
    with (
        folder.locked(),
        Folder(folder.path) as again,
        pytest.raises(Busy, match="another process is writing to it"),
        again.locked(),
    ):
        pass
    with Folder(folder.path) as again, again.locked():
        pass


def test_a_closed_folder_is_not_used(folder: Folder) -> None:
    folder.close()
    folder.close()
    with pytest.raises(ValueError, match="is closed"):
        folder.holds("run.json")
