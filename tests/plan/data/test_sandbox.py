"""The hint for a missing data file: the nearest name, or the files of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.plan.data.sandbox import FileFault, locate

MISSING = [
    ([], "there is no folder {folder}"),
    ([""], "{folder} is empty"),
    (["irsi.csv"], "did you mean `irsi.csv`?"),
    (list("fedcba"), "{folder} holds a, b, c, d, e, f"),
    (list("gfedcba"), "{folder} holds a, b, c, d, e, f, …"),
]


@pytest.mark.parametrize(("names", "hint"), MISSING)
def test_a_file_that_is_missing_has_a_hint_of_what_is_there(names: list[str], hint: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if names:
        folder.mkdir()
    for name in filter(None, names):
        (folder / name).touch()
    with pytest.raises(FileFault) as caught:
        locate("data/iris.csv", tmp_path, ())
    assert caught.value.hint == hint.format(folder=folder)
