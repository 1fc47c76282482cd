"""Every fault of an optimizer is reported in its place."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.catalogue import REFUSED_OPTIMIZERS, optimizers
from runner.errors import ConfigError, Problem
from tests.effort import tried
from tests.optim.planned import PARAMETERS, Tensor, plan
from tests.tables import over


def only_problem(text, parameters=PARAMETERS) -> Problem:
    _, problems, _ = plan(text, parameters)
    assert len(problems) == 1, "\n".join(problem.render() for problem in problems)
    assert problems[0].hint
    return problems[0]


FAULTS = [
    (
        "optimizer: {lbfgs: {history_size: 0}}",
        "`history_size` takes an integer from 1 to 100,000, not 0",
        "optimizer.lbfgs.history_size",
        35,
        1,
    ),
    (
        "optimizer: {lbfgs: {history_size: 10 ** 12}}",
        "`history_size` takes an integer from 1 to 100,000, not 10 ** 12",
        "optimizer.lbfgs.history_size",
        35,
        8,
    ),
    (
        "optimizer: {lbfgs: {line_search_fn: wolfe}}",
        "only 'strong_wolfe' is supported",
        "optimizer.lbfgs.line_search_fn",
        37,
        5,
    ),
    (
        "optimizer: {muon: {ns_steps: 1000}, parameters: [w1]}",
        "number of steps must be less than 100 for computational efficiency",
        "optimizer.muon.ns_steps",
        30,
        4,
    ),
    (
        "optimizer: {muon: {adjust_lr_fn: new}, parameters: [w1]}",
        "adjust learning rate function new is not supported",
        "optimizer.muon.adjust_lr_fn",
        34,
        3,
    ),
    ("optimizer: {sgd: {lr: -1}}", "invalid learning rate: -1", "optimizer.sgd.lr", 23, 2),
    ("optimizer: {sgd: {lr: -base}}", "invalid learning rate: -0.1", "optimizer.sgd.lr", 23, 5),
    ("optimizer: {sgd: {lr: 1 - t * 2}}", "invalid learning rate: -1", "optimizer.sgd.lr", 23, 9),
    (
        "optimizer: {adam: {lr: 1, betas: [0.9, 1.5]}}",
        "invalid beta parameter at index 1: 1.5",
        "optimizer.adam.betas",
        34,
        10,
    ),
    (
        "optimizer: {sgd: {lr: 1, nesterov: true}}",
        "nesterov momentum requires a momentum and zero dampening",
        "optimizer.sgd.nesterov",
        36,
        4,
    ),
    (
        "optimizer: {adam: {foreach: true, fused: true}}",
        "`fused` and `foreach` cannot be `True` together",
        "optimizer.adam.foreach",
        29,
        4,
    ),
    (
        "optimizer: {sgd: {}, groups: [{parameters: [w1], lr: -2}]}",
        "invalid learning rate: -2",
        "optimizer.groups.0.lr",
        54,
        2,
    ),
    ("optimizer: {sgd: {lr: true}}", "`lr` takes a number, not true", "optimizer.sgd.lr", 23, 4),
    ("optimizer: {sgd: {lr: fast}}", "`lr` takes a number, and `fast` is true", "optimizer.sgd.lr", 23, 4),
    ("optimizer: {sgd: {lr: null}}", "`lr` cannot be null", "optimizer.sgd.lr", 23, 4),
    ("optimizer: {sgd: {lr: [0.1]}}", "`lr` takes a number, not a list", "optimizer.sgd.lr", 23, 5),
    ("optimizer: {sgd: {lr: bas}}", "`bas` is not a scalar constant", "optimizer.sgd.lr", 23, 3),
    ("optimizer: {sgd: {lr: base * (t - tt)}}", "`tt` is not a scalar constant", "optimizer.sgd.lr", 35, 2),
    ("optimizer: {sgd: {lr: 1 / (t - 1)}}", "`1 / (t - 1)`: division by zero", "optimizer.sgd.lr", 23, 11),
    ("optimizer: {adam: {betas: 0.9}}", "`betas` takes a list of numbers, not 0.9", "optimizer.adam.betas", 27, 3),
    ("optimizer: {adam: {betas: [0.9]}}", "`betas` takes 2 numbers, not 1", "optimizer.adam.betas", 27, 5),
    ("optimizer: {adam: {betas: [0.9, true]}}", "`betas` takes a number, not true", "optimizer.adam.betas.1", 33, 4),
    ("optimizer: {sgd: {nesterov: 1}}", "`nesterov` takes true or false, not 1", "optimizer.sgd.nesterov", 29, 1),
    ("optimizer: {sgd: {nesterov: yes}}", "`yes` is a string, not a boolean", "optimizer.sgd.nesterov", 29, 3),
    ("optimizer: {lbfgs: {max_iter: 2.5}}", "`max_iter` takes an integer, not 2.5", "optimizer.lbfgs.max_iter", 31, 3),
    (
        "optimizer: {lbfgs: {line_search_fn: 3}}",
        "`line_search_fn` takes a word, not 3",
        "optimizer.lbfgs.line_search_fn",
        37,
        1,
    ),
    (
        "optimizer: {muon: {}}",
        "muon does not support `b1`, float32 of shape [3]: muon only supports 2D parameters",
        "optimizer.muon",
        13,
        4,
    ),
    (
        "optimizer: {lbfgs: {}, groups: [{parameters: [w1], lr: 1}]}",
        "LBFGS doesn't support per-parameter options (parameter groups)",
        "optimizer.lbfgs",
        13,
        5,
    ),
    (
        "optimizer: {adagrad: {}, groups: [{parameters: [w1], initial_accumulator_value: 1}]}",
        "adagrad reads `initial_accumulator_value` once for all parameters, never from a group",
        "optimizer.groups.0.initial_accumulator_value",
        54,
        25,
    ),
    ("optimizer: {sgd: {}, parameters: [w1, w2, b2]}", "there is no parameter `b2`", "optimizer.parameters.2", 43, 2),
    ("optimizer: {sgd: {}, parameters: ['*', 'q*']}", "`q*` matches no parameter", "optimizer.parameters.1", 40, 4),
    ("optimizer: {sgd: {}, parameters: [frozen]}", "`frozen` is frozen", "optimizer.parameters.0", 35, 6),
    (
        "optimizer: {sgd: {}, parameters: ['f*']}",
        "`f*` matches frozen parameters only",
        "optimizer.parameters.0",
        35,
        4,
    ),
    (
        "optimizer: {sgd: {}, groups: [{parameters: [w*]}, {parameters: [w1]}]}",
        "`w1` is in group 0 of this optimizer too",
        "optimizer.groups.1.parameters",
        64,
        4,
    ),
    (
        "optimizer: {sgd: {}, parameters: [b1], groups: [{parameters: [w*]}]}",
        "this group has none of the optimizer's parameters",
        "optimizer.groups.0.parameters",
        62,
        4,
    ),
    (
        "optimizers: {a: {sgd: {}}, b: {sgd: {}, parameters: [w1]}}",
        "one of several optimizers must name its parameters",
        "optimizers.a",
        14,
        1,
    ),
    (
        "optimizers: {a: {sgd: {}, parameters: ['*1', w2]}, b: {sgd: {}, parameters: [w1, w2]}}",
        "`w1`, `w2` also belong to the optimizer `a`",
        "optimizers.b.parameters",
        77,
        8,
    ),
    (
        "optimizer: {sgd: {}, state: {w1: {momentum_buffer: 0}}}",
        "sgd with these arguments keeps no `momentum_buffer` for `w1`",
        "optimizer.state.w1.momentum_buffer",
        35,
        15,
    ),
    (
        "optimizer: {adam: {}, state: {w3: {exp_avg: 0}}}",
        "this optimizer knows no parameter `w3`",
        "optimizer.state.w3",
        31,
        2,
    ),
    (
        "optimizer: {adam: {}, state: {frozen: {exp_avg: 0}}}",
        "this optimizer does not update `frozen`",
        "optimizer.state.frozen",
        31,
        6,
    ),
    (
        "optimizer: {adam: {}, state: {w1: {exp_avgs: 0}}}",
        "adam with these arguments keeps no `exp_avgs` for `w1`",
        "optimizer.state.w1.exp_avgs",
        36,
        8,
    ),
    (
        "optimizer: {adam: {}, state: {b1: {exp_avg: m0}}}",
        "`m0` has shape [4, 3] and `exp_avg` has shape [3]",
        "optimizer.state.b1.exp_avg",
        45,
        2,
    ),
    (
        "optimizer: {adam: {}, state: {b1: {exp_avg: mm}}}",
        "`mm` is not a scalar constant",
        "optimizer.state.b1.exp_avg",
        45,
        2,
    ),
]


@over(("text", "message", "path", "column", "width"), FAULTS)
def test_a_fault_of_an_optimizer_is_marked_in_its_place(text, message, path, column, width):
    problem = only_problem(text)
    assert (problem.message, problem.path) == (message, path)
    assert (problem.column, problem.width) == (column, width)


def test_an_optimizer_that_holds_nothing_is_refused():
    nothing = {"frozen": PARAMETERS["frozen"]}
    problem = only_problem("optimizer: {sgd: {}}", nothing)
    assert problem.message == "this optimizer has no parameters: no parameter is trainable"
    assert problem.path == "optimizer.sgd"


def test_a_parameter_that_nobody_holds_is_a_named_warning():
    _, problems, warnings = plan("optimizers: {a: {sgd: {}, parameters: [w1]}, b: {sgd: {}, parameters: [w2]}}")
    assert not problems
    assert [(warning.path, warning.message) for warning in warnings] == [
        ("parameters.b1", "no optimizer updates the trainable parameter `b1`")
    ]


def test_no_optimizer_is_no_warning():
    plans, problems, warnings = plan("steps: [backward]")
    assert (plans, problems, warnings) == ({}, [], [])


def test_parameters_of_an_integer_kind_fail_before_the_first_step():
    problem = only_problem("optimizer: {adafactor: {}}", {"z": Tensor((2,), torch.complex64)})
    assert (
        problem.message
        == "adafactor does not support `z`, complex64 of shape [2]: adafactor does not support complex parameters"
    )


def test_all_faults_of_an_optimizer_are_reported_at_once():
    _, problems, _ = plan(
        "optimizer: {adam: {lr: true, eps: [1, 2]}, parameters: [q], groups: [{parameters: [w1], lr: no_}]}"
    )
    assert [problem.path for problem in problems] == [
        "optimizer.parameters.0",
        "optimizer.adam.lr",
        "optimizer.adam.eps",
        "optimizer.groups.0.lr",
    ]


@pytest.mark.parametrize("kind", sorted(REFUSED_OPTIMIZERS))
def test_refused_optimizers_say_why(kind):
    with pytest.raises(ConfigError, match=f"{kind} is refused: {REFUSED_OPTIMIZERS[kind]}"):
        plan(f"optimizer: {{{kind}: {{}}}}")


@pytest.mark.parametrize("argument", ["capturable", "differentiable"])
def test_refused_arguments_say_why(argument):
    with pytest.raises(ConfigError, match=f"the argument `{argument}` is refused: "):
        plan(f"optimizer: {{adam: {{{argument}: true}}}}")


@settings(max_examples=tried(300), deadline=None)
@given(st.data())
def test_any_arguments_end_in_a_plan_or_placed_faults(data):
    kind = optimizers()[data.draw(st.sampled_from(sorted(optimizers())))]
    number = st.sampled_from(
        [0, 1, -1, 10**18, 1e300, 1e-320, math.inf, -math.inf, math.nan, 0.5, True, None, "q", "t", "1/0"]
    )
    value = number | st.lists(number, max_size=4)
    names = [argument.name for argument in kind.arguments if argument.name not in kind.refused]
    arguments = data.draw(st.dictionaries(st.sampled_from(names), value, max_size=4))
    text = json.dumps(arguments).replace("Infinity", ".inf").replace("NaN", ".nan")
    try:
        plans, problems, _ = plan(f"optimizer: {{{kind.name}: {text}, parameters: [w1, w2]}}")
    except ConfigError as error:
        problems, plans = list(error.problems), {}
    assert bool(plans) != bool(problems)
    assert all(problem.line for problem in problems)
