"""Warnings of rows and groups that are in two sources: each with its exact text."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from tests.tables import over

LINES = ["x,y,patient"] + [f"{row},{row % 3},p{row // 4}" for row in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "d.csv").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    (tmp_path / "other.csv").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return tmp_path


def warnings_of(folder: Path, *sources: str, steps: str = "[{train: {data: s1}}, {evaluate: s2}]") -> list[str]:
    data = ", ".join(f"s{number}: {{{source}}}" for number, source in enumerate(sources, 1))
    text = (
        f"{{parameters: {{w: 1}}, data: {{{data}}}, expression: (w * x).sum(), optimizer: {{sgd: {{lr: 0.1}}}}, "
        f"steps: {steps}}}"
    )
    plan = runner.compile(runner.loads(text, base=str(folder)))
    return [f"{problem.path}: {problem.message} = {problem.hint}" for problem in plan.warnings]


FILE = "file: d.csv, columns: {x: x}"
ROWS = "select rows that are in one of them only"

CASES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "shares that overlap": (
        (f"{FILE}, select: {{share: [0, 0.8]}}", f"{FILE}, select: {{share: [0.7, 1]}}"),
        [f"data.s2.select: rows-in-two-sources: 4 of the 12 rows of `s2` are in `s1`, which is trained on = {ROWS}"],
    ),
    "a share of a source that is trained on": (
        (FILE, f"{FILE}, select: {{from: 39}}"),
        [f"data.s2.select: rows-in-two-sources: 1 of the 1 rows of `s2` is in `s1`, which is trained on = {ROWS}"],
    ),
    "everything evaluated, with a share trained on": (
        (f"{FILE}, select: {{share: [0, 0.8]}}", FILE),
        [f"data.s2: rows-in-two-sources: 32 of the 40 rows of `s2` are in `s1`, which is trained on = {ROWS}"],
    ),
    "two ranges": (
        (f"{FILE}, select: {{from: 0, to: 20}}", f"{FILE}, select: {{from: 20}}"),
        [],
    ),
    "disjoint shares": ((f"{FILE}, select: {{share: [0, 0.8]}}", f"{FILE}, select: {{share: [0.8, 1]}}"), []),
    "another file": (
        (f"{FILE}, select: {{share: [0, 0.8]}}", "file: other.csv, columns: {x: x}, select: {share: [0.7, 1]}"),
        [],
    ),
    "no selection": ((FILE, FILE), []),
    "whole groups": (
        (
            f"{FILE}, select: {{share: [0, 0.5], group: patient}}",
            f"{FILE}, select: {{share: [0.5, 1], group: patient}}",
        ),
        [],
    ),
    "groups that are in one of the two": (
        (f"{FILE}, select: {{where: x < 20, share: [0, 1], group: patient}}", f"{FILE}, select: x >= 20"),
        [],
    ),
    "groups in two ranges": (
        (f"{FILE}, select: {{where: x < 18, share: [0, 1], group: patient}}", f"{FILE}, select: {{from: 18}}"),
        [
            "data.s2.select: groups-in-two-sources: the group `p4` is in `s2` and in `s1`, which is trained on = "
            "write `group: patient` in both, with one seed"
        ],
    ),
}


@over("case", CASES)
def test_rows_and_groups_in_a_source_that_is_trained_on_and_one_that_is_evaluated(case: str, folder: Path) -> None:
    sources, expected = CASES[case]
    assert warnings_of(folder, *sources) == expected


def test_several_groups_are_counted(folder: Path) -> None:
    sources = (f"{FILE}, select: {{where: y == 0, share: [0, 1], group: patient}}", f"{FILE}, select: y == 1")
    assert warnings_of(folder, *sources) == [
        "data.s2.select: groups-in-two-sources: 10 groups, `p0`, `p1`, `p2`, …, are in `s2` and in `s1`, which is "
        "trained on = write `group: patient` in both, with one seed"
    ]


def test_two_evaluated_sources_that_overlap(folder: Path) -> None:
    sources = [f"{FILE}, select: {{share: {share}}}" for share in ("[0, 0.5]", "[0.5, 0.8]", "[0.7, 1]")]
    steps = "[{train: {data: s1}}, {evaluate: s2}, {evaluate: s3}]"
    assert warnings_of(folder, *sources, steps=steps) == [
        f"data.s3.select: rows-in-two-sources: 4 of the 12 rows of `s3` are in `s2`, which is evaluated too = {ROWS}"
    ]


def test_evaluating_the_source_that_is_trained_on_is_no_warning(folder: Path) -> None:
    steps = "[{train: {data: s1}}, {evaluate: s1}]"
    assert warnings_of(folder, f"{FILE}, select: {{share: [0, 0.5]}}", steps=steps) == []


def test_a_class_of_one_row_is_a_warning(folder: Path) -> None:
    (folder / "rare.csv").write_text("x,y\n1,0\n2,0\n3,0\n4,7\n5,9\n", encoding="utf-8")
    (folder / "one.csv").write_text("x,y\n1,0\n2,0\n3,b\n", encoding="utf-8")
    steps = "[{train: {data: s1}}]"
    select = "columns: {x: x}, select: {share: [0, 0.7], stratify: y}"
    assert warnings_of(folder, f"file: rare.csv, {select}", steps=steps) == [
        "data.s1.select.stratify: class-of-one-row: the classes `7`, `9` have one row, which only one part can have "
        "= add rows, or leave the class out with `where`"
    ]
    assert warnings_of(folder, f"file: one.csv, {select}", steps=steps) == [
        "data.s1.select.stratify: class-of-one-row: the class `b` has one row, which only one part can have "
        "= add rows, or leave the class out with `where`"
    ]
