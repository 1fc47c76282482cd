"""Commands that messages name can be pasted into a shell, whatever the names of folders are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

import runner
from runner.record.directory import create_run_directory
from runner.record.running import run_recorded
from runner.text import steprun_command
from tests.cli.commands import LINEAR, steprun
from tests.sweep.inline import inline
from tests.tables import over

__all__ = ["inline"]

STRANGE = "my runs/a'b"
CONFIGS = Path(__file__).parents[2] / "configs"
SWEPT = LINEAR + "sweep: {grid: {learning_rate: [0.1, 0.01]}}\n"


@over(
    ("words", "command"),
    [
        (["resume", "runs/linear/20261130-101500-7f3a"], "steprun resume runs/linear/20261130-101500-7f3a"),
        (["run", "sweeps/beans/latest#17"], "steprun run sweeps/beans/latest#17"),
        (["diff", Path("a b"), Path("c")], "steprun diff 'a b' c"),
        (["resume", STRANGE], """steprun resume 'my runs/a'"'"'b'"""),
        (["run", "#17"], "steprun run '#17'"),
        (["run", "$(rm)", "`x`", "~", "*", "a;b", "a\nb", "läufe", ""],
         "steprun run '$(rm)' '`x`' '~' '*' 'a;b' 'a\nb' läufe ''"),
    ],
)  # fmt: skip
def test_a_command_is_quoted_only_where_a_shell_needs_it(words: list[object], command: str) -> None:
    assert steprun_command(*words) == command
    script = f"steprun() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split("\0")[:-1] == [str(word) for word in words]


def test_no_message_names_a_command_whose_words_are_not_quoted() -> None:
    """Names of operations and rules are words that need no quotes, and SWEEP stands for a sweep."""
    unquoted = re.compile(r"`steprun (?!ops )[a-z]+ (?!rule:|SWEEP#)[^`]*\{")
    sources = {path: path.read_text() for path in Path(runner.__file__).parent.rglob("*.py")}
    assert [(str(path), found) for path, text in sources.items() for found in unquoted.findall(text)] == []
    assert sum("steprun_command(" in text for text in sources.values()) > 10


def commands(message: str) -> list[str]:
    return re.findall(r"`(steprun [^`]*)`", message)


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    folder = tmp_path / STRANGE
    folder.mkdir(parents=True)
    (folder / "linear.yaml").write_text(LINEAR)
    (folder / "swept.yaml").write_text(SWEPT)
    return tmp_path


def of_a_run_of_a_sweep(folder: Path) -> Iterator[str]:
    yield steprun("run", f"{STRANGE}/swept.yaml", "--no-record", cwd=folder).err
    yield f"steprun sweep {STRANGE}/swept.yaml"


def of_a_sweep(folder: Path) -> Iterator[str]:
    done = steprun("sweep", f"{STRANGE}/swept.yaml", "--jobs", "1", "--sweeps-dir", STRANGE, cwd=folder)
    yield done.out
    (directory,) = (path for path in (folder / STRANGE / "swept").iterdir() if not path.is_symlink())
    yield f"steprun results {directory.relative_to(folder)}"
    (command,) = commands(done.out)
    assert len(steprun(*shlex.split(command)[1:], "--csv", cwd=folder).out.splitlines()) == 3  # as if it were pasted


def of_a_config_without_a_snapshot(folder: Path) -> Iterator[str]:
    yield steprun("check", f"{STRANGE}/linear.yaml", cwd=folder).out
    yield f"steprun snapshot {STRANGE}/linear.yaml"


def of_a_snapshot_of_another_name(folder: Path) -> Iterator[str]:
    config = (CONFIGS / "linear.yaml").read_text()
    (folder / STRANGE / "linear.yaml").write_text(f"name: other\n{config}")
    (folder / STRANGE / "snapshots").mkdir()
    shutil.copy(CONFIGS / "snapshots" / "linear.yaml", folder / STRANGE / "snapshots")
    yield steprun("check", f"{STRANGE}/snapshots/linear.yaml", cwd=folder).out
    yield f"steprun snapshot {STRANGE}/linear.yaml"


def of_a_config_that_is_no_run(folder: Path) -> Iterator[str]:
    yield steprun("diff", f"{STRANGE}/linear.yaml", f"{STRANGE}/linear.yaml", cwd=folder).err
    yield f"steprun {STRANGE}/linear.yaml"


def of_a_stopped_run(folder: Path) -> Iterator[str]:
    directory = create_run_directory(folder / STRANGE, "linear", datetime.now())
    with pytest.raises(KeyboardInterrupt):
        run_recorded(runner.compile(runner.load(folder / STRANGE / "linear.yaml")), directory, stop=lambda: True)
    yield steprun("resume", directory, "learning_rate=1", cwd=folder).err
    yield f"steprun resume {directory}"


def of_weights_of_a_sweep(folder: Path) -> Iterator[str]:
    sweep = folder / "my runs" / "x" / "y z"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text('{"points": 2}')
    (folder / "my runs" / "from.yaml").write_text("from_run: x/y z\nparameters: {w: 1.0}\nexpression: loss = w\n")
    yield steprun("validate", "my runs/from.yaml", cwd=folder).err
    yield "steprun run x/y z#0"


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize(
    "of",
    [
        of_a_run_of_a_sweep,
        of_a_sweep,
        of_a_config_without_a_snapshot,
        of_a_snapshot_of_another_name,
        of_a_config_that_is_no_run,
        of_a_stopped_run,
        of_weights_of_a_sweep,
    ],
)  # fmt: skip
def test_a_message_quotes_the_command_that_it_names(of: Callable[[Path], Iterator[str]], strange: Path) -> None:
    message, meant, *_ = of(strange)
    (command,) = commands(message)
    assert " ".join(shlex.split(command)) == meant
    assert command != meant  # it is quoted
