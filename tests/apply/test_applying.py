"""`steprun apply`: values of every sample of a file, in its order, with the bits of the same batches by hand."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

import runner
from runner.cli.main import main
from runner.errors import Problem
from runner.record.apply.applying import Request, apply
from tests.apply.runs import by_hand, samples, table, trained, without_target, write
from tests.tables import over


def applied(
    run: runner.Run, file: Path, to: Path, values: str = "probabilities,label", **options: object
) -> tuple[pyarrow.Table, list[str]]:
    """The table that `apply` writes for a file, and its warnings."""
    warned: list[Problem] = []
    request = Request(tuple(values.split(",")), str(to), (f"train.file={file}",), **options)  # type: ignore[arg-type]
    count = apply(run.path, request, warn=warned.append)
    found = pyarrow.parquet.read_table(to) if to.suffix == ".parquet" else pyarrow.csv.read_csv(to)
    assert len(found) == count
    return found, [problem.message for problem in warned]


@pytest.mark.slow
def test_a_text_table_larger_than_the_memory_has_the_bits_of_one_batch_after_the_other(
    run: runner.Run, tmp_path: Path
) -> None:
    columns = without_target(100_000)
    columns["id"] = numpy.where(columns["id"] == 100_999, "last", columns["id"].astype(str))
    file = write(tmp_path / "new.csv", columns)
    assert file.stat().st_size > 4 << 20
    found, warned = applied(run, file, tmp_path / "out.parquet", batch_size=7000, memory=1 << 20, columns=("id",))
    assert warned == []
    assert found["id"].to_pylist() == columns["id"].tolist()  # text, for the last one is no integer
    expected = [by_hand(run, part)["label"] for part in samples(columns).split(7000)]
    assert found["label"].to_pylist() == torch.cat(expected).tolist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("batch_size", [1, 64, 300, 1000])
def test_values_have_the_bits_of_the_same_batches_by_hand(
    run: runner.Run, tmp_path: Path, suffix: str, batch_size: int
) -> None:
    columns = without_target()
    file = write(tmp_path / f"new{suffix}", columns, row_group=110)
    found, warned = applied(run, file, tmp_path / "out.parquet", batch_size=batch_size)
    assert warned == []
    expected = [by_hand(run, part) for part in samples(columns).split(batch_size)]
    assert found.column_names == ["probabilities", "label"]
    assert found.schema.field("probabilities").type == pyarrow.list_(pyarrow.float32(), 3)
    assert found.schema.field("label").type == pyarrow.int64()
    probabilities = numpy.array(found["probabilities"].to_pylist(), numpy.float32)
    assert (probabilities == torch.cat([part["probabilities"] for part in expected]).numpy()).all()
    assert found["label"].to_pylist() == torch.cat([part["label"] for part in expected]).tolist()


def test_csv_has_a_column_for_each_element(run: runner.Run, tmp_path: Path) -> None:
    file = write(tmp_path / "new.parquet", without_target(5))
    found, _ = applied(run, file, tmp_path / "out.csv", columns=("id",))
    assert found.column_names == ["id", "probabilities[0]", "probabilities[1]", "probabilities[2]", "label"]
    expected = by_hand(run, samples(without_target(5)))
    assert found["id"].to_pylist() == [1000, 1001, 1002, 1003, 1004]
    for place in range(3):
        written = numpy.array(found[f"probabilities[{place}]"].to_pylist()).astype(numpy.float32)
        assert (written == expected["probabilities"][:, place].numpy()).all()  # enough digits for the same bits


def test_copied_columns_keep_their_text(run: runner.Run, tmp_path: Path) -> None:
    names = ["007", 'a "quoted" name', "comma, here", "ü", "1e3"]
    columns = {**without_target(5), "who": names}
    for source in (write(tmp_path / "new.csv", columns), write(tmp_path / "new.parquet", columns)):
        found, _ = applied(run, source, tmp_path / "out.parquet", columns=("who", "id"), force=True)
        assert found.column_names == ["who", "id", "probabilities", "label"]
        assert found["who"].to_pylist() == names
        options = pyarrow.csv.ConvertOptions(column_types={"who": pyarrow.string()})
        applied(run, source, tmp_path / "out.csv", columns=("who",), force=True)
        assert pyarrow.csv.read_csv(tmp_path / "out.csv", convert_options=options)["who"].to_pylist() == names


def test_copied_integers_keep_every_digit_and_other_numbers_their_text(run: runner.Run, tmp_path: Path) -> None:
    columns = {
        "most": ["999999999999999999", "-999999999999999999", "0"],  # fit in 64 bits
        "long": ["12345678901234567890", "1", "2"],
        "minus": ["-0", "1", "2"],
        "zeros": ["01", "1", "2"],
    }
    numbers = {name: [str(value) for value in column] for name, column in without_target(3).items()}
    (tmp_path / "new.csv").write_text(
        "\n".join(
            ",".join(row) for row in [[*columns, *numbers], *zip(*columns.values(), *numbers.values(), strict=True)]
        )
        + "\n"
    )
    found, _ = applied(run, tmp_path / "new.csv", tmp_path / "out.parquet", columns=tuple(columns))
    assert found["most"].to_pylist() == [int(text) for text in columns["most"]]
    assert {name: found[name].to_pylist() for name in ("long", "minus", "zeros")} == {
        name: columns[name] for name in ("long", "minus", "zeros")
    }


def test_the_declared_source_is_used_without_another_file(run: runner.Run, tmp_path: Path) -> None:
    request = Request(("label", "sure"), str(tmp_path / "out.parquet"), ("valid",), allow=(str(run.path.parents[2]),))
    assert apply(run.path, request, warn=print) == 53
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found["label"].to_pylist() == by_hand(run, samples(table()))["label"].tolist()


def test_integers_in_a_column_that_was_floating_are_read_in_its_dtype(run: runner.Run, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    found, _ = applied(run, file, tmp_path / "out.parquet", values="label")
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert found["label"].to_pylist() == by_hand(run, x)["label"].tolist()


def test_columns_of_a_file_that_names_them_otherwise(run: runner.Run, tmp_path: Path) -> None:
    columns = without_target(20)
    file = write(tmp_path / "new.csv", {"B": columns["b"], "A": columns["a"], "a": columns["b"], "b": columns["a"]})
    to = tmp_path / "out.parquet"
    request = Request(("probabilities",), str(to), (f"train.file={file}", "train.columns.x=[A, B]"))
    assert apply(run.path, request, warn=pytest.fail) == 20
    expected = by_hand(run, samples(columns))["probabilities"]
    found = torch.tensor(pyarrow.parquet.read_table(to)["probabilities"].to_pylist())
    assert torch.equal(found, expected)


def test_weights_of_another_run_are_refused(run: runner.Run, tmp_path: Path) -> None:
    other = tmp_path / "runs" / "wine" / run.path.name
    shutil.copytree(run.path, other)
    changed = {name: value + 1 for name, value in load_file(run.path / "weights.safetensors").items()}
    save_file(changed, other / "weights.safetensors")
    message = (
        f"wine/{run.path.name}/weights.safetensors was not written by this run\n"
        "      = restore the file from a copy, or run the config again"
    )
    with pytest.raises(runner.UsageError, match=re.escape(message)):
        runner.load_model(other)


def test_warnings(run: runner.Run, tmp_path: Path) -> None:
    columns = without_target(20)
    columns["b"][7] = numpy.nan
    file = write(tmp_path / "new.parquet", columns)
    _, warned = applied(run, file, tmp_path / "out.parquet", values="centred,noisy")
    assert warned == [
        "nan-in-data: sample 7 of `x` in `train` is NaN",
        "`centred` may depend on the other samples of its batch, and so on --batch-size",
        "`noisy` draws random numbers although `training` is false",
    ]


def test_random_values_are_the_same_again(run: runner.Run, tmp_path: Path) -> None:
    file = write(tmp_path / "new.parquet", without_target(20))
    first, _ = applied(run, file, tmp_path / "one.parquet", values="noisy", batch_size=6)
    second, _ = applied(run, file, tmp_path / "two.parquet", values="noisy", batch_size=6)
    assert first.equals(second)


def test_force_replaces_a_file_and_standard_output_has_csv(
    run: runner.Run, folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    common = ["apply", str(run.path), "--data", "train.file=new.csv", "--values", "label", "--columns", "id"]
    assert main([*common, "--to", "there.csv", "--force", "--quiet"]) == 0
    assert capfdbinary.readouterr().err == b""
    assert main([*common, "--to", "-"]) == 0
    out = capfdbinary.readouterr().out
    assert out == (folder / "there.csv").read_bytes()
    assert pyarrow.csv.read_csv(io.BytesIO(out)).column_names == ["id", "label"]


def test_arrays_in_npy_files_are_read_in_parts(tmp_path: Path) -> None:
    text = """\
parameters: {w: {shape: [2, 3], init: ones}}
data: {train: {columns: {x: x.npy, y: y.npy}, batch_size: 5}}
expression: |
  picture = (x @ w).unsqueeze(1) + zeros(1, 2, 3)
  half = (x @ w).to(bfloat16)
  loss = mse_loss(picture.mean((1, 2)), y)
optimizer: {sgd: {lr: 0.1}}
steps: 1
"""
    numpy.save(tmp_path / "x.npy", numpy.ones((10, 2), numpy.float32))
    numpy.save(tmp_path / "y.npy", numpy.ones(10, numpy.float32))
    run = trained(tmp_path, text)
    new = numpy.random.default_rng(0).normal(size=(70_000, 2)).astype(numpy.float32)
    numpy.save(tmp_path / "new.npy", new)
    request = Request(("picture", "half"), str(tmp_path / "o.parquet"), (f"train.columns.x={tmp_path}/new.npy",))
    assert apply(run.path, request, warn=print) == 70_000
    found = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    assert found.schema.field("picture").type == pyarrow.list_(pyarrow.list_(pyarrow.float32(), 3), 2)
    assert found.schema.field("half").type == pyarrow.list_(pyarrow.float32(), 3)
    w = runner.load_model(run.path).parameters["w"]
    last = torch.from_numpy(new[-1:]) @ w
    numpy.testing.assert_allclose(found["picture"][-1].as_py(), [last[0].tolist()] * 2, rtol=1e-6)


@pytest.mark.slow
def test_a_run_directory_can_be_read_from_another_process(run: runner.Run, folder: Path) -> None:
    """A config that fits on Parquet plans in a new process, whose threads start while memory is limited."""
    write(folder / "train.parquet", table(5_000))
    text = """\
parameters: {w: {shape: [2], init: ones}}
data: {train: {file: train.parquet, columns: {x: [a, b]}, batch_size: 5}}
constants: {mean: {init: {expression: train.x.mean(0)}}}
expression: loss = ((x - mean) @ w).square().mean()
"""
    (folder / "fit.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "runner", "validate", "fit.yaml"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away_leaves_no_file(run: runner.Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.record.apply.applying.arrow_of", fail)
    request = Request(("label",), "o.parquet", ("train.file=new.csv",))
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        apply(run.path, request, warn=print)
    assert not list(folder.glob("*o.parquet*"))
    assert not list(folder.glob(".*o.parquet*"))


@over("name", ["label", "probabilities", "logits"])
def test_values_do_not_depend_on_how_a_file_is_cut(name: str, tmp_path: Path, run: runner.Run) -> None:
    columns = without_target(97)
    whole, _ = applied(run, write(tmp_path / "a.parquet", columns), tmp_path / "1.parquet", values=name)
    cut, _ = applied(run, write(tmp_path / "b.parquet", columns, 13), tmp_path / "2.parquet", values=name, batch_size=5)
    numpy.testing.assert_allclose(
        numpy.array(whole[name].to_pylist()), numpy.array(cut[name].to_pylist()), rtol=1e-5, atol=1e-6
    )


FLOWERS = """\
name: flowers
parameters: {w: {shape: [features, classes(train.y)], init: {normal: {std: 0.5}}}}
data:
  train:
    file: train.csv
    columns: {x: ["*"], y: kind}
    classes: {y: sorted}
    fill: {x: mean}
    select: {share: [0, 0.8], stratify: kind}
    batch_size: 10
constants:
  features: train.x.shape[1]
  mean: {init: {expression: train.x.mean(0)}}
expression: |
  logits = (x - mean) @ w
  label = argmax(logits, -1)
  wrong = label + 5
  loss = cross_entropy(logits, y)
optimizer: {sgd: {lr: 0.1}}
steps: {epochs: 2}
"""

KINDS = ("rose", "iris", "tulip")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> runner.Run:
    folder = tmp_path_factory.mktemp("flowers")
    columns = table()
    kinds = [KINDS[number] for number in columns.pop("y")]
    write(folder / "train.csv", {"a": columns["a"], "b": columns["b"], "kind": kinds})
    (folder / "flowers.yaml").write_text(FLOWERS, encoding="utf-8")
    return runner.run(folder / "flowers.yaml", runs_dir=folder / "runs")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_classes_come_out_under_their_names(flowers: runner.Run, tmp_path: Path, suffix: str) -> None:
    """The file lacks the target and has another column, which the glob of the run does not take."""
    columns = without_target(30)
    file = write(tmp_path / f"new{suffix}", columns)
    found, _ = applied(flowers, file, tmp_path / "o.parquet", "label,logits", classes=("label=y",), columns=("id",))
    model = runner.load_model(flowers.path)
    expected = model.value("label", x=samples(columns)).tolist()
    assert found["label"].to_pylist() == [sorted(KINDS)[index] for index in expected]
    assert found["id"].to_pylist() == list(range(1000, 1030))


def test_the_target_in_the_file_is_not_taken_for_a_column(flowers: runner.Run, tmp_path: Path) -> None:
    columns = {**without_target(30), "kind": ["rose"] * 30}
    found, _ = applied(flowers, write(tmp_path / "new.csv", columns), tmp_path / "o.csv", "label", columns=("kind",))
    assert found["kind"].to_pylist() == ["rose"] * 30


def test_fitted_numbers_are_those_of_the_training_rows(flowers: runner.Run, tmp_path: Path) -> None:
    whole, _ = applied(flowers, write(tmp_path / "a.parquet", without_target(30)), tmp_path / "1.parquet", "logits")
    one = {name: column[:1] for name, column in without_target(30).items()}
    alone, _ = applied(flowers, write(tmp_path / "b.parquet", one), tmp_path / "2.parquet", "logits")
    numpy.testing.assert_allclose(alone["logits"][0].as_py(), whole["logits"][0].as_py(), rtol=1e-5)


@over(
    "classes, values, message",
    [
        ("label", "label", "--classes label names no column\n      = write --classes label=COLUMN"),
        ("lable=y", "label", "--classes names `lable`, which is not in --values\n      = did you mean `label`?"),
        ("label=x", "label", "the column `x` has no classes\n      = columns with classes are y"),
        ("logits=y", "logits", "`logits` is not one class index for each sample\n      = name a value of integers"),
        ("wrong=y", "wrong", r"and there are 3 classes"),
    ],
)
def test_wrong_classes(classes: str, values: str, message: str, flowers: runner.Run, tmp_path: Path) -> None:
    file = write(tmp_path / "new.csv", without_target(5))
    with pytest.raises(runner.SteprunError, match=re.escape(message)):
        applied(flowers, file, tmp_path / "o.csv", values, classes=(classes,))
    assert not (tmp_path / "o.csv").exists()
