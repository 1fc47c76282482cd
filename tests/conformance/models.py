"""The parameters, constants and loss that a case trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES, Case, in_dtype
from .drafting import Draft, Reading
from .expressions import Scope, names_in, values_in
from .states import View

Views = Mapping[str, Mapping[str, tuple[str, View]]]
"""By parameter and a source's name of its state: the name in the run, and how the state is read from it."""


def reaching_names(bindings: Iterable[tuple[str, str]], *expressions: str) -> set[str]:
    """The names whose values the expressions depend on."""
    return _closure(bindings, expressions, values_in)


def read_names(bindings: Iterable[tuple[str, str]], *expressions: str) -> set[str]:
    """The names that the expressions depend on, be it for a size or a dtype."""
    return _closure(bindings, expressions, names_in)


def _closure(
    bindings: Iterable[tuple[str, str]], expressions: Iterable[str], read: Callable[[str], set[str]]
) -> set[str]:
    needed = {name for expression in expressions for name in read(expression)}
    for name, text in reversed(list(bindings)):
        if name in needed:
            needed |= read(text)
    return needed


def read_gradient(draft: Draft, row: int, key: str, name: str | None, tensor: Tensor, step: str) -> None:
    """Reads the gradient of the parameter `name`, or knows that of a tensor the loss does not use: zeros."""
    if name is not None:
        draft.read(row, Reading(key, f"{name}.grad", step, tuple(tensor.shape)))
    else:
        draft.known[key] = torch.zeros(tensor.shape, dtype=DTYPES[draft.dtype])


class Model:
    """The parameters, constants and loss of a case, the loss written once for each set of constants it meets."""

    def __init__(self, case: Case, draft: Draft) -> None:
        self.case, self.draft = case, draft
        self.loss = str(case.record["loss"])
        wanted = {name for entry in case.record.get("expected") or () for name in entry.get("values") or ()}
        needed = read_names(case.lets(), self.loss, *wanted)
        self.lets = [(name, expression) for name, expression in case.lets() if name in needed]
        self.reaching = reaching_names(self.lets, self.loss)
        self.base = draft.scope()
        self.parameters: dict[str, str] = {}
        self.tensors = case.arrays("params")
        self.views: Views = {}
        self.written: dict[tuple[tuple[str, str], ...], tuple[str, dict[str, str]]] = {}
        assigned = {name for step in case.record.get("program") or () for name in _names_in_assign(step)}
        for name, value in self.tensors.items():
            if name in self.reaching | assigned:
                self.parameters[name] = draft.parameter(name, value, self.base, trained=name in self.reaching)
            elif name in needed:
                draft.constant(name, value, self.base)
        for name, value in case.arrays("constants").items():
            if name in needed | assigned:
                draft.constant(name, value, self.base)

    def objective(self, scope: Scope) -> tuple[str, dict[str, str]]:
        """The names of the loss and of the lets, with constants as `scope` has them."""
        key = tuple(sorted(scope.names.items()))
        if key not in self.written:
            inner = scope.copy()
            lets = {name: self.draft.statement(name, expression, inner) for name, expression in self.lets}
            self.written[key] = self.draft.statement("objective", self.loss, inner), lets
        return self.written[key]

    def read(self, row: int, entry: Mapping[str, Any], at: int, step: str, loss: tuple[int, str, str] | None) -> None:
        """Readings of an entry of `expected`; `loss` is the row, column and step of the last loss."""
        if entry.get("loss") is not None and loss is not None:
            number, column, kind = loss
            self.draft.read(number, Reading(f"{at}:loss", column, kind))
        for name in entry.get("params") or ():
            if name in self.parameters:
                self.draft.read(row, Reading(f"{at}:param:{name}", self.parameters[name], step))
            else:  # nothing changes it
                self.draft.known[f"{at}:param:{name}"] = in_dtype(self.tensors[name], DTYPES[self.draft.dtype])
        for name in entry.get("grads") or ():
            trained = self.parameters.get(name) if name in self.reaching else None
            read_gradient(self.draft, row, f"{at}:grad:{name}", trained, self.tensors[name], step)
        for name, state in (entry.get("state") or {}).items():
            for key in state.keys() & self.views.get(name, {}).keys():
                column, view = self.views[name][key]
                reading = Reading(f"{at}:state:{name}:{key}", f"{self.parameters[name]}.{column}", step, view=view)
                self.draft.read(row, reading)


def _names_in_assign(step: Any) -> set[str]:
    """The names that a program's entry writes and reads."""
    assigned = step.get("assign", {}) if isinstance(step, Mapping) else {}
    return set(assigned) | {name for expression in assigned.values() for name in names_in(expression)}
