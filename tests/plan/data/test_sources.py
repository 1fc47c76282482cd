"""Data sources as they are planned: from headers alone."""

from __future__ import annotations

from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch

import runner
from runner.plan import PlanLimits
from runner.plan.data.sources import SourcePlan
from tests.engine.running import compiled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    numpy.savez(
        tmp_path / "points.npz",
        x=numpy.zeros((10, 2, 3)),
        small=numpy.zeros((10,), "uint8"),
        flags=numpy.zeros(10, bool),
        waves=numpy.zeros(10, "complex64"),
    )
    return tmp_path


def plan_of(folder: Path, columns: str, more: str = "", head: str = "") -> runner.Plan:
    names = [part.split(":")[0].strip() for part in columns.strip("{}").split(",") if ":" in part]
    total = " + ".join(f"{name}.to(float32).sum()" for name in names)
    return compiled(
        f"parameters: {{w: 1}}\nconstants: {{n: 4}}\n{head}expression: f = w * ({total}) * n\n"
        f"data: {{train: {{columns: {columns}{more}}}}}\noptimizer: {{sgd: {{lr: 1}}}}\nsteps: {{epochs: 2}}\n",
        folder,
    )


def source_of(folder: Path, columns: str, more: str = "") -> SourcePlan:
    return plan_of(folder, columns, more).sources["train"]


FILE = ", file: points.npz"


def test_shapes_are_those_of_one_sample_and_dtypes_follow_the_config(folder: Path) -> None:
    source = source_of(folder, "{x: x, y: small, z: flags}", FILE)
    assert source.samples == 10
    assert {column.name: (column.shape, column.dtype) for column in source.columns} == {
        "x": ((2, 3), torch.float32),
        "y": ((), torch.int64),
        "z": ((), torch.bool),
    }


def test_a_cast_says_the_dtype_of_the_batches(folder: Path) -> None:
    source = source_of(folder, "{x: x, y: small}", FILE + ", dtype: {x: float64, y: float32}")
    assert [column.dtype for column in source.columns] == [torch.float64, torch.float32]


def test_a_cast_that_loses_an_imaginary_part_is_refused(folder: Path) -> None:
    with pytest.raises(runner.ConfigError, match="is complex64, and float32 would lose its imaginary part"):
        source_of(folder, "{x: waves}", FILE + ", dtype: {x: float32}")


@pytest.mark.parametrize(
    ("more", "batches", "lengths"),
    [
        ("", 1, (10,)),
        (", batch_size: 5", 2, (5,)),
        (", batch_size: 4", 3, (4, 2)),
        (", batch_size: n", 3, (4, 2)),
        (", batch_size: n - 1, drop_last: true", 3, (3,)),
        (", batch_size: 10", 1, (10,)),
        (", batch_size: 1", 10, (1,)),
    ],
)
def test_a_pass_has_as_many_batches_as_fit(folder: Path, more: str, batches: int, lengths: tuple[int, ...]) -> None:
    source = source_of(folder, "{x: x}", FILE + more)
    assert (source.batches, source.lengths) == (batches, lengths)


def test_evaluate_leaves_no_sample_out(folder: Path) -> None:
    source = source_of(folder, "{x: x}", FILE + ", batch_size: 4, drop_last: true")
    assert (source.lengths, source.all_lengths) == ((4,), (4, 2))


def test_columns_may_come_from_several_files(folder: Path) -> None:
    numpy.save(folder / "images.npy", numpy.zeros((10, 8), "float32"))
    source = source_of(folder, "{x: images.npy, y: 'points.npz#small'}")
    assert [column.array.name for column in source.columns] == ["images.npy", "points.npz#small"]


def test_planning_reads_no_values(folder: Path) -> None:
    """A file of a gigabyte, most of which does not exist, plans as quickly as any other."""
    numpy.save(folder / "huge.npy", numpy.zeros((1, 1024), "float32"))
    header = (folder / "huge.npy").read_bytes()[:128].replace(b"(1, 1024), }", b"(262144, 1024), }", 1)
    with (folder / "huge.npy").open("wb") as file:
        file.write(header[:127].replace(b"     \n", b"\n")[:127].ljust(127) + b"\n")
        file.truncate(128 + 4 * 262144 * 1024)
    source = source_of(folder, "{x: huge.npy}", ", batch_size: 64")
    assert (source.samples, source.columns[0].shape) == (262144, (1024,))


def test_a_large_source_streams_where_it_can(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numpy.save(folder / "x.npy", numpy.zeros((10, 4)))
    pyarrow.parquet.write_table(pyarrow.table({"x": range(10)}), folder / "x.parquet", row_group_size=4)
    monkeypatch.setattr("runner.plan.data.sources.STREAMED_FROM", 0)
    assert source_of(folder, "{x: x.npy}").streams
    table = source_of(folder, "{x: x}", ", file: x.parquet")
    assert (table.streams, table.groups) == (True, (4, 4, 2))
    assert not source_of(folder, "{x: x}", FILE).streams


def test_what_is_held_counts_as_memory(folder: Path) -> None:
    while_read = 10 * 6 * 8  # in the dtype of the file
    assert plan_of(folder, "{x: x, y: small}", FILE).estimates.data == 10 * (6 * 4 + 8) + while_read


def test_a_source_that_cannot_be_held_says_how_to_save_it(folder: Path) -> None:
    config = runner.loads(
        "{parameters: {w: 1}, expression: w * x.sum(), optimizer: {sgd: {lr: 1}}, steps: {epochs: 1}, "
        "data: {train: {file: points.npz, columns: {x: x}}}}",
        base=str(folder),
    )
    from runner.plan.compiler import PlanLimits, compile

    with pytest.raises(runner.ConfigError, match=r"points\.npz#x needs 480 B, and the limit is 300 B"):
        compile(config, limits=PlanLimits(memory=300))


def test_a_file_outside_the_configs_folder_is_refused(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    with pytest.raises(runner.ConfigError, match=r"`\.\./points\.npz` is outside the folders"):
        source_of(inside, "{x: x}", ", file: ../points.npz")


def test_a_resolved_config_finds_the_files_of_its_columns(folder: Path) -> None:
    numpy.save(folder / "x.npy", numpy.zeros((10, 4)))
    config = plan_of(folder, "{x: x.npy, y: 'points.npz#small'}").config
    text = config.document.to_yaml(absolute_files=True)
    assert f"x: {folder}/x.npy" in text
    assert f"{folder}/points.npz#small" in text


def test_a_step_with_too_many_combinations_of_lengths_is_refused(folder: Path) -> None:
    names = "abcde"
    sources = "".join(f"  s{name}: {{file: points.npz, columns: {{{name}: small}}, batch_size: 4}}\n" for name in names)
    text = (
        f"parameters: {{w: 1}}\nexpression: f = w * ({' + '.join(f'{name}.sum()' for name in names)})\n"
        f"data:\n{sources}optimizer: {{sgd: {{lr: 1}}}}\nsteps: [train]\n"
    )
    with pytest.raises(runner.ConfigError, match="the batches of 5 sources have 32 combinations of lengths"):
        compiled(text, folder)


SHUFFLED = (
    "parameters: {w: 1.0}\ndata: {train: {columns: {x: FILE}, batch_size: 64, shuffle: true}}\n"
    "expression: loss = w * x.sum()\noptimizer: {sgd: {lr: 0.1}}\nsteps: 1\n"
)


def test_the_order_of_a_shuffled_source_counts_as_memory(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "d.npz", x=numpy.zeros(10 << 20, "uint8"))
    text = SHUFFLED.replace("FILE", "d.npz#x").replace("batch_size", "dtype: {x: uint8}, batch_size")
    config = runner.loads(text, base=str(tmp_path))
    message = r"the order of 10,485,760 shuffled samples needs 80\.0 MiB, but only 64\.0 MiB are available"
    with pytest.raises(runner.ConfigError, match=message) as caught:
        runner.compile(config, limits=PlanLimits(memory=64 << 20))
    assert caught.value.problems[0].path == "data.train.shuffle"


def test_the_order_of_a_streamed_source_takes_no_memory(tmp_path: Path) -> None:
    """A sparse file of 2^31 samples."""
    path = tmp_path / "d.npy"
    numpy.save(path, numpy.zeros(1, "uint8"))
    header = path.read_bytes()[:-1].replace(b"(1,), }", b"(2147483648,), }").replace(b" " * 9 + b"\n", b"\n")
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2**31)
    config = runner.loads(SHUFFLED.replace("FILE", "d.npy"), base=str(tmp_path))
    source = runner.compile(config, limits=PlanLimits(memory=512 << 20)).sources["train"]
    assert (source.streams, source.samples, source.order_bytes) == (True, 2**31, 0)


def test_a_shuffled_source_counts_eight_bytes_a_sample(folder: Path) -> None:
    plain, shuffled = (
        plan_of(folder, "{x: x}", FILE + f", shuffle: {flag}").estimates.data for flag in ("false", "true")
    )
    assert shuffled - plain == 8 * 10


def test_a_glob_that_takes_a_column_without_a_name_gives_a_warning(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(",a,b\n0,1.5,2\n1,2.5,3\n", encoding="utf-8")

    def warned(columns: str) -> list[str]:
        data = f"{{t: {{file: d.csv, columns: {{x: {columns}}}}}}}"
        text = f"{{parameters: {{w: 1}}, data: {data}, expression: (w * x).sum(), steps: [backward]}}"
        return [f"{each.path}: {each.message} = {each.hint}" for each in compiled(text, tmp_path).warnings]

    says = "a glob takes a column of d.csv without a name, which is often a row number"
    assert warned('["*"]') == [f'data.t.columns.x: {says} = write `"?*"` to leave it out']
    assert warned('["?*"]') == warned("[a, b]") == []
