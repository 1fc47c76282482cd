"""What a reader that knows nothing of this project sees in `rows/`, at any moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas
import polars
import pyarrow.parquet
import pytest

from runner.engine.rows import Row
from runner.record import directory as directory_module
from runner.record.rows.batch import blank_of, pack
from runner.record.rows.parts import PartWriter
from runner.record.rows.storage import stored_column
from tests.record.building import LINEAR, linear_rows, run_directory

STORED = [stored_column(column) for column in LINEAR]
BLANKS = [blank_of(column) for column in STORED]


def part_writer(tmp_path: Path, part_bytes: int = 1 << 20) -> PartWriter:
    return PartWriter(run_directory(tmp_path / "run") / "rows", STORED, part_bytes, interval=2.0)


def add(parts: PartWriter, rows: Sequence[Row]) -> None:
    parts.add(pack(rows, STORED, BLANKS))


def seen(folder: Path) -> list[int]:
    """The row numbers that pandas and polars find, which must agree."""
    by_pandas = pandas.read_parquet(folder)["row"].tolist()
    assert polars.read_parquet(folder)["row"].to_list() == by_pandas
    return by_pandas


def test_the_unfinished_part_is_rewritten_longer_under_its_name(tmp_path: Path) -> None:
    parts = part_writer(tmp_path)
    rows = list(linear_rows(30))
    folder = tmp_path / "run" / "rows"
    for end in (10, 20, 30):
        add(parts, rows[end - 10 : end])
        parts.write()
        assert parts.rows_on_disk == end
        assert seen(folder) == list(range(end))
    assert os.listdir(folder) == ["00000.parquet"]


def test_a_finished_part_is_never_touched_again(tmp_path: Path) -> None:
    parts = part_writer(tmp_path, part_bytes=1)
    rows = list(linear_rows(6))
    folder = tmp_path / "run" / "rows"
    contents: dict[str, bytes] = {}
    for end in (2, 4, 6):
        add(parts, rows[end - 2 : end])
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert contents.items() <= found.items()
        contents = found
        assert seen(folder) == list(range(end))
    assert sorted(contents) == ["00000.parquet", "00001.parquet", "00002.parquet"]


def test_a_reader_sees_every_row_once_between_any_two_system_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = part_writer(tmp_path, part_bytes=3000)
    folder = tmp_path / "run" / "rows"
    observed = []

    def observing(name: str) -> None:
        call = getattr(os, name)

        def watched(*arguments: object, **folders: object) -> object:
            before = sorted(folder.iterdir())
            if before:
                observed.append(seen(folder))
            result = call(*arguments, **folders)
            if sorted(folder.iterdir()):
                observed.append(seen(folder))
            return result

        monkeypatch.setattr(directory_module.os, name, watched)

    for name in ("fsync", "replace"):
        observing(name)
    rows = list(linear_rows(40))
    for start in range(0, 40, 4):
        add(parts, rows[start : start + 4])
        parts.write()
    monkeypatch.undo()
    assert len(observed) > 40
    for numbers in observed:
        assert numbers == list(range(len(numbers)))
    assert [len(numbers) for numbers in observed] == sorted(len(numbers) for numbers in observed)
    assert len(os.listdir(folder)) > 1


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = part_writer(tmp_path)
    parts.write()
    assert os.listdir(tmp_path / "run" / "rows") == []
    add(parts, list(linear_rows(3)))
    parts.write()
    monkeypatch.setattr("runner.record.rows.parts.write_atomically", None)  # would fail if it were called
    parts.write()
    assert parts.seconds_left() > 0


def test_a_part_has_one_row_group(tmp_path: Path) -> None:
    parts = part_writer(tmp_path)
    for row in linear_rows(10):
        add(parts, [row])
    parts.write()
    assert pyarrow.parquet.read_metadata(tmp_path / "run" / "rows" / "00000.parquet").num_row_groups == 1


def test_other_tools_read_the_columns_flat(tmp_path: Path) -> None:
    parts = part_writer(tmp_path)
    add(parts, list(linear_rows(3)))
    parts.write()
    frame = pandas.read_parquet(tmp_path / "run" / "rows")
    assert frame.columns.tolist() == ["row", "step", "path", "iteration", "f", "x", "x.grad"]
    assert frame["step"].tolist() == ["start", "train", "train"]
    assert frame["path"].tolist() == ["start", "repeat[1].1.train", "repeat[2].1.train"]
    assert frame["x.grad"][0] is None
    assert [value.tolist() for value in frame["f"][1:]] == [[10.0], [20.0]]
    assert polars.read_parquet(tmp_path / "run" / "rows")["x"].to_list() == [[0.0], [1.0], [2.0]]
