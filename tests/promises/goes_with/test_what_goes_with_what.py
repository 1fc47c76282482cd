"""Each cell of the page `what-goes-with-what.md` is a run, compared with something else, or an error before step 1."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import runner
from runner.plan.checks.engines import choice
from tests.effort import thinned
from tests.promises.goes_with.capabilities import CAPABILITIES
from tests.promises.goes_with.proofs import PROOFS, compiled, planned, prove, write_files, written
from tests.promises.goes_with.table import PAGE, Cell, cells
from tests.promises.goes_with.variations import VARIATIONS, config_of
from tests.tables import over

pytestmark = pytest.mark.filterwarnings("ignore")  # of what a run reports; here only its numbers matter

ENGINES = ("compile", "cudagraph", "xla")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


def chosen_cells() -> list[tuple[Cell, str]]:
    kept = [(cell, word) for cell, word in cells().items() if word != "–"]
    return thinned(kept, lambda row: (row[0][1], row[1] == "refused"), 10)


def test_the_page_has_every_capability_and_every_column() -> None:
    assert list(dict.fromkeys(name for name, _ in cells())) == list(CAPABILITIES)
    assert list(dict.fromkeys(column for _, column in cells())) == list(VARIATIONS) == list(PROOFS)
    assert {*cells().values()} == {"bits", "close", "refused", "–"}


def test_each_cell_that_means_nothing_says_why() -> None:
    text = PAGE.read_text(encoding="utf-8")
    marks = set(re.findall(r"– ?([¹²³⁴⁵⁶⁷⁸⁹])", text))
    assert not re.search(r"– *\|", text)
    assert marks == set(re.findall(r"^- ([¹²³⁴⁵⁶⁷⁸⁹]) ", text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["complex parameters", "`dtype: bfloat16`"])
def test_machine_code_is_close_too(name: str, tmp_path: Path, inductor_cache: Path) -> None:
    write_files(tmp_path)
    assert compiled(name, "compile", tmp_path, machine_code=True) == "close"


@pytest.mark.slow
def test_auto_is_xla_for_each_capability_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    for cost in ("STARTED", "COMPILED", "UPDATED"):
        monkeypatch.setattr(choice, cost, 0)
    write_files(tmp_path)
    chosen = set()
    for name, capability in CAPABILITIES.items():
        path = written(tmp_path, config_of(capability, "by hand"))
        plan = planned(path, overrides=("engine=auto",))
        chosen.add(plan.config.engine)
        if plan.config.engine == "eager" and "alone in a loop" not in str(plan.engine_reason):
            with pytest.raises(runner.ConfigError, match="`engine: xla`") as caught:
                planned(path, overrides=("engine=xla",))
            assert str(plan.engine_reason).startswith(caught.value.problems[0].message), name
    assert chosen == {"eager", "xla"}


def _column(cell: Cell, word: str) -> str:
    return cell[1]


@pytest.mark.slow
@over("cell, word", chosen_cells(), split=_column, slow=["xla"])
def test_a_cell_is_as_the_page_says(cell: Cell, word: str, tmp_path: Path, files: Path) -> None:
    name, column = cell
    for each in files.iterdir():
        os.link(each, tmp_path / each.name)
    if word == "refused":
        with pytest.raises(runner.ConfigError, match=r"cell\.yaml:\d+:\d+  ") as caught:
            prove(name, column, tmp_path)
        for problem in caught.value.problems:
            assert problem.line > 0
            assert problem.hint
            if column in ENGINES:
                assert "`engine: eager`" in problem.hint
        return
    found = prove(name, column, tmp_path)
    assert found == word or (found, word) == ("bits", "close"), f"{found}, and the page says {word}"
