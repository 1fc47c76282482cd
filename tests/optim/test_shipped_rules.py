"""The rules that come with steprun: each against its class of `torch.optim`, and each as it is pasted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import runner
from runner.catalogue import shipped_rules
from runner.config import loads
from runner.language.lowering.scope import Scope
from runner.optim import RuleContext, RuleStepper
from runner.optim.rules import plan_rule
from tests.tables import over

STEPS = 50
ULPS = 4
SHAPES: dict[str, tuple[int, ...]] = {
    "s": (),
    "one": (1, 1),
    "b": (3,),
    "w": (17, 5),
    "k": (2, 3, 4, 5),
    "long": (1000,),
    "empty": (0, 2),
}
TWINS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {}),
    "adadelta": ("Adadelta", {}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "nadam": ("NAdam", {}),
    "adamax": ("Adamax", {}),
}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "momentum": ({"momentum": 0.5}, {"momentum": 0.5}),
    "nesterov": ({"momentum": 0.3}, {"momentum": 0.3}),
    "adagrad": (
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.01},
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 0.01},
    ),
    "rmsprop": ({"alpha": 0.5, "eps": 0.1}, {"alpha": 0.5, "eps": 0.1}),
    "adadelta": ({"rho": 0.5, "eps": 0.01}, {"rho": 0.5, "eps": 0.01}),
    "adam": ({"beta1": 0.5, "beta2": 0.6, "eps": 0.1}, {"betas": (0.5, 0.6), "eps": 0.1}),
    "adamw": ({"beta1": 0.2, "beta2": 0.9, "weight_decay": 0.4}, {"betas": (0.2, 0.9), "weight_decay": 0.4}),
    "nadam": ({"beta1": 0.6, "momentum_decay": 0.3}, {"betas": (0.6, 0.999), "momentum_decay": 0.3}),
    "adamax": ({"beta1": 0.6, "beta2": 0.5, "eps": 0.1}, {"betas": (0.6, 0.5), "eps": 0.1}),
}
"""Constants of a rule, and the arguments of torch's class that mean the same."""


def ulps(one: Tensor, other: Tensor) -> int:
    """The largest distance of two elements in units in the last place."""
    return int((ordered(one) - ordered(other)).abs().max()) if one.numel() else 0


def ordered(tensor: Tensor) -> Tensor:
    """Integers in the order of the floating-point numbers, one apart where these are neighbours."""
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}[tensor.dtype]
    bits = tensor.detach().contiguous().view(integer).to(torch.int64)
    return torch.where(bits < 0, torch.iinfo(integer).min - bits, bits)


def stepper_of(name: str, parameters: dict[str, Parameter], constants: dict[str, Any]) -> RuleStepper:
    config = loads(shipped_rules()[name] + "parameters: {a: 1}\nexpression: a\n")
    written = config.optimizers["optimizer"].rule
    assert written is not None
    dtype = next(iter(parameters.values())).dtype
    scope = Scope({}, scalars={**config.constants, **constants}, dtype=dtype)
    rule, state = plan_rule(written.state, written.update, parameters, RuleContext(scope), ())
    return RuleStepper(rule, state, parameters, {}, lambda t: None)


def test_every_rule_of_the_issue_is_shipped_and_all_but_lion_have_a_class():
    assert sorted(shipped_rules()) == sorted([*TWINS, "lion"])


@pytest.mark.slow
@over("dtype", [torch.float32, torch.float64])
@over("rate", [None, 0.1])
@over("other", [False, True])
@pytest.mark.parametrize("name", TWINS)
def test_a_shipped_rule_is_within_4_ulp_of_torch_optim_over_50_steps(name, other, rate, dtype):
    constants, arguments = OTHERS.get(name, ({}, {})) if other else ({}, {})
    class_name, fixed = TWINS[name]
    generator = torch.Generator().manual_seed(7)
    start = {key: torch.randn(shape, generator=generator, dtype=dtype) for key, shape in SHAPES.items()}
    ours = {key: Parameter(value.clone()) for key, value in start.items()}
    theirs = {key: Parameter(value.clone()) for key, value in start.items()}
    rates = {} if rate is None else {"lr": rate}
    stepper = stepper_of(name, ours, constants | rates)
    plain = getattr(torch.optim, class_name)(list(theirs.values()), **(fixed | arguments | rates))
    worst = 0
    for _ in range(STEPS):
        for key, shape in SHAPES.items():
            gradient = torch.randn(shape, generator=generator, dtype=dtype) * 3
            ours[key].grad, theirs[key].grad = gradient.clone(), gradient.clone()
        stepper.step()
        plain.step()
        worst = max(worst, *(ulps(ours[key], theirs[key]) for key in SHAPES))
    assert worst <= ULPS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lion_is_algorithm_2_of_its_paper(decay, dtype):
    generator = torch.Generator().manual_seed(7)
    start = {key: torch.randn(shape, generator=generator, dtype=dtype) for key, shape in SHAPES.items()}
    ours = {key: Parameter(value.clone()) for key, value in start.items()}
    stepper = stepper_of("lion", ours, {"lr": 0.01, "weight_decay": decay})
    momenta = {key: torch.zeros_like(value) for key, value in start.items()}
    for _ in range(STEPS):
        for key, theta in start.items():
            gradient = torch.randn(theta.shape, generator=generator, dtype=dtype)
            ours[key].grad = gradient.clone()
            c = 0.9 * momenta[key] + (1 - 0.9) * gradient
            start[key] = theta - 0.01 * (c.sign() + decay * theta)
            momenta[key] = 0.99 * momenta[key] + (1 - 0.99) * gradient
        stepper.step()
        assert max(ulps(ours[key], start[key]) for key in SHAPES) <= ULPS


@over("name", shipped_rules())
def test_a_printed_rule_runs_where_it_is_pasted(name):
    config = "parameters: {x: [3.0, -2.0], w: {shape: [2, 2], init: 1}}\nexpression: (x ** 2).sum() + (w ** 4).sum()\n"
    plan = runner.compile(runner.loads(config + shipped_rules()[name] + "steps: 20\nlog: {state: true}\n"))
    assert plan.warnings == ()
    first, *_, last = runner.execute(plan)
    assert (last["x"].abs() < first["x"].abs()).all()
    assert (last["w"] < first["w"]).all()


def test_a_printed_rule_is_a_base_to_extend(tmp_path):
    (tmp_path / "adam.yaml").write_text(shipped_rules()["adam"])
    (tmp_path / "mine.yaml").write_text(
        "extends: adam.yaml\nconstants: {lr: 0.5}\nparameters: {x: [3.0, -2.0]}\nexpression: (x ** 2).sum()\nsteps: 1\n"
    )
    *_, last = runner.execute(runner.compile(runner.load(tmp_path / "mine.yaml")))
    torch.testing.assert_close(last["x"], torch.tensor([2.5, -1.5]))


@over("name", shipped_rules())
def test_a_shipped_rule_names_its_source_and_fits_a_line(name):
    text = shipped_rules()[name]
    assert text.startswith("# ")
    assert all(len(line) <= 120 for line in text.splitlines())
