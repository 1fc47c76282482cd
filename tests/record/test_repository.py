from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.record.repository import DirtyCheck, find_repository

PATIENCE = 60.0

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "linear.yaml").write_text("name: linear\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


def dirty(folder: Path) -> bool | None:
    repository = find_repository(folder)
    assert repository is not None
    return DirtyCheck(repository).result(PATIENCE)


def commit(folder: Path) -> str | None:
    repository = find_repository(folder)
    return repository.commit if repository else None


def test_the_commit_is_found_from_any_folder_of_the_tree(tree: Path) -> None:
    assert commit(tree) == commit(tree / "configs") == git(tree, "rev-parse", "HEAD")


def test_the_commit_is_found_in_packed_references(tree: Path) -> None:
    git(tree, "pack-refs", "--all")
    assert commit(tree) == git(tree, "rev-parse", "HEAD")


def test_the_commit_in_packed_references_is_that_of_the_branch(tree: Path) -> None:
    git(tree, "branch", "before")
    git(tree, "commit", "--quiet", "--allow-empty", "--message=second")
    git(tree, "pack-refs", "--all")
    second = git(tree, "rev-parse", "main")
    assert commit(tree) == second != git(tree, "rev-parse", "before")
    packed = tree / ".git" / "packed-refs"
    packed.write_text(packed.read_text().replace(second, "damaged"))
    assert commit(tree) is None


def test_the_commit_of_a_detached_head_is_found(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "--detach")
    assert commit(tree) == git(tree, "rev-parse", "HEAD")


def test_the_commit_of_a_linked_tree_is_found(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    (tmp_path / "linked" / "new").write_text("new")
    git(tmp_path / "linked", "add", "new")
    assert dirty(tmp_path / "linked") is True
    git(tmp_path / "linked", "commit", "--quiet", "--message=second")
    assert commit(tmp_path / "linked") == git(tmp_path / "linked", "rev-parse", "HEAD") != commit(tree)
    assert dirty(tmp_path / "linked") is False


def test_a_tree_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert find_repository(tmp_path) is None


@pytest.mark.parametrize(
    "head", ["ref: ../../secret", "ref: refs/../../secret", "nonsense", "ref: refs/heads/loop", ""]
)
def test_a_broken_repository_has_no_commit(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / ".git" / "HEAD").write_text(head)
    (tmp_path / ".git" / "refs" / "heads" / "loop").write_text("ref: refs/heads/loop")
    (tmp_path / "secret").write_text("0" * 40)
    assert find_repository(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert find_repository(tmp_path) is None


def test_changed_tracked_files_are_noticed(tree: Path) -> None:
    assert dirty(tree) is False
    (tree / "notes").write_text("untracked")
    assert dirty(tree) is False
    (tree / "configs" / "linear.yaml").write_text("name: other\n")
    assert dirty(tree) is True
    git(tree, "add", ".")
    assert dirty(tree) is True
    git(tree, "commit", "--quiet", "--message=second")
    assert dirty(tree) is False


def test_asking_leaves_the_repository_as_it_was(tree: Path) -> None:
    (tree / "configs" / "linear.yaml").touch()
    before = {path: path.read_bytes() for path in (tree / ".git").rglob("*") if path.is_file()}
    assert dirty(tree) is False
    assert {path: path.read_bytes() for path in (tree / ".git").rglob("*") if path.is_file()} == before


def test_programs_that_a_repository_names_are_not_run(tree: Path) -> None:
    evil = f"touch {tree.parent / 'evil'}; cat"
    (tree / ".gitattributes").write_text("* filter=evil diff=evil\n")
    (tree / ".git" / "info" / "attributes").write_text("* filter=evil diff=evil\n")
    for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.process", "diff.evil.textconv", "core.pager"):
        git(tree, "config", key, evil)
    (tree / "configs" / "linear.yaml").write_text("name: other!\n")
    assert dirty(tree) is True
    assert not (tree.parent / "evil").exists()


def test_without_git_it_is_not_known(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit(tree) is not None
    assert dirty(tree) is None


def test_a_git_that_takes_too_long_is_given_up(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "git"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    repository = find_repository(tree)
    assert repository is not None
    assert DirtyCheck(repository).result(0.01) is None


ASKING = """
import os, signal, sys
from pathlib import Path
from runner.record.repository import DirtyCheck, find_repository
check = DirtyCheck(find_repository(Path.cwd()))
print(check._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a process that is no child cannot be waited for")
def test_a_process_that_is_killed_leaves_no_folder(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(Path(__file__).parents[2])}
    asking = subprocess.Popen([sys.executable, "-c", ASKING], cwd=tree, env=environment, stdout=subprocess.PIPE)
    told, _ = asking.communicate()
    assert asking.returncode == -signal.SIGKILL
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        git_or_shell = os.pidfd_open(int(told))
        select.select([git_or_shell], [], [], 60)
        os.close(git_or_shell)
    assert list((tmp_path / "temporary").iterdir()) == []
