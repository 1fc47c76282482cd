"""Optimizers of a config: who holds what, with which arguments, and every fault in its place."""

from __future__ import annotations

import torch

from runner.catalogue import optimizers
from runner.optim import InitialState, Scheduled, StateEntry, resolve, trial_step
from tests.optim.planned import PARAMETERS, Tensor, plan
from tests.tables import over


def good(text, parameters=PARAMETERS):
    plans, problems, warnings = plan(text, parameters)
    assert not problems, "\n".join(problem.render() for problem in problems)
    assert not warnings, warnings
    return plans


def test_the_single_optimizer_holds_every_trainable_parameter():
    found = good("optimizer: {adamw: {lr: base / 2, betas: [0, 1 - base], amsgrad: fast, eps: 1e-6}}")["optimizer"]
    assert (found.kind, found.class_name, found.path) == ("adamw", "AdamW", ("optimizer",))
    assert found.parameters == ("w1", "b1", "w2")
    (group,) = found.groups
    assert group.options == {"lr": 0.05, "betas": (0.0, 0.9), "amsgrad": True, "eps": 1e-6}
    assert not found.needs_closure


def test_several_optimizers_hold_what_they_name():
    found = good(
        """
        optimizers:
          weights: {sgd: {lr: 0.1}, parameters: [w*]}
          biases: {lbfgs: {line_search_fn: strong_wolfe, max_eval: null}, parameters: b1}
        """
    )
    assert {name: plan.parameters for name, plan in found.items()} == {"weights": ("w1", "w2"), "biases": ("b1",)}
    assert found["biases"].needs_closure
    assert found["biases"].options == {"line_search_fn": "strong_wolfe", "max_eval": None}


def test_groups_take_their_parameters_out_of_the_rest():
    found = good(
        """
        optimizer:
          adam: {lr: 0.1, weight_decay: 0.5}
          groups:
            - {parameters: [b*], weight_decay: 0}
            - {parameters: [w2], lr: base * t}
        """
    )["optimizer"]
    assert [group.parameters for group in found.groups] == [("w1",), ("b1",), ("w2",)]
    schedule = Scheduled("base * t", ("optimizer", "groups", 1, "lr"))
    assert [dict(group.options) for group in found.groups] == [
        {"lr": 0.1, "weight_decay": 0.5},
        {"lr": 0.1, "weight_decay": 0},
        {"lr": schedule, "weight_decay": 0.5},
    ]
    assert list(found.scheduled()) == [(2, "lr", schedule)]


def test_groups_may_hold_everything_and_one_of_several_only_its_groups():
    found = good("optimizer: {sgd: {}, groups: [{parameters: ['*'], lr: 1}]}")["optimizer"]
    assert [group.parameters for group in found.groups] == [("w1", "b1", "w2")]
    several = good(
        """
        optimizers:
          a: {sgd: {}, groups: [{parameters: [w1]}, {parameters: [w2]}]}
          b: {sgd: {}, parameters: [b1]}
        """
    )
    assert [group.parameters for group in several["a"].groups] == [("w1",), ("w2",)]


def test_a_group_takes_only_what_its_optimizer_holds():
    found = good(
        """
        optimizers:
          a: {sgd: {}, parameters: [w1, b1], groups: [{parameters: [w*], lr: 1}]}
          b: {sgd: {}, parameters: [w2]}
        """
    )
    assert [group.parameters for group in found["a"].groups] == [("b1",), ("w1",)]


def test_an_expression_of_t_stays_an_expression():
    found = good(
        "optimizer: {adam: {lr: 'rates[t - 1]', betas: [0.9, '1 - 0.1 / t'], eps: 'late[0]', weight_decay: 'rates[1]'}}"
    )
    options = found["optimizer"].options
    assert options["lr"] == Scheduled("rates[t - 1]", ("optimizer", "adam", "lr"))
    assert options["betas"] == (0.9, Scheduled("1 - 0.1 / t", ("optimizer", "adam", "betas", 1)))
    assert options["eps"] == Scheduled("late[0]", ("optimizer", "adam", "eps"))
    assert options["weight_decay"] == 0.2
    assert [name for _, name, _ in found["optimizer"].scheduled()] == ["lr", "betas", "eps"]
    assert resolve(options["betas"], lambda element: 0) == (0.9, 0.0)
    assert resolve(options["lr"], lambda element: 3) == 3


def test_what_an_optimizer_keeps_is_known_before_it_runs():
    found = good("optimizer: {adam: {amsgrad: true}}")["optimizer"]
    assert found.state["w1"] == (
        StateEntry("step", (), torch.float32),
        StateEntry("exp_avg", (4, 3), torch.float32),
        StateEntry("exp_avg_sq", (4, 3), torch.float32),
        StateEntry("max_exp_avg_sq", (4, 3), torch.float32),
    )
    factored = good("optimizer: {adafactor: {}}")["optimizer"].state
    assert [(entry.name, entry.shape) for entry in factored["w1"]] == [
        ("step", ()),
        ("row_var", (4, 1)),
        ("col_var", (1, 3)),
    ]
    assert good("optimizer: {sgd: {}}")["optimizer"].state["w1"] == ()
    assert good("optimizer: {lbfgs: {}}")["optimizer"].state == {}


@over("kind", sorted(optimizers()))
def test_the_planned_state_is_what_torch_keeps_after_a_step(kind):
    shapes = {"a": (4, 3), "b": (1,), "c": (), "e": (2, 5, 3), "z": (0, 2)}
    if kind == "muon":
        shapes = {"a": (4, 3), "b": (2, 1)}
    elif kind == "adafactor":
        del shapes["z"]  # torch divides by its number of elements
    parameters = {name: Tensor(shape, torch.float64) for name, shape in shapes.items()}
    found = good(f"optimizer: {{{kind}: {{}}}}", parameters)["optimizer"]
    real = {name: torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    if kind == "lbfgs":
        assert found.state == {}
        return
    optimizer = getattr(torch.optim, optimizers()[kind].class_name)(list(real.values()))
    for parameter in real.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in real.items():
        kept = {key: (tuple(value.shape), value.dtype) for key, value in optimizer.state.get(parameter, {}).items()}
        assert {entry.name: (entry.shape, entry.dtype) for entry in found.state[name]} == kept


def test_equal_optimizers_over_equal_parameters_are_tried_once(monkeypatch):
    made = []
    construct = trial_step.construct
    monkeypatch.setattr(trial_step, "construct", lambda *given: made.append(given) or construct(*given))
    monkeypatch.setattr(trial_step, "_steps", {})
    text, parameters = "optimizer: {adam: {lr: 0.125}}", {"w": Tensor((4, 3))}
    first, second = (good(text, parameters)["optimizer"].state for _ in range(2))
    assert len(made) == 1
    assert first == second
    entries = {entry.name: (entry.shape, entry.dtype) for entry in second["w"]}
    assert entries == {
        "step": ((), torch.float32),
        "exp_avg": ((4, 3), torch.float32),
        "exp_avg_sq": ((4, 3), torch.float32),
    }
    other = good(text, {"w": Tensor((4, 2), torch.float64)})["optimizer"].state["w"]
    assert [(entry.shape, entry.dtype) for entry in other][1:] == [((4, 2), torch.float64)] * 2
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in which torch's Adam counts its steps
    try:
        assert good(text, parameters)["optimizer"].state["w"][0].dtype == torch.float64
    finally:
        torch.set_default_dtype(default)
    for lr in range(trial_step._REMEMBERED + 9):
        good(f"optimizer: {{adam: {{lr: {lr}}}}}", parameters)
    assert len(trial_step._steps) == trial_step._REMEMBERED


def test_planning_takes_no_memory_for_large_parameters():
    good("optimizer: {adam: {}}", {"w": Tensor((10**6, 10**6))})


def test_state_may_start_from_tensors_and_numbers():
    found = good(
        "optimizer: {adam: {}, state: {w1: {exp_avg: m0, step: 2 * width}, b1: {exp_avg_sq: 1, exp_avg: m0.sum()}}}"
    )
    assert found["optimizer"].initial_state == {
        "w1": {
            "exp_avg": InitialState("m0", ("optimizer", "state", "w1", "exp_avg")),
            "step": InitialState(8, ("optimizer", "state", "w1", "step")),
        },
        "b1": {
            "exp_avg_sq": InitialState(1, ("optimizer", "state", "b1", "exp_avg_sq")),
            "exp_avg": InitialState("m0.sum()", ("optimizer", "state", "b1", "exp_avg")),
        },
    }
