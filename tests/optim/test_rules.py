"""Optimizers as equations, through whole configs: against torch written by hand, and every fault in its place."""

from __future__ import annotations

import contextlib
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import runner
from runner.engine import initial_state
from runner.errors import ConfigError, RunError
from runner.plan.compiler import PlanLimits
from tests.effort import tried
from tests.tables import over

HEAD = """
dtype: float64
parameters: {x: [1.0, 2.0], w: {shape: [2, 3], init: 0.5}}
constants: {lr: 0.1, beta: 0.9, rates: [0.3, 0.2, 0.1], m0: [5.0, 6.0], table: [[1.0, 2.0], [3.0, 4.0]]}
functions: {"mixed(a, b, share=beta)": share * a + (1 - share) * b}
expression: loss = (x ** 2).sum() + (w ** 3).sum()
"""


def compiled(optimizer: str, rest: str = "steps: 3\n") -> runner.Plan:
    return runner.compile(runner.loads(f"{HEAD}optimizer:\n{optimizer}{rest}", name="rule.yaml"))


def rows(optimizer: str, rest: str = "steps: 3\nlog: {state: true}\n") -> list[runner.Row]:
    return list(runner.execute(compiled(optimizer, rest)))


def rule(update: str, state: str = "{}") -> str:
    body = "".join(f"      {line}\n" for line in update.splitlines())
    return f"  rule:\n    state: {state}\n    update: |\n{body}"


def gradients(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * x, 3 * w**2


def start() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([1.0, 2.0], dtype=torch.float64), torch.full((2, 3), 0.5, dtype=torch.float64)


def same(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)


def test_the_update_of_the_notebook_is_a_rule():
    x, w = start()
    for row in rows(rule("param = param - lr * grad"))[1:]:
        for weight, gradient in zip((x, w), gradients(x, w), strict=True):
            weight -= 0.1 * gradient
        same(row["x"], x)
        same(row["w"], w)


def test_a_rule_has_state_functions_tables_and_the_count():
    update = (
        "m = mixed(m, grad)\nstep_size = rates[t - 1] if t > 1 else lr\nparam = param - step_size * m / (1 - beta ** t)"
    )
    found = rows(rule(update, "{m: 0}"))
    x, w = start()
    momenta = [torch.zeros_like(x), torch.zeros_like(w)]
    same(found[0]["x.m"], momenta[0])
    for t, row in enumerate(found[1:], 1):
        rate = [0.1, 0.2, 0.1][t - 1]
        for number, (weight, gradient) in enumerate(zip((x, w), gradients(x, w), strict=True)):
            momenta[number] = 0.9 * momenta[number] + (1 - 0.9) * gradient
            weight -= rate * momenta[number] / (1 - 0.9**t)
        for name, weight, momentum in zip(("x", "w"), (x, w), momenta, strict=True):
            same(row[name], weight)
            same(row[f"{name}.m"], momentum)
    columns = {column.name: column for column in found[0].columns}
    assert (columns["w.m"].role, columns["w.m"].shape, columns["w.m"].dtype) == ("state", (2, 3), torch.float64)


def test_the_expression_of_the_documentation_is_adam_to_rounding():
    update = (
        "m = beta1 * m + (1 - beta1) * grad\nv = beta2 * v + (1 - beta2) * grad ** 2\n"
        "param = param - lr * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + eps)"
    )
    constants = "constants: {lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8}\n"
    rest = f"dtype: float64\nparameters: {{x: [1.0, -2.0]}}\n{constants}expression: (x ** 2).sum()\nsteps: 50\n"
    *_, last = runner.execute(runner.compile(runner.loads(f"{rest}optimizer:\n{rule(update, '{m: 0, v: 0}')}")))
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=0.1)
    for _ in range(50):
        adam.zero_grad()
        (weight**2).sum().backward()
        adam.step()
    torch.testing.assert_close(last["x"], weight.detach(), rtol=1e-13, atol=1e-15)


def test_parameters_without_a_gradient_are_left_as_they_are():
    steps = "steps: [{backward: {parameters: [x]}}, step, zero_grad, step]\nlog: {state: true}\n"
    found = rows(rule("n = n + 1\nparam = param + 1 + 0 * grad", "{n: 0}"), steps)
    after = found[2]
    same(after["x"], torch.tensor([2.0, 3.0], dtype=torch.float64))
    same(after["w"], start()[1])
    same(found[-1]["x.n"], torch.ones(2, dtype=torch.float64))
    same(found[-1]["w.n"], torch.zeros(2, 3, dtype=torch.float64))


def test_t_counts_the_steps_of_the_optimizer():
    found = rows(rule("param = param + t + 0 * grad"), "steps: [backward, step, step, backward, step]\n")
    assert [row["x"][0].item() for row in found] == [1.0, 1.0, 2.0, 4.0, 4.0, 7.0]


def test_state_starts_from_an_expression_over_param_broadcast_to_its_shape():
    found = rows(rule("param = param - lr * grad", "{a: 3, b: param * 2, c: zeros(1) + beta, d: param.sum()}"))
    x, w = start()
    for name, value in (("x", x), ("w", w)):
        same(found[0][f"{name}.a"], torch.full_like(value, 3))
        same(found[0][f"{name}.b"], value * 2)
        same(found[0][f"{name}.c"], torch.full_like(value, 0.9))
        same(found[0][f"{name}.d"], value.sum().expand(value.shape))
        same(found[-1][f"{name}.b"], value * 2)


def test_state_may_start_from_tensors_and_numbers():
    optimizer = rule("param = param - lr * m", "{m: 0, n: 1}") + "  state: {x: {m: m0 * 2, n: 7}, w: {n: 8}}\n"
    found = rows(optimizer)
    same(found[0]["x.m"], torch.tensor([10.0, 12.0], dtype=torch.float64))
    same(found[0]["x.n"], torch.full((2,), 7.0, dtype=torch.float64))
    same(found[0]["w.m"], torch.zeros(2, 3, dtype=torch.float64))
    same(found[0]["w.n"], torch.full((2, 3), 8.0, dtype=torch.float64))
    same(found[1]["x"], torch.tensor([0.0, 0.8], dtype=torch.float64))


def test_state_has_the_dtype_of_its_expression_and_keeps_it():
    state = '{count: 0, half: "zeros_like(param, dtype=float32)", seen: "zeros_like(param, dtype=bool)"}'
    update = "count = t\nhalf = half + grad\nseen = grad > 2\nparam = param - lr * grad"
    found = rows(rule(update, state), "steps: 1\nlog: {state: true}\n")
    assert [found[1][f"x.{name}"].dtype for name in ("count", "half", "seen")] == [
        torch.float64,
        torch.float32,
        torch.bool,
    ]
    same(found[1]["x.half"], torch.tensor([2.0, 4.0], dtype=torch.float32))
    assert found[1]["x.seen"].tolist() == [False, True]


def test_state_never_shares_memory_with_gradients_weights_or_other_state():
    update = "before = grad\nweight = param\ntwin = before\nparam = param - lr * grad"
    found = rows(
        rule(update, "{before: 0, weight: 0, twin: 0}"), "steps: [backward, step, backward, step]\nlog: {state: true}\n"
    )
    x = start()[0]
    same(found[2]["x.before"], 2 * x)
    same(found[2]["x.weight"], x)
    same(found[3]["x.before"], 2 * x)  # the second backward adds to the gradient in place
    same(found[4]["x.twin"], found[3]["x.grad"])


def test_local_names_may_shadow_constants_parameters_and_functions():
    update = "lr = 2.0\nx = grad * lr\nloss = x\nrates = loss\nparam = param - rates[0] * 0 - x * t"
    found = rows(rule(update, "{beta: 1}"), "steps: 1\n")
    same(found[1]["x"], start()[0] * (1 - 4))


def test_a_constant_called_as_a_rule_calls_its_own_is_shadowed():
    text = "parameters: {x: 3}\nconstants: {t: 100, param: 5, grad: 7}\nexpression: x * t * param * grad\nsteps: 2\n"
    *_, last = runner.execute(
        runner.compile(runner.loads(text + "optimizer:\n" + rule("param = param + t + 0 * grad")))
    )
    assert last["x"].item() == 6.0


def test_several_rules_hold_what_they_name_beside_an_optimizer_of_torch():
    text = f"""{HEAD}optimizers:
  first: {{rule: {{update: param = param - lr * grad}}, parameters: [x]}}
  second: {{sgd: {{lr: 0.2}}, parameters: ["w*"]}}
steps: [train, {{train: {{optimizer: first}}}}]
"""
    found = list(runner.execute(runner.compile(runner.loads(text))))
    x, w = start()
    same(found[1]["x"], x - 0.1 * 2 * x)
    same(found[1]["w"], w - 0.2 * 3 * w**2)
    same(found[2]["w"], found[1]["w"])


def test_what_expectations_read_is_the_state_of_a_rule():
    steps = "steps: [backward, step, {expect: {x.m: [2, 4], w.m.sum(): 4.5, 'x.m.sum() > 5': true}}]\n"
    rows(rule("m = grad\nparam = param - lr * m", "{m: 0}"), steps)


def test_random_numbers_come_from_a_stream_of_the_optimizer_and_step():
    optimizer = rule("param = param - lr * grad + randn_like(param)", "{n: rand_like(param)}")
    before = torch.get_rng_state()
    once, again = rows(optimizer), rows(optimizer)
    assert torch.equal(before, torch.get_rng_state())
    drawn = {tuple(row["x"].tolist()) for row in once}
    assert len(drawn) == len(once)
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["x.n"], other["x.n"])
    reseeded = rows(optimizer, "steps: 3\nseed: 1\nlog: {state: true}\n")
    assert not torch.equal(reseeded[1]["x"], once[1]["x"])


def test_a_step_draws_the_same_numbers_whatever_was_drawn_before_it():
    optimizer = rule("param = param + randn_like(param) + 0 * grad")
    alone = rows(optimizer, "steps: [backward, step, step]\n")
    between = rows(optimizer, "steps: [backward, step, {assign: {x: rand(2)}}, {assign: {x: m0}}, step]\n")
    same(between[5]["x"] - torch.tensor([5.0, 6.0], dtype=torch.float64), alone[3]["x"] - alone[2]["x"])


def test_a_derivative_may_be_taken_within_a_rule():
    found = rows(rule("y = (param ** 3).sum()\nparam = param - lr * grad(y, param) + 0 * grad"), "steps: 1\n")
    x = start()[0]
    same(found[1]["x"], x - 0.1 * 3 * x**2)
    assert not found[1]["x"].requires_grad


def test_a_rule_is_planned_for_each_shape_and_dtype():
    text = """
parameters:
  m: {shape: [3, 2], init: {expression: "rand(3, 2)"}}
  v: [1.0, 2.0]
  c: {shape: [2], init: 1, dtype: complex64}
  d: {shape: [2], init: 1, dtype: float64}
constants: {lr: 0.1}
expression: (m ** 2).sum() + (v ** 2).sum() + c.abs().sum() + d.sum()
optimizer:
  rule:
    state: {s: 0, norm: param.abs()}
    update: |
      s = s + grad
      param = param - lr * (s.T if param.dim() > 1 else s).reshape(param.shape)
steps: 2
log: {state: true}
"""
    *_, last = runner.execute(runner.compile(runner.loads(text)))
    assert [last[f"{name}.s"].dtype for name in "mvcd"] == [
        torch.float32,
        torch.float32,
        torch.complex64,
        torch.float64,
    ]
    assert last["c.norm"].dtype == torch.float32


def test_the_state_of_a_rule_is_estimated_and_counted():
    plan = compiled(rule("param = param - lr * grad", '{a: 0, b: "zeros_like(param, dtype=float32)"}'))
    assert plan.estimates.state == 8 * (8 + 4)


def test_a_large_rule_is_planned_without_taking_memory():
    text = "parameters: {x: {shape: [100000, 100000], init: 1}}\nexpression: x.mean()\nsteps: 1\nlog: {tensors: none}\n"
    update = "m = 0.9 * m + grad\nparam = param - m / (m.norm() + 1)"
    config = runner.loads(f"{text}optimizer:\n{rule(update, '{m: zeros_like(param)}')}")
    plan = runner.compile(config, limits=PlanLimits(memory=1 << 50))
    assert plan.estimates.state == 4 * 10**10


def test_a_rule_is_resumed_from_its_state():
    optimizer = rule("m = beta * m + grad\nparam = param - lr * m / t", "{m: 0}")
    plan = compiled(optimizer, "steps: [train, train, train, train]\nlog: {state: true}\n")
    whole = list(runner.execute(plan))
    state = initial_state(plan)
    run = runner.execute(plan, state)
    for _ in range(3):
        next(run)
    again = initial_state(plan)
    for name, parameter in state.parameters.items():
        again.parameters[name].data.copy_(parameter.detach())
        again.parameters[name].grad = None if parameter.grad is None else parameter.grad.clone()
    old, new = state.steppers["optimizer"], again.steppers["optimizer"]
    new.load_state({name: {key: v.clone() for key, v in old.state(name).items()} for name in ("x", "w")}, old.steps)
    again.position, again.row = state.position, state.row
    for row, expected in zip(runner.execute(plan, again), whole[3:], strict=True):
        for name in ("x", "w", "x.m", "w.m"):
            assert torch.equal(row[name], expected[name])


def test_a_fault_while_it_runs_is_told_at_its_line():
    update = "m = grad\nk = linalg.inv(param[:1, None] * (0 if t > 1 else 1))\nparam = param - m * k.sum() * 0"
    text = f"parameters: {{x: [1.0, 2.0]}}\nexpression: x.sum()\nsteps: 3\noptimizer:\n{rule(update)}"
    with pytest.raises(RunError, match="singular") as caught:
        list(runner.execute(runner.compile(runner.loads(text, name="rule.yaml"))))
    assert str(caught.value).startswith("rule.yaml:9:11  optimizer.rule.update")


def test_an_index_beyond_a_table_is_told_at_its_step():
    with pytest.raises(RunError, match=r"index 3 is outside `rates`, which has 3 elements \(at repeat\[4\]"):
        rows(rule("param = param - rates[t - 1] * grad"), "steps: 4\n")


def test_a_state_that_cannot_start_is_told_at_its_expression():
    text = """
parameters: {x: [[1.0]], y: [[0.0]]}
expression: (x * y).sum()
optimizer: {rule: {state: {m: linalg.inv(param)}, update: param = param - m}}
"""
    with pytest.raises(RunError, match="singular") as caught:
        list(runner.execute(runner.compile(runner.loads(text, name="rule.yaml"))))
    assert str(caught.value).startswith("rule.yaml:4:31  optimizer.rule.state.m")


@pytest.mark.parametrize("optimizer", [rule("param = param - m", "{m: 0}"), "  sgd: {momentum: 0.9}\n"])
def test_a_given_state_of_another_shape_is_told_where_it_is_given(optimizer):
    entry = "m" if "rule" in optimizer else "momentum_buffer"
    with pytest.raises(RunError, match="must match") as caught:
        rows(f"{optimizer}  state: {{x: {{{entry}: m0.repeat(3)}}}}\n")
    assert "optimizer.state" in str(caught.value)


FAULTS = [
    ("m = grad", "the rule never assigns `param`", (10, 5)),
    ("pram = param - grad", "the rule never assigns `param`", (10, 5)),
    ("param - grad", "the rule never assigns `param`", (10, 5)),
    ("param = grad.sum()", "the rule assigns shape () to `param`, and `x` has shape (2,)", (11, 15)),
    ("param = t", "the rule assigns a number to `param`", (11, 15)),
    ("param = (grad, grad)", "the rule assigns a tuple of 2 values to `param`", (11, 15)),
    (
        "m = stack([grad, grad])\nparam = param - m[0]",
        "the rule assigns shape (2, 2) to `m`, and `x` has shape (2,)",
        (11, 11),
    ),
    ("m = 'a'\nparam = param - grad", "the rule assigns the string 'a' to `m`", (11, 11)),
    (
        "param = grad[grad > 0]",
        "the rule assigns a shape that depends on data to `param`, and `x` has shape (2,)",
        (11, 15),
    ),
    ("param = param - x", "`x` is a parameter, and cannot be read here", (11, 23)),
    ("param = param - table", "`table` is a tensor, and cannot be read here", (11, 23)),
    ("param = param - loss", "`loss` is a named value, and cannot be read here", (11, 23)),
    ("param = param - m0", "`m0` is a constant of 2 elements", (11, 15)),
    ("param = m0", "this is a whole constant", (11, 7)),
    ("param = param - iteration * grad", "`iteration` is not known here", (11, 23)),
    ("param = param - lr * grd", "`grd` is not declared", (11, 28)),
    ("param = param - ltr * grad", "`ltr` is not declared", (11, 23)),
    ("param = param +", "the line ends too early", (11, 21)),
    ("param = param - open('f')", "there is no operation `open`", (11, 23)),
    ("param = param - lr * grad @ grad.reshape(3)", "shape '[3]' is invalid for input of size 2", (11, 35)),
]


@over(("update", "message", "place"), FAULTS)
def test_a_faulty_rule_is_marked_where_it_is_wrong(update, message, place):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        compiled(rule(update, "{m: 0}"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == place
    assert problem.hint


def test_a_fault_in_a_function_that_a_rule_calls_is_marked_in_the_function():
    text = """
parameters: {x: 1}
functions:
  "decayed(a)": a - missing * a
expression: x * 2
optimizer: {rule: {update: param = decayed(param)}}
"""
    with pytest.raises(ConfigError, match="`missing` is not declared") as caught:
        runner.compile(runner.loads(text, name="rule.yaml"))
    assert str(caught.value).startswith("rule.yaml:4:21  functions.decayed(a)")


WORDS = "param grad t m lr rates x [ ] ( ) + - * / ** @ 1 0.5 , = if else sqrt sum . 'a' None"
PIECES = st.sampled_from([*WORDS.split(), "grad(m, param)", "rates[t - 1]", "randn_like(param)", "\n"])


@settings(max_examples=tried(150), deadline=None)
@given(st.lists(PIECES, max_size=8).map(" ".join), st.booleans())
def test_any_text_is_a_rule_or_a_fault_of_the_config(text: str, begins: bool) -> None:
    lines = [line.strip() for line in (f"param = {text}" if begins else text).split("\n")]
    update = "\n".join(line for line in lines if line) or "param"
    with contextlib.suppress(ConfigError, RunError):
        list(runner.execute(compiled(rule(update, "{m: 0}"), "steps: 2\n")))
