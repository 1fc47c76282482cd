"""`steprun runs`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.commands import LINEAR, steprun


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
    assert text[0].split() == ["started", "status", "rows", "took", "run"]
    assert len(text) == 4
    assert len(steprun("runs", "linear", cwd=tmp_path).out.splitlines()) == 3


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    assert steprun("runs", "--runs-dir", ".", cwd=tmp_path).out == "there are no runs in .\n"


def test_a_folder_that_is_not_there_exits_2(tmp_path: Path) -> None:
    done = steprun("runs", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "steprun\n      there is no folder runs\n"
