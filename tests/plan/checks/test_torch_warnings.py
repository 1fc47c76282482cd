"""torch's own warnings are reported at their place in the config, once, and name no file of steprun."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import runner
from runner.catalogue.versions import absence
from runner.engine.watch import warned
from runner.engine.watch.warned import REPEATED, torch_warnings_placed, warning_again
from runner.errors import HealthWarning
from runner.language.text.faults import Place
from tests.tables import over

PARAMETERS = "parameters: {x: {shape: [2, 2], init: [[2.0, 0.5], [0.5, 1.0]]}}\n"
STEPS = "steps: [backward]\non_nonfinite: ignore\n"

SAID = "too few values: the result is NaN or infinite"

PLACES: dict[str, tuple[str, str, int]] = {
    "an expression": (f"{PARAMETERS}expression: f = x.sum() + x[0, :1].std()\n{STEPS}", "expression", 2),
    "a metric": (f"{PARAMETERS}expression: f = x.sum()\nmetrics: {{m: 'x[0, :1].std()'}}\n{STEPS}", "metrics.m", 3),
    "a function": (
        f"{PARAMETERS}functions: {{s(a): 'a[0, :1].std()'}}\nexpression: f = x.sum() + s(x)\n{STEPS}",
        "functions.s(a)",
        2,
    ),
    "a condition": (
        f"{PARAMETERS}expression: f = x.sum()\non_nonfinite: ignore\n"
        "steps:\n  - backward:\n    when: x[0, :1].std() < 1\n",
        "steps.0.when",
        6,
    ),
    "an initial value": (
        f"{PARAMETERS}constants: {{c: {{init: {{expression: 'x[0, :1].std()'}}}}}}\n"
        f"expression: f = x.sum() * c\n{STEPS}",
        "constants.c.init.expression",
        2,
    ),
    "a rule": (
        f"{PARAMETERS}expression: f = x.sum()\n"
        "optimizer: {rule: {update: 'param = param - grad + 0 * param[0, :1].std().nan_to_num()'}}\n"
        "steps: [train]\n",
        "optimizer.rule.update",
        3,
    ),
}


@over("text, path, line", PLACES.values())
def test_a_warning_of_torch_is_reported_at_its_operation(text: str, path: str, line: int) -> None:
    with warnings.catch_warnings(record=True) as written:
        warnings.simplefilter("default")
        plan = runner.compile(runner.loads(text))
        list(runner.execute(plan))
    assert [str(each.message) for each in written] == []
    (warning,) = plan.warnings
    assert (warning.path, warning.line) == (path, line)
    assert SAID in warning.message
    assert "Triggered internally" not in warning.message
    assert warning.hint


@pytest.mark.skipif(absence("torch.cholesky", torch.__version__) is not None, reason="this torch warns of no operation")
def test_what_torch_warns_of_once_in_a_process_is_reported_of_every_plan() -> None:
    text = f"{PARAMETERS}expression: f = torch.cholesky(x).sum()\n{STEPS}"
    first, second = (runner.compile(runner.loads(text)).warnings for _ in range(2))
    assert len(first) == 1
    assert "deprecated" in first[0].message
    assert second == first
    assert not torch.is_warn_always_enabled()


def test_a_loss_that_broadcasts_has_the_warning_with_both_shapes_alone() -> None:
    text = "parameters: {x: {shape: [6, 1], init: ones}}\nconstants: {y: {shape: [6], init: ones}}\n"
    plan = runner.compile(runner.loads(f"{text}expression: f = mse_loss(x, y)\nsteps: [backward]\n"))
    (warning,) = plan.warnings
    assert "broadcasts to every pair" in warning.message


def test_a_loss_of_other_shapes_has_torchs_own_warning() -> None:
    text = "parameters: {x: {shape: [3, 2], init: ones}}\nconstants: {y: {shape: [2], init: ones}}\n"
    plan = runner.compile(runner.loads(f"{text}expression: f = mse_loss(x, y)\nsteps: [backward]\n"))
    (warning,) = plan.warnings
    assert "Using a target size" in warning.message
    assert warning.line == 3


FIVE = """\
parameters: {{w: 1.0}}
data: {{d: {{columns: {{x: x.npy}}, batch_size: 2, drop_last: {drop}}}}}
expression: loss = (w * x).square().mean()
metrics:
  s: {metric}
optimizer: {{sgd: {{lr: 0.1}}}}
steps: [{{for_each: {{data: d, epochs: 1, steps: [{step}]}}}}{more}]
on_nonfinite: ignore
"""
SHORT: dict[str, tuple[dict[str, str], list[tuple[str, str]]]] = {
    "accumulated without the shorter batch": ({"drop": "true", "step": "{train: {accumulate: 2}}"}, []),
    "trained without the shorter batch": ({"drop": "true"}, []),
    "trained with it": (
        {"drop": "false"},
        [(", with a batch of 1 of `d`", "write `drop_last: true` for `d`, which leaves its last batch out")],
    ),
    "evaluated, which drops nothing": (
        {"drop": "true", "more": ", {evaluate: d}"},
        [
            (
                ", with a batch of 1 of `d` in `evaluate`",
                "choose a `batch_size` for `d` without a shorter last batch, or leave it out",
            )
        ],
    ),
    "any batch": (
        {"drop": "true", "metric": "x[:1].std()", "more": ", {evaluate: d}"},
        [("", "give it more values, or write `correction=0`")],
    ),
}


@over("case", SHORT)
def test_a_batch_that_is_too_short_is_named(case: str, tmp_path: Path) -> None:
    keys, expected = SHORT[case]
    numpy.save(tmp_path / "x.npy", numpy.arange(5.0))
    text = FIVE.format(**{"metric": "x.std()", "step": "train", "more": "", **keys})
    warned = runner.compile(runner.loads(text, base=str(tmp_path))).warnings
    operation = keys.get("metric", "x.std()")
    assert [(each.path, each.message, each.hint) for each in warned if SAID in each.message] == [
        ("metrics.s", f"`{operation}`: {SAID}{when}", hint) for when, hint in expected
    ]


def test_what_only_a_run_computes_is_reported_and_recorded_at_its_operation(tmp_path: Path) -> None:
    numpy.save(tmp_path / "x.npy", numpy.array([1.0, 2.0, -20.0, -30.0, 5.0]))
    (tmp_path / "run.yaml").write_text(FIVE.format(drop="true", metric="x[x > -9].std()", step="train", more=""))
    with warnings.catch_warnings(record=True) as written:
        warnings.simplefilter("default")
        run = runner.run(tmp_path / "run.yaml", runs_dir=tmp_path)
    assert [each.category for each in written] == [HealthWarning]
    told = f" {SAID}\n      = give it more values, or write `correction=0`"
    assert str(written[0].message).rpartition("^")[2] == told
    assert run.manifest["warnings"] == [str(written[0].message)]


STRIDED = """\
parameters: {w: 1.0}
constants: {edges: [0.0, 2.0, 4.0]}
data: {d: {columns: {x: x.npy}, batch_size: 2}}
expression: loss = (w * x).square().mean()
metrics:
  s: searchsorted(edges, x[x[:, 0] > 0].t()).sum()
  t: bucketize(x[x[:, 0] > 0].t(), edges).sum()
optimizer: {sgd: {lr: 0.1}}
steps: [{for_each: {data: d, epochs: 2, steps: [train]}}]
"""
SLOW = (
    "torch.searchsorted(): input value tensor is non-contiguous, this will lower the performance due to extra data "
    "copy when converting non-contiguous tensor to contiguous, please use contiguous input value tensor if possible"
)


def test_what_torch_warns_of_once_in_a_process_is_reported_at_each_place_of_each_run(tmp_path: Path) -> None:
    """One row of a matrix is contiguous when transposed, and two are not: only the second batch warns."""
    numpy.save(tmp_path / "x.npy", numpy.array([[1.0, 2.0], [-1.0, 3.0], [3.0, 4.0], [1.0, 5.0]]))
    (tmp_path / "run.yaml").write_text(STRIDED)
    assert runner.compile(runner.load(tmp_path / "run.yaml")).warnings == ()
    for _ in range(2):
        with pytest.warns(HealthWarning) as written:
            run = runner.run(tmp_path / "run.yaml", runs_dir=tmp_path)
        told = [str(each.message) for each in written]
        assert run.manifest["warnings"] == told
        assert [text.split(":")[1] for text in told] == ["6", "7"]
        assert [text.rpartition("^ ")[2] for text in told] == [
            f"{SLOW}\n      = change its operands, or use another operation"
        ] * 2
    assert not torch.is_warn_always_enabled()


def test_rows_after_the_first_ones_repeat_no_warning_of_torch() -> None:
    repeated = [torch.is_warn_always_enabled() for _ in warning_again(range(REPEATED + 2))]
    assert repeated == [True] * REPEATED + [False] * 2


def test_a_run_that_is_interrupted_leaves_the_warnings_of_torch_as_they_were() -> None:
    plan = runner.compile(runner.loads(f"{PARAMETERS}expression: f = x.sum()\n{STEPS}"))
    rows = warning_again(range(3))
    with torch_warnings_placed(plan, print):
        next(rows)
        assert torch.is_warn_always_enabled()
    assert not torch.is_warn_always_enabled()


def test_one_line_of_torch_is_reported_at_each_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of a warning of `torch.nn.functional` is the same for two operations of a config."""
    plan = runner.compile(runner.loads(f"{PARAMETERS}expression: |\n  a = x.sum()\n  f = a + x.mean()\n{STEPS}"))
    names: dict[str, Any] = {"warnings": warnings, "__name__": "torch.nn.functional"}
    exec("def warn(): warnings.warn('slow', UserWarning)", names)
    places = iter([(Place(1, 4, 7), None), (Place(2, 8, 8), None)] * 2)
    monkeypatch.setattr(warned, "running_place", lambda frame: next(places))
    found: list[str] = []
    with warnings.catch_warnings():
        warnings.resetwarnings()
        with torch_warnings_placed(plan, lambda problem: found.append(f"{problem.line}: {problem.message}")):
            for _ in range(4):
                names["warn"]()
    assert found == ["3: slow", "4: slow"]
