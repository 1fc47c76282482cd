"""The committed tables against the generator, and against everything public in torch."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest
import torch

from runner import catalogue
from tests.tables import over
from tools.catalogue.denied import argument_refusal, refusal
from tools.catalogue.flags import flagged_names
from tools.catalogue.tables import NAMESPACES, all_tables, public_functions, public_members

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "runner" / "catalogue"
DISPATCHED = frozenset(torch._C._dispatch_get_all_op_names())
HERE = torch.__version__.rpartition(".")[0]

written_with = pytest.mark.skipif(
    HERE not in ("2.13", "2.14"), reason=f"the tables are written with torch 2.13 or 2.14, this is {HERE}"
)

FILES = ("attributes.txt", "denied.txt", "initialisers.txt", "methods.txt", "operations.txt", "optimizers.txt")

ENTRIES = {**catalogue.operations(), **catalogue.methods(), **catalogue.attributes()}


@written_with
def test_the_committed_tables_are_what_the_generator_writes() -> None:
    tables = all_tables()
    assert sorted(tables) == sorted(FILES)
    for name, text in tables.items():
        committed = (TABLES / name).read_text(encoding="utf-8")
        assert committed == text, f"{name} is out of date: run `python -m tools.catalogue`, look through the difference"


@over("name", FILES)
def test_a_table_is_sorted_and_says_nothing_twice(name: str) -> None:
    lines = (TABLES / name).read_text(encoding="utf-8").splitlines()
    keys = [re.split(r"[(:]| ", line, maxsplit=1)[0] for line in lines[2 if name == "denied.txt" else 0 :]]
    assert len(set(lines)) == len(lines)
    assert keys == sorted(keys)


@written_with
def test_every_public_function_is_in_a_table_or_denied_with_a_reason() -> None:
    names = [name for name, _ in (*public_functions(), *public_members())]
    assert len(names) > 1500
    lost = [name for name in names if (name in ENTRIES) == (catalogue.refusal(name) is not None)]
    assert lost == []


@written_with
def test_every_overridable_function_is_in_a_table_or_denied_with_a_reason() -> None:
    spellings = {"torch.nn.functional": "F", "torch.functional": "torch", "torch.Tensor": "", "torch": "torch"}
    modules = spellings | {f"torch.{name}": name for name in ("linalg", "special", "fft")}
    lost = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functions = [f for found in torch.overrides.get_overridable_functions().values() for f in found]
    for function in functions:
        path = torch.overrides.resolve_name(function) or ""
        module, _, name = path.rpartition(".")
        if module in modules and not name.startswith("_") and name != "__get__":
            key = f"{modules[module]}.{name}"
            if key not in ENTRIES and catalogue.refusal(key) is None:
                lost.append(path)
    assert len(functions) > 1000
    assert lost == ["torch.autocast"]  # a class, and nothing that an expression could call


def test_nothing_denied_is_in_a_table() -> None:
    assert [name for name in ENTRIES if refusal(name)] == []
    assert [name for name in ENTRIES if catalogue.refusal(name)] == []
    assert [name for name in ENTRIES if name.endswith("_") or name.rpartition(".")[2].startswith("_")] == []


def test_no_signature_holds_a_denied_argument() -> None:
    found = [
        (entry.name, argument)
        for entry in ENTRIES.values()
        for argument in entry.argument_names
        if argument_refusal(entry.name, argument) or catalogue.argument_refusal(entry, argument)
    ]
    assert found == []


def test_no_argument_takes_a_function_a_device_or_a_generator() -> None:
    kinds = {
        kind
        for entry in ENTRIES.values()
        for overload in entry.overloads
        for argument in overload
        for kind in argument.type.split("|")
    }
    words = {"Tensor", "Scalar", "int", "float", "bool", "str", "dtype"}
    assert kinds <= {""} | words | {f"{word}[]" for word in words}


def test_only_reviewed_arguments_have_no_type() -> None:
    untyped = {
        (entry.name, argument.name)
        for entry in ENTRIES.values()
        for overload in entry.overloads
        for argument in overload
        if not argument.type
    }
    assert untyped == set()


@written_with
def test_a_native_operation_writes_into_out_alone() -> None:
    """By the dispatcher's own word: what an overload writes is given by name only, and no such name is in a table."""
    for name, function in public_functions():
        if name in ENTRIES and inspect.isbuiltin(function):
            for schema in torch._C._jit_get_schemas_for_operator(f"aten::{function.__name__}"):
                overload = f"{schema.name}.{schema.overload_name}".rstrip(".")
                written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
                if overload in DISPATCHED and not all(argument.kwarg_only for argument in written):
                    pytest.fail(f"{name} writes into an argument by position: {schema}")


def test_every_target_is_a_callable_of_torch() -> None:
    for operation in catalogue.operations().values():
        span = catalogue.spans().get(operation.name)
        found = torch
        for part in operation.target.split(".")[1:]:
            found = getattr(found, part, None)
        assert callable(found) or (span is not None and not span.includes(torch.__version__)), operation.name
    assert all(callable(getattr(torch.Tensor, method.target)) for method in catalogue.methods().values())
    assert all(hasattr(torch.Tensor, attribute.target) for attribute in catalogue.attributes().values())


def test_every_flag_belongs_to_an_entry() -> None:
    assert sorted(flagged_names() - set(ENTRIES)) == []


def test_every_namespace_is_a_prefix() -> None:
    prefixes = {name.rpartition(".")[0] for name in catalogue.operations()}
    assert prefixes == set(NAMESPACES)


def test_a_factory_takes_a_device_and_a_random_operation_follows_the_generator() -> None:
    with torch.random.fork_rng():
        for operation in catalogue.operations().values():
            if "factory" in operation.flags and operation.name.startswith("torch.rand"):
                function = getattr(torch, operation.bare_name)
                argument = (
                    3 if operation.bare_name == "randperm" else (5, (3,)) if "int" in operation.bare_name else (3,)
                )
                arguments = argument if isinstance(argument, tuple) else (argument,)
                torch.manual_seed(1)
                first = function(*arguments, device="cpu")
                torch.manual_seed(1)
                assert torch.equal(first, function(*arguments, device="cpu"))
                assert "random" in operation.flags
