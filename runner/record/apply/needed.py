"""The part of a config that some named values need: its statements, and the names that they read."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from runner.config import Config, InitExpression, TensorDeclaration
from runner.language.text.faults import LanguageError
from runner.language.text.parse import parse_expression, parse_header, parse_statements
from runner.language.text.scalars import names_in

LAST = "value"
"""The name of a last statement without one."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What some named values need."""

    text: str  # the expression with only the statements that they need; lines keep their numbers
    metrics: tuple[str, ...]  # those among the values
    names: frozenset[str]  # all names that these read: tensors, columns, scalars, functions


def named_values(config: Config) -> tuple[str, ...]:
    """The named values of a config, and its metrics that are one expression, in text order."""
    names = [name for statement in parse_statements(config.expression) for name in _assigned(statement)]
    return tuple(dict.fromkeys([*names, *plain_metrics(config)]))


def plain_metrics(config: Config) -> dict[str, str]:
    """The metrics that are one expression; others combine batches, and have no value for each sample."""
    return {name: metric for name, metric in config.metrics.items() if isinstance(metric, str)}


def needed(config: Config, wanted: Iterable[str]) -> Needed:
    """The statements, metrics and names that some named values need.

    Args:
        wanted: names that `named_values` returns.
    """
    wanted = tuple(wanted)
    texts = plain_metrics(config)
    metrics = tuple(name for name in wanted if name in texts)
    names = {name for name in wanted if name not in metrics}
    for name in metrics:
        names |= _read(parse_expression(texts[name]))
    names |= _names_of_functions(config, names)
    kept: list[ast.stmt] = []
    for statement in reversed(parse_statements(config.expression)):
        if names.intersection(_assigned(statement)):
            kept.append(statement)
            names |= _read(statement)
            names |= _names_of_functions(config, names)
    lines = {line for statement in kept for line in range(statement.lineno, (statement.end_lineno or 0) + 1)}
    written = config.expression.split("\n")
    text = "\n".join(line if number in lines else "" for number, line in enumerate(written, 1))
    return Needed(text, metrics, frozenset(names))


def tensors_behind(config: Config, names: Collection[str]) -> set[str]:
    """The declared tensors among `names`, and those whose initial values their initial expressions read."""
    declared: Mapping[str, object] = {**config.parameters, **config.constants}
    found: set[str] = set()
    pending = [name for name in names if isinstance(declared.get(name), TensorDeclaration)]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        tensor = declared[name]
        if isinstance(tensor, TensorDeclaration) and isinstance(tensor.init, InitExpression):
            reads = names_in(tensor.init.expression)
            pending += [read for read in reads if isinstance(declared.get(read), TensorDeclaration)]
    return found


def _assigned(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Expr):
        return [LAST]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _names_of_functions(config: Config, names: Collection[str]) -> set[str]:
    """The names that the helper functions among `names` read, and those that they call."""
    bodies: dict[str, str] = {}
    for declaration, body in config.functions.items():
        try:
            bodies[parse_header(declaration).name] = body
        except LanguageError:  # reported where the expression is lowered
            continue
    found: set[str] = set()
    pending = [name for name in names if name in bodies]
    done: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in done:
            done.add(name)
            read = {name for statement in parse_statements(bodies[name]) for name in _read(statement)}
            found |= read
            pending += [other for other in read if other in bodies]
    return found
