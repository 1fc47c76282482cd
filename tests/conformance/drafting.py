"""A config while it is written: its tensors, statements and steps, and where its results will stand in the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES, Case, in_dtype
from .expressions import Names, Scope
from .states import View

INLINE = 400
"""Elements that are written into the config; larger arrays go into a file."""

ARRAYS = "arrays.safetensors"


@dataclass(frozen=True, slots=True)
class Reading:
    """A result: a column of a row, and the shape that its absence, a gradient of zero, has."""

    key: str
    column: str
    step: str  # the kind of step that must have left the row
    zeros: tuple[int, ...] | None = None
    view: View | None = None  # how a source's state is read from the column


@dataclass(frozen=True, slots=True)
class Job:
    """A config to run and what to read from its rows."""

    text: str
    arrays: Mapping[str, Tensor]
    readings: Mapping[int, Sequence[Reading]]  # by the row's number
    known: Mapping[str, Tensor]  # results that no row holds: gradients of what the loss does not use


def flow(value: Any) -> str:
    """A value in YAML's flow style, numbers with every digit."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)  # inf, -inf and nan are numbers in a config too
        case int():
            return str(value)
        case str():
            return json.dumps(value)
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(key)}: {flow(item)}" for key, item in value.items()) + "}"
        case Sequence():
            return "[" + ", ".join(flow(item) for item in value) + "]"
    raise TypeError(f"no YAML for {type(value)}")


@dataclass(slots=True)
class Draft:
    """A config while it is written."""

    case: Case
    dtype: str
    names: Names = field(default_factory=Names)
    parameters: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    optimizer: dict[str, Any] | None = None
    steps: list[Any] = field(default_factory=list)
    state_logged: bool = False
    nonfinite: bool = False  # a number that the case gives or expects is an infinity or a NaN
    rows: int = 0
    readings: dict[int, list[Reading]] = field(default_factory=dict)
    known: dict[str, Tensor] = field(default_factory=dict)

    def scope(self) -> Scope:
        return Scope({}, (), self.literal)

    def declaration(self, name: str, tensor: Tensor) -> dict[str, Any]:
        """A tensor with its values, inline or in the file of arrays."""
        tensor = in_dtype(tensor, DTYPES[self.dtype])
        declared: dict[str, Any] = {"shape": list(tensor.shape)}
        if str(tensor.dtype) != f"torch.{self.dtype}":
            declared["dtype"] = str(tensor.dtype).removeprefix("torch.")
        if tensor.numel() > INLINE:
            self.arrays[name] = tensor.contiguous()
            declared["file"] = f"{ARRAYS}#{name}"
        else:
            declared["init"] = tensor.tolist() if tensor.numel() else 0
        return declared

    def parameter(self, source: str, tensor: Tensor, scope: Scope, *, trained: bool = True) -> str:
        name = self.names.give(source)
        frozen = {} if trained else {"requires_grad": False}
        self.parameters[name] = self.declaration(name, tensor) | frozen
        scope.bind(source, name)
        return name

    def constant(self, source: str, tensor: Tensor, scope: Scope | None = None) -> str:
        name = self.names.give(source)
        self.constants[name] = self.declaration(name, tensor)
        if scope is not None:
            scope.bind(source, name)
        return name

    def numbers(self, source: str, values: Sequence[float]) -> str:
        """A 1-d float64 constant, whose elements are Python's numbers when they are indexed."""
        name = self.names.give(source)
        self.constants[name] = {"shape": [len(values)], "init": [float(value) for value in values], "dtype": "float64"}
        return name

    def literal(self, values: Any, dtype: str | None) -> str:
        """A tensor that an expression writes out: torch's default dtype, a named one, or ("") the config's."""
        tensor = torch.tensor(values, dtype=getattr(torch, dtype) if dtype else None)
        name = self.names.give("literal")
        if dtype == "":
            tensor = tensor.to(DTYPES[self.dtype])
        self.constants[name] = {
            "shape": list(tensor.shape),
            "init": values,
            "dtype": str(tensor.dtype).removeprefix("torch."),
        }
        return name

    def statement(self, source: str, expression: str, scope: Scope) -> str:
        """One line of the expression; from here on `source` is its value."""
        text, tensor = scope.translate(expression), scope.is_tensor(expression)
        name = self.names.give(source)
        self.statements.append(f"{name} = {text}")
        scope.bind(source, name, tensor=tensor)
        return name

    def step(self, kind: str, argument: Any = None) -> int:
        """Adds a step outside any loop; returns the number of the row it will leave."""
        self.steps.append(kind if argument is None else {kind: argument})
        self.rows += 1
        return self.rows

    def read(self, row: int, reading: Reading) -> None:
        self.readings.setdefault(row, []).append(reading)

    def job(self) -> Job:
        parts = [f"name: case\ndtype: {self.dtype}"]
        parts += [_block(key, getattr(self, key)) for key in ("parameters", "constants") if getattr(self, key)]
        parts.append("expression: |\n" + "\n".join(f"  {statement}" for statement in self.statements))
        if self.optimizer is not None:
            parts.append(_block("optimizer", self.optimizer))
        parts.append("steps:\n" + "\n".join(f"  - {flow(step)}" for step in self.steps))
        if self.state_logged:
            parts.append("log: {state: true}")
        if self.nonfinite:
            parts.append("on_nonfinite: ignore")
        return Job("\n".join(parts) + "\n", self.arrays, self.readings, self.known)


def _block(key: str, mapping: Mapping[str, Any]) -> str:
    return f"{key}:\n" + "\n".join(f"  {json.dumps(name)}: {flow(value)}" for name, value in mapping.items())
