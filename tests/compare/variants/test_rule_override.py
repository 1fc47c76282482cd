"""A shipped rule in the place of a named optimizer."""

from __future__ import annotations

import re

import pytest

import runner
from runner.compare.variants.rule_override import rule_override
from runner.config import overridden
from runner.errors import UsageError
from tests.tables import over

CONFIG = "parameters: {w: [1.0, 2.0]}\nexpression: w.sum()\nsteps: 3\n"


def ruled(optimizer: str, rule: str, *, key: str = "optimizer", more: str = "") -> dict[str, str]:
    """The equations of the optimizer that stands there then."""
    config = runner.loads(f"{CONFIG}{key.partition('.')[0]}: {optimizer}\n{more}")
    declared = overridden(config, [rule_override(key, rule, config)]).optimizers[key.partition(".")[2] or "optimizer"]
    assert declared.kind == "rule"
    assert declared.rule is not None
    return {**declared.rule.state, "update": declared.rule.update}


def test_the_hyperparameters_of_the_optimizer_stand_in_the_equations() -> None:
    assert ruled("{adam: {lr: 0.5, betas: [0.8, 0.99]}}", "adam") == {
        "m": "0",
        "v": "0",
        "update": (
            "m = lerp(m, grad, 1 - 0.8)\n"
            "v = addcmul(0.99 * v, grad, grad, value=1 - 0.99)\n"
            "param = param - 0.5 / (1 - 0.8 ** t) * m / (sqrt(v) / sqrt(1 - 0.99 ** t) + 1e-08)"
        ),
    }


def test_an_argument_keeps_its_name_where_a_constant_has_the_same() -> None:
    update = ruled("{rmsprop: {lr: 0.5, alpha: 0.25}}", "rmsprop")["update"]
    assert update.splitlines()[0] == "square = addcmul(0.25 * square, grad, grad, value=1 - 0.25)"
    assert ruled("{sgd: {lr: 0.5}}", "sgd")["update"] == "param = add(param, grad, alpha=-0.5)"


def test_a_hyperparameter_may_be_an_expression() -> None:
    more = "constants: {lr: 0.5}\n"
    assert ruled("{sgd: {lr: lr / (t + 1)}}", "sgd", more=more)["update"] == (
        "param = add(param, grad, alpha=-(lr / (t + 1)))"
    )


def test_the_state_may_read_a_hyperparameter() -> None:
    assert ruled("{adagrad: {lr: 1, initial_accumulator_value: 0.5}}", "adagrad")["total"] == "0.5"


def test_one_of_several_optimizers_becomes_a_rule_and_keeps_what_it_holds() -> None:
    optimizers = "{a: {sgd: {lr: 0.5, momentum: 0.25}, parameters: [w]}}"
    assert "0.25 * velocity" in ruled(optimizers, "momentum", key="optimizers.a")["update"]
    config = runner.loads(f"{CONFIG}optimizers: {optimizers}\n")
    changed = overridden(config, [rule_override("optimizers.a", "momentum", config)])
    assert changed.optimizers["a"].parameters == ("w",)


def test_what_changes_nothing_needs_no_counterpart() -> None:
    assert "0.5" in ruled("{sgd: {lr: 0.5, foreach: true, weight_decay: 0, maximize: false}}", "sgd")["update"]
    assert "ahead" in ruled("{sgd: {lr: 0.5, momentum: 0.9, nesterov: true}}", "nesterov")["update"]


@over(
    ("optimizer", "key", "rule", "told", "hint"),
    [
        ("{adam: {}}", "optimizer", "adm", "there is no rule `adm`", "did you mean `adam`?"),
        (
            "{adam: {amsgrad: true}}",
            "optimizer",
            "adam",
            "`rule:adam` has no counterpart of `amsgrad: True` of `adam`",
            "write the rule out: `steprun show rule:adam` prints one to start from",
        ),
        (
            "{sgd: {momentum: 0.9, nesterov: true}}",
            "optimizer",
            "momentum",
            "`rule:momentum` has no counterpart of `nesterov: True` of `sgd`",
            "write the rule out: `steprun show rule:momentum` prints one to start from",
        ),
        (
            "{adam: {}, groups: [{parameters: [w], lr: 0.5}]}",
            "optimizer",
            "adam",
            "a rule has no parameter groups",
            "compare a config without `groups`",
        ),
        (
            "{adam: {}}",
            "optimizers.a",
            "adam",
            "the config declares no `optimizers.a` that a rule could replace",
            "write `optimizer=rule:adam`",
        ),
        (
            "{adam: {}}",
            "device",
            "adam",
            "the config declares no `device` that a rule could replace",
            "write `optimizer=rule:adam`",
        ),
    ],
)
def test_what_no_rule_can_stand_in_for_is_told(optimizer: str, key: str, rule: str, told: str, hint: str) -> None:
    config = runner.loads(f"{CONFIG}optimizer: {optimizer}\n")
    with pytest.raises(UsageError, match=re.escape(told)) as raised:
        rule_override(key, rule, config)
    assert (raised.value.problems[0].message, raised.value.problems[0].hint) == (told, hint)


def test_a_config_without_an_optimizer_has_none_to_replace() -> None:
    config = runner.loads("parameters: {w: 1}\nexpression: w\n")
    with pytest.raises(UsageError, match="the config declares no `optimizer` that a rule could replace"):
        rule_override("optimizer", "adam", config)
