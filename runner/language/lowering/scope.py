"""The names that an expression can read, and the helper functions that it can call."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runner.catalogue import find_operation
from runner.language.inference.stored import StoredColumn
from runner.language.text.arithmetic import FUNCTIONS, Scalar
from runner.language.text.faults import LanguageError, place_of
from runner.language.text.parse import Header, parse_header, parse_statements


@dataclass(frozen=True, slots=True)
class Function:
    """A helper function declared under `functions:`. It is inlined at every call."""

    header: Header
    text: str
    statements: tuple[ast.stmt, ...]
    declaration: str  # its header, as written

    @property
    def origin(self) -> Hashable:
        """The text of the config that places in this body belong to."""
        return ("functions", self.declaration)


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that an expression can read."""

    tensors: Mapping[str, Tensor]  # example tensors by name: parameters, constants, columns, named values
    roles: Mapping[str, str] = field(default_factory=dict)  # "parameter", "constant", … by name, for messages
    scalars: Mapping[str, Scalar] = field(default_factory=dict)  # scalar constants
    tables: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)  # the elements of 1-d constants
    running: Mapping[str, Scalar] = field(default_factory=dict)  # `iteration`, `t`: an example of each
    fixed: Mapping[str, Any] = field(default_factory=dict)  # `training`, and named values that are not tensors
    fields: Mapping[str, Tensor | Scalar] = field(default_factory=dict)  # "x1.grad", "x1.exp_avg": an example of each
    stored: Mapping[str, StoredColumn] = field(default_factory=dict)  # "train.x": whole columns of data sources
    functions: Mapping[str, Function] = field(default_factory=dict)
    varying: frozenset[str] = frozenset()  # tensors whose shape may differ from that of their example
    dtype: torch.dtype = torch.float32  # of the results of factory functions
    device: str = "cpu"
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # declared names that cannot be read here → their role
    writable: bool = True  # whether `name = …` defines a named value
    by_element: frozenset[str] = frozenset()  # 1-d constants that are no inputs: only their elements are read

    def values(self) -> set[str]:
        return {*self.tensors, *self.scalars, *self.running, *self.fixed}

    def describe(self, name: str) -> str | None:
        """Returns the role of a declared name for a message; None if it is not declared."""
        if name in self.roles:
            return self.roles[name]
        return "scalar constant" if name in self.scalars else None


@dataclass(frozen=True, slots=True)
class Environment:
    """What every expression of a config can read besides tensors."""

    scalars: Mapping[str, Scalar]
    tables: Mapping[str, tuple[Scalar, ...]]
    functions: Mapping[str, Function]
    dtype: torch.dtype
    device: str
    stored: Mapping[str, StoredColumn] = field(default_factory=dict)

    def scope(self, tensors: Mapping[str, Tensor], **names: Any) -> Scope:
        """Returns the scope of one expression.

        Args:
            tensors: examples of the tensors that it can read.
            names: the other fields of `Scope`.
        """
        return Scope(
            tensors,
            scalars=self.scalars,
            tables=self.tables,
            stored=self.stored,
            functions=self.functions,
            dtype=self.dtype,
            device=self.device,
            **names,
        )


def declare_functions(
    declarations: Mapping[str, str],
) -> tuple[dict[str, Function], list[tuple[str, bool, LanguageError]]]:
    """Returns the helper functions of a config by name, and the errors: (declaration, whether in its header, error).

    A helper must not have the name of an operation of torch, nor call itself, directly or through others.
    """
    functions: dict[str, Function] = {}
    faults: list[tuple[str, bool, LanguageError]] = []
    for declaration, body in declarations.items():
        try:
            header = parse_header(declaration)
            if header.name in functions:
                raise LanguageError(f"`{header.name}` is declared twice", "remove one of them, or rename it")
            operation = find_operation(header.name)
            if (
                (operation is not None and "measure" not in operation.flags)
                or header.name in FUNCTIONS
                or header.name in ("grad", "len", "range")
            ):
                raise LanguageError(f"`{header.name}` is an operation already", "choose another name")
        except LanguageError as error:
            faults.append((declaration, True, error))
            continue
        try:
            statements = tuple(parse_statements(body))
        except LanguageError as error:
            faults.append((declaration, False, error))
            continue
        functions[header.name] = Function(header, body, statements, declaration)
    faults.extend(_recursion(functions))
    return functions, faults


def _calls(function: Function, names: Mapping[str, Any]) -> dict[str, ast.Call]:
    found: dict[str, ast.Call] = {}
    for statement in function.statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                found.setdefault(node.func.id, node)
    return found


def _recursion(functions: Mapping[str, Function]) -> list[tuple[str, bool, LanguageError]]:
    calls = {name: _calls(function, functions) for name, function in functions.items()}
    finished: set[str] = set()
    faults: list[tuple[str, bool, LanguageError]] = []
    for start in functions:
        if start in finished:
            continue
        trail, pending = [start], [iter(calls[start])]
        while pending:
            callee = next(pending[-1], None)
            if callee is None:
                finished.add(trail.pop())
                pending.pop()
            elif callee in trail:
                cycle = [*trail[trail.index(callee) :], callee]
                caller = functions[trail[-1]]
                message = " calls ".join(f"`{name}`" for name in cycle)
                place = place_of(calls[trail[-1]][callee], caller.text)
                hint = "a function may not call itself: write a `for` loop"
                faults.append((caller.declaration, False, LanguageError(message, hint, place)))
            elif callee not in finished:
                trail.append(callee)
                pending.append(iter(calls[callee]))
    return faults
