"""Finds the git commit that a run was started from, without trusting the repository.

A repository's own configuration may name programs for git to run (`core.fsmonitor`, `filter.*.clean`), and an
untrusted folder may contain a repository. So this module reads the commit from git's files. It runs git only to find
out whether tracked files were changed, and with an empty configuration.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LARGEST_FILE = 16 << 20
_LONGEST_CHAIN = 5
_WITH_CLEANUP = ("/bin/sh", "-c", '"$@"; code=$?; rm -rf -- "$GIT_DIR"; exit $code', "sh") if os.name == "posix" else ()
"""A prefix for a command: removes the temporary folder after the command, even if this process has ended by then."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A git working tree and its commit."""

    root: Path
    git: Path  # HEAD and the index
    common: Path  # objects and references
    commit: str


def find_repository(folder: Path) -> Repository | None:
    """The repository that contains `folder`; None if there is none, or if it has no commit."""
    folder = folder.absolute()
    for root in (folder, *folder.parents):
        marker = root / ".git"
        try:
            git = marker if marker.is_dir() else _linked(marker)
            if git is None:
                continue
            common = git / _text(git / "commondir") if (git / "commondir").is_file() else git
            commit = _commit(git, common)
        except (OSError, UnicodeDecodeError):
            return None
        return Repository(root, git, common, commit) if commit else None
    return None


def _linked(marker: Path) -> Path | None:
    """The target of the `.git` file of a linked working tree."""
    if not marker.is_file():
        return None
    kind, _, target = _text(marker).partition(": ")
    return marker.parent / target if kind == "gitdir" else None


def _commit(git: Path, common: Path) -> str | None:
    value = _text(git / "HEAD")
    for _ in range(_LONGEST_CHAIN):
        if not value.startswith("ref: "):
            return value if _COMMIT.fullmatch(value) else None
        reference = value.removeprefix("ref: ")
        if ".." in reference or not reference.startswith("refs/"):
            return None
        loose = [folder / reference for folder in (git, common) if (folder / reference).is_file()]
        if not loose:
            return _packed(common / "packed-refs", reference)
        value = _text(loose[0])
    return None


def _packed(path: Path, reference: str) -> str | None:
    if not path.is_file():
        return None
    for line in _text(path).splitlines():
        commit, _, name = line.partition(" ")
        if name == reference and _COMMIT.fullmatch(commit):
            return commit
    return None


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(path)  # also if it is a pipe: opening one would block
    with path.open("rb") as file:
        return file.read(_LARGEST_FILE).decode().strip()


class DirtyCheck:
    """Runs git in the background to find out whether tracked files differ from the commit."""

    def __init__(self, repository: Repository) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="steprun-git-")
        self._process = _start_status(repository, Path(self._folder.name))

    def result(self, timeout: float) -> bool | None:
        """Whether tracked files differ; None if git is absent, fails, or takes more than `timeout` further seconds."""
        with self._folder:
            return None if self._process is None else _changed(self._process, timeout)


def _changed(process: subprocess.Popen[bytes], timeout: float) -> bool | None:
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        return None
    return bool(output) if process.returncode == 0 else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)  # kills the shell and git
    else:
        process.kill()


def _start_status(repository: Repository, empty: Path) -> subprocess.Popen[bytes] | None:
    program = shutil.which("git")
    if program is None:
        return None
    (empty / "refs").mkdir()
    (empty / "objects").mkdir()
    (empty / "HEAD").write_text(repository.commit + "\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {
        "GIT_DIR": str(empty),
        "GIT_WORK_TREE": str(repository.root),
        "GIT_INDEX_FILE": str(repository.git / "index"),
        "GIT_OBJECT_DIRECTORY": str(repository.common / "objects"),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    return subprocess.Popen(
        [
            *_WITH_CLEANUP,
            program,
            "-c",
            "core.fsmonitor=false",
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--ignore-submodules=all",
        ],
        cwd=repository.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
