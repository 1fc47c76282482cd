"""Reports of damaged, old and hostile run directories: a page or a message that says so, with bounded bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

import runner
from runner.config.files.safe_files import Folder
from runner.plan.rows.columns import Column
from runner.report.page import page
from runner.report.run.sections import report_of_run
from tests.cli.commands import steprun
from tests.report.runs import LINEAR, change, record, rewrite
from tests.tables import over

MOST_BYTES = 1 << 20


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner.run(LINEAR, runs_dir=tmp_path_factory.mktemp("linear") / "runs").path


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A copy of the run of `linear.yaml`, to be spoilt."""
    copy = tmp_path / "linear" / "hostile"
    shutil.copytree(sound, copy)
    return copy


def spoil_part(run: Path) -> None:
    path = run / "rows" / "00000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(8 << 30)


FAULTS: list[tuple[Callable[[Path], object], int, str]] = [
    (spoil_part, 1, "00000.parquet is damaged: its digest does not match"),
    (lambda run: (run / "rows" / "00000.parquet").unlink(), 1, "00000.parquet is damaged: it cannot be read"),
    (lambda run: (run / "rows" / "00000.parquet").write_bytes(b""), 1, "is damaged"),
    (lambda run: sparse(run / "rows" / "00000.parquet"), 1, "is damaged"),
    (lambda run: (run / "run.json").write_text("{"), 2, "run.json is not valid JSON"),
    (lambda run: change(run, status="dancing"), 2, "is not the manifest of a run: it has no known status"),
    (lambda run: change(run, columns=[{"name": 1}]), 2, "is not the manifest of a run"),
    (lambda run: (run / "run.json").unlink(), 2, "is not a run directory: it has no run.json"),
    (lambda run: shutil.rmtree(run), 2, "there is no folder"),
]


@over(("spoil", "code", "message"), FAULTS)
def test_a_run_that_cannot_be_read_gives_a_message(
    spoil: Callable[[Path], object], code: int, message: str, sound: Path, tmp_path: Path
) -> None:
    run = tmp_path / "hostile"
    shutil.copytree(sound, run)
    spoil(run)
    done = steprun("report", str(run), "-o", str(tmp_path / "page.html"))
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "page.html").exists()


def text_of(run: Path) -> str:
    made = page(report_of_run(run))
    assert len(made) <= MOST_BYTES
    return made.decode()


def test_a_run_of_another_version_is_reported_as_far_as_it_goes(run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    kept = {key: manifest[key] for key in ("status", "columns")}
    (run / "run.json").write_text(json.dumps(kept))
    (run / "config.yaml").write_text("parameterz: {}\n")
    found = text_of(run)
    assert "There is no graph, because its config cannot be planned again: 1:1: " in found
    assert 'id="curves"' in found
    (run / "config.yaml").unlink()
    assert "config.yaml cannot be read: No such file or directory." in text_of(run)


def test_a_run_without_rows_is_a_page(run: Path) -> None:
    (run / "rows.json").unlink()
    (run / "rows" / "00000.parquet").unlink()
    found = text_of(run)
    assert "<dt>rows</dt><dd>0</dd>" in found


def test_a_locked_run_is_read(run: Path) -> None:
    with Folder(run) as folder, folder.locked():
        assert 'id="steps"' in text_of(run)


def test_nan_everywhere_is_a_page_that_says_so(run: Path) -> None:
    columns = [Column("f", "value", torch.float32, ()), Column("w", "weight", torch.float32, ())]
    rewrite(run, columns, lambda column, rows: [float("nan")] * rows, 300)
    found = text_of(run)
    assert "f is not finite in 300 rows, first in row 0." in found
    assert "`f` is not finite here for the first time" in found


def test_many_columns_are_counted_and_not_shown(run: Path) -> None:
    columns = [Column(f"v{place}", "value", torch.float32, ()) for place in range(2000)]
    rewrite(run, columns, lambda column, rows: [1.0] * rows, 3)
    assert "2,000 columns are numbers; the first 40 are shown." in text_of(run)


def test_long_texts_are_cut(run: Path) -> None:
    long = "x" * 100_000
    change(
        run,
        name=long,
        command=["steprun", long, *["a=b"] * 10_000],
        warnings=[long] * 3 + ["w"] * 10_000,
        failure={"error": "RunError", "problems": [{"message": long, "hint": long}] * 30},
        status="failed",
        environment={f"key{place}": long for place in range(20)},
        versions={f"name{place}": long for place in range(20)},
    )
    made = page(report_of_run(run))
    assert len(made) < 2 << 20
    columns = [Column("y" * 100_000, "value", torch.float32, ()), Column("z" * 100_000, "weight", torch.float32, ())]
    rewrite(run, columns, lambda column, rows: [1.0] * rows, 3)
    assert len(page(report_of_run(run))) < 2 << 20


def test_a_failure_that_names_no_row_opens_at_the_last_one(run: Path) -> None:
    change(
        run, status="failed", failure={"error": "RunError", "problems": [{"message": "no space left", "hint": None}]}
    )
    report = report_of_run(run)
    assert report.opens_at == "steps"
    assert report.shared["at"] == 3
    change(run, failure={"error": "RunError", "problems": [{"message": "`x2` is bad (row 1, 1.backward)", "hint": 3}]})
    report = report_of_run(run)
    assert (report.shared["at"], report.shared["name"]) == (1, "x2")
    change(run, failure={"error": "RunError", "problems": [{"message": "`x2` (row 99999999999999, )", "hint": 3}]})
    assert report_of_run(run).shared["at"] == 3


STATISTICS = """\
parameters: {w: {shape: [40, 50], init: ones}, b: {shape: [3], init: ones}}
expression: loss = exp(w).sum() * 1.0e30 + b.sum()
optimizer: {sgd: {lr: 1.0e-32, maximize: true}}
steps: [{repeat: {times: 6, steps: [zero_grad, backward, step]}}]
on_nonfinite: ignore
log: {tensors: stats}
"""


def test_a_log_of_statistics_has_norms_and_bands_and_says_what_it_lacks(tmp_path: Path) -> None:
    run = record(STATISTICS, tmp_path, "optimizer.sgd.lr=1.0e-27")
    report = report_of_run(run)
    sections = {section.name: section for section in report.sections}
    assert set(sections) >= {"curves", "steps", "norms", "distributions"}
    bands = {each["name"]: each for each in sections["distributions"].data["tensors"]}
    assert bands["w"]["labels"] == ["least", "mean − std", "mean", "mean + std", "largest"]
    read = runner.open_run(run)
    largest = read.tensor("w.max").float().numpy()
    numpy.testing.assert_array_equal(bands["w"]["values"].reshape(5, -1)[4], largest)
    assert "the log has no elements of `w`" in str(sections["steps"].text)
