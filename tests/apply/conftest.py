"""A trained run, and a folder with files that it may be applied to."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

import runner
from tests.apply.runs import trained, without_target, write


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runner.Run:
    return trained(tmp_path_factory.mktemp("apply"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "new.csv", without_target(5))
    (tmp_path / "text.csv").write_text("a,b\n1,high\n", encoding="utf-8")
    (tmp_path / "blank.csv").write_text("a,b\n1,\n", encoding="utf-8")
    many = "1,2\n" * 69_999
    (tmp_path / "later.csv").write_text(f"a,b\n{many}1,\n", encoding="utf-8")
    (tmp_path / "huge.csv").write_text(f"a,b\n{many}1e300,2\n", encoding="utf-8")
    (tmp_path / "mixed.csv").write_text("a,b\n" + "1,2\n" * 65_536 + "1,true\n", encoding="utf-8")
    (tmp_path / "semicolons.csv").write_text("a;b\n1;2\n", encoding="utf-8")
    (tmp_path / "empty.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "there.csv").write_text("precious\n", encoding="utf-8")
    (tmp_path / "renamed.csv").write_text("A,B\n1,2\n", encoding="utf-8")
    write(tmp_path / "null.parquet", {"a": [1.0, 2.0], "b": [1.0, None]})
    write(tmp_path / "empty.parquet", {"a": numpy.zeros(0), "b": numpy.zeros(0)})
    write(tmp_path / "huge.parquet", {"a": [1e300], "b": [1.0]})
    return tmp_path
