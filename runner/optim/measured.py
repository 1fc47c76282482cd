"""The parameters that hyperparameters and rules read: frozen ones of shape `[]`, which `assign` writes during a run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runner.language.dtypes import dtype_name
from runner.language.text.faults import LanguageError
from runner.language.text.parse import assigned_names, parse_statements
from runner.language.text.scalars import names_in
from runner.optim.plans import Shaped

if TYPE_CHECKING:
    from runner.config import Config, RuleDeclaration
    from runner.config.models import Step

STEP_COUNT = "t"
"""The name of an optimizer's step count in its hyperparameters."""

PLATEAU = "reduce_lr_on_plateau"
"""The step that writes the parameter it names as its `rate`."""


def named_as_numbers(config: Config) -> frozenset[str]:
    """The names that hyperparameters, rules and `reduce_lr_on_plateau` steps of a config read as numbers."""
    found: set[str] = set(_rates(config.steps))
    for declared in config.optimizers.values():
        found.update(*map(_names, _texts(declared.arguments.values())))
        for group in declared.groups:
            found.update(*map(_names, _texts(group.arguments.values())))
        if declared.rule is not None:
            found |= _names_in_rule(declared.rule)
    return frozenset(found - {STEP_COUNT})


def readable(parameters: Mapping[str, Shaped]) -> frozenset[str]:
    """Those of some parameters that hyperparameters and rules can read: frozen real numbers."""
    found = (name for name, shaped in parameters.items() if unreadable(name, shaped) is None)
    return frozenset(found) - {STEP_COUNT}


def unreadable(name: str, parameter: Shaped) -> tuple[str, str] | None:
    """Why hyperparameters cannot read a parameter, with a hint; None if they can."""
    shape = list(parameter.shape)
    kind = "trainable" if parameter.requires_grad else "frozen"
    if shape or parameter.requires_grad:
        message = f"`{name}` is a {kind} parameter of shape {shape}, and a hyperparameter reads frozen ones of shape []"
        declared = "freeze it with `requires_grad: false`"
        return message, f"declare another one: `rate: {{init: 0.1, {_FROZEN}}}`" if shape else declared
    if parameter.dtype.is_complex:
        return (
            f"`{name}` is {dtype_name(parameter.dtype)}, and a hyperparameter is real",
            "write `dtype: float64` in its declaration",
        )
    return None


_FROZEN = "requires_grad: false"


def _rates(steps: Iterable[Step]) -> Iterator[str]:
    for step in steps:
        if step.kind == PLATEAU:
            yield step.argument.rate
        yield from _rates(getattr(step.argument, "steps", ()))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _texts(value)


def _names(text: str) -> frozenset[str]:
    try:
        return names_in(text)
    except LanguageError:  # reported where the expression is compiled
        return frozenset()


def _names_in_rule(rule: RuleDeclaration) -> set[str]:
    """The names in a rule, without its own."""
    try:
        statements = parse_statements(rule.update)
    except LanguageError:  # reported where the rule is planned
        return set()
    nodes = [node for statement in statements for node in ast.walk(statement)]
    assigned = {
        target.id for node in nodes if isinstance(node, ast.Assign) for target in assigned_names(node, rule.update)
    }
    return {node.id for node in nodes if isinstance(node, ast.Name)} - assigned - own_names(rule.state)


def own_names(state: Collection[str]) -> set[str]:
    """The names that mean something else in a rule than elsewhere in a config."""
    return {"param", "grad", "t", *state}
