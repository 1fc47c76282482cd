"""The tables of `torch.optim` and `torch.nn.init` against the libraries themselves."""

from __future__ import annotations

import ast
import inspect

import torch
from torch import nn

from runner.catalogue import (
    REFUSED_OPTIMIZERS,
    Optimizer,
    initialisers,
    installed,
    optimizers,
    schedules,
    spans,
)
from runner.optim import schedules as closed_forms
from tests.tables import over

NATIVE = {
    name: value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}


def test_every_class_of_torch_optim_is_in_the_table_or_refused() -> None:
    assert {optimizer.class_name for optimizer in optimizers().values()} | {"SparseAdam"} == set(NATIVE)
    assert all(name == optimizer.class_name.lower() for name, optimizer in optimizers().items())
    assert set(REFUSED_OPTIMIZERS) == {"sparseadam"}


@over("optimizer", [*map(installed, optimizers().values())])
def test_an_optimizers_arguments_are_those_of_its_class(optimizer: Optimizer) -> None:
    parameters = dict(inspect.signature(NATIVE[optimizer.class_name]).parameters)
    del parameters["params"]
    assert {argument.name for argument in optimizer.arguments} | set(optimizer.refused) == set(parameters)
    assert {"capturable", "differentiable"}.isdisjoint(argument.name for argument in optimizer.arguments)
    for argument in optimizer.arguments:
        assert argument.default is not None
        assert ast.literal_eval(argument.default) == parameters[argument.name].default
        assert argument.type
    assert all(reason for reason in optimizer.refused.values())


@over("optimizer", optimizers().values())
def test_the_table_has_what_the_installed_class_has_and_names_what_it_lacks(optimizer: Optimizer) -> None:
    here = installed(optimizer)
    assert {argument.name for argument in here.arguments} <= {argument.name for argument in optimizer.arguments}
    lacking = [argument.name for argument in optimizer.arguments if argument not in here.arguments]
    assert lacking == [
        argument.name
        for argument in optimizer.arguments
        if (span := spans().get(f"{optimizer.name}({argument.name})")) and not span.includes(torch.__version__)
    ]


@over("optimizer", [*map(installed, optimizers().values())])
def test_the_tables_defaults_make_the_optimizer_that_torch_makes(optimizer: Optimizer) -> None:
    weights = [nn.Parameter(torch.ones(2, 2))]
    defaults = {argument.name: ast.literal_eval(argument.default or "") for argument in optimizer.arguments}
    explicit = NATIVE[optimizer.class_name](weights, **defaults)
    assert explicit.defaults == NATIVE[optimizer.class_name](weights).defaults


def test_every_initialiser_of_torch_is_in_the_table() -> None:
    native = {name for name, value in vars(nn.init).items() if inspect.isfunction(value) and name.endswith("_")}
    native = {name for name in native if not name.startswith("_")}
    assert {initialiser.function for initialiser in initialisers().values()} == native
    assert all(initialiser.function == name + "_" for name, initialiser in initialisers().items())


def test_an_initialisers_arguments_are_those_of_its_function() -> None:
    for initialiser in initialisers().values():
        parameters = dict(inspect.signature(getattr(nn.init, initialiser.function)).parameters)
        parameters.pop("generator", None)
        del parameters["tensor"]
        assert [argument.name for argument in initialiser.arguments] == list(parameters)
        for argument in initialiser.arguments:
            default = parameters[argument.name].default
            assert (argument.default is None) == (default is inspect.Parameter.empty)
            assert argument.default is None or ast.literal_eval(argument.default) == default


def test_every_schedule_that_hyperparameters_may_call_is_in_the_table() -> None:
    assert list(schedules()) == list(closed_forms.SCHEDULES)
    for name, entry in schedules().items():
        assert [argument.name for argument in entry.arguments] == list(closed_forms.SCHEDULES[name].arguments)
        assert inspect.isclass(getattr(torch.optim.lr_scheduler, entry.class_name))


@over("name", [name for name in schedules() if name != "sequential_lr"])
def test_the_arguments_of_a_schedule_have_torchs_defaults(name: str) -> None:
    entry = schedules()[name]
    native = inspect.signature(getattr(torch.optim.lr_scheduler, entry.class_name)).parameters
    for argument in entry.arguments:
        if argument.name in native:  # `lr`, the base rate, is the optimizer's in torch
            default = native[argument.name].default
            expected = inspect.Parameter.empty if argument.default is None else ast.literal_eval(argument.default)
            assert default == expected, argument.name
