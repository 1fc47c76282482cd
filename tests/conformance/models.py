"""The parameters, constants and loss that a case trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .cases import DTYPES, Case
from .drafting import Draft, Reading
from .expressions import Scope, names_in


def reaching_names(bindings: Iterable[tuple[str, str]], expression: str, *, every: bool = False) -> set[str]:
    """The names that `expression` depends on; with `every`, that any binding or it does."""
    needed = names_in(expression)
    for name, text in reversed(list(bindings)):
        if every or name in needed:
            needed |= names_in(text)
    return needed


def read_gradient(draft: Draft, row: int, key: str, name: str, tensor: Tensor, step: str, reached: bool) -> None:
    if reached:
        draft.read(row, Reading(key, f"{name}.grad", step, tuple(tensor.shape)))
    else:
        draft.known[key] = torch.zeros(tensor.shape, dtype=DTYPES[draft.dtype])


class Model:
    """The parameters, constants and loss of a case, the loss written once for each set of constants it meets."""

    def __init__(self, case: Case, draft: Draft) -> None:
        self.case, self.draft = case, draft
        self.lets, self.loss = case.lets(), str(case.record["loss"])
        self.reaching = reaching_names(self.lets, self.loss)
        self.base = draft.scope()
        self.parameters: dict[str, str] = {}
        self.tensors = case.arrays("params")
        self.written: dict[tuple[tuple[str, str], ...], tuple[str, dict[str, str]]] = {}

    def declare(self) -> None:
        for name, value in self.tensors.items():
            self.parameters[name] = self.draft.parameter(name, value, self.base, trained=name in self.reaching)
        used = reaching_names(self.lets, self.loss, every=True)
        used |= {name for entry in self.case.record.get("program") or () for name in _names_assigned_from(entry)}
        for name, value in self.case.arrays("constants").items():
            if name in used:
                self.draft.constant(name, value, self.base)

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
            self.draft.read(row, Reading(f"{at}:param:{name}", self.parameters[name], step))
        for name in entry.get("grads") or ():
            read_gradient(
                self.draft,
                row,
                f"{at}:grad:{name}",
                self.parameters[name],
                self.tensors[name],
                step,
                name in self.reaching,
            )


def _names_assigned_from(entry: Any) -> set[str]:
    assigned = entry.get("assign", {}) if isinstance(entry, Mapping) else {}
    return {name for expression in assigned.values() for name in names_in(expression)}
