"""Replaces an optimizer of torch with a shipped rule that has the same hyperparameters."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from runner.catalogue import shipped_rules
from runner.config import Config, OptimizerDeclaration, loads
from runner.errors import Problem, UsageError, did_you_mean

_SPREAD: Mapping[str, tuple[str, ...]] = {"betas": ("beta1", "beta2")}
"""Arguments that correspond to several constants of a rule."""

_CHOOSES = {"nesterov": {"nesterov": True}}
"""Arguments whose value the rule itself implies."""

_BITS_ONLY = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Arguments that select an implementation of torch, and change the result by rounding at most."""

_ANY = "parameters: {x: 1}\nexpression: x\n"


def rule_override(key: str, name: str, config: Config) -> str:
    """The override that replaces the optimizer at `key` with the shipped rule `name`.

    Args:
        key: `optimizer`, or `optimizers.NAME`.
    Raises:
        UsageError: there is no such rule or optimizer, or the rule does not support an argument.
    """
    rules = shipped_rules()
    if name not in rules:
        raise UsageError(
            Problem(f"there is no rule `{name}`", did_you_mean(name, rules, f"rules are {', '.join(rules)}"))
        )
    single = config.single_optimizer
    known = {key if single else f"optimizers.{key}": declared for key, declared in config.optimizers.items()}
    if key not in known:
        hint = f"write `{next(iter(known))}=rule:{name}`" if known else "declare one in the config"
        raise UsageError(Problem(f"the config declares no `{key}` that a rule could replace", hint))
    shipped = loads(_ANY + rules[name])
    rule = shipped.optimizers["optimizer"].rule
    assert rule is not None
    constants = {**shipped.constants, **_given(name, known[key], shipped.constants)}
    written = {
        "state": {entry: _inlined(str(value), constants) for entry, value in rule.state.items()},
        "update": _inlined(rule.update, constants),
    }
    return f"{key}={json.dumps({'rule': written})}"


def _given(name: str, declared: OptimizerDeclaration, constants: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of a rule, from the arguments of an optimizer."""
    found: dict[str, Any] = {}
    for argument, value in declared.arguments.items():
        names = _SPREAD.get(argument, (argument,))
        if set(names) <= set(constants):
            found.update(zip(names, value if argument in _SPREAD else (value,), strict=True))
        elif argument not in _BITS_ONLY and value and value != _CHOOSES.get(name, {}).get(argument):
            message = f"`rule:{name}` has no counterpart of `{argument}: {value}` of `{declared.kind}`"
            hint = f"write the rule out: `steprun show rule:{name}` prints one to start from"
            raise UsageError(Problem(message, hint))
    if declared.groups:
        raise UsageError(Problem("a rule has no parameter groups", "compare a config without `groups`"))
    return found


def _inlined(text: str, constants: Mapping[str, Any]) -> str:
    """Replaces constants by their values in an expression or statements: the config may use the same names."""
    values = {name: ast.parse(str(value), mode="eval").body for name, value in constants.items()}
    return ast.unparse(_Inline(values).visit(ast.parse(text)))


class _Inline(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node) if isinstance(node.ctx, ast.Load) else node
