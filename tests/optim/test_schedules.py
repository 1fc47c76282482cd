"""Schedules: closed forms against the objects of `torch.optim.lr_scheduler`, alone and through whole configs."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import runner
from runner.errors import RunError
from runner.language.text.faults import LanguageError
from runner.optim.schedules import REFUSED, SCHEDULES, compile_schedule
from tests.tables import over

STEPS = 1000
CASES: list[tuple[str, Callable[[torch.optim.Optimizer], Any]]] = [
    ("step_lr(0.1, 30)", lambda o: lr_scheduler.StepLR(o, 30)),
    ("step_lr(0.1, step_size=7, gamma=0.97)", lambda o: lr_scheduler.StepLR(o, 7, gamma=0.97)),
    ("step_lr(0.1, 100, 2)", lambda o: lr_scheduler.StepLR(o, 100, 2)),
    ("multi_step_lr(0.1, [30, 80])", lambda o: lr_scheduler.MultiStepLR(o, [30, 80])),
    ("multi_step_lr(0.1, decays, gamma=0.5)", lambda o: lr_scheduler.MultiStepLR(o, [5, 5, 900], gamma=0.5)),
    ("multi_step_lr(0.1, [900, 3])", lambda o: lr_scheduler.MultiStepLR(o, [900, 3])),
    ("constant_lr(0.1)", lambda o: lr_scheduler.ConstantLR(o)),
    ("constant_lr(0.1, factor=0.5, total_iters=40)", lambda o: lr_scheduler.ConstantLR(o, 0.5, 40)),
    ("linear_lr(0.1)", lambda o: lr_scheduler.LinearLR(o)),
    ("linear_lr(0.1, 0.01, 0.5, 300)", lambda o: lr_scheduler.LinearLR(o, 0.01, 0.5, 300)),
    ("linear_lr(0.1, start_factor=1, end_factor=0)", lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0)),
    ("exponential_lr(0.1, 0.99)", lambda o: lr_scheduler.ExponentialLR(o, 0.99)),
    ("exponential_lr(0.1, gamma=1.001)", lambda o: lr_scheduler.ExponentialLR(o, 1.001)),
    ("polynomial_lr(0.1)", lambda o: lr_scheduler.PolynomialLR(o)),
    ("polynomial_lr(0.1, total_iters=700, power=2.5)", lambda o: lr_scheduler.PolynomialLR(o, 700, 2.5)),
    ("cosine_annealing_lr(0.1, T_max=1000)", lambda o: lr_scheduler.CosineAnnealingLR(o, 1000)),
    ("cosine_annealing_lr(0.1, 37, eta_min=0.02)", lambda o: lr_scheduler.CosineAnnealingLR(o, 37, 0.02)),
    ("cosine_annealing_warm_restarts(0.1, 10)", lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10)),
    (
        "cosine_annealing_warm_restarts(0.1, T_0=7, T_mult=2, eta_min=0.001)",
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 2, 0.001),
    ),
    (
        "cosine_annealing_warm_restarts(0.1, 1, 3)",
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 1, 3),
    ),
    ("cyclic_lr(0.01, 0.1)", lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, cycle_momentum=False)),
    (
        "cyclic_lr(0.01, 0.1, step_size_up=20, step_size_down=33, mode='triangular2')",
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 20, 33, mode="triangular2", cycle_momentum=False),
    ),
    (
        'cyclic_lr(0.01, 0.1, 11, mode="exp_range", gamma=0.998)',
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 11, mode="exp_range", gamma=0.998, cycle_momentum=False),
    ),
    (
        "one_cycle_lr(0.1, total_steps=1000)",
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=1000, cycle_momentum=False),
    ),
    (
        "one_cycle_lr(0.1, None, 10, 100, pct_start=0.1, anneal_strategy='linear', div_factor=5, final_div_factor=50)",
        lambda o: lr_scheduler.OneCycleLR(
            o,
            0.1,
            epochs=10,
            steps_per_epoch=100,
            pct_start=0.1,
            anneal_strategy="linear",
            div_factor=5,
            final_div_factor=50,
            cycle_momentum=False,
        ),
    ),
    (
        "one_cycle_lr(0.1, epochs=20, steps_per_epoch=50, three_phase=1 > 0)",
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.1, epochs=20, steps_per_epoch=50, three_phase=True, cycle_momentum=False
        ),
    ),
    (
        "sequential_lr([linear_lr(0.1, total_iters=10), cosine_annealing_lr(0.1, T_max=90)], milestones=[10])",
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, total_iters=10), lr_scheduler.CosineAnnealingLR(o, 90)], [10]
        ),
    ),
    (
        "sequential_lr([constant_lr(0.1, 0.1, 20), exponential_lr(0.1, 0.9), step_lr(0.1, 100)], decays)",
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.ConstantLR(o, 0.1, 20), lr_scheduler.ExponentialLR(o, 0.9), lr_scheduler.StepLR(o, 100)],
            [5, 40],
        ),
    ),
    (
        "0.1 * linear_lr(1, 0.5, total_iters=50) * exponential_lr(1, gamma=0.99)",
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o, 0.5, total_iters=50), lr_scheduler.ExponentialLR(o, 0.99)]
        ),
    ),
    ("0.1 * 0.95 ** (t // 3)", lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.95 ** ((epoch + 1) // 3))),
    (
        "min(1, t / 100) * cosine_annealing_lr(0.1, T_max=1000)",
        lambda o: lr_scheduler.LambdaLR(
            o, lambda epoch: min(1, (epoch + 1) / 100) * (1 + math.cos(math.pi * epoch / 1000)) / 2
        ),
    ),
]
IDS = [text for text, _ in CASES]


def scalars(text: str) -> dict[str, Any]:
    return {"decays": (5, 40) if "sequential" in text else (5, 5, 900)}


def rates_of_torch(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*epoch parameter.*")
@over(("text", "make"), CASES)
def test_a_schedule_gives_what_torch_uses_over_1000_steps(text, make):
    at = compile_schedule(text, scalars(text))
    for t, expected in enumerate(rates_of_torch(make, STEPS), 1):
        assert at(t) == pytest.approx(expected, rel=1e-11, abs=1e-15), f"t = {t}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*epoch parameter.*")
@over(("text", "make"), CASES)
def test_a_config_steps_with_the_rates_of_torchs_scheduler(text, make):
    steps = 60
    quoted = text.replace("'", "''")
    config = f"""
dtype: float64
constants: {{decays: {list(scalars(text)["decays"])}}}
parameters: {{x: [0.9, -0.3]}}
expression: loss = (x.cos() * 3).sum()
optimizer: {{sgd: {{lr: '{quoted}', momentum: 0.9}}}}
steps: {steps}
"""
    weight = torch.nn.Parameter(torch.tensor([0.9, -0.3], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    rows = iter(runner.execute(runner.compile(runner.loads(config))))
    next(rows)
    for row in rows:
        optimizer.zero_grad()
        (weight.cos() * 3).sum().backward()
        optimizer.step()
        scheduler.step()
        torch.testing.assert_close(row["x"], weight.detach(), rtol=1e-12, atol=1e-14)
    assert row.iteration == steps


def test_every_schedule_of_torch_is_here_or_refused_with_a_reason():
    snake = {"CosineAnnealingLR": "cosine_annealing_lr", "OneCycleLR": "one_cycle_lr"}
    classes = {
        name
        for name, found in vars(lr_scheduler).items()
        if inspect.isclass(found) and issubclass(found, lr_scheduler.LRScheduler) and not name.startswith("_")
    } - {"LRScheduler"}
    names = set()
    for name in classes:
        words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name.replace("LR", "Lr")).lstrip("_")
        names.add(snake.get(name, words))
    assert names == {*SCHEDULES, *REFUSED}


def test_the_arguments_are_torchs_but_for_the_base_rate_and_those_refused():
    classes = {
        name.lower(): found for name, found in vars(lr_scheduler).items() if inspect.isclass(found) and name[0] != "_"
    }
    for name, function in SCHEDULES.items():
        torchs = [*inspect.signature(classes[name.replace("_", "")]).parameters][1:]
        kept = [argument for argument in torchs if argument not in function.refused]
        own = [argument for argument in function.arguments if argument != "lr"]
        assert own == kept, name


def test_only_the_current_part_of_a_sequence_is_computed():
    at = compile_schedule("sequential_lr([one_cycle_lr(1, total_steps=3), 1 / (5 - t)], milestones=[3])", {})
    assert [at(t) for t in (4, 5)] == [1 / 4, 1 / 3]
    with pytest.raises(LanguageError, match="division by zero"):
        at(8)


@over(
    ("text", "message"),
    [
        ("step_lr(0.1, 3, 0.1, 4)", "`step_lr` takes 3 arguments, 4 are given"),
        ("step_lr(0.1, 3, step_size=4)", "the argument `step_size` is given twice"),
        ("step_lr(0.1, 3, last_epoch=4)", "the argument `last_epoch` of `step_lr` is refused"),
        ("step_lr(0.1, 'a')", "`step_size` must be a number"),
        ("step_lr(0.1, [3])", "`step_size` must be a number"),
        ("step_lr(0.1, None)", "`step_size` must be a number"),
        ("step_lr(0.1, 0)", "`step_size` must be above 0, not 0"),
        ("step_lr(lr, 3)", "`lr` is not a scalar constant"),
        ("multi_step_lr(0.1, 3)", "`milestones` must be a list of integers"),
        ("linear_lr(0.1, 0)", "`start_factor` must be between 0 and 1, not 0"),
        ("linear_lr(0.1, 1, 2)", "`end_factor` must be between 0 and 1, not 2"),
        ("cosine_annealing_warm_restarts(0.1, 3, 1.5)", "`T_mult` must be an integer, not 1.5"),
        ("one_cycle_lr(0.1)", "give `total_steps`, or both `epochs` and `steps_per_epoch`"),
        ("one_cycle_lr(0.1, 10, anneal_strategy='sin')", "`anneal_strategy` must be one of cos, linear, not 'sin'"),
        ("one_cycle_lr(0.1, 10, three_phase=0.5)", "`three_phase` must be a condition"),
        ("sequential_lr(step_lr(1, 2), [3])", "`schedulers` must be a list of schedules"),
        ("sequential_lr([step_lr(1, 2)], [3])", "there are 1 schedules, and 1 milestones between them"),
        ("sequential_lr([1, 2, 3], [3, 2])", "`milestones` must be in ascending order"),
        ("exponential_lr(0.1, 10 ** 9)", "the result is too large"),
        ("1e300 * step_lr(1e300, 30)", "this is inf"),
        ("step_lr", "`step_lr` is not a scalar constant"),
        ("'a'", "is not a number"),
    ],
)
def test_a_faulty_schedule_says_what_is_wrong(text, message):
    with pytest.raises(LanguageError, match=re.escape(message)) as caught:
        compile_schedule(text, {})(40)
    assert caught.value.hint


def test_growth_without_bound_is_a_fault_and_takes_no_time():
    with pytest.raises(LanguageError, match="too large"):
        compile_schedule("step_lr(1, 1, gamma=10)", {})(10**9)
    assert compile_schedule("cyclic_lr(0, 1, 1, mode='triangular2')", {})(10**6) == 0.0
    assert compile_schedule("cosine_annealing_warm_restarts(1, 1, 2)", {})(10**15) <= 1


def executed(lr: str, steps: int) -> None:
    text = f"parameters: {{x: 1}}\nexpression: x * x\noptimizer:\n  sgd:\n    lr: {lr}\nsteps: {steps}\n"
    list(runner.execute(runner.compile(runner.loads(text, name="run.yaml"))))


@pytest.mark.parametrize(
    ("lr", "place", "message"),
    [
        (
            '"one_cycle_lr(0.1, total_steps=3)"',
            "run.yaml:5:10  optimizer.sgd.lr",
            "step 4 is beyond `total_steps`, 3 (in step 4 of the optimizer)",
        ),
        ("0.1 * (3 - t)", "run.yaml:5:9  optimizer.sgd.lr", "this is -0.1 in step 4 of the optimizer"),
        ("0.1 / (4 - t)", "run.yaml:5:9  optimizer.sgd.lr", "division by zero (in step 4 of the optimizer)"),
        ("0.1 if t < 4 else inf", "run.yaml:5:9  optimizer.sgd.lr", "this is inf (in step 4 of the optimizer)"),
        ("0.1 if t < 4 else nan", "run.yaml:5:9  optimizer.sgd.lr", "this is nan (in step 4 of the optimizer)"),
    ],
)
def test_a_schedule_that_ends_while_it_runs_says_where_and_when(lr, place, message):
    executed(lr, 3)
    with pytest.raises(RunError, match=re.escape(message)) as caught:
        executed(lr, 4)
    assert str(caught.value).startswith(place)


def test_any_hyperparameter_may_follow_a_schedule():
    text = """
dtype: float64
parameters: {x: [0.9, -0.3]}
expression: loss = (x.cos() * 3).sum()
optimizer:
  adam: {lr: 0.1, betas: ["linear_lr(0.9, 0.5, total_iters=5)", 0.99], weight_decay: "step_lr(0.1, 2)"}
steps: 8
"""
    weight = torch.nn.Parameter(torch.tensor([0.9, -0.3], dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    *_, last = runner.execute(runner.compile(runner.loads(text)))
    for t in range(1, 9):
        beta = 0.9 * (0.5 + 0.5 * min(5, t - 1) / 5)
        optimizer.param_groups[0].update(betas=(beta, 0.99), weight_decay=0.1 * 0.1 ** ((t - 1) // 2))
        optimizer.zero_grad()
        (weight.cos() * 3).sum().backward()
        optimizer.step()
    torch.testing.assert_close(last["x"], weight.detach(), rtol=1e-12, atol=0)
