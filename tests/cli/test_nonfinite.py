"""What goes non-finite on the command line: the code, what is told, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import runner
from tests.cli.commands import steprun, steprun_process

SPRING = """\
parameters: {x: [4.0, 1.5]}
expression: |
  h = log(x)
  loss = h.sum()
optimizer: {sgd: {lr: 1}}
steps: 5
"""
REDUCED = """\
spring.yaml:3:7  expression
    3 |   h = log(x)
      |       ^^^^^^ `h` is nan at [1], from `log(x)`: 1 nan of 2 elements (row 3, repeat[3].train)
      = keep its argument above 0, as with `clamp(min=1e-6)`
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spring.yaml").write_text(SPRING)
    return tmp_path


def only_run(folder: Path) -> Path:
    (manifest,) = folder.glob("runs/*/*/run.json")
    return manifest.parent


def test_a_stop_exits_with_1_and_tells_the_operation(folder: Path) -> None:
    x = torch.nn.Parameter(torch.tensor([4.0, 1.5]))
    optimizer = torch.optim.SGD([x], lr=1)
    finite = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.log(x).sum()
        finite.append(bool(loss.isfinite()))
        loss.backward()
        optimizer.step()
    assert finite[:3] == [True, True, False]
    done = steprun("spring.yaml", "--no-record", cwd=folder)
    assert (done.code, done.err) == (1, REDUCED)
    assert [line for line in done.out.splitlines() if line.startswith("row ")][-1] == "row 3  repeat[3].train"


def test_the_run_directory_opens_and_holds_the_row(folder: Path) -> None:
    done = steprun("spring.yaml", "--quiet", cwd=folder)
    assert (done.code, done.err.partition("recorded until then in ")[2].partition("\n")[2]) == (1, REDUCED)
    run = runner.open_run(only_run(folder))
    assert run.status == "failed"
    assert run.tensor("h")[-1].isnan().tolist() == [False, True]
    assert len(run) == 4
    (problem,) = run.manifest["failure"]["problems"]
    assert problem["message"] == "`h` is nan at [1], from `log(x)`: 1 nan of 2 elements (row 3, repeat[3].train)"
    assert (problem["line"], problem["column"]) == (3, 7)


@pytest.mark.parametrize("options", [(), ("--checkpoint-every", "1"), ("--checkpoint-every", "2")])
@pytest.mark.parametrize("log", ["", "log: {every: 5}\n"])
def test_resuming_ends_in_the_same_place(folder: Path, options: tuple[str, ...], log: str) -> None:
    (folder / "spring.yaml").write_text(SPRING + log)
    first = steprun("spring.yaml", *options, cwd=folder)
    directory = only_run(folder)
    rows = runner.open_run(directory).to_pandas()
    again = steprun("resume", directory, *options, cwd=folder)
    assert (first.code, again.code) == (1, 1)
    assert again.err.splitlines()[2:] == first.err.splitlines()[2:]
    run = runner.open_run(directory)
    assert run.status == "failed"
    assert run.to_pandas().equals(rows)
    assert run.manifest["resumed"][0]["after"] == "failed"


def test_a_failed_run_goes_on_under_another_on_nonfinite(folder: Path) -> None:
    steprun("spring.yaml", "--checkpoint-every", "1", cwd=folder)
    directory = only_run(folder)
    config = directory / "config.yaml"
    config.write_text(config.read_text() + "on_nonfinite: ignore\n")
    again = steprun("resume", directory, cwd=folder)
    assert (again.code, again.err) == (0, "")
    run = runner.open_run(directory)
    assert run.status == "finished"
    assert len(run) > 4


def test_a_warning_goes_to_standard_error_and_into_the_manifest(folder: Path) -> None:
    done = steprun("spring.yaml", "--quiet", "on_nonfinite=warn", cwd=folder)
    said = REDUCED.replace("`h` is", "non-finite: `h` is", 1)
    assert (done.code, done.err) == (0, "warning: " + said)
    run = runner.open_run(only_run(folder))
    assert (run.status, len(run)) == ("finished", 6)
    assert run.manifest["warnings"] == [said.rstrip("\n")]


def test_ignoring_says_nothing(folder: Path) -> None:
    done = steprun("spring.yaml", "--quiet", "on_nonfinite=ignore", "--no-record", cwd=folder)
    assert (done.code, done.err) == (0, "")


def test_rules_of_health_go_to_standard_error_and_into_the_manifest(folder: Path) -> None:
    (folder / "spring.yaml").write_text(SPRING + "health: {exploding_gradient: 0.5}\n")
    done = steprun("spring.yaml", "--quiet", "steps=2", cwd=folder)
    assert done.code == 0
    assert done.err == (
        "warning: spring.yaml:7:10  health.exploding_gradient\n"
        "    7 | health: {exploding_gradient: 0.5}\n"
        "      |          ^^^^^^^^^^^^^^^^^^ exploding-gradient: `x.grad` has the norm 0.712, above 0.5 "
        "(row 1, repeat[1].train)\n"
        "      = clip it (`clip_grad_norm`), or start `x` from smaller values\n"
        "warning: spring.yaml:7:10  health.exploding_gradient\n"
        "    7 | health: {exploding_gradient: 0.5}\n"
        "      |          ^^^^^^^^^^^^^^^^^^ exploding-gradient: it held for `x` in 1 more step\n"
        "      = clip it (`clip_grad_norm`), or start `x` from smaller values\n"
    )
    warnings = runner.open_run(only_run(folder)).manifest["warnings"]
    assert done.err == "".join(f"warning: {warning}\n" for warning in warnings)


@pytest.mark.slow
def test_the_fault_is_there_for_machines(folder: Path) -> None:
    done = steprun_process("spring.yaml", "--no-record", "--quiet", "--format", "json", cwd=folder)
    told = json.loads(done.err)
    assert (done.code, told["error"], told["exit_code"]) == (1, "RunError", 1)
    assert told["problems"][0]["message"].startswith("`h` is nan at [1], from `log(x)`")
