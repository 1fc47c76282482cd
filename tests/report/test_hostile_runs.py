"""Reports of damaged, old and hostile run directories: a page that says so, with bounded bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest
import torch

import runner
from runner.config.files.safe_files import Folder
from runner.plan.rows.columns import Column
from runner.record.manifest import PUT_BACK
from runner.record.rows.part_digests import RESTORE, digest_of, write_digests
from runner.report.page import page
from runner.report.run.sections import report_of_run
from runner.report.section import Report
from tests.cli.commands import steprun
from tests.manifests import manifest_fields
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


DAMAGE: list[tuple[Callable[[Path], object], str, str]] = [
    (spoil_part, "rows/00000.parquet is damaged: its digest does not match", RESTORE),
    (
        lambda run: (run / "rows" / "00000.parquet").unlink(),
        "rows/00000.parquet is damaged: it cannot be read: No such file or directory",
        RESTORE,
    ),
    (
        lambda run: (run / "rows" / "00000.parquet").write_bytes(b""),
        "rows/00000.parquet is damaged: its digest does not match",
        RESTORE,
    ),
    (lambda run: (run / "rows.json").write_text("{"), "rows.json is damaged: it is not JSON", RESTORE),
    (
        lambda run: ((run / "rows.json").unlink(), shutil.rmtree(run / "rows"), (run / "rows").symlink_to("/etc")),
        "cannot read {run}/rows: it is a link",
        RESTORE,
    ),
    (lambda run: (run / "run.json").write_text("{"), "run.json is not valid JSON", PUT_BACK),
    (
        lambda run: change(run, status="dancing"),
        "run.json is not the manifest of a run: it has no known status",
        PUT_BACK,
    ),
    (
        lambda run: change(run, columns=[{"name": 1}]),
        "run.json is not the manifest of a run: the description of a column is not valid",
        PUT_BACK,
    ),
]


@over(("spoil", "message", "hint"), DAMAGE)
def test_a_damaged_run_is_a_page_that_says_so_and_an_error(
    spoil: Callable[[Path], object], message: str, hint: str, sound: Path, tmp_path: Path
) -> None:
    run = tmp_path / "linear" / "hostile"
    shutil.copytree(sound, run)
    spoil(run)
    said = message.format(run=run) if "{run}" in message else f"{run}/{message}"
    done = steprun("report", str(run), "-o", "page.html", "--follow", cwd=tmp_path)
    assert (done.code, done.out) == (1, "page.html\n")
    assert done.err == f"steprun\n      {said}\n      = {hint}\n"
    made = (tmp_path / "page.html").read_text()
    assert f'<p class="alert" role="alert"><strong>{said}</strong><span> {hint}</span></p>' in made
    assert "optimizer: {sgd: {lr: learning_rate}}" in made
    assert len(made) <= MOST_BYTES


NO_RUNS: list[tuple[Callable[[Path], object], str]] = [
    (lambda run: (run / "run.json").unlink(), "is not a run directory: it has no run.json"),
    (lambda run: (shutil.rmtree(run), run.mkdir()), "is not a run directory: it has no run.json"),
    (shutil.rmtree, "there is no folder"),
]


@over(("spoil", "message"), NO_RUNS)
def test_what_is_no_run_is_no_page(spoil: Callable[[Path], object], message: str, sound: Path, tmp_path: Path) -> None:
    run = tmp_path / "hostile"
    shutil.copytree(sound, run)
    spoil(run)
    done = steprun("report", str(run), "-o", str(tmp_path / "page.html"))
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "page.html").exists()


def test_a_sparse_part_of_many_gigabytes_is_damaged(run: Path) -> None:
    with (run / "rows" / "00000.parquet").open("r+b") as file:
        file.truncate(8 << 30)
    report = report_of_run(run)
    assert "00000.parquet is damaged" in report.problems[0].message


def test_the_fault_of_a_damaged_run_can_be_read_by_programs(run: Path) -> None:
    spoil_part(run)
    done = steprun("report", str(run), "-o", "page.html", "--format", "json", cwd=run)
    told = json.loads(done.err)
    assert (told["error"], told["exit_code"], done.out) == ("RunError", 1, "page.html\n")
    done = steprun("report", str(run), "-o", "page.html", "--format", "github", cwd=run)
    assert done.err.startswith("::error")
    assert "00000.parquet is damaged" in done.err


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A run of 60 rows in six parts; `v` is the number of the row."""
    run = record(LONG, tmp_path)
    rewrite(
        run, [Column("v", "value", torch.float32, ())], lambda column, rows: [float(row) for row in range(rows)], 60
    )
    table = pyarrow.parquet.read_table(run / "rows" / "00000.parquet")
    for place in range(6):
        path = run / "rows" / f"{place:05}.parquet"
        pyarrow.parquet.write_table(table.slice(place * 10, 10), path, write_page_checksum=True, compression="none")
    digests = {path.name: digest_of(path.read_bytes()) for path in sorted((run / "rows").iterdir())}
    write_digests(run, digests, synced=False)
    change(run, rows=60)
    return run


LONG = """\
parameters: {w: {shape: [], init: ones}}
expression: v = w * w
optimizer: {sgd: {lr: 0.1}}
steps: [train]
"""


def flip_value(run: Path, row: int) -> None:
    """Flip a bit of the value of one row, in the middle of a page."""
    path = run / "rows" / f"{row // 10:05}.parquet"
    value = numpy.float32(row).tobytes()
    content = path.read_bytes()
    at = content.index(value, content.index(numpy.arange(row - 1, row + 1, dtype=numpy.float32).tobytes()) + 4)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def values_of(report: Report) -> list[float]:
    return [value for each in report.sections if each.name == "curves" for value in each.data["curves"][0]["values"]]


def test_a_page_has_the_rows_before_the_damage(long: Path) -> None:
    assert values_of(report_of_run(long)) == list(range(60))
    flip_value(long, 35)
    flip_value(long, 55)
    report = report_of_run(long)
    assert [each.message for each in report.problems] == [
        f"{long}/rows/00003.parquet is damaged: its digest does not match"
    ]
    assert values_of(report) == list(range(30))
    assert "The page shows 30 of 60 rows, the last of them row 29." in report.head
    assert report.opens_at is None


def test_damage_in_a_page_of_a_part_without_a_digest_is_found(long: Path) -> None:
    (long / "rows.json").write_text("[]")
    flip_value(long, 35)
    report = report_of_run(long)
    assert report.problems[0].message == f"{long}/rows.json is damaged: it contains no digests"
    assert "00003.parquet is damaged: could not verify page integrity" in report.problems[1].message
    assert len(report.problems) == 2
    assert values_of(report) == list(range(30))


def test_a_part_whose_footer_claims_more_rows_is_damaged(long: Path) -> None:
    part = runner.open_run(long).parts[-1]
    claiming = replace(part, rows=11)
    for read in (lambda: claiming.read(len), lambda: list(claiming.pieces([3, 10], ["row"], 4))):
        with pytest.raises(runner.RunError, match=r"00005\.parquet is damaged: it has fewer rows than its footer says"):
            read()


def test_a_run_with_damage_after_damage_shows_no_row(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.report.run.subject.MOST_DAMAGED", 1)
    flip_value(long, 35)
    report = report_of_run(long)
    assert "No row of the run is on this page." in report.head
    assert not values_of(report)
    assert {section.name for section in report.sections} == {"config", "environment"}


def test_a_log_of_more_rows_than_are_read_says_so(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.report.run.subject.MOST_VALUES", 45)
    report = report_of_run(long)
    assert "The log has 60 rows; the page has the first 40." in report.head
    assert values_of(report) == list(range(40))


def test_a_damaged_run_that_failed_shows_its_failure_and_opens_at_its_top(long: Path) -> None:
    change(long, status="failed", failure={"error": "RunError", "problems": [{"message": "`v` (row 59, train)"}]})
    before = report_of_run(long)
    assert before.sections[0].name == "steps"
    assert before.shared["at"] == len(before.shared["rows"]) - 1
    flip_value(long, 35)
    report = report_of_run(long)
    assert report.shared["at"] == 0
    assert "<code>v</code> (row 59, train)" in report.head
    assert "row 59" not in str([section.text for section in report.sections])


@over("changes", [{}, {"status": "of another kind"}, {"columns": [{"dtype": "float6"}]}])
def test_a_page_names_the_other_version_that_recorded_a_run(
    changes: dict[str, object], sound: Path, tmp_path: Path
) -> None:
    run = tmp_path / "linear" / "later"
    shutil.copytree(sound, run)
    change(run, versions={"steprun": "9.0 <b>"}, **changes)
    assert f"steprun 9.0 &lt;b&gt; recorded it; this page is by steprun {runner.__version__}." in text_of(run)
    hints = [problem.hint for problem in report_of_run(run).problems]
    assert hints == (["steprun 9.0 <b> recorded it: read it with that version"] if changes else [])
    change(run, versions={"steprun": runner.__version__})
    assert "recorded it" not in text_of(run)


def text_of(run: Path) -> str:
    made = page(report_of_run(run))
    assert len(made) <= MOST_BYTES
    return made.decode()


def test_a_run_of_another_version_is_reported_as_far_as_it_goes(run: Path) -> None:
    manifest = manifest_fields(run / "run.json")
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
    assert "row 0: <code>f</code> is not finite here for the first time" in found


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
    assert report.sections[0].name == "steps"
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
    assert "the log has no elements of <code>w</code>" in str(sections["steps"].text)
