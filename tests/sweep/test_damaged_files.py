"""Flipped bits and missing files of a sweep directory: the damaged file is named, and what was removed runs again."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow.parquet
import pytest

import runner
from runner.errors import SteprunError
from runner.sweep.planning import plan_sweep
from runner.sweep.record.parts import part_paths
from runner.sweep.record.reading import Sweep, open_sweep
from runner.sweep.record.seals import check_seal, sealed, span_of
from runner.sweep.running import How, resume_sweep, run_sweep, start_sweep
from tests.cli.commands import steprun
from tests.hostile.flipped_sweeps import SWEEP
from tests.sweep.inline import Inline, inline
from tests.sweep.test_running import Seen
from tests.tables import over

__all__ = ["inline"]

REMOVE = "remove it, then resume the sweep"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of six points with halving; its second point is a run directory, too."""
    folder = tmp_path_factory.mktemp("whole")
    config = runner.loads(SWEEP, base=folder)
    plan = plan_sweep(config, {})
    directory = start_sweep(config, plan, {}, folder / "sweeps", How())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.sweep.running.Processes", Inline)
        run_sweep(directory, plan, How(), Seen())
    open_sweep(directory).run(1)
    return directory


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "sweep"))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def footer_of(path: Path) -> int:
    """The distance of the footer from the end of a Parquet file."""
    return 8 + int.from_bytes(path.read_bytes()[-8:-4], "little")


def resume(directory: Path) -> Seen:
    plan, how = resume_sweep(directory, How())
    seen = Seen()
    run_sweep(directory, plan, how, seen)
    return seen


def content(directory: Path) -> tuple[Any, ...]:
    sweep = open_sweep(directory)
    points = range(len(sweep))
    weights = [{name: value.tolist() for name, value in sweep.weights(point).items()} for point in points]
    return sweep.table().drop_columns(["seconds"]), [sweep.rows(point) for point in points], weights


def fault_of(act: Callable[[], object]) -> tuple[str, str | None]:
    with pytest.raises(SteprunError) as caught:
        act()
    (problem,) = caught.value.problems
    return problem.message, problem.hint


PLACES: dict[str, tuple[Callable[[Path], int], str]] = {
    "rows": (lambda path: 100, "the digest of its rows does not match"),
    "the mark of the seal alone": (lambda path: -footer_of(path) - 104, ""),
    "the seal": (lambda path: -footer_of(path) - 80, "the digest of its digests does not match"),
    "footer": (lambda path: -footer_of(path) + 10, "the digest of its footer does not match"),
}


@pytest.mark.slow
@over(("folder", "place"), [(folder, place) for folder in ("rows", "weights") for place in PLACES])
def test_a_flipped_bit_of_a_part_is_reported_wherever_it_is_read(folder: str, place: str, whole: Path) -> None:
    at, reason = PLACES[place]
    for path in part_paths(whole, folder):
        sound = path.read_bytes()
        before = content(whole)
        flip(path, at(path))
        try:
            if not reason:
                assert content(whole) == before
                continue
            expected = f"{path} is damaged: {reason}", REMOVE
            assert fault_of(lambda: content(whole)) == expected
            assert fault_of(lambda: resume(whole)) == expected
        finally:
            path.write_bytes(sound)


def test_a_flipped_bit_of_a_part_is_reported(directory: Path) -> None:
    path = next(part_paths(directory))
    flip(path, 100)
    expected = f"{path} is damaged: the digest of its rows does not match", REMOVE
    assert fault_of(lambda: open_sweep(directory).rows(0)) == expected
    assert fault_of(lambda: resume(directory)) == expected


def test_a_flipped_bit_of_the_table_is_reported(directory: Path) -> None:
    path = directory / "points.parquet"
    flip(path, 100)
    expected = f"{path} is damaged: the digest of its rows does not match"
    assert fault_of(open_sweep(directory).table) == (expected, REMOVE)
    assert fault_of(lambda: resume(directory)) == (expected, REMOVE)
    shown = steprun("results", directory)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == f"steprun\n      {expected}\n      = {REMOVE}\n"


def test_an_edited_config_is_reported_by_what_reads_it(directory: Path) -> None:
    path = directory / "sweep.yaml"
    path.write_text(path.read_text().replace("steps: 6", "steps: 7"))
    message = f"{path} has been edited since the sweep began: sweep.json has another digest of it"
    expected = message, f"restore it, or run `steprun sweep {path}`"
    assert fault_of(lambda: open_sweep(directory).config) == expected
    assert fault_of(lambda: open_sweep(directory).run(2)) == expected
    assert fault_of(lambda: resume(directory)) == expected


def states_of(directory: Path, kind: str) -> list[Path]:
    return sorted((directory / "states").glob(f"*.{kind}"))


@over("kind", ["json", "safetensors"])
def test_a_flipped_bit_of_a_state_is_reported_before_any_point_runs(kind: str, whole: Path) -> None:
    for path in states_of(whole, kind):
        sound = path.read_bytes()
        flip(path, -3)
        try:
            message, hint = fault_of(lambda: resume(whole))
            assert (message.partition(" is damaged: ")[0], hint) == (str(path), REMOVE)
            if kind == "safetensors":
                assert message == f"{path} is damaged: its digest does not match"
        finally:
            path.write_bytes(sound)


def test_a_state_without_the_point_is_reported(directory: Path) -> None:
    from runner.sweep.record.states import load_states

    (path,) = states_of(directory, "json")
    message = f"{path} is damaged: it has no state of point 0123"
    assert fault_of(lambda: load_states(directory, path.stem, ["0123"])) == (message, REMOVE)


def without_digests(directory: Path) -> None:
    """Write the saved states of a sweep as they were before they had digests."""
    for path in states_of(directory, "json"):
        path.write_text(json.dumps(json.loads(path.read_text())["states"]))


@pytest.mark.usefixtures("inline")
def test_states_without_digests_are_read(directory: Path, whole: Path) -> None:
    without_digests(directory)
    assert resume(directory).started == []
    *_, last = part_paths(directory)
    last.unlink()
    assert resume(directory).started  # points go on from their states
    for one, other in zip(content(directory), content(whole), strict=True):
        assert one == other


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_a_sweep_whose_states_have_no_digests_is_widened(directory: Path, whole: Path) -> None:
    without_digests(directory)
    wider = ["sweep.grid.rate=[0.1, 0.2, 0.3, 0.01]"]
    for each in (directory, whole_copy := Path(shutil.copytree(whole, directory.with_name("other")))):
        plan, how = resume_sweep(each, How(), overrides=wider)
        run_sweep(each, plan, how, seen := Seen())
        assert any(index < 6 for index in seen.started)  # points that had stopped go on from their states
    assert len(open_sweep(directory)) == 8
    for one, other in zip(content(directory), content(whole_copy), strict=True):
        assert one == other


def test_a_state_of_neither_form_is_reported(directory: Path) -> None:
    path = states_of(directory, "json")[0]
    for text in ("{}", "[]", '{"states": 1}', '{"sha256": "", "digest": ""}'):
        path.write_text(text)
        assert fault_of(lambda: resume(directory)) == (f"{path} is damaged: it has no states", REMOVE)


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", ["rows", "weights", "json", "safetensors", "points.parquet"])
def test_a_removed_file_is_computed_again(kind: str, directory: Path, whole: Path) -> None:
    """What a message advises leads to the sweep that was never damaged."""
    if kind in ("rows", "weights"):
        found = list(part_paths(directory, kind))
    else:
        found = [directory / kind] if kind == "points.parquet" else states_of(directory, kind)
    found[0].unlink()
    seen = resume(directory)
    assert bool(seen.started) == (kind != "points.parquet")
    for one, other in zip(content(directory), content(whole), strict=True):
        assert one == other
    assert resume(directory).started == []


@pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors", "rows/00000.parquet", "rows.json"])
def test_a_damaged_run_directory_of_a_point_is_made_again(name: str, directory: Path) -> None:
    run = open_sweep(directory).run(1)
    path = run.path / name
    sound = path.read_bytes()
    flip(path, 20)
    assert open_sweep(directory).run(1).path == run.path
    assert path.read_bytes() == sound


def test_a_file_without_a_seal_is_read(directory: Path) -> None:
    before = content(directory)
    for folder in ("rows", "weights"):
        for path in part_paths(directory, folder):
            pyarrow.parquet.write_table(pyarrow.parquet.ParquetFile(path).read(), path)
    for one, other in zip(content(directory), before, strict=True):
        assert one == other


def test_other_readers_of_parquet_pass_over_a_seal(whole: Path) -> None:
    for path in (whole / "points.parquet", *part_paths(whole), *part_paths(whole, "weights")):
        expected = pyarrow.parquet.ParquetFile(path).read().column("point").to_pylist()
        assert polars.read_parquet(path)["point"].to_list() == expected
        assert pandas.read_parquet(path)["point"].tolist() == expected


def test_a_seal_finds_every_flipped_bit() -> None:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"point": numpy.arange(5)}), sink)
    plain = sink.getvalue().to_pybytes()
    written = b"".join(bytes(piece) for piece in sealed(pyarrow.py_buffer(plain), [3, 1, 2]))
    check_seal(io.BytesIO(written), rows=True)
    assert (span_of(io.BytesIO(written)), span_of(io.BytesIO(plain))) == ((1, 3), None)
    assert written.replace(written[len(plain) - footer_length(plain) :][: len(written) - len(plain)], b"") == plain
    missed = [at for at in range(len(written)) if not _is_found(written, at)]
    mark = len(plain) - footer_length(plain)
    length = range(len(written) - 8, len(written) - 4)  # a reader of Parquet finds these
    assert missed == [*range(mark, mark + 16), *length]


def footer_length(plain: bytes) -> int:
    return 8 + int.from_bytes(plain[-8:-4], "little")


def _is_found(written: bytes, at: int) -> bool:
    changed = bytearray(written)
    changed[at] ^= 4
    try:
        check_seal(io.BytesIO(changed), rows=True)
    except ValueError:
        return True
    return False


def test_a_sweep_says_where_its_points_are_without_reading_footers(whole: Path) -> None:
    sweep = open_sweep(whole)
    assert isinstance(sweep, Sweep)
    sweep.rows(0)
    spans = {path: span for path, span in sweep._spans.items() if path.parent.parent.name == "rows"}
    for path, span in spans.items():
        points = pyarrow.parquet.ParquetFile(path).read().column("point").to_pylist()
        assert span == (min(points), max(points))
