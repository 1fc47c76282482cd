"""`SWEEP#17` wherever a run or a config is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.sweep.record.reading import open_sweep
from tests.cli.commands import Outcome, steprun

CONFIG = """\
parameters: {w: 0.5, b: {init: 0.5}}
constants: {rate: 0.1}
data: {train: {file: x.csv, columns: {x: x}}}
expression: |
  y = w * x + b
  loss = (y - 2).square().mean()
optimizer: {sgd: {lr: rate}}
steps: 5
sweep: {grid: {rate: [0.1, 0.03], parameters.b.init: [1.0, 2.0]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a sweep of four points, as lanes in this process."""
    found = tmp_path_factory.mktemp("points")
    (found / "x.csv").write_text("x\n1\n2\n3\n")
    (found / "swept.yaml").write_text(CONFIG)
    done = steprun("sweep", "swept.yaml", "--quiet", cwd=found)
    assert (done.code, done.err) == (0, "")
    return found


ONE = "sweeps/swept/latest#1 is one point of a sweep"


def points(folder: Path, command: str, *arguments: str) -> Outcome:
    words = [word.replace("SWEEP", "sweeps/swept/latest") for word in arguments]
    return steprun(command, *words, cwd=folder)


def path_of(folder: Path) -> str:
    (directory,) = (folder / "sweeps" / "swept").iterdir()
    return str(directory.relative_to(folder))


@pytest.mark.parametrize(
    ("command", "words", "shown"),
    [
        ("show", [], "lr"),
        ("validate", [], "config.yaml: valid"),
        ("gradcheck", [], "loss"),
        ("compare", ["--with", "dtype=float64"], "as it is, and with dtype=float64"),
        ("diff", ["SWEEP#2"], "constants.rate"),
        ("diff", ["sweeps/swept#1"], "nothing differs"),
        ("snapshot", ["--uncertainty=0"], "6 rows"),
        ("check", [], "1 holds"),
        ("sweep", ["seed=1,2", "--dry-run"], "2 points"),
    ],
)
def test_a_point_stands_for_a_run_or_its_config(command: str, words: list[str], shown: str, folder: Path) -> None:
    if command == "check":
        assert points(folder, "snapshot", "SWEEP#1", "--uncertainty=0").code == 0
    found = points(folder, command, "SWEEP#1", *words)
    assert found.code in (0, 3), found.err
    assert shown in found.out


def test_a_point_that_runs_again_gives_the_same_rows(folder: Path) -> None:
    assert points(folder, "run", "SWEEP#2", "--quiet").code == 0
    again = points(folder, "diff", "SWEEP#2", "runs/swept/latest")
    assert (again.code, "6 rows, bit for bit: nothing differs" in again.out) == (0, True)
    listed = json.loads(points(folder, "runs", "--json").out)
    assert sorted({each["name"] for each in listed}) == ["swept"]


def test_a_run_stands_for_its_config(folder: Path) -> None:
    points(folder, "run", "SWEEP#3", "--quiet")
    longer = points(folder, "run", "runs/swept/latest", "steps=7", "--json")
    rows = [json.loads(line) for line in longer.out.splitlines()]
    assert (longer.code, len(rows)) == (0, 8)
    assert longer.err.startswith("recorded in runs/swept/")


def test_values_of_a_point_are_those_of_its_weights(folder: Path) -> None:
    found = points(folder, "apply", "SWEEP#1", "--data", "train.file=x.csv", "--values", "y", "--to", "y.csv")
    assert (found.code, found.err) == (0, "3 samples: y.csv\n")
    weights = open_sweep(folder / path_of(folder)).weights(1)
    expected = [float(weights["w"] * x + weights["b"]) for x in (1.0, 2.0, 3.0)]
    assert [float(line) for line in (folder / "y.csv").read_text().split()[1:]] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("command", "name", "message", "hint"),
    [
        ("resume", "SWEEP#1", ONE, "`steprun resume {}` takes the whole sweep"),
        ("results", "SWEEP#1", ONE, "`steprun results {}` takes the whole sweep"),
        ("show", "SWEEP#9", "{} has no point 9", "its points are 0 to 3"),
        ("apply", "SWEEP#9", "{} has no point 9", "its points are 0 to 3"),
        ("check", "SWEEP#9", "{} has no point 9", "its points are 0 to 3"),
        ("plot", "SWEEP", "sweeps/swept/latest is a sweep, not a run", "write `sweeps/swept/latest#0` for its point 0"),
        ("results", "SWEEP --by los", "the table has no column `los`", "did you mean `loss`?"),
        ("show", "SWEEP#x", "there is no file sweeps/swept/latest#x", None),
        ("show", "swept.yaml#1", "there is no file swept.yaml#1", "did you mean `swept.yaml`?"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_point_is_refused(
    command: str, name: str, message: str, hint: str | None, folder: Path
) -> None:
    path = path_of(folder)
    words = [*name.format(path).split(), *(["--values", "loss", "--to", "x.csv"] if command == "apply" else [])]
    found = points(folder, command, *words)
    told = "" if hint is None else f"      = {hint.format(path)}\n"
    assert found == Outcome(2, "", f"steprun\n      {message.format(path)}\n{told}")


def test_a_point_without_best_weights_says_how_it_becomes_a_run(folder: Path) -> None:
    told = points(folder, "apply", "SWEEP#1", "--values", "y", "--to", "-", "--at", "best").err.splitlines()
    name = path_of(folder).removeprefix("sweeps/")
    assert told[-2:] == [
        f"      {name}#1 has no checkpoint `best`",
        "      = a point keeps its last weights alone; `steprun run SWEEP#1` records it as a run",
    ]


@pytest.mark.parametrize("words", ["--columns loss", "--rows full", "--checkpoint-every 2", "--allow-changed-data"])
def test_options_of_a_run_are_refused_for_a_sweep(words: str, folder: Path) -> None:
    found = points(folder, "resume", "SWEEP", *words.split())
    option = words.split()[0]
    message = f"{option} is for a run, and sweeps/swept/latest is a sweep"
    assert found == Outcome(2, "", f"steprun\n      {message}\n      = leave {option} out\n")


def test_results_are_sorted_by_the_last_value_of_a_name_in_both_directions(folder: Path) -> None:
    def losses(*words: str) -> list[float]:
        rows = json.loads(points(folder, "results", "SWEEP", "--json", *words).out)
        return [row["loss.last"] for row in rows]

    assert losses("--by", "loss") == losses("--by", "loss.last") == sorted(losses())
    assert losses("--by", "-loss") == sorted(losses(), reverse=True)
    assert losses("--by", "-loss", "--best", "1") == [max(losses())]
