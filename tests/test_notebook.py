"""Values that a notebook shows as tables: static, and every cell is text."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.compare.numbers.tolerances import BITWISE, Tolerances
from runner.compare.rows.verdict import align, compare
from runner.compare.runs.difference import compare_runs
from runner.compare.snapshots.checking import Outcome
from runner.compare.variants.error_table import tabulate_errors
from runner.compare.variants.lockstep import Side, lockstep
from runner.sweep.record.reading import open_sweep
from runner.text import Table, html_tables, text_tables
from tests.sweep.test_strange_directories import begun

CONFIG = """\
name: descent
description: "<script>alert(1)</script> & more"
parameters: {w: {shape: [2], init: 1}, large: {shape: [10, 10], init: 2}}
expression: |
  loss = (w ** 2).sum() + large.sum()
optimizer: {sgd: {lr: RATE}}
steps: 3
"""


def config(rate: str = "0.1") -> runner.Config:
    return runner.loads(CONFIG.replace("RATE", rate))


def run(folder: Path, rate: str = "0.1") -> runner.Run:
    (folder / "descent.yaml").write_text(CONFIG.replace("RATE", rate))
    return runner.run(folder / "descent.yaml", runs_dir=folder / "runs")


def row(folder: Path) -> runner.Row:
    return list(runner.execute(runner.compile(config())))[1]


def verdict(folder: Path) -> object:
    one, other = runner.compile(config()), runner.compile(config("0.2"))
    return compare(align(runner.execute(other), runner.execute(one)), other.columns, one.columns, Tolerances(BITWISE))


def difference(folder: Path) -> object:
    return compare_runs(run(folder, "0.2"), run(folder))


def errors(folder: Path) -> object:
    one, other = runner.compile(config()), runner.compile(config("0.2"))
    return tabulate_errors(lockstep(Side(one), Side(other)), one, other)


def sweep(folder: Path) -> object:
    return open_sweep(begun(folder))


def outcome(folder: Path) -> object:
    return Outcome("descent.yaml", "differs", lines=("row 1", "  <b>"), rows=4)


CASES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "config": (lambda folder: config(), ["<script>alert(1)</script> & more", "loss = (w ** 2).sum() + large.sum()"]),
    "plan": (lambda folder: runner.compile(config()), ["at most 4", "large", "[10, 10]", "repeat[{0}].train"]),
    "row": (row, ["repeat[1].train", "tensor([0.8000, 0.8000])", "(10, 10) float32  norm 19"]),
    "run": (run, ["finished", "w.grad"]),
    "sweep": (sweep, ["running", "2"]),
    "verdict": (verdict, ["differs", "row 1, repeat[1].train", "3 of 4"]),
    "difference": (difference, ["optimizer.sgd.lr", "0.1", "0.2"]),
    "errors": (errors, ["differs", "w"]),
    "outcome": (outcome, ["row 1\n  <b>"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_value_shows_as_static_tables_and_as_plain_text(name: str, tmp_path: Path) -> None:
    make, cells = CASES[name]
    value = make(tmp_path)
    page = ElementTree.fromstring(f"<div>{value._repr_html_()}</div>")
    assert {element.tag for element in page.iter()} <= {"div", "table", "tr", "th", "td"}
    shown = [element.text or "" for element in page.iter()]
    text = str(value)
    for cell in cells:
        assert any(cell in each for each in shown), cell
        assert cell.splitlines()[0] in text, cell
    assert "<table>" not in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_tables_are_aligned_as_text_and_escaped_as_html() -> None:
    tables = [Table([("name", "a\x1b[2Jb"), ("lines", "one\ntwo")]), Table([("x", 1)], ("tensor", "<rows>"))]
    assert text_tables(tables) == "name   a�[2Jb\nlines  one\n       two\n\ntensor  <rows>\nx       1"
    assert html_tables(tables) == (
        "<table><tr><th>name</th><td>a�[2Jb</td></tr>"
        '<tr><th>lines</th><td style="white-space: pre; text-align: left">one\ntwo</td></tr></table>'
        "<table><tr><th>tensor</th><th>&lt;rows&gt;</th></tr><tr><td>x</td><td>1</td></tr></table>"
    )
    assert (html_tables([]), text_tables([]), text_tables([Table([])])) == ("", "", "")
