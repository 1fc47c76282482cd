"""Sweep directories that a stranger could send: they are refused in one sentence, and nothing outside is read."""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest

from runner.config import load
from runner.config.files.safe_files import Folder
from runner.errors import ConfigError, Problem, UsageError
from runner.sweep.planning import plan_sweep
from runner.sweep.points.outcome import from_json
from runner.sweep.record.config import load_sweep
from runner.sweep.record.parts import known_points, next_chunk, outcomes_on_disk, part_paths
from runner.sweep.record.reading import open_sweep
from runner.sweep.record.table import POINTS_FILE, write_table
from runner.sweep.running import How, resume_sweep, start_sweep
from tests.cli.commands import steprun
from tests.manifests import manifest_fields
from tests.sweep.configs import written
from tests.tables import over

Spoil = Callable[[Path], object]


def begun(folder: Path) -> Path:
    """A sweep of which no point has run."""
    config = load(written(folder))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder / "sweeps", How())
    write_table(directory, plan.tasks, plan.points, {}, plan.objective)
    return directory


def rewritten(change: Callable[[pyarrow.Table], pyarrow.Table]) -> Spoil:
    def spoil(path: Path) -> None:
        pyarrow.parquet.write_table(change(pyarrow.parquet.ParquetFile(path).read()), path)

    return spoil


def instead(make: Spoil) -> Spoil:
    """Puts something else in the place of a file."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


TABLES: list[tuple[str, Spoil, str]] = [
    ("bytes", lambda path: path.write_bytes(b"PAR1xxxxPAR1"), "Parquet file size is 12 bytes"),
    ("a pipe", instead(os.mkfifo), "it is a pipe, socket or device"),
    ("a link", instead(lambda path: path.symlink_to("/etc/passwd")), "it is a link"),
    ("a folder", instead(os.mkdir), "it is a folder"),
    ("no status", rewritten(lambda table: table.drop_columns("status")), "it has no column `status` of type string"),
    ("another status", rewritten(lambda table: table.set_column(1, "status", table["point"])), "two of its columns"),
    (
        "nested",
        rewritten(lambda table: table.append_column("n", pyarrow.array([[1]] * len(table)))),
        "its column `n` has neither numbers nor texts",
    ),
    ("another first column", rewritten(lambda table: table.select(["status", "point", "identity"])), "is not `point`"),
]


@pytest.mark.parametrize(("spoil", "reason"), [row[1:] for row in TABLES], ids=[row[0] for row in TABLES])
def test_a_strange_table_is_refused(spoil: Spoil, reason: str, tmp_path: Path) -> None:
    directory = begun(tmp_path)
    spoil(directory / POINTS_FILE)
    for read in (known_points, lambda path: open_sweep(path).table()):
        with pytest.raises(UsageError, match=f"points.parquet is damaged: .*{reason}"):
            read(directory)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "my sweep's").mkdir()
    directory = begun(tmp_path / "my sweep's")
    (directory / POINTS_FILE).unlink()
    with pytest.raises(UsageError, match=r"has no points.parquet") as caught:
        open_sweep(directory).table()
    command = str(caught.value.problems[0].hint).removeprefix("`").removesuffix("` writes it")
    assert shlex.split(command) == ["steprun", "resume", str(directory)]


@pytest.mark.parametrize(
    ("make", "reason"), [(os.mkfifo, "it is a pipe, socket or device"), (lambda path: path.symlink_to("x"), "a link")]
)
def test_a_strange_config_is_refused(make: Spoil, reason: str, tmp_path: Path) -> None:
    directory = begun(tmp_path)
    instead(make)(directory / "sweep.yaml")
    with pytest.raises(UsageError, match=rf"cannot read .*sweep\.yaml: .*{reason}"):
        _ = open_sweep(directory).config
    with pytest.raises(UsageError, match=rf"cannot read .*sweep\.yaml: .*{reason}"):
        resume_sweep(directory, How())


def test_a_sweep_gives_itself_no_folders(tmp_path: Path) -> None:
    """A stranger's manifest could otherwise name `/`, and an error would print the first line of any file."""
    directory = begun(tmp_path)
    secret = tmp_path / "secret.yaml"
    secret.write_text("parameters: {secret: 1}\n")
    (directory / "sweep.yaml").write_text(f"extends: {secret}\n")
    manifest = manifest_fields(directory / "sweep.json") | {"data_folders": [str(tmp_path)]}
    (directory / "sweep.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="is outside the folders that this config may read"):
        _ = open_sweep(directory).config


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/tmp"), lambda path: path.write_text("")])
def test_a_strange_rows_folder_is_refused(make: Spoil, tmp_path: Path) -> None:
    directory = begun(tmp_path)
    (directory / "rows").rmdir()
    make(directory / "rows")
    with pytest.raises(UsageError, match=r"cannot read .*rows: it is ") as caught:
        list(part_paths(directory))
    assert caught.value.problems[0].hint == "remove it, then resume the sweep"


@pytest.mark.parametrize(
    ("read", "message", "hint"),
    [
        (
            lambda directory: list(part_paths(directory)),
            "cannot read {}/rows: Permission denied",
            "make it readable",
        ),
        (
            lambda directory: load_sweep(directory, ()),
            "cannot read {}/sweep.yaml: Permission denied",
            "restore it from a backup, or run `steprun sweep` with the config again",
        ),
    ],
)
def test_a_sweep_that_may_not_be_read_says_so(
    read: Spoil, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(tmp_path)
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    for name in ("folder", "read"):
        monkeypatch.setattr(Folder, name, mock.Mock(side_effect=denied))
    with pytest.raises(UsageError, match=r".") as caught:
        read(directory)
    assert caught.value.problems == (Problem(message.format(directory), hint),)


def test_a_sweep_whose_table_has_no_points_says_how_to_run_them(tmp_path: Path) -> None:
    directory = begun(tmp_path)
    write_table(directory, [], [], {}, None)
    with pytest.raises(UsageError, match=r".") as caught:
        open_sweep(directory).rows(0)
    hint = f"`steprun resume {directory}` runs its points"
    assert caught.value.problems == (Problem(f"{directory} has no point 0", hint),)


@pytest.mark.parametrize("text", ["[[]]", "[" * 100_000, "1", '[{"index": 1e999}]', "[null]"])
def test_strange_outcomes_are_refused(text: str, tmp_path: Path) -> None:
    directory = begun(tmp_path)
    part = directory / "rows" / "0" / "000001-0.parquet"
    part.parent.mkdir(parents=True)
    table = pyarrow.table({"point": [0]}).replace_schema_metadata({"steprun.points": text})
    pyarrow.parquet.write_table(table, part)
    with pytest.raises(UsageError, match=r"000001-0\.parquet is damaged: not the outcomes of points: ") as caught:
        outcomes_on_disk(directory)
    assert caught.value.problems[0].hint == "remove it, then resume the sweep"


FIELDS = {
    "index": 0,
    "identity": "a",
    "overrides": [],
    "status": "finished",
    "seconds": 1.0,
    "rows": 1,
    "schema": "",
    "failure": None,
    "scalars": {},
    "recent": [],
    "rung": 0,
    "first": 0,
    "state": None,
    "kept": None,
}


@pytest.mark.parametrize("field", ["index", "rows", "rung", "first"])
@pytest.mark.parametrize("value", [-1, 1 << 63, 1.5, "1", None, True, []])
def test_a_count_of_an_outcome_is_a_whole_number(field: str, value: object) -> None:
    assert from_json(json.dumps([FIELDS]))
    with pytest.raises(ValueError, match="is not a count"):
        from_json(json.dumps([FIELDS | {field: value}]))


def test_a_scalar_of_an_outcome_has_three_numbers() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        from_json(json.dumps([FIELDS | {"scalars": {"loss": [1]}}]))


@over(
    ("field", "value", "message"),
    [
        ("threads", 0, "`threads` is not a whole number from 1 to 1,024"),
        ("threads", 1 << 40, "`threads` is not a whole number from 1 to 1,024"),
        ("points", -1, "`points` is not a whole number, 0 or more"),
    ],
)  # fmt: skip
def test_a_number_that_no_sweep_can_have_is_refused(field: str, value: int, message: str, tmp_path: Path) -> None:
    config = load(written(tmp_path))
    directory = start_sweep(config, plan_sweep(config, {}), {}, tmp_path / "sweeps", How())
    path = directory / "sweep.json"
    path.write_text(json.dumps(manifest_fields(path) | {field: value}))
    done = steprun("resume", directory, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert f"{path} is not the manifest of a sweep: {message}\n      = restore the original file\n" in done.err


def test_runs_lists_sweeps_too_and_one_bad_one_stops_nothing(tmp_path: Path) -> None:
    config = load(written(tmp_path))
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, tmp_path / "sweeps", How())
    (tmp_path / "sweeps" / "swept" / "bad").mkdir()
    (tmp_path / "sweeps" / "swept" / "bad" / "sweep.json").write_text("[]")
    shown = steprun("runs", cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].split() == ["started", "status", "points", "sweep", "failure"]
    assert [line.split()[-1] for line in lines[1:] if "unreadable" not in line] == [
        str(directory.relative_to(tmp_path))
    ]
    assert any("unreadable" in line and "it has no known status" in line for line in lines[1:])
    listed = json.loads(steprun("runs", "swept", "--json", cwd=tmp_path).out)
    assert {each["name"] for each in listed} == {"swept"}
    assert steprun("runs", "other", "--json", cwd=tmp_path).code == 2  # there is no folder of runs


def test_a_new_chunk_has_a_number_above_those_of_all_parts(tmp_path: Path) -> None:
    assert next_chunk(tmp_path) == 1
    for name in ("000002-1.parquet", "000007-12.parquet", "notes.txt"):
        (tmp_path / "rows" / "schema").mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / "schema" / name).touch()
    assert next_chunk(tmp_path) == 8
