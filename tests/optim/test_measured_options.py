"""Hyperparameters and rules that read parameters: each step uses the value that the parameter has then."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import runner
from tests.engine.running import compiled, rows_of, same
from tests.optim.test_changing_options import BESIDE, CHANGE, STEPS, by_hand, changing, text
from tests.tables import over

CONFIG = """
parameters:
  w: {{shape: [2, 3], init: [[0.5, -1.0, 2.0], [0.1, 0.3, -0.7]]}}
  v: {{shape: [3, 2], init: [[0.5, -1.0], [2.0, 0.1], [0.3, -0.7]]}}
  option: {{init: {first}, {dtype}requires_grad: false}}
expression: loss = ((w @ v) ** 2).sum() + (w.sin() * 3).sum()
optimizer: {{{kind}: {{{options}}}}}
steps:
  - repeat: {{times: {before}, steps: [train]}}
  - assign: {{option: {then}}}
  - repeat: {{times: {after}, steps: [train]}}
"""
DTYPES = {bool: "dtype: bool, ", int: "dtype: int64, ", float: ""}


@pytest.mark.slow
@over(("kind", "name", "first", "then"), changing(), split=lambda kind, *_: kind)
def test_an_option_that_reads_a_parameter_is_that_of_a_loop_by_hand(
    kind: str, name: str, first: Any, then: Any
) -> None:
    ascent = {"lr": 1e-3} if (kind, name) == ("lbfgs", "maximize") else {}
    beside = BESIDE.get(name, ascent)
    written = {key: text(value) for key, value in beside.items()} | {name: "option"}
    options = ", ".join(f"{key}: {value}" for key, value in written.items())
    number = bool if isinstance(first, bool) else float if isinstance(first, float) or isinstance(then, float) else int
    config = CONFIG.format(
        kind=kind,
        options=options,
        first=text(first),
        then=text(then),
        dtype=DTYPES[number],
        before=CHANGE - 1,
        after=STEPS - CHANGE + 1,
    )
    if name == "initial_accumulator_value":
        with pytest.raises(runner.ConfigError, match="reads `initial_accumulator_value` once, before the first step"):
            compiled(config)
        return
    try:
        expected = by_hand(kind, beside, name, number(first), number(then))
    except KeyError:
        with pytest.raises(runner.RunError, match=f"`{name}` is on at t = {CHANGE}, and `.*` keeps no `"):
            rows_of(config)
        return
    rows = [row for row in rows_of(config) if row.step == "train"]
    found = [row[weight] for row in rows for weight in ("w", "v")]
    assert all(one is not None and torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_rate_is_float64_unless_it_declares_another_dtype() -> None:
    config = """
parameters:
  w: 1.0
  rate: {init: 0.1, requires_grad: false}
  half: {init: 0.1, requires_grad: false, dtype: float16}
  other: {init: 0.1, requires_grad: false}
  ruled: {init: 0.1, requires_grad: false}
  shadowed: {init: 0.1, requires_grad: false}
expression: loss = w ** 2 * other * shadowed
optimizers:
  one: {adam: {lr: rate * half, betas: [0.9, rate]}, parameters: [w]}
  two: {rule: {update: "shadowed = ruled\\nparam = param - shadowed * grad"}, parameters: [v]}
""".replace("  w: 1.0\n", "  w: 1.0\n  v: 1.0\n").replace("w ** 2", "w ** 2 * v")
    tensors = compiled(config).tensors
    expected = {"rate": torch.float64, "half": torch.float16, "other": torch.float32}
    expected |= {"ruled": torch.float64, "shadowed": torch.float32, "w": torch.float32}
    assert {name: tensors[name].dtype for name in expected} == expected


def test_the_value_is_that_at_the_time_of_the_step_in_groups_and_several_optimizers() -> None:
    config = """
parameters:
  a: [1.0, 2.0]
  b: [3.0]
  c: [0.5]
  rate: {init: 0.1, requires_grad: false}
expression: loss = (a ** 2).sum() * (b ** 2).sum() + (c * a).sum()
optimizers:
  one: {adam: {lr: rate, betas: [0.5, 1 - rate]}, parameters: [a, b], groups: [{parameters: [b], lr: rate / t}]}
  two: {sgd: {lr: "min(rate, 0.05)"}, parameters: [c]}
steps:
  - repeat: {times: 5, steps: [train, {assign: {rate: rate * 0.7}}]}
log: {state: true}
"""
    rows = [row for row in rows_of(config) if row.step == "train"]
    weights = {
        name: torch.nn.Parameter(torch.tensor(value)) for name, value in (("a", [1.0, 2.0]), ("b", [3.0]), ("c", [0.5]))
    }
    a, b, c = weights.values()
    rate = torch.tensor(0.1, dtype=torch.float64)
    one = torch.optim.Adam([{"params": [a]}, {"params": [b]}])
    two = torch.optim.SGD([c])
    for t, row in enumerate(rows, 1):
        lr = rate.item()
        one.param_groups[0].update(lr=lr, betas=(0.5, 1 - lr))
        one.param_groups[1].update(lr=lr / t, betas=(0.5, 1 - lr))
        two.param_groups[0]["lr"] = min(lr, 0.05)
        for optimizer in (one, two):
            optimizer.zero_grad()
        loss = (a**2).sum() * (b**2).sum() + (c * a).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        one.step()
        two.step()
        assert all(same(row[name], weight.detach()) for name, weight in weights.items())
        rate = rate * 0.7


def test_a_rule_reads_a_parameter_as_a_number() -> None:
    config = """
parameters: {w: [1.0, 2.0], rate: {init: 0.1, requires_grad: false}}
expression: loss = (w ** 3).sum()
optimizer: {rule: {state: {m: 0}, update: "m = (1 - rate) * m + grad\\nparam = param - rate ** 2 * m"}}
steps:
  - repeat: {times: 4, steps: [train, {assign: {rate: rate * 0.7}}]}
"""
    w, m, rate = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(2), torch.tensor(0.1, dtype=torch.float64)
    for row in (row for row in rows_of(config) if row.step == "train"):
        (gradient,) = torch.autograd.grad((w**3).sum(), w)
        number = rate.item()
        m = (1 - number) * m + gradient
        w = (w.detach() - number**2 * m).requires_grad_()
        assert same(row["w"], w.detach())
        rate = rate * 0.7


RUN = """parameters: {w: [1.0, 2.0], rate: {init: 0.1, requires_grad: false}}
expression: loss = (w ** 2).sum()
optimizer:
  adam:
    OPTION
steps:
  - repeat: {times: 3, steps: [train, {assign: {rate: NEXT}}]}
"""


@pytest.mark.parametrize(
    ("option", "assigned", "path", "column", "message", "hint"),
    [
        (
            "lr: rate",
            "rate - 0.6",
            "lr",
            9,
            "this is -0.5 in step 2 of the optimizer (row 3; `rate` is -0.5)",
            "a learning rate is 0 or more",
        ),
        (
            "lr: 2 * rate",
            "rate * nan",
            "lr",
            9,
            "this is nan (in step 2 of the optimizer, row 3; `rate` is nan)",
            "a hyperparameter must be finite in every step",
        ),
        (
            "betas: [0.9, rate]",
            "rate + 1",
            "betas.1",
            18,
            "invalid beta parameter at index 1: 1.1 in step 2 of the optimizer (row 3; `rate` is 1.1)",
            "torch's `Adam` refuses it: assign a value in its range",
        ),
        (
            "lr: 1 / rate",
            "0",
            "lr",
            9,
            "`1 / rate`: division by zero (in step 2 of the optimizer, row 3; `rate` is 0.0)",
            "change the numbers in it",
        ),
    ],
)
def test_a_value_out_of_range_ends_the_run_at_its_place(
    option: str, assigned: str, path: str, column: int, message: str, hint: str
) -> None:
    with pytest.raises(runner.RunError, match="in step 2 of the optimizer") as caught:
        rows_of(RUN.replace("OPTION", option).replace("NEXT", assigned))
    text = option.split(": ", 1)[1] if path == "lr" else "rate"
    assert str(caught.value) == (
        f"<stdin>:5:{column}  optimizer.adam.{path}\n"
        f"    5 |     {option}\n"
        f"      | {' ' * (column - 1)}{'^' * len(text)} {message}\n"
        f"      = {hint}"
    )


@pytest.mark.parametrize("initial", ["-1", "nan", "inf"])
def test_an_initial_value_that_is_assigned_before_the_first_step_may_be_anything(initial: str) -> None:
    config = f"""
parameters: {{w: [1.0, 2.0], rate: {{init: {initial}, requires_grad: false}}}}
expression: loss = (w ** 2).sum()
optimizer: {{sgd: {{lr: rate, momentum: 0.9, nesterov: true}}}}
steps: [{{assign: {{rate: 0.1}}}}, train, train]
"""
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, nesterov=True)
    for row in rows_of(config)[2:]:
        optimizer.zero_grad()
        (w**2).sum().backward()
        optimizer.step()
        assert same(row["w"], w.detach())


ASSIGNED = """
parameters: {w: [1.0, 2.0], v: [3.0]}
expression: loss = (w ** 2).sum() * (v ** 2).sum()
optimizer: {OPTIMIZER}
steps:
  - repeat: {times: 2, steps: [train]}
  - assign: {WRITTEN}
  - repeat: {times: 3, steps: [train]}
log: {state: true}
"""


@pytest.mark.parametrize(
    ("optimizer", "make", "written"),
    [
        ("sgd: {lr: 0.1, momentum: 0.9}", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ["momentum_buffer"]),
        ("adam: {lr: 0.1}", lambda p: torch.optim.Adam(p, lr=0.1), ["exp_avg", "exp_avg_sq", "step"]),
        ("adamw: {lr: 0.1, amsgrad: true}", lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True), ["max_exp_avg_sq"]),
        ("rmsprop: {lr: 0.01}", lambda p: torch.optim.RMSprop(p, lr=0.01), ["square_avg"]),
    ],
)
def test_assign_writes_the_state_of_an_optimizer(optimizer: str, make: Any, written: list[str]) -> None:
    values = {entry: "0" if entry == "step" else f"w.{entry} * 0.5 + 1" for entry in written}
    assigned = ", ".join(f'w.{entry}: "{value}"' for entry, value in values.items())
    rows = rows_of(ASSIGNED.replace("OPTIMIZER", optimizer).replace("WRITTEN", assigned))
    w, v = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))
    by_hand = make([w, v])
    for row in rows[1:]:
        if row.step == "assign":
            for entry in written:
                held = by_hand.state[w][entry]
                held.copy_(torch.zeros(()) if entry == "step" else held * 0.5 + 1)
        else:
            by_hand.zero_grad()
            ((w**2).sum() * (v**2).sum()).backward()  # type: ignore[no-untyped-call]
            by_hand.step()
        assert same(row["w"], w.detach())
        assert same(row["v"], v.detach())
        assert all(same(row[f"w.{entry}"], by_hand.state[w][entry]) for entry in written)


def test_assign_writes_the_state_of_a_rule() -> None:
    rule = 'rule: {state: {m: 0, n: 1}, update: "m = grad\\nn = m\\nparam = param - 0.1 * n"}'
    rows = rows_of(ASSIGNED.replace("OPTIMIZER", rule).replace("WRITTEN", "w.m: w.m * 0 + 7, w.n: w.m"))
    assert torch.equal(rows[3]["w.m"], torch.tensor([7.0, 7.0]))  # type: ignore[arg-type]
    assert same(rows[3]["w.n"], rows[2]["w.m"])  # read before anything is written
    assert same(rows[3]["w"], rows[2]["w"])


@over(
    "value, shown",
    [("-1", "-1"), ("1.5", "1.5"), ('"tensor(nan)"', "nan"), ('"tensor(inf)"', "inf")],
)
def test_a_count_of_steps_is_an_integer(value: str, shown: str) -> None:
    config = f"""parameters: {{w: [1.0, 2.0]}}
expression: loss = (w ** 2).sum()
optimizer: {{adam: {{lr: 0.1}}}}
steps:
  - train
  - assign: {{w.step: {value}}}
"""
    with pytest.raises(runner.RunError, match="counts steps") as caught:
        rows_of(config)
    (problem,) = caught.value.problems
    assert problem.message == f"`w.step` counts steps, and this is {shown} (at 2.assign)"
    assert problem.hint == "assign an integer, 0 or more"
    rows_of(config.replace(value, "7"))


@over(
    "dtype, steps",
    [
        ("float32", "[{assign: {rate: 1e39}}, train]"),
        ("float32", "[{assign: {w: 1e39}}]"),
        ("float16", "[{assign: {w: 70000.0}}]"),
        ("bfloat16", "[{assign: {w: 1e39}}]"),
    ],
)
def test_a_number_beyond_the_dtype_of_a_weight_is_an_error(dtype: str, steps: str) -> None:
    config = f"""parameters: {{w: {{init: [1.0, 2.0], dtype: {dtype}}}, rate: {{init: 0.1, requires_grad: false}}}}
expression: loss = (w ** 2).sum()
optimizer: {{sgd: {{lr: rate}}}}
steps: {steps}
"""
    with pytest.raises(runner.RunError, match="fit") as caught:
        rows_of(config)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"a number in this step does not fit {dtype} (at ")
    assert problem.hint == "make it smaller, or choose a larger dtype"


def test_state_that_does_not_exist_yet_cannot_be_assigned() -> None:
    config = """parameters: {w: [1.0, 2.0]}
expression: loss = (w ** 2).sum()
optimizer: {adam: {lr: 0.1}}
steps:
  - assign: {w.exp_avg: 0}
  - train
"""
    with pytest.raises(runner.RunError, match="does not exist before the first step") as caught:
        rows_of(config)
    assert str(caught.value) == (
        "<stdin>:5:14  steps.0.assign.w.exp_avg\n"
        "    5 |   - assign: {w.exp_avg: 0}\n"
        "      |              ^^^^^^^^^ `w.exp_avg` does not exist before the first step (at 1.assign)\n"
        "      = put it after a step, or write `state: {w: {exp_avg: …}}` under the optimizer"
    )
    assert rows_of(config.replace("adam: {lr: 0.1}", "adam: {lr: 0.1}, state: {w: {exp_avg: 1}}"))
