"""An optimizer at work: groups, schedules and given states, against `torch.optim` set up by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from runner.optim import GroupPlan, InitialState, OptimizerPlan, Scheduled, Stepper, build

PATH = ("optimizer",)


def parameters() -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: Parameter(torch.randn(3, generator=generator)) for name in ("a", "b")}


def give_gradients(held: dict[str, Parameter], step: int) -> None:
    for number, parameter in enumerate(held.values()):
        parameter.grad = (parameter.detach() * (number + 1) + step).sin()


def plan(kind, class_name, options, groups=None, initial=None) -> OptimizerPlan:
    planned = tuple(GroupPlan(names, {**options, **own}) for names, own in (groups or [(("a", "b"), {})]))
    return OptimizerPlan("o", kind, class_name, options, planned, initial or {}, {}, PATH)


def start(value, path=PATH) -> InitialState:
    return InitialState(value, path)


def never(_):
    raise AssertionError


def assert_same(found: dict[str, Parameter], expected: dict[str, Parameter]) -> None:
    for name in found:
        assert torch.equal(found[name], expected[name])


def test_groups_have_their_own_options():
    ours, theirs = parameters(), parameters()
    groups = [(("a",), {}), (("b",), {"weight_decay": 0.0, "lr": 0.5})]
    stepper = build(plan("adamw", "AdamW", {"lr": 0.1, "weight_decay": 0.3}, groups), ours, never, never)
    plain = torch.optim.AdamW(
        [{"params": [theirs["a"]]}, {"params": [theirs["b"]], "weight_decay": 0.0, "lr": 0.5}], lr=0.1, weight_decay=0.3
    )
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        stepper.step()
        plain.step()
        assert_same(ours, theirs)


def test_arguments_that_only_the_constructor_reads_reach_every_group():
    ours, theirs = parameters(), parameters()
    options = {"lr": 0.1, "initial_accumulator_value": 0.7}
    stepper = build(plan("adagrad", "Adagrad", options, [(("a",), {}), (("b",), {"lr": 0.2})]), ours, never, never)
    plain = torch.optim.Adagrad([{"params": [theirs["a"]]}, {"params": [theirs["b"]], "lr": 0.2}], **options)
    give_gradients(ours, 0)
    give_gradients(theirs, 0)
    stepper.step()
    plain.step()
    assert_same(ours, theirs)


def test_options_may_change_before_every_step():
    ours, theirs = parameters(), parameters()
    lr = Scheduled("0.1 / t", PATH)
    stepper = build(plan("asgd", "ASGD", {"lr": lr}), ours, lambda element: 0.1, never)
    plain = torch.optim.ASGD(theirs.values(), lr=0.1)
    for step in range(1, 5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        assert stepper.steps == step - 1
        stepper.set_option(0, "lr", 0.1 / step)
        plain.param_groups[0]["lr"] = 0.1 / step
        stepper.step()
        plain.step()
        assert_same(ours, theirs)


STATES = [
    ("rmsprop", "RMSprop", {"momentum": 0.5, "centered": True}, {"square_avg": 1}),
    ("sgd", "SGD", {"lr": 0.1, "momentum": 0.9}, {"momentum_buffer": "buffer"}),
    ("adam", "Adam", {"amsgrad": True}, {"exp_avg": "buffer", "step": 5}),
    ("adagrad", "Adagrad", {}, {"sum": "buffer"}),
    ("muon", "Muon", {}, {"momentum_buffer": "buffer"}),
]
DEFAULTS: dict[str, dict[str, float]] = {
    "rmsprop": {"step": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    "sgd": {},
    "adam": {"step": 5.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    "adagrad": {"step": 0.0},
    "muon": {},
}


@pytest.mark.parametrize(("kind", "class_name", "options", "entries"), STATES, ids=[case[0] for case in STATES])
def test_a_given_state_is_where_torch_goes_on_from(kind, class_name, options, entries):
    shape = (3, 2) if kind == "muon" else (3,)
    ours, theirs = ({"a": Parameter(torch.ones(shape)), "b": Parameter(torch.ones(shape) * 2)} for _ in range(2))
    buffer = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    initial = {"a": {key: start(value) for key, value in entries.items()}}
    stepper = build(
        plan(kind, class_name, options, initial=initial),
        ours,
        never,
        lambda entry: buffer if entry.value == "buffer" else entry.value,
    )
    assert stepper.state("b") == {} or kind == "adagrad"
    assert all(parameter.grad is None for parameter in ours.values())
    plain = getattr(torch.optim, class_name)(theirs.values(), **options)
    state: dict[str, Tensor] = {}
    for key, value in {**DEFAULTS[kind], **entries}.items():
        filled = (
            torch.tensor(float(value))
            if key == "step"
            else buffer.clone()
            if value == "buffer"
            else torch.full(shape, float(value))
        )
        state[key] = filled
    plain.state[theirs["a"]] = state
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        stepper.step()
        plain.step()
        assert_same(ours, theirs)
    assert {key: value.tolist() for key, value in stepper.state("a").items()} == {
        key: plain.state[theirs["a"]][key].tolist() for key in stepper.state("a")
    }


def test_a_given_state_is_copied():
    ours = parameters()
    buffer = torch.ones(3)
    initial = {"a": {"momentum_buffer": start("buffer")}}
    stepper = build(plan("sgd", "SGD", {"momentum": 0.5}, initial=initial), ours, never, lambda entry: buffer)
    give_gradients(ours, 0)
    stepper.step()
    assert buffer.tolist() == [1, 1, 1]


def test_a_parameter_without_a_gradient_is_left_as_it_is():
    ours = parameters()
    before = ours["b"].detach().clone()
    stepper = build(plan("adam", "Adam", {"weight_decay": 0.5}), ours, never, never)
    ours["a"].grad = torch.ones(3)
    stepper.step()
    assert torch.equal(ours["b"], before)
    assert stepper.state("b") == {}
    assert set(stepper.state("a")) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_step_is_not_recorded_by_autograd():
    ours = parameters()
    stepper = build(plan("sgd", "SGD", {"momentum": 0.9}), ours, never, never)
    give_gradients(ours, 0)
    with torch.enable_grad():
        stepper.step()
        assert torch.is_grad_enabled()
    assert ours["a"].grad_fn is None
    assert ours["a"].requires_grad


def test_a_stepper_knows_whom_it_holds():
    held = parameters()
    stepper = build(plan("sgd", "SGD", {}, [(("a",), {})]), held, never, never)
    assert stepper.holds("a")
    assert not stepper.holds("b")


def test_torch_keeps_its_own_classes_untouched():
    step = torch.optim.SGD.step
    build(plan("sgd", "SGD", {}), parameters(), never, never)
    assert torch.optim.SGD.step is step
    assert isinstance(build(plan("sgd", "SGD", {}), parameters(), never, never).optimizer, torch.optim.SGD)


@pytest.mark.parametrize("class_name", ["SGD", "Adam", "Adagrad", "Rprop", "Adafactor", "ASGD"])
def test_the_first_state_is_that_of_torch_and_is_not_kept(class_name):
    parameter = Parameter(torch.ones(3, 4))
    stepper = Stepper(getattr(torch.optim, class_name)([parameter], lr=0.25), {"w": parameter})
    before = dict(stepper.state("w"))
    found = dict(stepper.first_state("w"))
    assert dict(stepper.state("w")).keys() == before.keys()
    parameter.grad = torch.zeros(3, 4)
    other = getattr(torch.optim, class_name)([parameter], lr=0.25)
    other.step()
    made = {key for key, value in other.state[parameter].items() if isinstance(value, torch.Tensor)}
    assert {key for key, value in found.items() if isinstance(value, torch.Tensor)} == made
    for key in made:
        assert (found[key].shape, found[key].dtype) == (other.state[parameter][key].shape, found[key].dtype)
