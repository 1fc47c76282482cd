"""What `steprun apply` refuses, each fault with its text, and what it leaves alone then."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from runner.cli.main import main

FAULTS = [
    (["--values", "probabilites"], "the run has no named value `probabilites`\n      = did you mean `probabilities`?"),
    (["--values", ","], "--values names no value\n      = name the values to compute, with commas"),
    (
        ["--values", "label,label"],
        "`label` is named twice\n      = name each column and value once",
    ),
    (
        ["--values", "loss", "--data", "valid"],
        "`loss` has one value for a batch of 53, not an entry for each sample\n"
        "      = name another value: h, logits, probabilities, label, centred, noisy",
    ),
    (["--values", "pair"], "`pair` is not a tensor\n      = name a value that is one tensor"),
    (
        ["--values", "loss"],
        "^ new.csv has no column `y`\n      = it has id, a, b",
    ),
    (
        ["--values", "label", "--data", "trian.file=new.csv"],
        "the run has no data source `trian`\n      = did you mean `train`?",
    ),
    (
        ["--values", "label", "--data", "new.csv"],
        "--data new.csv names a file, but no data source\n      = write --data train.file=new.csv",
    ),
    (
        ["--values", "label", "--data", "train=new.csv"],
        "--data train=new.csv names no key of `train`\n      = write --data train.file=new.csv",
    ),
    (
        ["--values", "label", "--data", "valid"],
        None,
    ),
    (
        ["--values", "label", "--columns", "idd"],
        "new.csv has no column `idd`\n      = did you mean `id`?",
    ),
    (
        ["--values", "label", "--data", "train.file=text.csv"],
        "text.csv:2 holds `high`, which is not a number in the column `b`\n"
        "      = correct the file: the columns mean what they meant in the run",
    ),
    (
        ["--values", "label", "--data", "train.file=blank.csv"],
        "blank.csv:2 holds nothing in the column `b`\n      = write --data train.missing='[null]' to read it as NaN",
    ),
    (
        ["--values", "label", "--data", "train.file=null.parquet"],
        "the column `b` of null.parquet has a null in row 1\n"
        "      = write --data train.missing='[null]' to read nulls as NaN",
    ),
    (
        ["--values", "label", "--data", "train.file=semicolons.csv"],
        "the cells of semicolons.csv are separated by `;`, not by `,`\n      = write --data train.delimiter='\";\"'",
    ),
    (
        ["--values", "label", "--data", "train.file=mixed.csv"],
        "the column `b` of mixed.csv mixes booleans and numbers\n      = write 0 and 1",
    ),
    (
        ["--values", "label", "--data", "train.file=later.csv"],
        "later.csv:70001 holds nothing in the column `b`\n"
        "      = write --data train.missing='[null]' to read it as NaN",
    ),
    (
        ["--values", "label", "--data", "train.file=empty.csv"],
        "empty.csv has a header and no rows\n      = add rows",
    ),
    (
        ["--values", "label", "--data", "train.file=empty.parquet"],
        "the source `train` has no samples\n      = use a file with samples",
    ),
    (
        ["--values", "label", "--data", "train.file=huge.parquet"],
        "huge.parquet holds 1e+300 in row 0 of the column `a`, which does not fit float32: it is beyond 3.40282e+38, "
        "the largest float32\n      = correct the file: the columns mean what they meant in the run",
    ),
    (
        ["--values", "label", "--data", "train.file=huge.csv"],
        "huge.csv:70001 holds 1e+300 in the column `a`, which does not fit float32: it is beyond 3.40282e+38, "
        "the largest float32\n      = correct the file: the columns mean what they meant in the run",
    ),
    (["--values", "label", "--at", "bets"], "has no checkpoint `bets`\n      = it has last"),
    (["--values", "label", "--at", "../x y"], "has no checkpoint `../x y`\n      = it has last"),
    (["--values", "label", "--to", "out.xlsx"], "out.xlsx is neither a .parquet, .csv nor .tsv file"),
    (["--values", "label", "--to", "there.csv"], "there.csv exists\n      = write --force to replace it, or choose"),
    (
        ["--values", "label", "--data", "train.select={to: 2}"],
        "`select` of `train` has no effect here\n      = remove it: every row of the file is a sample",
    ),
    (
        ["--values", "label", "--data", "train.shuffle=true"],
        "`shuffle` of `train` has no effect here\n      = remove it: samples are in the order of the file",
    ),
    (
        ["--values", "label", "--data", "train.drop_last=true"],
        "`drop_last` of `train` has no effect here\n      = remove it: every row of the file is a sample",
    ),
    (
        ["--values", "label", "--data", "train.batch_size=4"],
        "`batch_size` of `train` has no effect here\n      = write --batch-size",
    ),
    (
        ["--values", "label", "--data", "train.dtype.x=float64"],
        "`dtype` of `train` has no effect here\n      = remove it: columns have the dtype of the run",
    ),
    (
        ["--values", "label", "--data", "train.file"],
        "--data train.file has no value\n      = write --data train.file=VALUE",
    ),
    (
        ["--values", "label", "--data", "train.file=renamed.csv", "--data", "train.columns.x=[A, C]"],
        "renamed.csv has no column `C`\n      = it has A, B",
    ),
    (
        ["--values", "label", "--device", "gpu"],
        '1 | device="gpu"\n      |        ^^^^^ expected a device, found the text `gpu`\n'
        "      = devices are cpu, cuda, cuda:1, mps",
    ),
    (
        ["--values", "label", "--to", "new.csv", "--force"],
        "new.csv is the data file\n      = choose another name",
    ),
    (["--values", "label", "--to", "no/out.csv"], "there is no folder no\n      = make it, or choose another"),
]


@pytest.mark.parametrize(("arguments", "text"), FAULTS, ids=range(len(FAULTS)))
def test_each_fault_has_its_text(
    run: runner.Run, folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str | None
) -> None:
    given = arguments if "--data" in arguments else [*arguments, "--data", "train.file=new.csv"]
    given = given if "--to" in given else [*given, "--to", "out.csv"]
    before = sorted(path.name for path in folder.iterdir())
    code = main(["apply", str(run.path), *given, "--allow", str(run.path.parents[2])])
    error = capsys.readouterr().err
    if text is None:
        assert code == 0
        assert error == "53 samples: out.csv\n"
        return
    assert code != 0
    assert text in error
    assert "Traceback" not in error
    assert sorted(path.name for path in folder.iterdir()) == before  # nothing half-written
    assert (folder / "there.csv").read_text(encoding="utf-8") == "precious\n"


def test_faults_as_json(run: runner.Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["apply", str(run.path), "--values", "lable", "--to", "o.csv", "--format", "json"]
    assert main(arguments) == 2
    assert '"the run has no named value `lable`"' in capsys.readouterr().err
