"""The statistics of columns of a point, and its last values."""

from __future__ import annotations

import pytest

import runner
from runner.record.rows.storage import stored_column
from runner.sweep.record.statistics import recent_values, scalar_statistics

TEXT = """\
name: point
parameters: {w: 8.0, v: [1.0, 2.0]}
expression: loss = w ** 2 + 0 * v.sum()
optimizer: {sgd: {lr: 0.25}}
steps: 4
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> runner.Run:
    folder = tmp_path_factory.mktemp("point")
    (folder / "point.yaml").write_text(TEXT)
    return runner.run(folder / "point.yaml", runs_dir=folder / "runs")


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("loss", 2, (4.0, 1.0)),
        ("loss", 9, (16.0 * 4, 16.0, 4.0, 1.0)),
        ("loss", 0, ()),
        ("v", 2, ()),
        (None, 2, ()),
        ("u", 2, ()),
    ],
)
def test_the_last_values_of_a_number(
    run: runner.Run, name: str | None, count: int, expected: tuple[float, ...]
) -> None:
    columns = [stored_column(column) for column in run.columns]
    assert recent_values(run.to_arrow(), columns, name, count) == expected


def test_the_last_least_and_largest_value_of_each_number(run: runner.Run) -> None:
    columns = [stored_column(column) for column in run.columns]
    found = scalar_statistics(run.to_arrow(), columns)
    assert found == {"loss": (1.0, 1.0, 64.0), "w": (0.5, 0.5, 8.0), "w.grad": (2.0, 2.0, 16.0)}
