"""Small mutations of training configs: the verdict names the step, the tensor and the cause of each.

The expected places follow from what is mutated: a value shows in the first `backward`, an initial value in `start`, an
optimizer in the first step that its option matters to.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import runner
from runner.compare.numbers.tolerances import BY_DTYPE, Tolerances
from runner.compare.rows.causes import causes
from runner.compare.rows.report import report
from runner.compare.rows.results import Verdict
from runner.compare.rows.verdict import align, compare
from runner.engine.rows import Row
from runner.plan import Plan

MODEL = """\
parameters:
  w1: {shape: [4, 6], init: {normal: {std: 0.5}}}
  b1: {shape: [6], init: {normal: {std: 0.1}}}
  w2: {shape: [6, 1], init: {normal: {std: 0.5}}}
  b2: {shape: [1], init: 0.1}
constants:
  x: {shape: [8, 4], init: {normal: {}}}
  y: {shape: [8, 1], init: {normal: {}}}
  decay: 0.01
expression: |
  z = x @ w1 + b1
  h = tanh(z)
  p = h @ w2 + b2
  residual = p - y
  fit = residual.square().mean()
  penalty = decay * (w1.square().sum() + b1.square().sum())
  loss = fit + penalty
on_nonfinite: ignore  # some faults are a NaN
optimizer: {adam: {lr: 0.01}}
steps:
  - repeat:
      times: 20
      steps:
        - zero_grad
        - backward
        - step
"""
SGD = MODEL.replace("{adam: {lr: 0.01}}", "{sgd: {lr: 0.05, momentum: 0.9}}")
RMSPROP = MODEL.replace("{adam: {lr: 0.01}}", "{rmsprop: {lr: 0.01}}")
RULE = MODEL.replace(
    "{adam: {lr: 0.01}}", '{rule: {state: {m: 0}, update: "m = 0.9 * m + grad\\nparam = param - 0.01 * m"}}'
)
SCHEDULED = MODEL.replace("lr: 0.01", 'lr: "0.01 * 0.5 ** ((t - 1) // 5)"').replace("adam", "sgd")
DROPPED = MODEL.replace("h = tanh(z)", "h = dropout(tanh(z), 0.5, training)")
HALVED = MODEL.replace("lr: 0.01", "lr: 0.01, betas: [0.5, 0.999]")
"""Powers of two go out of the first step without rounding: the second shows another one first, on any processor."""
TRAIN = MODEL[: MODEL.index("steps:")] + "steps: 20\n"
SQUARE = """\
parameters: {m: {shape: [3, 3], init: {expression: "arange(9).reshape(3, 3) / 9"}}}
expression: f = (m @ m).sum()
steps: [backward]
"""
NORMALISED = MODEL.replace("h = tanh(z)", "h = layer_norm(z, [6], eps=1e-5)")

START, FIRST, SECOND = "start", "repeat[1].2.backward", "repeat[1].3.step"


@dataclass(frozen=True)
class Fault:
    """One mutation, and what the verdict has to say of it."""

    name: str
    base: str
    old: str
    new: str
    path: str  # of the first row that differs
    tensor: str
    cause: str


FAULTS = [
    # the expression
    Fault("one coefficient", MODEL, "x @ w1", "1.001 * (x @ w1)", FIRST, "z", "`z` differs before `loss` does"),
    Fault("a sign", MODEL, "w1 + b1\n", "w1 - b1\n", FIRST, "z", "look at the expression of `z`"),
    Fault("another activation", MODEL, "tanh(z)", "relu(z)", FIRST, "h", "`h` differs before `loss` does"),
    Fault("the activation is missing", MODEL, "tanh(z)", "z", FIRST, "h", "`z`, `penalty` are bit-equal"),
    Fault("swapped operands", MODEL, "p - y", "y - p", FIRST, "residual", "is the expected one with the other sign"),
    Fault("sum for mean", MODEL, ".mean()", ".sum()", FIRST, "fit", "`fit` is 8 × the expected one"),
    Fault("absolute for square", MODEL, "residual.square()", "residual.abs()", FIRST, "fit",
          "`fit` differs before `loss`"),
    Fault("a doubled constant", MODEL, "decay: 0.01", "decay: 0.02", FIRST, "penalty",
          "`penalty` is 2 × the expected one"),
    Fault("minus for plus", MODEL, "fit + penalty", "fit - penalty", FIRST, "loss",
          "the weights match and `loss` differs"),
    Fault("a clamp", MODEL, "tanh(z)", "tanh(z).clamp(max=0.5)", FIRST, "h", "look at the expression of `h`"),
    Fault("a detached value", MODEL, "p = h @", "p = h.detach() @", FIRST, "w1.grad",
          "values and other gradients bit-equal"),
    Fault("half precision on the way", MODEL, "x @ w1", "x.to(bfloat16).to(float32) @ w1", FIRST, "z",
          "`z` differs before"),
    Fault("another epsilon", NORMALISED, "1e-5", "1e-6", FIRST, "h", "`h` differs before `loss` does"),
    Fault("another order of a sum", MODEL, "w1.square().sum()", "w1.T.square().sum(1).flip(0).sum()", FIRST,
          "penalty", "the weights match and `penalty` differs"),
    Fault("nan in a value", MODEL, "tanh(z)", "tanh(z) + log(-z.square()).sum()", FIRST, "h",
          "`h` is NaN in 48 of 48"),
    Fault("nan in a gradient", MODEL, "tanh(z)", "tanh(z) + 0 * sqrt(z - z)", FIRST, "w1.grad",
          "`w1.grad` is NaN in 24 of 24"),
    Fault("a target that moved", MODEL, "y: {shape: [8, 1], init: {normal: {}}}", "y: {shape: [8, 1], init: 0}",
          FIRST, "residual", "`residual` differs before `loss` does"),
    Fault("an input that moved", MODEL, "x: {shape: [8, 4], init: {normal: {}}}",
          "x: {shape: [8, 4], init: {normal: {std: 1.1}}}", FIRST, "z", "`z` differs before `loss` does"),
    Fault("another random draw", DROPPED, "dropout(tanh(z), 0.5", "dropout(tanh(z), 0.4", FIRST, "h",
          "it may also be a random draw"),
    # initial values
    Fault("a wider init", MODEL, "[4, 6], init: {normal: {std: 0.5}}", "[4, 6], init: {normal: {std: 0.51}}", START,
          "w1", "the initial values of `w1` differ"),
    Fault("zeros for numbers", MODEL, "b1: {shape: [6], init: {normal: {std: 0.1}}}", "b1: {shape: [6], init: zeros}",
          START, "b1", "`b1` is zero"),
    Fault("another constant", MODEL, "b2: {shape: [1], init: 0.1}", "b2: {shape: [1], init: 0.2}", START, "b2",
          "`b2` is 2 × the"),
    Fault("a transposed init", SQUARE, "reshape(3, 3) / 9", "reshape(3, 3).T / 9", START, "m",
          "`m` is the expected one, transposed"),
    Fault("another seed", MODEL, "parameters:", "seed: 1\nparameters:", START, "w1",
          "the initial values of `w1`, `b1`, `w2` differ"),
    Fault("another distribution", MODEL, "w2: {shape: [6, 1], init: {normal: {std: 0.5}}}",
          "w2: {shape: [6, 1], init: {uniform: {}}}", START, "w2", "look at their `init`, the seed and the files"),
    # the steps
    Fault("a missing zero_grad", MODEL, "        - zero_grad\n", "", "repeat[2].2.backward", "w1.grad",
          "still contains the gradient of the previous row: a `zero_grad` is missing"),
    Fault("a new zero_grad", MODEL.replace("        - zero_grad\n", ""), "        - backward\n",
          "        - zero_grad\n        - backward\n", "repeat[2].1.backward", "w1.grad",
          "no longer contains the gradient of the previous row: a `zero_grad` is new"),
    Fault("zeros for none", MODEL, "- zero_grad", "- zero_grad: {set_to_none: false}", "repeat[2].1.zero_grad",
          "w1.grad", "where none was expected"),
    Fault("another objective", MODEL, "- backward", "- backward: fit", FIRST, "w1.grad",
          "values and other gradients bit-equal"),
    Fault("backward twice", MODEL, "        - step\n", "        - backward\n        - step\n", SECOND, "w1.grad",
          "`w1.grad` is 2 × the"),
    Fault("clipped gradients", MODEL, "        - step\n", "        - clip_grad_value: 0.1\n        - step\n", SECOND,
          "w1.grad", "nothing is computed in `repeat[1].3.step`"),
    Fault("clipped in train", TRAIN, "steps: 20",
          "steps: [{repeat: {times: 20, steps: [{train: {clip_grad_value: 0.1}}]}}]", "1.repeat[1].train", "w1.grad",
          "look at `backward` and what follows it"),
    # the optimizer
    Fault("another learning rate", MODEL, "lr: 0.01", "lr: 0.011", SECOND, "w1",
          "the update is 1.1 × the expected one"),
    Fault("less momentum", SGD, "momentum: 0.9", "momentum: 0.8", "repeat[2].3.step", "w1",
          "gradients bit-equal, update"),
    Fault("dampening", SGD, "momentum: 0.9", "momentum: 0.9, dampening: 0.1", "repeat[2].3.step", "w1",
          "gradients bit-equal, update"),
    Fault("nesterov", SGD, "momentum: 0.9", "momentum: 0.9, nesterov: true", SECOND, "w1",
          "the update is 1.9 × the expected one"),
    Fault("weight decay", SGD, "momentum: 0.9", "momentum: 0.9, weight_decay: 0.1", SECOND, "w1",
          "-0.005 × the weight itself"),
    Fault("no momentum", SGD, ", momentum: 0.9", "", "repeat[2].3.step", "w1", "look at the optimizer"),
    Fault("another epsilon of adam", MODEL, "lr: 0.01", "lr: 0.01, eps: 1e-4", SECOND, "w1",
          "gradients bit-equal, update"),
    Fault("another beta of adam", HALVED, "[0.5, 0.999]", "[0.75, 0.999]", "repeat[2].3.step", "w1",
          "look at the optimizer"),
    Fault("adamw for adam", MODEL, "adam:", "adamw:", SECOND, "w1", "as weight decay does"),
    Fault("sgd for adam", MODEL, "adam:", "sgd:", SECOND, "w1",
          "gradients bit-equal, update of `w1`, `b1`, `w2`, `b2` differs"),
    Fault("uphill", MODEL, "lr: 0.01", "lr: 0.01, maximize: true", SECOND, "w1",
          "the update is -1 × the expected one"),
    Fault("another alpha of rmsprop", RMSPROP, "lr: 0.01", "lr: 0.01, alpha: 0.9", SECOND, "w1",
          "the update is 0.31623 × the"),
    Fault("a parameter left out", MODEL, "{adam: {lr: 0.01}}", "{adam: {lr: 0.01}, parameters: [w1, b1, w2]}", SECOND,
          "b2", "there was no update"),
    Fault("a group of its own", MODEL, "{adam: {lr: 0.01}}",
          "{adam: {lr: 0.01}, groups: [{parameters: [b1], lr: 0.02}]}", SECOND, "b1",
          "the update is 2 × the expected one"),
    Fault("a coefficient of a rule", RULE, "0.9 * m", "0.8 * m", "repeat[2].3.step", "w1",
          "gradients bit-equal, update"),
    Fault("a sign in a rule", RULE, "param - 0.01", "param + 0.01", SECOND, "w1",
          "the update is -1 × the expected one"),
    Fault("a schedule one step early", SCHEDULED, "(t - 1) // 5", "t // 5", "repeat[5].3.step", "w1",
          "the update is 1/2 × the"),
]  # fmt: skip


@functools.cache
def plan_of(text: str) -> Plan:
    return runner.compile(runner.loads(text))


def verdict_on(fault: Fault, tolerances: Tolerances | None = None) -> Verdict:
    assert fault.base.count(fault.old), fault.name
    expected = plan_of(fault.base)
    found = runner.compile(runner.loads(fault.base.replace(fault.old, fault.new, 1)))
    pairs = align(runner.execute(found), runner.execute(expected))
    return compare(pairs, found.columns, expected.columns, tolerances or Tolerances())


def named_in(verdict: Verdict, fault: Fault) -> None:
    assert verdict.first_difference is not None, fault.name
    told = causes(verdict.first_difference, draws=("a random draw",) if "dropout" in fault.base else ())
    first = verdict.first_difference.divergences[0]
    assert (verdict.first_difference.place.path.removeprefix("1."), first.column.name) == (
        fault.path.removeprefix("1."),
        fault.tensor,
    )
    assert fault.cause in "\n".join(told)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_verdict_names_step_tensor_and_cause(fault: Fault) -> None:
    named_in(verdict_on(fault), fault)


SMALLEST = ("another order of a sum", "another epsilon", "half precision on the way")
"""Faults that begin no larger than what another machine may do, or hardly."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.name not in SMALLEST], ids=lambda fault: fault.name.replace(" ", "-")
)
def test_a_fault_larger_than_rounding_is_seen_under_the_tolerance_of_the_dtype_too(fault: Fault) -> None:
    verdict = verdict_on(fault, Tolerances(BY_DTYPE))
    assert verdict.first_difference is not None
    assert (
        verdict.first_difference.place.path.removeprefix("1."),
        verdict.first_difference.divergences[0].column.name,
    ) == (
        fault.path.removeprefix("1."),
        fault.tensor,
    )


def test_a_value_that_is_no_longer_computed_is_told_first() -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "another objective")
    assert report(verdict_on(fault))[0] == "2 tensors are missing: `penalty`, `loss`"


# --- mutations of the numbers themselves


def tampered(path: str, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Verdict:
    """The verdict on a run one of whose tensors was changed in one row."""
    plan = plan_of(MODEL)
    rows = []
    for row in runner.execute(plan):
        values = [
            change(value.clone()) if row.path.endswith(path) and column.name == name and value is not None else value
            for column, value in zip(row.columns, row.values, strict=True)
        ]
        rows.append(Row(row.number, row.step, row.path, row.iteration, row.layout, tuple(values)))
    return compare(align(rows, runner.execute(plan)), plan.columns, plan.columns, Tolerances())


def one_ulp(value: torch.Tensor) -> torch.Tensor:
    value[2, 3] = torch.nextafter(value[2, 3], torch.tensor(math.inf))
    return value


def set_nan(value: torch.Tensor) -> torch.Tensor:
    value[4, 0] = math.nan
    return value


def test_one_ulp_in_one_element_at_step_17() -> None:
    verdict = tampered("repeat[17].3.step", "w1", one_ulp)
    assert verdict.first_difference is not None
    (only,) = verdict.first_difference.divergences
    assert verdict.first_difference.place.path.endswith("repeat[17].3.step")
    assert verdict.first_difference.place.number == 3 * 17
    assert only.difference.values is not None
    assert (only.difference.values.worst.index, only.difference.values.worst.ulps) == ((2, 3), 1)
    assert (only.difference.values.count, only.difference.values.elements) == (1, 24)
    assert causes(verdict.first_difference)[0] == "gradients bit-equal, update of `w1` differs: look at the optimizer"
    assert verdict.growth is not None
    assert (verdict.growth.kind, verdict.growth.last) == ("rounding", 0.0)


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("w2.grad", set_nan, "`w2.grad` is NaN in 1 of 6 elements"),
        ("w1.grad", lambda value: value + 1.5, "`w1.grad` is the expected one + 1.5"),
        ("w1.grad", lambda value: value / 3, "`w1.grad` is 1/3 × the expected one"),
        ("w1.grad", lambda value: value.flip(0), "`w1.grad` holds the expected numbers in another order"),
        ("h", lambda value: -value, "`h` is the expected one with the other sign"),
    ],
)
def test_what_a_wrong_tensor_is_to_the_right_one(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], cause: str
) -> None:
    verdict = tampered("repeat[5].2.backward", name, change)
    assert verdict.first_difference is not None
    assert verdict.first_difference.divergences[0].column.name == name
    assert verdict.first_difference.place.path.endswith("repeat[5].2.backward")
    assert cause in causes(verdict.first_difference)


def test_zero_of_the_other_sign_differs_in_its_bits_alone() -> None:
    verdict = tampered("start", "w1", lambda value: value.mul_(0))
    assert verdict.first_difference is not None
    assert "`w1` is zero" in causes(verdict.first_difference)
    plan = plan_of(SQUARE)
    rows = list(runner.execute(plan))
    first = rows[0]
    values = tuple(value if value is None else torch.where(value == 0, -0.0, value) for value in first.values)
    found = [Row(0, "start", "start", 1, first.layout, values), *rows[1:]]
    bitwise = compare(align(found, rows), plan.columns, plan.columns, Tolerances())
    assert bitwise.first_difference is not None
    assert bitwise.first_difference.divergences[0].difference.values is not None
    assert bitwise.first_difference.divergences[0].difference.values.worst.absolute == 0
    assert compare(align(found, rows), plan.columns, plan.columns, Tolerances(BY_DTYPE)).holds


# --- false alarms


@pytest.mark.slow
def test_no_false_alarm_over_200_repeats_on_one_and_two_threads() -> None:
    wide = MODEL.replace("[8, 4]", "[256, 64]").replace("[8, 1]", "[256, 1]").replace("[4, 6]", "[64, 24]")
    wide = wide.replace("shape: [6]", "shape: [24]").replace("[6, 1]", "[24, 1]").replace("times: 20", "times: 1")
    plan = plan_of(wide)
    threads = torch.get_num_threads()
    expected = list(runner.execute(plan))
    tolerances = Tolerances(BY_DTYPE)
    try:
        for repeat in range(200):
            torch.set_num_threads(1 + repeat % 2)
            assert compare(align(runner.execute(plan), expected), plan.columns, plan.columns, tolerances).holds
    finally:
        torch.set_num_threads(threads)


def test_there_are_forty_faults() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
