"""`steprun ops` and `steprun schema`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from runner import catalogue
from runner.language import measures
from tests.cli.commands import Outcome, steprun


def ops(*arguments: str) -> Outcome:
    return steprun("ops", *arguments)


def test_ops_lists_every_entry_of_the_catalogue() -> None:
    lines = ops().out.splitlines()
    for table in (catalogue.operations(), catalogue.methods(), catalogue.attributes(), catalogue.measures()):
        for name in table:
            assert any(line == f"  {name}" or line.startswith(f"  {name}(") for line in lines), name
    for name in ("grad", *catalogue.optimizers(), *catalogue.schedules(), *catalogue.initialisers()):
        assert any(line.startswith(f"  {name}(") for line in lines), name


def test_ops_counts_each_group() -> None:
    assert f"operations ({len(catalogue.operations())})" in ops().out.splitlines()


def test_ops_shows_one_operation_under_all_of_its_homes() -> None:
    shown = ops("softmax")
    assert shown.code == 0
    blocks = [block.splitlines() for block in shown.out.split("\n\n")]
    assert [(block[0].partition("(")[0], block[-1]) for block in blocks] == [
        ("F.softmax", "  is torch.nn.functional.softmax"),
        ("torch.softmax", "  is torch.softmax"),
        (".softmax", "  is the tensor's own `softmax`"),
    ]
    assert "(input: Tensor, dim: int, dtype: dtype? = None)" in blocks[1][0]


@pytest.mark.parametrize("name", ["linalg.det", "torch.linalg.det"])
def test_ops_takes_the_names_that_pytorch_code_has(name: str) -> None:
    assert ops(name).out.splitlines()[-1] == "  is torch.linalg.det"


def test_ops_tells_which_arguments_an_optimizer_refuses_and_why() -> None:
    assert "  `capturable` is refused: it is for CUDA graphs" in ops("adam").out


def test_ops_shows_grad_and_the_schedules() -> None:
    assert ops("grad").out.splitlines() == [
        "grad(y: Tensor, x: Tensor|Tensor[])",
        "  is torch.autograd.grad",
        "  the derivative of a `y` of one element, itself differentiable; zeros where `y` is without `x`",
    ]
    assert ops("step_lr").out.splitlines() == [
        "step_lr(lr: float, step_size: int, gamma: float = 0.1)",
        "  is torch.optim.lr_scheduler.StepLR",
        "  is for hyperparameters, and counts the optimizer's steps",
    ]


def test_ops_shows_what_a_pattern_matches() -> None:
    listed = ops("linalg.eig*").out.splitlines()
    assert listed[0] == "operations (4)"
    assert [line.partition("(")[0] for line in listed[1:]] == [
        "  linalg.eig",
        "  linalg.eigh",
        "  linalg.eigvals",
        "  linalg.eigvalsh",
    ]


def test_ops_as_json_names_targets_that_torch_has() -> None:
    for entry in json.loads(ops("--json").out):
        assert set(entry) == {"group", "name", "signatures", "target", "notes"}
        if "." in entry["target"]:
            found = measures if entry["group"] == "metrics" else torch
            for part in entry["target"].removeprefix("runner.language.measures.").removeprefix("torch.").split("."):
                found = getattr(found, part, None)
            assert found is not None or catalogue.absence(entry["name"], torch.__version__), entry["name"]


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("softmx", "there is no operation `softmx`", "did you mean `softmax`?"),
        ("qqqqqq", "there is no operation `qqqqqq`", "`steprun ops` lists all of them"),
        ("qqq*", "no operation matches `qqq*`", "`steprun ops` lists all of them"),
        (
            "torch.empty",
            "`torch.empty` is not available: it would show uninitialised memory; "
            "`zeros` and `full` make tensors of known values",
            "`steprun ops` lists what is",
        ),
    ],
)
def test_ops_suggests_what_was_meant(name: str, message: str, hint: str) -> None:
    assert ops(name) == Outcome(2, "", f"steprun\n      {message}\n      = {hint}\n")


def test_faults_may_be_json() -> None:
    done = ops("softmx", "--format", "json")
    assert (done.code, done.out) == (2, "")
    assert json.loads(done.err) == {
        "error": "UsageError",
        "exit_code": 2,
        "problems": [
            {
                "source": None,
                "line": None,
                "column": None,
                "path": "",
                "message": "there is no operation `softmx`",
                "hint": "did you mean `softmax`?",
            }
        ],
    }


def test_a_reader_that_goes_away_is_no_fault() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "ops"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_schema_is_a_json_schema() -> None:
    done = steprun("schema")
    assert (done.code, done.err) == (0, "")
    schema = json.loads(done.out)
    assert {"parameters", "expression", "steps", "optimizer"} <= set(schema["properties"])
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_schema_may_be_of_another_draft() -> None:
    older, newer = (json.loads(steprun("schema", "--draft", draft).out) for draft in ("7", "2020-12"))
    assert older == json.loads(steprun("schema").out)
    assert newer["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(newer["$defs"]) == set(older["definitions"])
    assert "definitions" not in newer
    message = "there is no draft `4`\n      = write `7` or `2020-12`"
    assert steprun("schema", "--draft", "4") == Outcome(2, "", f"steprun\n      {message}\n")


def test_help_of_schema_shows_the_line_that_editors_read() -> None:
    assert "# yaml-language-server: $schema=steprun.schema.json" in steprun("schema", "--help").out
