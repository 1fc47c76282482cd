"""One contract for every optimizer: seven steps end, after each, in the bits of the plain `torch.optim` object.

Driven by PyTorch's own optimizer database and its inputs.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.testing._internal.common_optimizers import optim_db

from runner.catalogue import REFUSED_OPTIMIZERS, optimizers
from runner.optim.classes import optimizer_class
from runner.optim.plans import GroupPlan, OptimizerPlan
from runner.optim.stepper import Stepper, build
from tests.effort import thinned
from tests.tables import over

STEPS = 7
IDLE_STEP = 4
REFUSED_INPUTS = {"capturable", "differentiable"}
SHAPES: dict[str, tuple[int, ...]] = {"w": (4, 3), "b": (3,), "s": (), "k": (2, 3, 2), "idle": (2,)}


def inputs() -> list[Any]:
    """Every configuration of the database that a config can say, in both precisions."""
    found = []
    for info in optim_db:
        kind = info.optim_cls.__name__.lower()
        if kind in REFUSED_OPTIMIZERS:
            continue
        for given in info.optim_inputs_func(device="cpu"):
            if REFUSED_INPUTS & given.kwargs.keys():
                continue
            for implementation in ({}, {"foreach": True}, {"foreach": False}, {"fused": True}):
                if not implementation.keys() <= {argument.name for argument in optimizers()[kind].arguments}:
                    continue
                if given.kwargs.keys() & implementation.keys() or (
                    "fused" in implementation and "cpu" not in info.supports_fused_on
                ):
                    continue
                options = {name: plain(value) for name, value in {**given.kwargs, **implementation}.items()}
                for dtype in (torch.float32, torch.float64):
                    how = "-".join(f"{name}={value}" for name, value in options.items())
                    found.append(pytest.param(kind, options, dtype, id=f"{kind}-{how or 'default'}-{dtype}"))
    return found


def plain(value: Any) -> Any:
    """What a config writes for an argument: the database gives some numbers as tensors."""
    if isinstance(value, Tensor):
        return value.item()
    return tuple(plain(part) for part in value) if isinstance(value, (tuple, list)) else value


def parameters_of(kind: str, dtype: torch.dtype) -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(1)
    shapes = {name: shape for name, shape in SHAPES.items() if kind != "muon" or len(shape) == 2}
    return {name: Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for name, shape in shapes.items()}


def plan_of(kind: str, options: dict[str, Any], names: list[str]) -> OptimizerPlan:
    groups = (GroupPlan(tuple(names), options),)
    return OptimizerPlan("optimizer", kind, optimizers()[kind].class_name, options, groups, {}, {}, ("optimizer",))


def never(_: Any) -> Any:
    raise AssertionError("nothing here is scheduled or starts from a given state")


def loss_of(parameters: dict[str, Parameter], step: int) -> Tensor:
    """A loss whose gradients move; `idle` has none in one step of the seven."""
    used = {name: parameter for name, parameter in parameters.items() if name != "idle" or step != IDLE_STEP}
    return sum((p.sin() * (index + 1)).pow(2).sum() for index, p in enumerate(used.values()))


def closure_of(parameters: dict[str, Parameter], step: int = 0) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        for parameter in parameters.values():
            parameter.grad = None
        loss = loss_of(parameters, step)
        loss.backward()
        return loss

    return closure


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def assert_same_value(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert torch.equal(bits(found), bits(expected)), f"{found} is not {expected}"
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_value(one, other)
    else:
        assert found == expected


def assert_same(stepper: Stepper, ours: dict[str, Parameter], theirs: dict[str, Parameter], plain_one: Any) -> None:
    for name in ours:
        assert_same_value(ours[name], theirs[name])
        expected = plain_one.state.get(theirs[name], {})
        found = stepper.state(name)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same_value(found[key], value)


@over("keeps", [False, True])
@over(("kind", "options", "dtype"), thinned(inputs(), lambda row: row.values[0], every=3), split=lambda kind, *_: kind)
def test_seven_steps_have_the_bits_of_torch_optim(kind, options, dtype, keeps):
    theirs = parameters_of(kind, dtype)
    ours = copy.deepcopy(theirs)
    plain_one = getattr(torch.optim, optimizers()[kind].class_name)(list(theirs.values()), **options)
    stepper = build(plan_of(kind, options, list(ours)), ours, never, never)
    stepper.keep(ours if keeps else ())
    for step in range(STEPS):
        before = {name: (parameter.detach(), parameter.detach().clone()) for name, parameter in ours.items()}
        if kind == "lbfgs":
            plain_one.step(closure_of(theirs, step))
            stepper.step_closure(closure_of(ours, step))
        else:
            closure_of(theirs, step)()
            plain_one.step()
            closure_of(ours, step)()
            stepper.step()
        assert_same(stepper, ours, theirs, plain_one)
        if keeps:
            for kept, copied in before.values():
                assert_same_value(kept, copied)
    assert stepper.steps == STEPS


def test_the_database_covers_every_optimizer_of_the_catalogue():
    assert {parameter.values[0] for parameter in inputs()} == set(optimizers())


@over("kind", sorted(optimizers()))
def test_steps_may_stop_and_go_on_from_their_state(kind):
    ours = parameters_of(kind, torch.float64)
    stepper = build(plan_of(kind, {}, list(ours)), ours, never, never)
    for _ in range(3):
        advance(kind, stepper, ours)
    again = copy.deepcopy(ours)
    resumed = build(plan_of(kind, {}, list(again)), again, never, never)
    resumed.load_state({name: copy.deepcopy(dict(stepper.state(name))) for name in ours}, stepper.steps)
    for _ in range(3):
        advance(kind, stepper, ours)
        advance(kind, resumed, again)
    assert resumed.steps == stepper.steps == 6
    for name in ours:
        assert torch.equal(bits(ours[name]), bits(again[name]))


def advance(kind: str, stepper: Stepper, parameters: dict[str, Parameter]) -> None:
    if kind == "lbfgs":
        stepper.step_closure(closure_of(parameters))
    else:
        closure_of(parameters)()
        stepper.step()


@pytest.mark.slow
def test_no_optimizer_imports_the_compiler():
    script = """
import sys, torch
from runner.catalogue import optimizers
from runner.optim.classes import optimizer_class
from runner.optim.plans import GroupPlan, OptimizerPlan
from runner.optim.stepper import build
for kind in optimizers().values():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    groups = (GroupPlan(("w",), {}),)
    plan = OptimizerPlan("o", kind.name, kind.class_name, {}, groups, {}, {}, ())
    stepper = build(plan, {"w": parameter}, None, None)
    def closure():
        parameter.grad = None
        loss = parameter.pow(2).sum()
        loss.backward()
        return loss
    closure()
    stepper.step_closure(closure) if kind.name == "lbfgs" else stepper.step()
    assert "torch._dynamo" not in sys.modules, kind.name
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_class_without_the_known_wrappers_is_used_as_it_is(monkeypatch):
    optimizer_class.cache_clear()
    monkeypatch.setattr(torch.optim.Optimizer, "add_param_group", lambda self, group: None)
    assert optimizer_class("Adam") is torch.optim.Adam
    optimizer_class.cache_clear()
