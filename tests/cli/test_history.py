"""`steprun runs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import LINEAR, steprun
from tests.manifests import manifest_fields
from tests.tables import over


def test_runs_are_listed_newest_first_with_status_and_rows(tmp_path: Path) -> None:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    steprun("linear.yaml", "-q", cwd=tmp_path)
    steprun("linear.yaml", "-q", "steps=[backward, {expect: {x1: 7}}]", cwd=tmp_path)
    steprun("linear.yaml", "-q", "name=other", cwd=tmp_path)

    listed = json.loads(steprun("runs", "--json", cwd=tmp_path).out)
    assert {(run["name"], run["status"], run["rows"]) for run in listed} == {
        ("other", "finished", 3),
        ("linear", "failed", 2),
        ("linear", "finished", 3),
    }
    assert [run["path"] for run in listed] == [
        str(path) for path in sorted((Path(run["path"]) for run in listed), key=lambda path: path.name, reverse=True)
    ]

    text = steprun("runs", cwd=tmp_path).out.splitlines()
    assert text[0].split() == ["started", "status", "rows", "took", "run", "failure"]
    assert len(text) == 4
    assert len(steprun("runs", "linear", cwd=tmp_path).out.splitlines()) == 3
    for name, nearest in (("liner", "linear"), ("runs/linear", "linear"), ("runs/other/latest", "other")):
        found = steprun("runs", name, cwd=tmp_path)
        assert (found.code, found.out) == (0, f"there are no runs of `{name}` in runs; did you mean `{nearest}`?\n")
    assert steprun("runs", "wholly", cwd=tmp_path).out == "there are no runs of `wholly` in runs\n"


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    assert steprun("runs", "--runs-dir", ".", cwd=tmp_path).out == "there are no runs in .\n"


def test_a_folder_that_is_not_there_exits_2(tmp_path: Path) -> None:
    done = steprun("runs", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    hint = "run a config first, or name the folder of its runs with --runs-dir"
    assert done.err == f"steprun\n      there is no folder runs\n      = {hint}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "linear.yaml").write_text(LINEAR)
    for arguments in (["learning_rate=0.1"], ["seed=1"], ["steps=[backward, {expect: {x1: 7}}]"]):
        steprun("linear.yaml", "-q", *arguments, cwd=tmp_path)
    return tmp_path


def test_columns_show_last_scalars_fields_and_keys_of_the_config(folder: Path) -> None:
    done = steprun("runs", "--columns", "f,learning_rate", "--columns", "seed", "--sort", "-learning_rate", cwd=folder)
    header, *rows = [line.split() for line in done.out.splitlines()]
    assert header == ["f", "learning_rate", "seed", "run"]
    assert rows[0][:3] == ["7000", "0.1", "0"]  # 10 * 100 + 30 * 200
    assert sorted(row[2] for row in rows) == ["0", "0", "1"]
    listed = json.loads(steprun("runs", "--columns", "f", "--filter", "seed == 1", "--json", cwd=folder).out)
    assert [(run["f"], run["status"]) for run in listed] == [(7000.0, "finished")]


def test_runs_are_deleted_after_a_question(folder: Path) -> None:
    def left() -> int:
        return len(list((folder / "runs" / "linear").iterdir()))

    refused = steprun("runs", "--status", "failed", "--delete", cwd=folder, stdin="n\n")
    assert (refused.code, left()) == (2, 3)
    assert refused.err.splitlines()[1:] == [
        "delete 1 run? [y/N] steprun",
        "      nothing was deleted",
        "      = answer y, or write --yes",
    ]
    assert steprun("runs", "--status", "failed", "--delete", cwd=folder).code == 2  # no answer
    assert steprun("runs", "--status", "failed", "--delete", cwd=folder, stdin="y\n").out == "deleted 1 run\n"
    assert left() == 2
    deleted = json.loads(steprun("runs", "linear", "--delete", "--yes", "--json", cwd=folder).out)
    assert len(deleted) == 2
    assert not (folder / "runs" / "linear").exists()
    assert steprun("runs", "linear", "--delete", "--yes", cwd=folder).out == "deleted 0 runs\n"


@over(
    ("arguments", "message"),
    [
        (["--delete"], "--delete would delete every run\n      = name them, or choose with --status, --older-than or"),
        (["--yes"], "--yes has no effect without --delete\n      = leave --yes out"),
        (["--status", "faild"], "there is no status `faild`\n      = did you mean `failed`?"),
        (["--older-than", "30"], "--older-than is `30`\n      = write a time such as 30d, 12h, 45m or 2w"),
        (["--columns", "learning_rat"], "no run has a value `learning_rat`\n      = did you mean `learning_rate`?"),
        (["--sort", "g"], "no run has a value `g`\n      = fields are started, status, rows"),
    ],
)
def test_what_cannot_be_asked_of_runs(folder: Path, arguments: list[str], message: str) -> None:
    done = steprun("runs", *arguments, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"steprun\n      {message}")


def test_a_condition_is_marked_where_it_is_wrong(folder: Path) -> None:
    done = steprun("runs", "--filter", "rows > 1 and stats == 'failed'", cwd=folder)
    assert done.err == (
        "--filter:1:14\n"
        "    1 | rows > 1 and stats == 'failed'\n"
        "      |              ^^^^^ the list of runs has no column `stats`\n"
        "      = did you mean `status`?\n"
    )


def test_control_characters_of_a_manifest_do_not_reach_the_terminal(folder: Path) -> None:
    for path in folder.glob("runs/linear/*/run.json"):
        manifest = manifest_fields(path)
        manifest["config_fields"] = {"constants.\x1b[2Jname": "\x1b]0;title\x07", "expression": "a\nb\x9b"}
        path.write_text(json.dumps(manifest))
    out = steprun("runs", "--columns", "constants*,expression", cwd=folder).out
    assert len(out.splitlines()) == 4
    assert set(out) & {"\x1b", "\x07", "\x9b"} == set()
