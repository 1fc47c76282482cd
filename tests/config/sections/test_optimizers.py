"""Optimizers: every class of the catalogue with its own arguments and no other."""

from __future__ import annotations

from typing import Any

import pytest

from runner.catalogue import REFUSED_OPTIMIZERS, optimizers
from runner.config import Config, GroupDeclaration, OptimizerDeclaration, loads
from runner.errors import ConfigError
from tests.tables import over

HEAD = "parameters: {x: 1, y: 1}\nexpression: f = x * y\n"


def config(written: str, key: str = "optimizer") -> Config:
    return loads(f"{HEAD}{key}: {written}\n")


@over("kind", optimizers())
def test_every_optimizer_takes_its_own_arguments(kind: str) -> None:
    table = optimizers()[kind]
    arguments: dict[str, Any] = {argument.name: 1 for argument in table.arguments}
    assert config(f"{{{kind}: {arguments}}}").optimizers["optimizer"].arguments == arguments
    assert config(f"{{{kind}: }}").optimizers["optimizer"].arguments == {}
    with pytest.raises(ConfigError, match=f"{kind} has no argument `params`"):
        config(f"{{{kind}: {{params: 1}}}}")


@over(("kind", "argument"), [(kind, argument) for kind, table in optimizers().items() for argument in table.refused])
def test_refused_arguments_say_why(kind: str, argument: str) -> None:
    with pytest.raises(ConfigError, match=f"the argument `{argument}` is refused: .+"):
        config(f"{{{kind}: {{{argument}: true}}}}")


@pytest.mark.parametrize("kind", REFUSED_OPTIMIZERS)
def test_refused_optimizers_say_why(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} is refused: .+"):
        config(f"{{{kind}: }}")


def test_the_single_optimizer_is_one_of_a_mapping() -> None:
    found = config(
        "{sgd: {lr: base / 2, nesterov: true, foreach: null}, parameters: x, state: {x: {momentum_buffer: m}}}"
    )
    assert found.single_optimizer
    assert found.optimizers == {
        "optimizer": OptimizerDeclaration(
            kind="sgd",
            arguments={"lr": "base / 2", "nesterov": True, "foreach": None},
            parameters=("x",),
            state={"x": {"momentum_buffer": "m"}},
            path=("optimizer",),
        )
    }


def test_several_optimizers_keep_their_names_and_groups() -> None:
    found = config(
        "{a: {adam: {betas: [0.9, b]}, parameters: [x*]}, b: {sgd: {lr: 1}, groups: [{parameters: y, lr: 2}]}}",
        "optimizers",
    )
    assert not found.single_optimizer
    assert found.optimizers["a"].arguments == {"betas": [0.9, "b"]}
    assert found.optimizers["a"].parameters == ("x*",)
    assert found.optimizers["b"].groups == (GroupDeclaration(parameters=("y",), arguments={"lr": 2}),)
    assert found.optimizers["b"].path == ("optimizers", "b")


def test_no_optimizer_is_fine() -> None:
    assert loads(HEAD).optimizers == {}
