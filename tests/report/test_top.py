"""The top of a page and its story: formula, checks, updates as arithmetic, and what is known of a failure."""

from __future__ import annotations

import html
import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import runner
from runner.report.run.sections import report_of_run
from runner.sweep.record.reading import open_sweep
from tests.cli.commands import steprun
from tests.report.runs import LINEAR, change, data_of, record
from tests.report.sweeps import record_sweep

CLASSIFIER = """\
seed: 3
parameters: {w: {shape: [1, 2], init: [[2.0, -2.0]]}}
data: {train: {file: points.csv, columns: {x: x, y: y}, dtype: {x: float32, y: int64}, batch_size: 2}}
expression: |
  scores = x.unsqueeze(1) @ w
  probabilities = exp(scores) / exp(scores).sum(1, keepdim=True)
  loss = -(one_hot(y, 2) * log(probabilities)).sum(1).mean()
optimizer: {sgd: {lr: 0.01}}
steps: [{for_each: {data: train, epochs: 3, steps: [train]}}]
"""


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner.run(LINEAR, runs_dir=tmp_path_factory.mktemp("linear") / "runs").path


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose probabilities become 0, and the folder of its data."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "points.csv").write_text("x,y\n1,0\n2,0\n3,1\n4,0\n30,1\n", encoding="utf-8")
    return record(CLASSIFIER, folder, allowed=[folder], fails=True), folder


def story(run: Path, *allowed: Path) -> dict[str, str]:
    """The names and the texts of the lists at the top of a page."""
    head = str(report_of_run(run, allowed).head)
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", head, re.DOTALL)
    return {name: html.unescape(re.sub(r"<.*?>", "", value)) for name, value in pairs}


def test_a_run_of_scalars_begins_with_its_formula_its_start_and_the_verdict_of_its_checks(linear: Path) -> None:
    found = story(linear)
    assert found["formula"] == "f = 10 * x1 + 20 * x2 + constant * x3"
    assert found["starts at"] == "x1 = [100], x2 = [200], x3 = [300]"
    assert found["constants"] == "constant = [30], learning_rate = 0.01"
    assert found["optimizer"] == "sgd, lr 0.01: w ← w − lr · w.grad"
    assert found["f"] == "14000 in row 1, 13986 in row 3"  # 10·100 + 20·200 + 30·300, and after the step
    assert found["checks"] == "3 checks passed"
    report = report_of_run(linear)
    assert [section.name for section in report.sections][:2] == ["steps", "curves"]
    assert (report.opens_at, report.shared["at"]) == (None, 0)


def test_the_steps_of_a_run_of_scalars_have_their_arithmetic_their_checks_and_the_constant(linear: Path) -> None:
    data = data_of(linear, "steps")
    stored = [float(numpy.float32(100) - numpy.float32(0.01) * numpy.float32(10))]
    assert (
        data["sums"][2][0] == f"`x1 ← x1 − lr · x1.grad` = 100 − 0.01 × 10 = 99.9, rounded to float32: {stored[0]:.9g}"
    )
    assert data["sums"][3] == [
        f"`{name}.grad ← {name}.grad + ∂` = {slope} + {slope} = {2 * slope}"
        for name, slope in (("x1", 10), ("x2", 20), ("x3", 30))
    ]
    assert [len(each) for each in data["sums"]] == [0, 0, 3, 3]
    assert [line["text"] for line in data["program"]] == [
        "start: the initial weights",
        "backward f",
        "expect x1.grad = 10, x2.grad = 20, x3.grad = 30, constant.grad = none",
        "step with optimizer (sgd)",
        "expect x1 = 99.9, x2 = 199.8, x3 = 299.7, when `learning_rate == 0.01`",
        "backward f",
        "expect x1.grad = 20, x2.grad = 40, x3.grad = 60",
    ]
    assert [line.get("verdict") for line in data["program"]] == [
        None,
        None,
        "✓ passed",
        None,
        "✓ passed",
        None,
        "✓ passed",
    ]
    constant = next(each for each in data["tensors"] if each["name"] == "constant")
    assert constant["values"] == ["[30]"] * 4
    place = [node["label"] for node in data["graphs"][0]["nodes"]].index("constant")
    assert [flow[place][0] for flow in data["graphs"][0]["flows"]] == ["[30]"] * 4


def test_an_optimizer_step_shows_what_is_left_in_grad_and_no_gradient_of_its_own(linear: Path) -> None:
    (graph,) = data_of(linear, "steps")["graphs"]
    place = [node["label"] for node in graph["nodes"]].index("x1")
    assert [flow[place][1] for flow in graph["flows"]] == [None, "[10]", ".grad [10]", "[10]"]
    assert graph["states"][2] == (
        "Values of this row as the log has them; this step computes no gradients of inner operations. "
        "`.grad` of a weight is what earlier steps left there."
    )


CHECKED = """\
parameters: {x: 1.0}
constants: {rate: 0.5}
expression: f = x * x
optimizer: {sgd: {lr: rate}}
steps:
  - {expect: {x: 1}, when: rate > 1}
  - backward
  - expect: {x.grad: GRADIENT}
  - step
  - {expect: {x: 0}, when: x < 1}
"""


def test_a_check_is_passed_failed_not_reached_or_passed_over(tmp_path: Path) -> None:
    run = record(CHECKED.replace("GRADIENT", "2"), tmp_path / "right")
    verdicts = [line["verdict"] for line in data_of(run, "steps")["program"] if "verdict" in line]
    assert verdicts == ["its condition did not hold", "✓ passed", "passed, or its condition did not hold"]
    assert story(run)["checks"] == (
        "1 of 3 checks passed; 1 its condition did not hold; 1 passed, or its condition did not hold"
    )
    run = record(CHECKED.replace("GRADIENT", "3"), tmp_path / "wrong", fails=True)
    verdicts = [line["verdict"] for line in data_of(run, "steps")["program"] if "verdict" in line]
    assert verdicts == ["its condition did not hold", "✗ failed", "not reached"]


def test_a_failed_run_says_where_when_why_and_how_to_go_on(failed: tuple[Path, Path]) -> None:
    run, folder = failed
    found = story(run, folder)
    last = max(row.number for row in runner.open_run(run))
    assert found["where"] == f"{folder}/config.yaml:7:28; line 8 of the config below"
    words = "iteration 3 of 9, epoch 1 of 3, batch 3 of 3"
    assert found["when"] == f"row {last}, for_each[3].train: {words}; step by step"
    assert found["origin"].startswith("probabilities ")
    assert re.search(r"→ log .*(inf|infinite).* → loss ", found["origin"])
    assert list(found)[list(found).index("origin") + 1] == "probabilities before it"
    before = float(runner.open_run(run).values("loss")[last - 1])
    assert found["last finite row"] == f"row {last - 1}: loss {before:.6g}"
    assert found["weights"] == (
        "the log (rows/) has them in each of its rows; "
        "there is no checkpoint; steprun run --checkpoint-every ROWS saves some"
    )
    assert found["go on"] == (
        f"steprun resume runs/{run.parent.name}/{run.name} begins at row 0; "
        "the same numbers come again, so it ends in the same place"
    )
    assert found["data train"] == "5 samples, 3 batches of 2, the last of 1"
    config = str(next(section.text for section in report_of_run(run, [folder]).sections if section.name == "config"))
    (marked,) = re.findall(r'<li id="config-\d+" class="set"><code>(.*?)</code>', config)
    assert "log(probabilities)" in html.unescape(marked)


def test_the_graph_marks_where_numbers_stop_being_finite_and_what_that_is_computed_from(
    failed: tuple[Path, Path],
) -> None:
    run, folder = failed
    (graph,) = data_of(run, "steps", folder)["graphs"]
    labels = [node["name"] or node["label"] for node in graph["nodes"]]
    marks = {labels[int(place)]: mark for place, mark in graph["marks"][-1].items()}
    assert marks == {"log": "origin", "probabilities": "cause"}
    assert graph["marks"][1:-1] == [None] * (len(graph["marks"]) - 2)


def test_a_shorter_batch_has_inner_values_and_shapes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x,y\n1,0\n2,0\n3,1\n4,0\n5,1\n", encoding="utf-8")
    run = record(CLASSIFIER.replace("lr: 0.01", "lr: 0.001"), tmp_path, allowed=[tmp_path])
    (graph,) = data_of(run, "steps", tmp_path)["graphs"]
    place = [node["name"] for node in graph["nodes"]].index("scores")
    assert graph["nodes"][place]["shape"] == "(2, 2) float32"
    value, _, shape = graph["flows"][3][place]
    assert shape == "(1, 2) float32"
    weights = runner.open_run(run).values("w")[2]
    assert value == f"[[{5 * weights[0, 0]:.6g}, {5 * weights[0, 1]:.6g}]]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "origin"),
    [
        ("loss = sqrt(w - 1).sum()", "`sqrt`"),  # its derivative is infinite at 0, its value is 0
        ("loss = (w - 3).log().sum()", "`log`"),
    ],
)
def test_the_origin_of_a_derivative_that_is_not_finite_is_the_operation(
    tmp_path: Path, config: str, origin: str
) -> None:
    text = f"parameters: {{w: {{shape: [2], init: ones}}}}\nexpression: {config}\nsteps: [backward]\n"
    (graph,) = data_of(record(text, tmp_path, fails=True), "steps")["graphs"]
    (place,) = [int(place) for place, mark in graph["marks"][-1].items() if mark == "origin"]
    assert f"`{graph['nodes'][place]['label']}`" == origin


def test_a_failure_that_is_no_number_says_nothing_of_numbers(linear: Path, tmp_path: Path) -> None:
    run = tmp_path / "linear" / "stopped"
    shutil.copytree(linear, run)
    change(run, status="failed", failure={"error": "RunError", "problems": [{"message": "no space left"}]})
    found = story(run)
    assert "origin" not in found
    assert found["last row"] == "row 3: f 13986"
    assert found["go on"] == f"steprun resume {tmp_path.name}/linear/stopped begins at row 0"


def test_the_command_that_goes_on_can_be_pasted_where_a_folder_has_a_space(linear: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run's" / "stopped"
    shutil.copytree(linear, run)
    change(run, status="failed", failure={"error": "RunError", "problems": [{"message": "no space left"}]})
    command = story(run)["go on"].removesuffix(" begins at row 0")
    assert shlex.split(command) == ["steprun", "resume", f"{tmp_path.name}/my run's/stopped"]


@pytest.mark.slow
def test_a_point_that_failed_names_the_commands_of_its_sweep(tmp_path: Path) -> None:
    sweep = record_sweep(tmp_path)
    path = open_sweep(sweep).run(8).path
    found = story(path)
    named = "/".join(sweep.parts[-3:])
    assert found["run it again"] == f"steprun run {named}#8"
    assert found["go on"] == f"steprun resume {named} --retry failed runs the points that failed"
    moved = sweep.rename(sweep.with_name("it's one"))
    found = story(moved / path.relative_to(sweep))
    named = f"{'/'.join(sweep.parts[-3:-1])}/it's one"
    assert shlex.split(found["run it again"]) == ["steprun", "run", f"{named}#8"]
    assert shlex.split(found["go on"])[:5] == ["steprun", "resume", named, "--retry", "failed"]
    sweep = moved
    again = steprun("run", f"{sweep}#8", "--quiet", cwd=tmp_path)
    assert again.code == 1
    assert "`loss` is inf" in again.err


def test_a_number_that_stops_being_finite_shows_both_values(failed: tuple[Path, Path]) -> None:
    run, folder = failed
    loss = next(each for each in data_of(run, "steps", folder)["tensors"] if each["name"] == "loss")
    assert loss["by"][0] is None
    assert loss["by"][1] == "new"
    assert re.fullmatch(r"[\d.e+-]+ → (nan|inf)", loss["by"][-1])


def test_the_ratio_is_blank_where_nothing_was_updated_and_zero_where_one_weight_stays(tmp_path: Path) -> None:
    config = """\
parameters: {a: {shape: [2], init: ones}, b: {shape: [2], init: ones}}
expression: loss = (a * a).sum() + 0 * b.sum()
optimizer: {sgd: {lr: 0.1}}
steps: [backward, step]
"""
    maps = data_of(record(config, tmp_path), "norms")["maps"]
    ratio = next(each for each in maps if each["title"] == "Update-to-weight ratio")
    lines = dict(zip(ratio["names"], ratio["values"].reshape(2, -1).tolist(), strict=True))
    assert (
        [math.isnan(value) for value in lines["a"]]
        == [math.isnan(value) for value in lines["b"]]
        == [True, True, False]
    )
    assert lines["a"][2] == pytest.approx(0.2, rel=1e-6)  # a = 1 and its gradient 2, so it loses 0.1 · 2
    assert lines["b"][2] == 0


def test_a_distribution_counts_what_is_not_finite(failed: tuple[Path, Path]) -> None:
    run, folder = failed
    (weight, *_) = data_of(run, "distributions", folder)["tensors"]
    last = runner.open_run(run).values("w")[-1]
    assert weight["broken"][-1] == int((~torch.as_tensor(last).isfinite()).sum())
    assert weight["broken"][0] == 0


def curve_of(run: Path, name: str) -> dict[str, Any]:
    return next(each for each in data_of(run, "curves")["curves"] if each["name"] == name)


def test_a_curve_names_its_extremes_with_their_rows(linear: Path) -> None:
    curve = curve_of(linear, "f")
    assert curve["range"] == "least 13986 in row 3, largest 14000 in row 1"
    assert curve["thinned"] is False


def test_a_number_stands_on_its_side_of_an_operator(tmp_path: Path) -> None:
    expression = "y = (1 - w) + (w - 3) + 5 / w + w / 7 + sum(stack([w, w]), 0)"
    config = f"parameters: {{w: 2.0}}\nexpression: {expression}\nsteps: [forward]\n"
    (graph,) = data_of(record(config, tmp_path), "steps")["graphs"]
    labels = {node["label"] for node in graph["nodes"]}
    assert {"1 −", "− 3", "5 ÷", "÷ 7", "sum(·, 0)"} <= labels
