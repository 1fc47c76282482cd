"""Rules of health: each warns once for each parameter, with what was measured, and costs nothing where it is off."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import runner
from runner.engine.state import initial_state
from runner.engine.watch.health import Health
from runner.errors import HealthWarning
from tests.engine.running import compiled, same


def reported(text: str, base: Path | str = ".") -> list[str]:
    """The warnings of a run, each without the place it points to."""
    plan = compiled(text, base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(runner.execute(plan))
    assert all(warning.category is HealthWarning for warning in caught)
    return [str(warning.message).partition("^ ")[2] for warning in caught]


TRAINING = """\
parameters: {x: [3.0, 4.0], y: [0.5], z: 2.0}
constants: {least: 1e-3}
expression: f = %s
optimizer: {sgd: {lr: %s}}
steps: %s
health: {%s}
"""


def test_a_vanishing_gradient_is_told_once_and_counted() -> None:
    assert reported(TRAINING % ("(x * 1e-4).sum() + y.sum() + z", "0.1", "4", "vanishing_gradient: least")) == [
        # the norm of two gradients of 1e-4
        "vanishing-gradient: `x.grad` has the norm 0.000141, below 0.001 (row 1, repeat[1].train)\n"
        "      = look at what saturates between `x` and the objective, or start it from larger values",
        "vanishing-gradient: it held for `x` in 3 more steps\n"
        "      = look at what saturates between `x` and the objective, or start it from larger values",
    ]


def test_an_exploding_gradient_is_told_for_each_parameter() -> None:
    steps = "[backward, backward]"  # 2, 0, 10 in the first, and twice that after the second
    assert reported(TRAINING % ("x[0] * 2 + y.sum() * 0 + z * 10", "0.1", steps, "exploding_gradient: 3")) == [
        "exploding-gradient: `z.grad` has the norm 10, above 3 (row 1, 1.backward)\n"
        "      = clip it (`clip_grad_norm`), or start `z` from smaller values",
        "exploding-gradient: `x.grad` has the norm 4, above 3 (row 2, 2.backward)\n"
        "      = clip it (`clip_grad_norm`), or start `x` from smaller values",
        "exploding-gradient: it held for `z` in 1 more step\n"
        "      = clip it (`clip_grad_norm`), or start `z` from smaller values",
    ]


def test_the_gradient_that_is_measured_is_the_clipped_one() -> None:
    steps = "[{train: {clip_grad_norm: 1}}]"
    assert reported(TRAINING % ("x.sum() * 100 + y.sum() + z", "0.1", steps, "exploding_gradient: 3")) == []


def test_a_parameter_that_does_not_change_is_told_after_so_many_updates() -> None:
    found = reported(TRAINING % ("x.sum() * (iteration % 4 == 0) + y.sum() * 0 + z", "0.1", "8", "unchanged: 3"))
    assert found == [
        "unchanged: `x` has not changed in 3 updates in a row (row 3, repeat[3].train)\n"
        "      = see that the objective depends on `x`, or freeze it: `requires_grad: false`",
        "unchanged: `y` has not changed in 3 updates in a row (row 3, repeat[3].train)\n"
        "      = see that the objective depends on `y`, or freeze it: `requires_grad: false`",
        "unchanged: it held for `x` in 1 more step\n"  # the seventh: it changed in the fourth
        "      = see that the objective depends on `x`, or freeze it: `requires_grad: false`",
        "unchanged: it held for `y` in 5 more steps\n"
        "      = see that the objective depends on `y`, or freeze it: `requires_grad: false`",
    ]


def test_one_update_that_changes_nothing_may_be_too_many() -> None:
    found = reported(TRAINING % ("x.sum() + y.sum() + z", "0.1 * (t - 1)", "[backward, step]", "unchanged: 1"))
    assert [text.partition(" (")[0] for text in found] == [
        f"unchanged: `{name}` has not changed in 1 update in a row" for name in "xyz"
    ]


@pytest.mark.parametrize("steps", ["[train]", "[backward, step]"])
def test_the_update_ratio_is_told_on_both_sides(steps: str) -> None:
    # updates: 0.1 * (0.01, 0.01), 0.1 * 10, 0.1 * 1 of norms 5, 0.5, 2
    found = reported(TRAINING % ("x.sum() * 0.01 + y.sum() * 10 + z", "0.1", steps, "update_ratio: [least, 0.5]"))
    row, path = ("1", "train") if steps == "[train]" else ("2", "2.step")
    assert found == [
        f"update-ratio: the update of `x` is 0.000283 of its norm, below 0.001 (row {row}, {path})\n"
        "      = raise the learning rate of `x`",
        f"update-ratio: the update of `y` is 2 of its norm, above 0.5 (row {row}, {path})\n"
        "      = lower the learning rate of `y`",
    ]


def test_a_parameter_that_is_zero_has_no_update_ratio() -> None:
    text = TRAINING.replace("[3.0, 4.0]", "[0.0, 0.0]")
    assert reported(text % ("x.sum() + (y * 0.1).sum() + z * 0.1", "0.1", "[train]", "update_ratio: [1e-6, 0.5]")) == []


@pytest.mark.parametrize("optimizer", ["{lbfgs: {max_iter: 2}}", '{rule: {update: "param = param - 0.1 * grad"}}'])
def test_every_kind_of_optimizer_is_measured(optimizer: str) -> None:
    text = f"""\
parameters: {{x: [3.0, 4.0]}}
expression: f = 1e4 * (x ** 2).sum()
optimizer: {optimizer}
steps: [train, backward, step]
health: {{exploding_gradient: 9e4, update_ratio: [1e-9, 1e-8]}}
"""
    found = reported(text)
    assert "exploding-gradient: `x.grad` has the norm 1e+05, above 9e+04 (row 1, 1.train)" in found[0]
    assert "update-ratio: the update of `x` is " in found[1]


def test_each_optimizer_is_measured_on_what_it_holds() -> None:
    text = """\
parameters: {x: 1.0, y: 1.0}
expression: f = x * 100 + y * 100
optimizers:
  first: {sgd: {lr: 0.1}, parameters: [x]}
  second: {sgd: {lr: 0.0}, parameters: [y]}
steps:
  - train: {optimizer: second}
  - train: {optimizer: first}
health: {update_ratio: [0, 1], unchanged: 1}
"""
    assert [found.partition("\n")[0] for found in reported(text)] == [
        "unchanged: `y` has not changed in 1 update in a row (row 1, 1.train)",
        "update-ratio: the update of `x` is 10 of its norm, above 1 (row 2, 2.train)",
    ]


def test_the_threshold_is_where_the_warning_points() -> None:
    plan = compiled(TRAINING % ("x.sum() * 10 + y.sum() + z", "0.1", "1", "exploding_gradient: 3"))
    with pytest.warns(HealthWarning, match="exploding-gradient: ") as caught:
        list(runner.execute(plan))
    assert str(caught[0].message).splitlines()[:2] == [
        "<stdin>:6:10  health.exploding_gradient",
        "    6 | health: {exploding_gradient: 3}",
    ]


def test_rules_change_no_bit_and_nothing_where_they_are_off() -> None:
    text = """\
parameters: {x: {shape: [5], init: normal}}
expression: f = (dropout(x, 0.5, training) ** 2).sum()
optimizer: {adam: {lr: 0.1}}
steps: 10
"""
    rules = "health: {vanishing_gradient: 1e3, exploding_gradient: 1e-9, unchanged: 1, update_ratio: [0.1, 0.2]}\n"
    with pytest.warns(HealthWarning, match="`x"):
        watched = list(runner.execute(compiled(text + rules)))
    rows = list(runner.execute(compiled(text)))
    assert all(same(row["x"], other["x"]) for row, other in zip(rows, watched, strict=True))
    plan = compiled(text)
    state = initial_state(plan)
    health, takes = Health(plan, state, pytest.fail), [lambda: None]
    assert health.gradients(state.parameters) == []
    assert health.updates(takes, state.parameters) == takes
    health.conclude()


def test_a_nan_is_left_to_the_watch() -> None:
    text = TRAINING % (
        "(x * nan).sum() + y.sum() + z",
        "0.1",
        "2",
        "update_ratio: [1e-9, 1e9], vanishing_gradient: 1e-9",
    )
    assert reported(text + "on_nonfinite: ignore\n") == []


DEEP = """\
engine: %s
parameters: {w: {shape: [10, 6, 6], init: {normal: {std: 0.3}}, stacked: 1}}
constants: {x: {shape: [4, 6], init: normal}, scale: %s}
expression: |
  h = x
  for i in range(10):
    h = h + tanh(h @ w[i] * scale[i])
  loss = (h ** 2).mean()
optimizer: {sgd: {lr: %s}}
steps: %s
health: {%s}
"""
VANISHING = "[1, 1.0e-9, 1, 1, 1, 1, 1, 1, 1, 1]"  # layer 1 of ten


def norms_by_hand(text: str) -> tuple[float, list[float]]:
    """The norms of the gradient of `w` and of each of its slices in the first step, in float64, by torch alone."""
    state = initial_state(compiled(text))
    w = state.parameters["w"].detach().double().requires_grad_()
    h, scale = state.constants["x"].double(), state.constants["scale"].double()
    for layer in range(10):
        h = h + torch.tanh(h @ w[layer] * scale[layer])
    (gradient,) = torch.autograd.grad((h**2).mean(), w)
    return float(gradient.norm()), [float(part.norm()) for part in gradient]


@pytest.mark.parametrize("engine", ["eager", "cudagraph"])
def test_a_gradient_that_vanishes_in_one_layer_of_ten_is_told_of_that_layer(engine: str) -> None:
    if engine == "cudagraph" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    text = DEEP % (engine, VANISHING, 1e-3, 3, "vanishing_gradient: 1e-6")
    text += "device: cuda\n" if engine == "cudagraph" else ""
    whole, parts = norms_by_hand(text)
    assert whole > 1e-6
    assert [number for number, norm in enumerate(parts) if norm < 1e-6] == [1]
    action = "      = look at what saturates between `w[1]` and the objective, or start it from larger values"
    assert reported(text) == [
        f"vanishing-gradient: `w[1].grad` has the norm {parts[1]:.3g}, below 1e-06 (row 1, repeat[1].train)\n{action}",
        f"vanishing-gradient: it held for `w[1]` in 2 more steps\n{action}",
    ]


def test_of_many_slices_a_rule_reports_the_first_by_name() -> None:
    scale = "[1" + ", 1.0e-9" * 9 + "]"
    text = DEEP % ("eager", scale, 1e-3, 2, "vanishing_gradient: 1e-6")
    found = [line.partition("\n")[0] for line in reported(text)]
    assert [line.partition("`")[2].partition("`")[0] for line in found[:8]] == [f"w[{n}].grad" for n in range(1, 9)]
    assert found[8] == (
        "vanishing-gradient: it applies to more than 8 slices of `w`; the others are not reported "
        "(row 1, repeat[1].train)"
    )
    assert found[9:] == [f"vanishing-gradient: it held for `w[{number}]` in 1 more step" for number in range(1, 9)]


def test_a_rule_that_applies_to_every_slice_is_told_of_the_whole() -> None:
    text = DEEP % ("eager", "[" + ", ".join(["1.0e-9"] * 10) + "]", 1e-3, 1, "vanishing_gradient: 1e-6, unchanged: 1")
    found = reported(text)
    assert [line.partition("`")[2].partition("`")[0] for line in found] == ["w.grad", "w"]


def test_a_rule_that_applies_to_the_whole_alone_is_told_of_the_whole() -> None:
    text = DEEP % ("eager", "[" + ", ".join(["1"] * 10) + "]", 1e-3, 1, "exploding_gradient: %r")
    whole, parts = norms_by_hand(text % 1.0)
    assert max(parts) < whole
    (found,) = reported(text % ((whole + max(parts)) / 2))
    assert f"`w.grad` has the norm {whole:.3g}, above" in found
    first, second = sorted(parts)[-2:]
    (found,) = reported(text % ((first + second) / 2))
    assert f"`w[{parts.index(second)}].grad` has the norm {second:.3g}, above" in found


def test_an_update_is_told_of_the_slices_that_it_leaves_or_moves_too_far() -> None:
    assert reported(DEEP % ("eager", VANISHING, 1e-3, 3, "unchanged: 2, update_ratio: [1.0e-9, 0.1]")) == [
        "update-ratio: the update of `w[1]` is 0 of its norm, below 1e-09 (row 1, repeat[1].train)\n"
        "      = raise the learning rate of `w`, which its slices share",
        "unchanged: `w[1]` has not changed in 2 updates in a row (row 2, repeat[2].train)\n"
        "      = see that the objective depends on `w[1]`",
        "update-ratio: it held for `w[1]` in 2 more steps\n"
        "      = raise the learning rate of `w`, which its slices share",
        "unchanged: it held for `w[1]` in 1 more step\n      = see that the objective depends on `w[1]`",
    ]
    far = reported(DEEP % ("eager", VANISHING, 0.1, 1, "update_ratio: [0, 0.05]"))
    assert far
    assert all("`w[1]`" not in line for line in far)
    assert all(line.endswith("= lower the learning rate of `w`, which its slices share") for line in far)


def test_the_slices_of_two_stacked_dimensions_are_told_by_both_indexes() -> None:
    text = """\
parameters: {w: {shape: [2, 3, 4], init: ones, stacked: 2}, v: {shape: [2, 4], init: ones}}
expression: f = (w[:, 0] ** 2).sum() + (w[1] ** 2).sum() + v.sum()
optimizer: {sgd: {lr: 0.1}}
steps: 1
health: {vanishing_gradient: 1.0e-3}
"""
    assert [line.partition("`")[2].partition("`")[0] for line in reported(text)] == ["w[0,1].grad", "w[0,2].grad"]


def test_compile_refuses_health_whatever_is_stacked() -> None:
    with pytest.raises(runner.ConfigError, match="`engine: compile` runs many steps at once, and `health` checks each"):
        compiled(DEEP % ("compile", VANISHING, 1e-3, 3, "vanishing_gradient: 1e-6"))
    assert compiled(DEEP.replace("health: {%s}", "") % ("compile", VANISHING, 1e-3, 3)).config.engine == "compile"
